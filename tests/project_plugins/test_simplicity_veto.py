"""A small gain must not make the script longer."""

import pytest

from autoresearch import Config, Verdict, events
from autoresearch.config import MetricConfig
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    DecisionPolicyContract,
    KeepBetter,
    candidate,
    experiment,
    history,
    story,
)
from autoresearch.testing.story import digest, proposal

SCORES = [1.0, 0.9999, 0.9998]
LONGER = """
from autoresearch import Idea, hookimpl

@hookimpl
def propose_idea(history, source):
    new = "A = 1\\nA += 1" if history.next_number == 1 else "A = 3"
    more = source.replace("A = 1", new)
    words = dict(direction="a", description=f"change {history.next_number}", hypothesis="it helps")
    return Idea(source=more, **words)
"""


class TestContract(DecisionPolicyContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("simplicity_veto")


@pytest.fixture
def judge(single_file):
    """Judges a score against a best of 1.0, after a change of so many lines."""

    def decide(score: float, added: int, removed: int, better: str = "lower", **settings):
        config = Config(
            preset="plain",
            metric=MetricConfig(sd=0.001, better=better),
            plugins={"simplicity_veto": settings},
        )
        plugins = Plugins.only(KeepBetter(), single_file("simplicity_veto"), config=config)
        made = experiment(score, added_lines=added, removed_lines=removed)
        past = history([1.0], better=better)
        return plugins.decide(candidate(score, past, experiment=made), past)

    return decide


@pytest.mark.parametrize(("better", "score"), [("lower", 0.9985), ("higher", 1.0015)])
def test_a_small_gain_with_more_lines_is_discarded(judge, better, score):
    """Fifteen ten-thousandths are not worth three lines, whichever way the metric points."""
    decision = judge(score, 4, 1, better)
    assert decision.verdict is Verdict.DISCARD
    assert decision.author == "simplicity_veto"
    assert decision.reason.startswith(
        "too little for its length: a gain of 0.001500 is under 0.002000, and the script grows "
        "by 3 lines; better than"
    )


@pytest.mark.parametrize(("added", "removed"), [(1, 1), (2, 9), (0, 0)])
def test_a_small_gain_may_keep_or_cut_the_length(judge, added, removed):
    """A changed number, a deletion and an override of the environment cost nothing."""
    assert judge(0.9985, added, removed).verdict is Verdict.KEEP


def test_a_large_gain_may_cost_lines(judge):
    """Over the threshold the length does not matter."""
    assert judge(0.99, 400, 0).verdict is Verdict.KEEP


def test_a_discard_stays_as_it_was(judge):
    """What the policies refuse keeps their reason and their name."""
    decision = judge(1.1, 4, 0)
    assert decision.author == "keep_better"
    assert "not better" in decision.reason


def test_the_threshold_and_the_allowance_can_be_set(judge):
    """A person says in metric units what a line is worth."""
    assert judge(0.9985, 4, 1, small_gain=0.001).verdict is Verdict.KEEP
    assert judge(0.9985, 4, 1, free_lines=3).verdict is Verdict.KEEP
    assert judge(0.99, 4, 1, small_gain=0.1).verdict is Verdict.DISCARD


def applied(text: str, added: int, removed: int) -> events.ChangeApplied:
    """Return the fact that a change was written into the script of experiment 1."""
    return events.ChangeApplied(
        experiment=1,
        source_digest=digest(text),
        parent_digest=digest("before"),
        added_lines=added,
        removed_lines=removed,
    )


def test_lines_are_those_of_the_change_and_its_fixes():
    """History counts a change once, even when a crash of the loop made it be told twice."""
    told, made = story([1.0]), experiment(0.9)
    for fact in proposal(told.history, made):
        told.tell(fact)
    told.tell(applied("change", 5, 2))
    told.tell(applied("change", 5, 2))
    change = told.history.experiments[1]
    told.tell(events.AuditPassed(experiment=1))
    told.tell(
        events.CommitMade(experiment=1, commit="c" * 40, parent="p" * 40, ref="refs/autoresearch/1")
    )
    told.tell(applied("fixed", 1, 1))
    told.tell(applied("fixed", 1, 1))
    fixed = told.history.experiments[1]
    assert (change.added_lines, change.removed_lines) == (5, 2)
    assert (fixed.added_lines, fixed.removed_lines) == (6, 3)


def test_a_campaign_prefers_the_shorter_of_two_changes(campaign):
    """In a campaign the longer script is discarded, and a change of one number is kept."""
    settings = 'active = ["no:evidence"]\n\n[metric]\nsd = 0.001\n'
    running = campaign("simplicity_veto", "A = 1\n", settings, SCORES, ideas=LONGER)
    running.run(experiments=3, wait=False)
    first, second = running.history.experiments[1:]
    assert (first.added_lines, first.removed_lines, first.verdict) == (1, 0, Verdict.DISCARD)
    assert (second.added_lines, second.removed_lines, second.verdict) == (1, 1, Verdict.KEEP)
