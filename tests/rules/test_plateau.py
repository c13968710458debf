"""Five experiments without progress are a plateau."""

from __future__ import annotations

import pytest

from autoresearch.config import Config, RulesConfig
from autoresearch.history import History
from autoresearch.model import Backtrack, Signal
from autoresearch.rules import Plateau
from autoresearch.testing import BacktrackingRuleContract, experiment, history, story


class TestContract(BacktrackingRuleContract):
    """It is a sound backtracking rule."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return Plateau


def signal(past: History, **rules: float) -> Backtrack | None:
    """Return what the rule says after a history."""
    rule = Plateau()
    rule.configure(Config(preset="plain", rules=RulesConfig(**rules)))
    return rule.backtrack(past)


def test_five_experiments_without_progress_are_a_plateau() -> None:
    """The reason has the range and what was gained; head stays."""
    found = signal(history([1.1, 1.2, 1.0995, 1.3, None, 1.2]))
    assert found is not None
    assert (found.signal, found.to_experiment, found.direction) == (Signal.PLATEAU, None, None)
    assert found.reason == "experiments 1 to 5 gained 0.0005 score in all, less than 0.001"


def test_four_are_not_enough() -> None:
    """The baseline is not one of the five."""
    assert signal(history([1.1, 1.2, 1.2, 1.2, 1.2])) is None
    assert signal(history([1.1, 1.2, 1.2, 1.2, 1.2]), plateau_experiments=4) is not None


@pytest.mark.parametrize(("last", "stuck"), [(1.0989, False), (1.0991, True)])
def test_progress_is_the_sum_over_the_window(last: float, stuck: bool) -> None:
    """Small keeps add up: 0.0011 in all is progress, 0.0009 is not."""
    past = history([1.1, 1.0998, 1.0996, 1.2, 1.2, last])
    assert (signal(past) is not None) is stuck


def test_progress_before_the_window_does_not_count() -> None:
    """A large gain long ago does not make the present less flat."""
    assert signal(history([1.1, 0.9, 1.2, 1.2, 1.2, 1.2])) is None
    assert signal(history([1.1, 0.9, 1.2, 1.2, 1.2, 1.2, 1.2])) is not None


def test_a_plateau_is_told_once_a_window() -> None:
    """After a plateau five new experiments are given before the next one."""
    told = story([1.1, *[1.2] * 5]).declare_plateau()
    assert signal(told.history) is None
    for _ in range(4):
        assert signal(told.add(1.2).history) is None
    assert signal(told.add(1.2).history) is not None


def test_higher_can_be_better() -> None:
    """Progress follows the direction of the metric."""
    assert signal(history([0.5, 0.6, 0.4, 0.4, 0.4, 0.4], better="higher")) is None
    assert signal(history([0.5, 0.4, 0.4, 0.4, 0.4, 0.4], better="higher")) is not None


def test_a_kept_loss_is_no_progress() -> None:
    """Keeping something worse does not hide the plateau, and the gain is never below zero."""
    worse = [experiment(1.2, verdict="keep") for _ in range(5)]
    found = signal(history([1.1, *worse]))
    assert found is not None
    assert "gained 0.0000" in found.reason


@pytest.mark.parametrize("scores", [[], [None], [None] * 8])
def test_without_a_score_there_is_no_plateau(scores: list[None]) -> None:
    """A campaign that never had a score has another problem."""
    assert signal(history(scores)) is None


def test_the_proof_is_the_window() -> None:
    """After a gain in experiment 4 a window of two shows 5 and 6, and no others."""
    found = signal(history([1.1, 1.2, 1.2, 1.2, 1.0, 1.2, 1.2]), plateau_experiments=2)
    assert found is not None
    assert found.experiments == (5, 6)
