"""The protocol's own decision policy, verdict by verdict."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from autoresearch import policies
from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.model import Run, RunStatus, Verdict, Violation
from autoresearch.policies import greedy
from autoresearch.testing import DecisionPolicyContract, candidate, experiment, history

CONFIG = Config(
    preset="plain",
    metric=MetricConfig(name="val_bpb", sd=0.0006, implausible_gain=0.02),
    limits=LimitsConfig(artifact_bytes=16_000_000),
)


class TestContract(DecisionPolicyContract):
    """It is a sound decision policy."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return greedy.Plugin


def policy(config: Config = CONFIG) -> greedy.Plugin:
    """Return the policy as a campaign would have it."""
    made = greedy.Plugin()
    made.configure(config)
    return made


PAST = history([1.2244], config=CONFIG)


@pytest.mark.parametrize(
    ("score", "size", "verdict"),
    [
        (1.2200, 15_999_999, Verdict.KEEP),
        (1.2200, 16_000_000, Verdict.DISCARD),
        (1.2200, 16_000_001, Verdict.DISCARD),
        (1.2200, None, Verdict.DISCARD),
        (1.2244, 15_000_000, Verdict.DISCARD),
        (1.2300, 15_000_000, Verdict.DISCARD),
        (1.2044, 15_000_000, Verdict.QUARANTINE),
        (1.2045, 15_000_000, Verdict.KEEP),
        (None, None, Verdict.CRASH),
    ],
)
def test_score_and_size_give_the_verdict(
    score: float | None, size: int | None, verdict: Verdict
) -> None:
    """Better and under the limit is kept, too good is quarantined, without a score it crashed."""
    assert policy().decide(candidate(score, PAST, artifact_bytes=size), PAST).verdict is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (RunStatus.CRASHED, Verdict.CRASH),
        (RunStatus.TIMED_OUT, Verdict.CRASH),
        (RunStatus.STOPPED_EARLY, Verdict.DISCARD),
        (RunStatus.INFRA_FAILED, Verdict.CRASH),
        (RunStatus.COMPLETED, Verdict.CRASH),
    ],
)
def test_a_run_without_a_score_says_how_it_ended(status: RunStatus, verdict: Verdict) -> None:
    """Every ending has its own reason, and only an early stop is an ordinary discard."""
    decision = policy().decide(candidate(None, PAST, status=status), PAST)
    assert decision.verdict is verdict
    assert decision.confidence is None
    others = set(RunStatus) - {status}
    reasons = {
        policy().decide(candidate(None, PAST, status=other), PAST).reason for other in others
    }
    assert decision.reason not in reasons


def test_a_killed_run_is_a_crash_even_if_it_printed_a_score() -> None:
    """The protocol treats a run over its deadline as a failure, whatever it printed."""
    late = candidate(1.0, PAST, status=RunStatus.TIMED_OUT, artifact_bytes=1)
    assert policy().decide(late, PAST).verdict is Verdict.CRASH


def test_a_broken_rule_outweighs_the_score() -> None:
    """A blocking violation quarantines and is named; a warning changes nothing."""
    broken = Violation(rule="conservation", detail="bytes do not add up")
    warned = Violation(rule="slow", detail="3 % slower", severity="warning")
    found = policy().decide(
        candidate(1.22, PAST, artifact_bytes=1, violations=(broken, warned)), PAST
    )
    assert found.verdict is Verdict.QUARANTINE
    assert "conservation: bytes do not add up" in found.reason
    assert "slow" not in found.reason
    fine = policy().decide(candidate(1.22, PAST, artifact_bytes=1, violations=(warned,)), PAST)
    assert fine.verdict is Verdict.KEEP


def test_the_baseline_is_kept_and_never_too_good() -> None:
    """The first score is what everything after it has to beat, so nothing is held against it."""
    nothing = history([], config=CONFIG)
    decision = policy().decide(candidate(0.1, nothing, artifact_bytes=1), nothing)
    assert decision.verdict is Verdict.KEEP
    assert "baseline" in decision.reason
    assert decision.delta is None


def test_after_a_crashed_baseline_the_first_score_is_kept() -> None:
    """Without anything to compare with, a score within the limits becomes the best."""
    past = history([None], config=CONFIG)
    decision = policy().decide(candidate(1.3, past, artifact_bytes=1), past)
    assert decision.verdict is Verdict.KEEP
    assert "baseline" not in decision.reason


