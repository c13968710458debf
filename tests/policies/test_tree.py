"""The tree policy: stays while head is fresh, and weighs what was kept where it is not."""

from __future__ import annotations

from collections import Counter
from random import Random

from autoresearch import Backtrack, History, Parent, Signal, hookimpl
from autoresearch.events import Backtracked
from autoresearch.policies import tree
from autoresearch.studies import simulate
from autoresearch.testing import history


def chosen(past: History, times: int = 200) -> Counter[int | None]:
    """Return how often which experiment was chosen; None is head."""
    answers = (tree.Plugin().choose_parent(past, Random(seed)) for seed in range(times))
    return Counter(answer and answer.experiment for answer in answers)


def test_fresh_head_is_kept() -> None:
    """Fewer failures than its patience say nothing of head, and neither does an empty history."""
    for past in (history([]), history([1.1]), history([1.1, 1.0, *[1.2] * 7])):
        assert chosen(past) == {None: 200}


def test_stale_head_is_left_for_a_near_node() -> None:
    """Where nothing held any more, one that is little behind is preferred to one that is far."""
    near, far = history([1.1, 1.0, *[1.2] * 9]), history([2.1, 1.0, *[1.2] * 9])
    assert chosen(near)[0] > 100
    assert chosen(near)[None] > 0
    assert chosen(far)[0] < chosen(near)[0] / 2
    told = next(filter(None, (tree.Plugin().choose_parent(near, Random(s)) for s in range(9))))
    assert "0 of 9 ideas held on experiment 1" in told.reason
    assert "0.1000 score behind the best" in told.reason


class Alternately:
    """Builds on the baseline whenever something else is head."""

    @hookimpl
    def choose_parent(self, history: History) -> Parent | None:
        """Name the baseline."""
        return Parent(experiment=0, reason="the baseline has more to give")


class Homeward:
    """Sends head back to the best whenever something else is head."""

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Name the best."""
        best = history.best_number
        if best is None or history.head == best:
            return None
        return Backtrack(signal=Signal.REGRESSION, reason="home", to_experiment=best)


def test_head_moves_once_for_a_decision() -> None:
    """What a signal decided stands until the next decision, whatever would be built on."""
    plugins = [Alternately(), Homeward()]
    _, told = simulate.campaign("greedy+search", 61, gpu_hours=7, observers=plugins)
    moves = [entry for entry in told.timeline if isinstance(entry, Backtracked)]
    assert {entry.author for entry in moves} == {"alternately", "homeward"}
    assert set(Counter(entry.after_experiment for entry in moves).values()) == {1}


def test_next_idea_builds_on_what_was_chosen() -> None:
    """The loop moves head, records why and by whom, and what comes next is made on it."""
    _, told = simulate.campaign("greedy+search", 61, gpu_hours=7, observers=[Alternately()])
    moves = [entry for entry in told.timeline if isinstance(entry, Backtracked)]
    mine = [entry for entry in moves if entry.author == "alternately"]
    assert mine
    assert {entry.to_experiment for entry in mine} == {0}
    assert mine[0].reason == "the baseline has more to give"
    assert told.experiments[mine[0].after_experiment + 1].built_on == 0
