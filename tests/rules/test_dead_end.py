"""Three failures in a row in one direction are a dead end."""

from __future__ import annotations

import pytest

from autoresearch.config import Config, RulesConfig
from autoresearch.history import History
from autoresearch.model import Backtrack, Signal
from autoresearch.rules import DeadEnd
from autoresearch.testing import BacktrackingRuleContract, experiment, history, story


class TestContract(BacktrackingRuleContract):
    """It is a sound backtracking rule."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return DeadEnd


def signal(past: History, discards: int = 3) -> Backtrack | None:
    """Return what the rule says after a history."""
    rule = DeadEnd()
    rule.configure(Config(preset="plain", rules=RulesConfig(dead_end_discards=discards)))
    return rule.backtrack(past)


def test_the_third_discard_in_a_row_is_a_dead_end() -> None:
    """It names the direction and every failed experiment, and leaves head where it is."""
    past = history([1.1, 1.12, 1.13, 1.14], directions=["width"])
    found = signal(past)
    assert found is not None
    assert (found.signal, found.direction, found.to_experiment) == (
        Signal.DEAD_END,
        "width",
        None,
    )
    assert found.reason == (
        "3 failed attempts in a row: 1 (score 1.1200), 2 (score 1.1300), 3 (score 1.1400)"
    )


def test_two_are_not_enough() -> None:
    """One more chance is left."""
    assert signal(history([1.1, 1.12, 1.13], directions=["width"])) is None


def test_other_directions_in_between_do_not_interrupt() -> None:
    """The series is the direction's own, whatever else was tried meanwhile."""
    past = history([1.1, 1.2, 1.2, 1.2, 1.2, 1.2], directions=["baseline", "width", "depth"])
    assert [item.idea.direction for item in past.experiments][1:4] == ["width", "depth", "baseline"]
    assert signal(past) is None
    past = history([1.1, 1.2, 1.2, 1.2, 1.2, 1.2], directions=["depth", "width"])
    found = signal(past)
    assert found is not None
    assert found.direction == "width"


def test_a_keep_starts_the_count_again() -> None:
    """A direction that once helped is given three new tries."""
    scores = [1.1, 1.2, 1.2, 1.05, 1.2, 1.2]
    assert signal(history(scores, directions=["width"])) is None
    assert signal(history([*scores, 1.2], directions=["width"])) is not None


def test_a_crash_is_a_failed_attempt() -> None:
    """The protocol answers a crash with a discard, so it counts as one."""
    found = signal(history([1.1, None, 1.2, None], directions=["width"]))
    assert found is not None
    assert "1 (crash), 2 (score 1.2000), 3 (crash)" in found.reason


def test_a_quarantined_result_counts_for_neither_side() -> None:
    """No one knows yet whether it failed."""
    odd = experiment(0.1, verdict="quarantine")
    assert signal(history([1.1, 1.2, odd, 1.2], directions=["width"])) is None
    assert signal(history([1.1, 1.2, odd, 1.2, 1.2], directions=["width"])) is not None


def test_a_direction_dies_once() -> None:
    """What is declared dead is not declared again."""
    told = story([1.1, 1.2, 1.2, 1.2], directions=["width"]).declare_dead("width")
    assert signal(told.history) is None
    assert signal(told.add(1.2).history) is None


@pytest.mark.parametrize("scores", [[], [None], [1.1], [None, None]])
def test_a_young_campaign_has_no_dead_end(scores: list[float | None]) -> None:
    """The baseline is no attempt, and nothing is an error."""
    assert signal(history(scores), discards=2) is None


def test_the_proof_is_what_failed() -> None:
    """Experiment 2 is quarantined: it neither ends the series nor is part of the proof."""
    held = experiment(1.13, verdict="quarantine")
    found = signal(history([1.1, 1.12, held, 1.13, 1.14], directions=["width"]))
    assert found is not None
    assert found.experiments == (1, 3, 4)
