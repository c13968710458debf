"""Kept changes that together are worse lead back to the best."""

from __future__ import annotations

import pytest

from autoresearch import events
from autoresearch.config import Config, MetricConfig
from autoresearch.history import History
from autoresearch.model import Backtrack, Signal
from autoresearch.rules import Regression
from autoresearch.testing import BacktrackingRuleContract, Story, experiment, history, story


class TestContract(BacktrackingRuleContract):
    """It is a sound backtracking rule."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return Regression


def signal(past: History, sd: float = 0.001, **settings: object) -> Backtrack | None:
    """Return what the rule says after a history."""
    rule = Regression()
    rule.configure(
        Config(
            preset="plain",
            metric=MetricConfig(name="score", sd=sd),
            plugins={"regression": settings},
        )
    )
    return rule.backtrack(past)


def kept(*scores: float) -> Story:
    """Return a story in which every experiment was kept, better or not."""
    return story([1.10, 1.08, *(experiment(score, verdict="keep") for score in scores)])


def test_head_behind_the_best_after_two_keeps_goes_back() -> None:
    """The reason names the keeps, the loss and the experiment to return to."""
    found = signal(kept(1.083, 1.09).history)
    assert found is not None
    assert (found.signal, found.to_experiment, found.direction) == (Signal.REGRESSION, 1, None)
    assert "after keeping 2, 3 score is 0.0100 worse than that of experiment 1" in found.reason


def test_one_keep_is_not_a_series() -> None:
    """A single keep within the noise may be luck either way."""
    assert signal(kept(1.09).history) is None
    assert signal(kept(1.09).history, series=1) is not None


def test_a_loss_within_the_noise_is_none() -> None:
    """Head may be worse by what two equal scripts differ by."""
    assert signal(kept(1.081, 1.081).history) is None
    unknown = Config(preset="plain")
    told = [1.10, 1.08, *(experiment(1.081, verdict="keep") for _ in range(2))]
    assert signal(story(told, config=unknown).history, sd=0.0) is not None
    assert signal(kept(1.081, 1.0815).history, margin_sds=1.0) is not None


def test_a_best_at_head_is_fine() -> None:
    """Steady progress is never interrupted."""
    assert signal(history([1.1, 1.0, 0.9, 0.8])) is None
    assert signal(history([1.1, 1.2, 1.3])) is None


def test_after_going_back_it_is_quiet() -> None:
    """Head is the best again, so there is nothing to say."""
    assert signal(kept(1.083, 1.09).go_back(1).history) is None


def test_a_released_result_becomes_the_new_ground() -> None:
    """A quarantined experiment that a person released is best, and head does not build on it."""
    told = story([1.10, experiment(0.9, verdict="quarantine"), 1.08])
    assert signal(told.history) is None
    told.tell(
        events.QuarantineResolved(experiment=1, released=True, reason="checked", author="a person")
    )
    found = signal(told.history)
    assert found is not None
    assert found.to_experiment == 1
    assert signal(told.go_back(1).history) is None


def test_whoever_leaves_the_best_again_means_it() -> None:
    """After the branch went to the best and on to another state, the rule does not fight."""
    told = story([1.10, experiment(0.9, verdict="quarantine"), 1.08])
    told.tell(
        events.QuarantineResolved(experiment=1, released=True, reason="checked", author="a person")
    )
    assert signal(told.go_back(1).go_back(2).history) is None


def test_a_best_that_was_built_on_is_left_on_purpose() -> None:
    """Another parent was chosen after ideas on the best had failed, and the rule does not fight."""
    assert signal(story([1.10, 1.08, 1.09]).go_back(0).add(1.2).history) is None


@pytest.mark.parametrize("scores", [[], [None], [1.1], [None, None], [None, 1.1]])
def test_a_young_campaign_has_no_regression(scores: list[float | None]) -> None:
    """Without a best or a head there is nothing to go back to."""
    assert signal(history(scores)) is None
