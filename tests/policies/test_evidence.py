"""The noise-aware policy: clear, unclear, confirmed, and within the noise."""

from __future__ import annotations

from random import Random

import pytest
from attrs import evolve

from autoresearch.config import Config, MetricConfig
from autoresearch.errors import ConfigError
from autoresearch.history import History
from autoresearch.model import Candidate, Decision, Run, RunStatus, Verdict
from autoresearch.policies import evidence, greedy
from autoresearch.testing import DecisionPolicyContract, candidate, experiment, history

SD = 0.0006


class TestContract(DecisionPolicyContract):
    """It is a sound decision policy."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return evidence.Plugin


def campaign(**settings: object) -> Config:
    """Return the configuration of a campaign on val_bpb with this policy's settings."""
    return Config(
        preset="plain",
        metric=MetricConfig(name="val_bpb", sd=SD),
        plugins={"evidence": settings},
    )


def policy(config: Config | None = None) -> evidence.Plugin:
    """Return the policy as a campaign would have it."""
    made = evidence.Plugin()
    made.configure(config or campaign())
    return made


def seeds(past: History, scores: list[float], **fields: object) -> Candidate:
    """Return a candidate with one completed run for each score, judged by their mean."""
    runs = tuple(
        Run(
            index=number,
            name=f"run-{number}",
            seed=1337 + number,
            status=RunStatus.COMPLETED,
            metrics={"val_bpb": score},
        )
        for number, score in enumerate(scores)
    )
    made = candidate(sum(scores) / len(scores), past, **fields)
    return evolve(made, experiment=evolve(made.experiment, runs=runs))


def judge(past: History, scores: list[float], **fields: object) -> Decision:
    """Return the decision, which must be there."""
    decision = policy().decide(seeds(past, scores, **fields), past)
    assert decision is not None
    return decision


PAST = history([1.2244], config=campaign())


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.0021, Verdict.KEEP),
        (0.0019, Verdict.RERUN),
        (0.0006, Verdict.RERUN),
        (0.0004, Verdict.DISCARD),
        (-0.0004, Verdict.DISCARD),
        (-0.01, Verdict.DISCARD),
    ],
)
def test_one_run_is_kept_only_when_luck_is_ruled_out(gain: float, verdict: Verdict) -> None:
    """At a noise of 0.0006 one run needs 0.0020, as measured for the challenge (p < 0.01)."""
    assert judge(PAST, [1.2244 - gain]).verdict is verdict


def test_a_gain_within_the_noise_is_kept_when_it_saves_bytes() -> None:
    """Smaller at the same score is progress; smaller by less than chance is not."""
    base = experiment(1.2244, metric="val_bpb", metrics={"artifact_bytes": 15_900_000})
    past = history([base], config=campaign())
    assert judge(past, [1.2245], artifact_bytes=15_880_000).verdict is Verdict.KEEP
    assert judge(past, [1.2245], artifact_bytes=15_895_000).verdict is Verdict.DISCARD
    assert judge(past, [1.2254], artifact_bytes=15_000_000).verdict is Verdict.DISCARD


def test_further_seeds_decide_by_themselves() -> None:
    """The first run was chosen for looking good, so only the seeds after it count."""
    confirmed = judge(PAST, [1.2230, 1.2228, 1.2227])
    assert confirmed.verdict is Verdict.KEEP
    assert "confirmed" in confirmed.reason
    lucky = judge(PAST, [1.2150, 1.2240, 1.2242])
    assert lucky.verdict is Verdict.DISCARD
    assert "not confirmed" in lucky.reason


def test_a_second_seed_that_shows_nothing_ends_it() -> None:
    """No further money is spent once the first fresh seed is no better than the best."""
    assert judge(PAST, [1.2230, 1.2244]).verdict is Verdict.DISCARD
    assert judge(PAST, [1.2230, 1.2235]).verdict is Verdict.RERUN


def test_reruns_end() -> None:
    """However unclear, the configured number of further seeds is never exceeded."""
    past, scores = PAST, [1.2234]
    while judge(past, scores).verdict is Verdict.RERUN:
        scores.append(1.2234)
        assert len(scores) < 4
    assert len(scores) == 3


def test_reruns_can_be_switched_off() -> None:
    """Without further seeds an unclear gain is a discard that says so."""
    found = policy(campaign(further_seeds=0)).decide(seeds(PAST, [1.2230]), PAST)
    assert found is not None
    assert found.verdict is Verdict.DISCARD
    assert "switched off" in found.reason


def test_many_tries_raise_the_bar() -> None:
    """After twenty ideas without effect the same gain is luck more often, so it is rerun."""
    many = history([1.2244, *([1.2246] * 20)], config=campaign())
    assert evidence.tries_since_best(many) == 21
    assert judge(PAST, [1.2222]).verdict is Verdict.KEEP
    assert judge(many, [1.2222]).verdict is Verdict.RERUN


@pytest.mark.parametrize("tries", [1, 2, 20, 200])
def test_the_correction_keeps_the_chance_of_a_lucky_keep(tries: int) -> None:
    """The chance that the luckiest of independent null tries is kept stays at p."""
    p = evidence.corrected(0.01, tries)
    assert 1 - (1 - p) ** tries == pytest.approx(0.01)


def test_ideas_without_effect_are_rarely_kept() -> None:
    """Of 300 campaigns of 20 null ideas under a tenth keep one at once; greed keeps one in nearly
    all. Above p = 0.01 only because all 20 share the luck of one incumbent's single run."""
    rng = Random(7)
    needed = greedy.threshold(evidence.corrected(0.01, 20), SD)
    gains = [
        max(best - rng.gauss(1.2244, SD) for _ in range(20))
        for best in (rng.gauss(1.2244, SD) for _ in range(300))
    ]
    assert sum(gain > needed for gain in gains) < 30
    assert sum(gain > 0 for gain in gains) > 270


def test_without_noise_it_measures_or_passes_on() -> None:
    """Unknown noise is taken from experiments with several seeds; without any it passes on."""
    config = Config(preset="plain", metric=MetricConfig(name="val_bpb"))
    past = history([1.2244], config=config)
    assert policy(config).decide(seeds(past, [1.2000]), past) is None
    runs = seeds(past, [1.2230, 1.2250]).experiment.runs
    measured = evolve(past, experiments=past.experiments.set(0, evolve(past.baseline, runs=runs)))
    assert measured.noise.sd == pytest.approx(0.00141421, rel=1e-4)
    assert measured.noise.freedom == 1
    decision = policy(config).decide(seeds(measured, [1.2000]), measured)
    assert decision is not None
    # Two runs say little of the noise: the same gain is clear where it was measured often.
    assert decision.verdict is Verdict.RERUN
    assert "measured over 2 runs of 1 experiments" in decision.reason


def test_a_misspelt_setting_is_refused() -> None:
    """The table of the plugin is checked when the campaign opens."""
    with pytest.raises(ConfigError, match="further_seeds"):
        policy(campaign(futher_seeds=1))