def test_higher_can_be_better() -> None:
    """The direction of the metric comes from the history; the delta keeps the raw sign."""
    config = Config(preset="plain", metric=MetricConfig(name="accuracy", better="higher", sd=0.01))
    past = history([0.5], config=config)
    better = policy(config).decide(candidate(0.6, past), past)
    worse = policy(config).decide(candidate(0.4, past), past)
    assert (better.verdict, worse.verdict) == (Verdict.KEEP, Verdict.DISCARD)
    assert better.delta == pytest.approx(0.1)
    assert "accuracy 0.6000 is 0.1000 better than 0.5000 of experiment 0" in better.reason


def test_confidence_is_that_of_two_single_runs() -> None:
    """One standard deviation of a difference gives 81 %: Student's t of 4 degrees of freedom.

    A deviation that was set is not certain; a normal would say 84 %.
    """
    gain = 0.0006 * 2**0.5
    decision = policy().decide(candidate(1.2244 - gain, PAST, artifact_bytes=1), PAST)
    assert decision.confidence == pytest.approx(0.8130, abs=1e-4)
    assert "81.3 % confidence" in decision.reason


def test_unknown_noise_gives_no_confidence() -> None:
    """Where the settings do not say how noisy the metric is, none is claimed."""
    config = Config(preset="plain", metric=MetricConfig(name="val_bpb"))
    past = history([1.2244], config=config)
    decision = policy(config).decide(candidate(1.2, past), past)
    assert decision.verdict is Verdict.KEEP
    assert decision.confidence is None
    assert "noise unknown" in decision.reason


def test_a_kept_gain_within_the_noise_is_called_unproven() -> None:
    """The protocol's rule keeps it; the reason says what it is worth."""
    decision = policy().decide(candidate(1.2240, PAST, artifact_bytes=1), PAST)
    assert decision.verdict is Verdict.KEEP
    assert decision.reason.endswith("unproven: the gain is within the noise")


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(2.920, 2, 0.95), (6.314, 1, 0.95), (2.353, 3, 0.95), (1.812, 10, 0.95), (-2.920, 2, 0.05)],
)
def test_measured_noise_is_judged_by_students_t(t: float, freedom: int, p: float) -> None:
    """The quantiles of the usual tables; few runs measure the noise badly."""
    gain = t * policies.spread(0.002)
    assert policies.confidence(gain, 0.002, freedom=freedom) == pytest.approx(p, abs=2e-4)
    assert policies.student_bar(p, freedom) == pytest.approx(t, abs=2e-3)


def test_halving_the_score_in_one_step_is_looked_at_where_the_noise_was_measured() -> None:
    """No bound was set, so half the way to zero is it; a real gain of a quarter passes."""
    config = Config(preset="plain", metric=MetricConfig(name="val_bpb"))
    past = history([1.2244], config=config)
    assert past.baseline is not None
    run = past.baseline.runs[0]
    runs = [evolve(run, metrics={"val_bpb": score}) for score in (1.2230, 1.2250)]
    measured = evolve(past, experiments=past.experiments.set(0, evolve(past.baseline, runs=runs)))
    for score, verdict in ((0.5, Verdict.QUARANTINE), (0.9, Verdict.KEEP)):
        decision = policy(config).decide(candidate(score, measured), measured)
        assert decision.verdict is verdict
    assert "measured over 2 runs" in decision.reason
    unmeasured = policy(config).decide(candidate(0.5, past), past)
    assert unmeasured.verdict is Verdict.KEEP
    assert "noise unknown" in unmeasured.reason


@given(
    st.floats(-1, 1, allow_nan=False),
    st.floats(1e-6, 1, allow_nan=False),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_more_runs_never_make_less_sure(gain: float, sd: float, new: int, old: int) -> None:
    """Confidence stays within 0 and 1 and moves away from one half with every further run."""
    few, many = policies.confidence(gain, sd, new, old), policies.confidence(gain, sd, new + 1, old)
    assert few is not None
    assert many is not None
    assert 0 <= few <= 1
    assert abs(many - 0.5) >= abs(few - 0.5)
    assert (few - 0.5) * gain >= 0


def test_more_runs_of_the_best_are_averaged() -> None:
    """The incumbent's further seeds make the comparison sharper."""
    runs = tuple(
        Run(
            index=index,
            name=str(index),
            seed=index,
            status=RunStatus.COMPLETED,
            metrics={"val_bpb": 1.2},
        )
        for index in range(3)
    )
    assert policies.scored(experiment(1.2, runs=runs), "val_bpb") == 3
    assert policies.spread(0.0006, 1, 3) == pytest.approx(0.0006 * (4 / 3) ** 0.5)
