"""What earlier experiments say about a hyperparameter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.ideas import families, moves
from autoresearch.ideas.moves import Trial
from autoresearch.model import ValueChange, Verdict
from autoresearch.testing import experiment, history, idea

LR = families.LEARNING_RATE
SCALE = 0.004


def trial(
    old: float, new: float, gain: float | None, verdict: Verdict | None = None, name: str = "LR"
) -> Trial:
    """Return a trial of one name; a gain is kept unless a verdict is given."""
    told = verdict or (Verdict.KEEP if (gain or 0) > 0 else Verdict.DISCARD)
    return Trial(number=1, changes={name: (old, new)}, gain=gain, verdict=told)


def test_history_is_read_with_gains_against_the_best_of_their_time() -> None:
    """A keep has a positive gain, a discard a negative one, a crash none."""

    def step(old: float, new: float, score: float | None) -> object:
        change = ValueChange(name="LR", old=old, new=new)
        return experiment(score, idea=idea("the rate", direction="lr", changes=[change]))

    past = history([1.10, step(0.1, 0.2, 1.08), step(0.2, 0.4, 1.09), step(0.2, 0.3, None), 1.2])
    known = moves.trials(past)
    assert [item.number for item in known] == [1, 2, 3]
    assert [item.gain for item in known] == [pytest.approx(0.02), pytest.approx(-0.01), None]
    assert [item.number for item in moves.by_key(known)["LR"]] == [3, 2, 1]
    assert "RL" not in moves.by_key(known)


def test_untried_moves_expect_the_prior() -> None:
    """Before anything is known the family decides, and its leaning side is ahead."""
    down = moves.expected_gain(LR, 0.04, 0.027, [], SCALE)
    up = moves.expected_gain(LR, 0.04, 0.06, [], SCALE)
    assert 0 < up < down == SCALE


def test_a_win_is_followed() -> None:
    """After a gain the same way promises more, and the way back promises a loss."""
    won = [trial(0.04, 0.02, 0.005)]
    assert moves.expected_gain(LR, 0.02, 0.0133, won, SCALE) > 0
    assert moves.expected_gain(LR, 0.02, 0.03, won, SCALE) <= 0.1 * SCALE
    assert moves.expected_gain(LR, 0.02, 0.04, won, SCALE) < 0
    assert moves.expected_gain(LR, 0.02, 0.09, won, SCALE) < 0


def test_a_loss_turns_away() -> None:
    """After a loss the same way and further are shunned, and the other side is worth a try."""
    lost = [trial(0.04, 0.06, -0.008)]
    assert moves.expected_gain(LR, 0.04, 0.06, lost, SCALE) < 0
    assert moves.expected_gain(LR, 0.04, 0.08, lost, SCALE) < 0
    assert moves.expected_gain(LR, 0.04, 0.027, lost, SCALE) > 0
    assert 0 < moves.expected_gain(LR, 0.04, 0.048, lost, SCALE) <= 0.1 * SCALE


def test_a_crash_is_a_clear_loss() -> None:
    """A run without a score keeps the generator from going further that way."""
    assert moves.expected_gain(LR, 0.04, 0.08, [trial(0.04, 0.06, None)], SCALE) < -SCALE


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(-0.1, 0.1)), max_size=6),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
)
def test_expectations_are_bounded(
    seen: list[tuple[float, float, float]], old: float, new: float
) -> None:
    """However odd the record, no move promises more than the best gain or the scale."""
    record = [trial(*item) for item in seen]
    best = max([SCALE, *(item[2] for item in seen)])
    assert moves.expected_gain(LR, old, new, record, SCALE) <= best + 0.2 * SCALE + 1e-12


def test_near_misses_are_small_losses_of_single_changes() -> None:
    """Discards that lost next to nothing, the least loss first; keeps and crashes are none."""
    known = [
        trial(1, 2, -0.0010, name="A"),
        trial(1, 2, -0.0002, name="B"),
        trial(1, 2, -0.0100, name="C"),
        trial(1, 2, 0.0, name="D"),
        trial(1, 2, None, name="E"),
        trial(1, 2, 0.01, name="F"),
    ]
    assert [item.single for item in moves.near_misses(known, 0.002)] == ["D", "B", "A"]
