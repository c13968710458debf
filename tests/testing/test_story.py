"""Told histories are what the loop would have made."""

import pytest

from autoresearch import Config, Verdict
from autoresearch.config import MetricConfig
from autoresearch.errors import ProtocolError
from autoresearch.events import Decided, RunRequested
from autoresearch.model import RunStatus, Violation
from autoresearch.testing import EXAMPLES, candidate, experiment, history, idea, refold, story


def test_scores_become_experiments():
    """The first is the baseline, None is a crash, and what is better is kept."""
    past = history([1.10, 1.08, None, 1.09])
    assert [item.verdict for item in past.experiments] == ["keep", "keep", "crash", "discard"]
    assert [past.score(item) for item in past.experiments] == [1.10, 1.08, None, 1.09]
    assert (past.best_number, past.head, past.next_number) == (1, 1, 4)


def test_higher_can_be_better():
    """The direction of the metric decides what is kept."""
    past = history([0.5, 0.6, 0.55], better="higher", metric="accuracy")
    assert [item.verdict for item in past.experiments] == ["keep", "keep", "discard"]
    assert past.best.metrics == {"accuracy": 0.6}


def test_experiments_can_say_more():
    """A verdict, a direction, further metrics and violations are told as they are given."""
    found = (Violation(rule="size", detail="too large"),)
    told = experiment(
        0.9,
        verdict="quarantine",
        direction="depth",
        metrics={"artifact_bytes": 7},
        violations=found,
    )
    past = history([1.1, told])
    made = past.experiments[1]
    assert (made.verdict, made.idea.direction) == (Verdict.QUARANTINE, "depth")
    assert made.metrics == {"score": 0.9, "artifact_bytes": 7}
    assert [item.rule for item in made.violations] == ["size"]


def test_a_run_can_end_in_any_way():
    """A status stands in the run, and leaves the score out unless there is one."""
    past = history([1.1, experiment(status="timed_out", verdict="crash")])
    assert past.experiments[1].runs[0].status is RunStatus.TIMED_OUT


def test_directions_are_taken_in_turn():
    """A list of directions is repeated."""
    past = history([1.1, 1.2, 1.3, 1.4], directions=["width", "depth"])
    assert [item.idea.direction for item in past.experiments] == [
        "baseline",
        "depth",
        "width",
        "depth",
    ]


def test_equal_stories_are_equal_histories():
    """No time, no process id and no chance gets in."""
    assert history([1.1, None, 1.0]) == history([1.1, None, 1.0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_story_is_its_log(name):
    """The history is the fold of the events, and none was told out of order."""
    told = EXAMPLES[name]()
    assert refold(told.log) == told.history


def test_the_protocol_holds_in_stories_too():
    """What the loop could not have done cannot be told."""
    told = story([1.1])
    with pytest.raises(ProtocolError, match="experiment 1 is not under way"):
        told.tell(Decided(experiment=1, verdict="keep", reason="x", author="x"))
    with pytest.raises(ProtocolError, match="experiment 1 is not under way"):
        told.tell(
            RunRequested(
                experiment=1,
                run="r",
                index=0,
                seed=1,
                launcher="fake",
                command=(),
                timeout_seconds=1.0,
            )
        )


def test_a_story_goes_on():
    """Dead ends, plateaus, ways back and queued ideas are told between experiments."""
    told = story([1.1, 1.2, 1.3], directions=["width"])
    told.declare_dead("width").declare_plateau().go_back(0).queue("deeper", 0.01).add(1.0)
    past = told.history
    assert past.dead_ends["width"].experiments == (1, 2)
    assert past.plateaus[0].experiments == (0, 1, 2)
    assert [item.description for item in past.ranked_queue] == ["deeper"]
    assert past.best_number == 3


def test_the_configuration_is_told():
    """Rules that read the campaign's configuration find it in the history."""
    config = Config(preset="plain", metric=MetricConfig(name="loss", sd=0.5))
    past = history([1.1], config=config)
    assert past.metric == "loss"
    assert past.started.config["metric"]["sd"] == 0.5


def test_a_candidate_is_the_next_experiment():
    """It has the next number and the campaign's metric, and no decision yet."""
    past = history([1.1, 1.0], metric="loss")
    judged = candidate(0.9, past)
    assert (judged.experiment.number, judged.metric) == (2, 0.9)
    assert judged.experiment.metrics == {"loss": 0.9}
    assert judged.experiment.verdict is None


def test_ideas_differ_by_their_words():
    """Two descriptions are two ideas, and both bring new source."""
    assert idea("one").id != idea("two").id
    assert idea("one").has_code
    assert idea(env={"A": "1"}).source is None
