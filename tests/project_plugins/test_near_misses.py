"""Two discards that were lost in the noise are tried together."""

from random import Random

import pytest
from attrs import evolve

from autoresearch import Config, History, Verdict
from autoresearch.config import MetricConfig
from autoresearch.plugins import Plugins
from autoresearch.testing import IdeaGeneratorContract, experiment, git, idea, story

NOISY = Config(preset="plain", metric=MetricConfig(sd=0.02))
SCRIPT = """A = 1
B = 1
print(A, B)
"""
ONE_BY_ONE = """
from autoresearch import Idea, hookimpl

@hookimpl
def propose_idea(history, source):
    if history.next_number > 2:
        return None
    name = "AB"[history.next_number - 1]
    more = source.replace(f"{name} = 1", f"{name} = 2")
    words = dict(direction=name, description=f"{name} 1 -> 2", hypothesis="more is better")
    return Idea(source=more, **words)
"""
EAGER = """active = ["no:script_ideas"]
[metric]
sd = 0.001
[plugins.near_misses]
after = 2
"""


class TestContract(IdeaGeneratorContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("near_misses")

    @pytest.fixture
    def config(self):
        return NOISY


@pytest.fixture
def propose(single_file):
    """Asks the plugin alone, with a noise of 0.001 unless told otherwise."""

    def ask(past: History, sd: float = 0.001, **settings):
        config = Config(
            preset="plain",
            metric=MetricConfig(sd=sd, better="lower" if past.lower_is_better else "higher"),
            plugins={"near_misses": settings},
        )
        plugins = Plugins.only(single_file("near_misses"), config=config)
        plugins.on_failure = lambda failure: pytest.fail(str(failure))
        return plugins.propose_idea(past, "", Random(1))

    return ask


@pytest.mark.parametrize(
    ("better", "scores"),
    [("lower", [1.0, 1.0015, 1.01, 1.0005]), ("higher", [1.0, 0.9985, 0.99, 0.9995])],
)
def test_pairs_what_was_lost_within_two_sd(propose, better, scores):
    """Experiment 2 lost five times more than noise explains and is left out."""
    found = propose(story(scores, better=better, directions=["a", "b", "c", "d"]).history)
    assert found.cites == (3, 1)
    assert found.author == "near_misses"
    assert found.expected_gain == pytest.approx(-0.002)
    assert found.evidence[0].startswith("3 lost by 0.000500: commit ")


def test_waits_while_the_campaign_moves(propose):
    """One keep among the last three experiments, and the other generators go on."""
    assert propose(story([1.0, 1.0005, 1.0005, 0.9]).history) is None
    assert propose(story([1.0, 1.0005, 1.0005]).history) is None


def test_lets_others_answer_in_between(propose):
    """After a pair somebody else has a turn, and then comes the next pair."""
    told = story([1.0, 1.0005, 1.001, 1.0015])
    first = propose(told.history)
    told.add(experiment(1.002, verdict="discard", idea=first))
    assert propose(told.history) is None
    told.add(1.5)
    assert propose(told.history).cites == (1, 3)


def test_a_person_goes_first(propose):
    """While an idea is queued the plugin is silent."""
    told = story([1.0, 1.0005, 1.001, 1.0015]).queue("deeper", 0.01)
    assert propose(told.history) is None


def test_an_idea_that_was_tried_silences_nobody(propose):
    """What somebody queued a second time may lie there for ever, and pairs are tried meanwhile."""
    told = story([1.0, 1.0005, 1.001])
    told.add(1.5, idea=idea("deeper", env={"WIDTH": "5"})).queue("deeper")
    assert set(told.history.queue) <= set(told.history.tried)
    assert propose(told.history) is not None


@pytest.mark.parametrize(
    "made",
    [
        experiment(1.0005, verdict="quarantine"),
        experiment(1.0005, verdict="discard", idea=idea("by environment", env={"A": "2"})),
        experiment(None),
    ],
    ids=["not believed", "no edit of the script", "crashed"],
)
def test_pairs_only_believed_edits(propose, made):
    """With one sound near miss beside it there is no pair."""
    assert propose(story([1.0, 1.0005, made, 1.9]).history) is None


def test_a_mended_crash_is_no_near_miss(propose):
    """Its last commit holds the fix alone, so there is no one edit to carry over."""
    past = story([1.0, 1.0005, 1.001, 1.0015]).history
    mended = evolve(past.experiments[1], fixes=1)
    assert propose(evolve(past, experiments=past.experiments.set(1, mended))).cites == (2, 3)


def test_gives_up_when_pairs_are_a_dead_end(propose):
    """Neither pairs as such nor changes of a dead direction are tried again."""
    told = story([1.0, 1.0005, 1.001, 1.0015], directions=["a", "b", "c", "d"])
    assert propose(told.declare_dead("b").history).cites == (2, 3)
    assert propose(told.declare_dead("near misses together").history) is None


def test_says_nothing_without_a_measure_of_noise(propose):
    """Nobody knows what is near when neither the noise nor a limit is set."""
    told = story([1.0, 1.0005, 1.001, 1.0015]).history
    assert propose(told, sd=0.0) is None
    assert propose(told, sd=0.0, within=0.001).cites == (1, 2)


@pytest.mark.parametrize(
    ("after", "head", "carried"),
    [
        ("axc", "abc", "axc"),
        ("axc", "abz", "axz"),
        ("axbc", "abc", "axbc"),
        ("ac", "zabc", "zac"),
        ("abcx", "zbc", "zbcx"),
        ("xbz", "abc", "xbz"),
        ("axc", "ayc", None),
        ("ac", "axc", None),
        ("abc", "zzz", "zzz"),
    ],
)
def test_carries_an_edit_to_another_head(single_file, after, head, carried):
    """Edits of neighbouring lines do not disturb each other; of the same line they clash."""
    made = single_file("near_misses").carry("abc", after, head)
    assert (made and "".join(made)) == carried


def test_a_campaign_keeps_what_only_helps_together(campaign):
    """Two edits, each a little worse, are merged into one commit that is kept and cites both."""
    scores = [1.0, 1.0005, 1.0005, 0.95]
    running = campaign("near_misses", SCRIPT, EAGER, scores, ideas=ONE_BY_ONE)
    running.run(experiments=4, wait=False)
    last = running.history.experiments[3]
    assert last.reasoning.cites == (1, 2)
    assert last.verdict is Verdict.KEEP
    assert git(running.project, "show", f"{last.commit}:train.py").startswith("A = 2\nB = 2\n")
