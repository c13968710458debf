"""What every decision policy and every backtracking rule must do."""

from __future__ import annotations

import pytest

from autoresearch.model import Backtrack, Signal, Verdict
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing.builders import candidate
from autoresearch.testing.contracts_base import PluginContract, situations, sound
from autoresearch.testing.examples import EXAMPLES
from autoresearch.testing.fakes import KeepBetter
from autoresearch.testing.story import Story, history


class Fallback(KeepBetter):
    """Answers where the policy under test passes, under a name of its own."""


class DecisionPolicyContract(PluginContract):
    """Conformance of ``decide``, also of a wrapper that vetoes; give ``plugin``.

    A policy that passes, or only wraps, stands before one that keeps what is better.
    """

    hooks = ("decide",)

    @pytest.fixture
    def companions(self) -> tuple[object, ...]:
        """A policy that answers when the one under test does not."""
        return (Fallback(),)

    def test_survives_every_candidate(
        self, plugins: Plugins, failures: list[PluginFailure]
    ) -> None:
        """It answers soundly to better, equal and worse scores in every situation."""
        for name, past in situations():
            for score in (past.best_metric or 1.0, 0.001, 0.9, 1e9):
                plugins.decide(candidate(score, past), past)
                sound(failures, f"{name}, score {score}")

    def test_same_candidate_same_verdict(self, plugins: Plugins) -> None:
        """The decision follows from candidate and history alone."""
        for name, past in situations():
            judged = candidate(0.9, past)
            first, second = plugins.decide(judged, past), plugins.decide(judged, past)
            assert first == second, f"{name}: asked twice, it said {first} and then {second}"

    @pytest.mark.parametrize("status", ["crashed", "timed_out", "stopped_early", "infra_failed"])
    def test_keeps_nothing_without_a_score(
        self, plugins: Plugins, failures: list[PluginFailure], status: str
    ) -> None:
        """A run that gave no score is never kept."""
        past = history([1.1, 1.05])
        decision = plugins.decide(candidate(None, past, status=status), past)
        sound(failures, f"a run that {status}")
        assert decision.verdict is not Verdict.KEEP, f"it kept a run that {status}"

    @pytest.mark.parametrize("better", ["lower", "higher"])
    def test_keeps_nothing_clearly_worse(self, plugins: Plugins, better: str) -> None:
        """A score a tenth worse than the best is not kept, whichever way the metric points."""
        scores, worse = ([1.1, 1.0], 1.1) if better == "lower" else ([1.0, 1.1], 0.99)
        past = history(scores, better=better)
        decision = plugins.decide(candidate(worse, past), past)
        assert decision.verdict is not Verdict.KEEP, (
            f"{better} is better, the best is {past.best_metric}, and it kept {worse}"
        )


class BacktrackingRuleContract(PluginContract):
    """Conformance of ``backtrack``; give ``plugin``. ``None`` is a sound answer everywhere."""

    hooks = ("backtrack",)

    def test_survives_every_history(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It neither raises nor goes back to what was never kept."""
        for name, past in situations():
            plugins.backtrack(past)
            sound(failures, name)

    def test_same_history_same_answer(self, plugins: Plugins) -> None:
        """The answer follows from the history alone."""
        for name, past in situations():
            first, second = plugins.backtrack(past), plugins.backtrack(past)
            assert first == second, f"{name}: asked twice, it said {first} and then {second}"

    def test_is_silent_at_the_start(self, plugins: Plugins) -> None:
        """Before anything was tried there is nothing to go back from."""
        for past in (history(), history([1.1])):
            answer = plugins.backtrack(past)
            assert answer is None, f"after {past.next_number} experiments it said {answer}"

    def test_is_silent_while_things_get_better(self, plugins: Plugins) -> None:
        """A campaign in which every experiment is a clear success needs no way back."""
        answer = plugins.backtrack(history([1.1 - 0.02 * step for step in range(10)]))
        assert answer is None, f"ten clear successes in a row, and it said {answer}"

    def test_is_content_once_followed(self, plugins: Plugins) -> None:
        """After its answer was carried out it does not give the same answer again."""
        for name, make in EXAMPLES.items():
            told = make()
            answer = plugins.backtrack(told.history)
            if answer is not None:
                _follow(told, answer)
                again = plugins.backtrack(told.history)
                assert again != answer, f"{name}: after {answer} was done it asked for it again"


def _follow(told: Story, answer: Backtrack) -> None:
    """Carry an answer out as the loop does."""
    if answer.signal is Signal.DEAD_END and answer.direction:
        told.declare_dead(answer.direction)
    elif answer.signal is Signal.PLATEAU:
        told.declare_plateau()
    if answer.to_experiment is not None:
        told.go_back(answer.to_experiment)
