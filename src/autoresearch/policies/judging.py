"""What every decision policy checks first, and how sure a comparison of noisy scores can be."""

from __future__ import annotations

from statistics import NormalDist

from attrs import frozen

from autoresearch.config import Config
from autoresearch.history import History
from autoresearch.model import Candidate, Decision, Experiment, RunStatus, Verdict

_STANDARD = NormalDist()
_ENDINGS = {
    RunStatus.CRASHED: "the run crashed",
    RunStatus.TIMED_OUT: "the run was killed at its deadline",
    RunStatus.INFRA_FAILED: "the machine failed and no run finished",
    RunStatus.COMPLETED: "the run ended without a score",
}


@frozen(kw_only=True)
class Comparison:
    """A score held against the best; ``gain`` is positive when better, ``delta`` is the raw sign.

    ``confidence`` is the probability (0 to 1) that the gain is real, None when the noise is unknown
    or there is nothing to compare with.
    """

    score: float
    best: float
    number: int
    gain: float
    delta: float
    confidence: float | None
    metric: str

    @property
    def sentence(self) -> str:
        """The comparison in one clause, in the metric's own units."""
        if self.gain == 0:
            relation = "equal to"
        else:
            relation = f"{abs(self.gain):.4f} {'better' if self.gain > 0 else 'worse'} than"
        return (
            f"{self.metric} {self.score:.4f} is {relation} {self.best:.4f} "
            f"of experiment {self.number} ({surety(self.confidence)})"
        )


def compare(candidate: Candidate, history: History, sd: float) -> Comparison | None:
    """Compare a candidate with the best so far; None where one of the two has no score."""
    best, score = history.best_metric, candidate.metric
    if history.best is None or best is None or score is None:
        return None
    gain = history.gain(score, best)
    runs = scored(candidate.experiment, history.metric)
    return Comparison(
        score=score,
        best=best,
        number=history.best.number,
        gain=gain,
        delta=score - best,
        confidence=confidence(gain, sd, runs, scored(history.best, history.metric)),
        metric=history.metric,
    )


def confidence(gain: float, sd: float, new_runs: int = 1, old_runs: int = 1) -> float | None:
    """Return the probability (0 to 1) that a measured ``gain`` is not luck, None when sd is 0.

    Normal approximation: the difference of the means of ``new_runs`` and ``old_runs`` runs has
    the standard deviation ``sd * sqrt(1 / new_runs + 1 / old_runs)``, so ``sd * sqrt(2)`` for two
    single runs.
    """
    if sd <= 0:
        return None
    return _STANDARD.cdf(gain / spread(sd, new_runs, old_runs))


def spread(sd: float, new_runs: int = 1, old_runs: int = 1) -> float:
    """Return the standard deviation of the difference of two means, in the unit of ``sd``."""
    return float(sd * (1 / max(new_runs, 1) + 1 / max(old_runs, 1)) ** 0.5)


def threshold(p: float, sd: float, new_runs: int = 1, old_runs: int = 1) -> float:
    """Return the gain that luck alone reaches with probability ``p`` (one-sided)."""
    return _STANDARD.inv_cdf(1 - p) * spread(sd, new_runs, old_runs)


def scored(experiment: Experiment, metric: str) -> int:
    """Return how many completed runs of an experiment have a score; at least 1."""
    done = [run for run in experiment.runs if run.status is RunStatus.COMPLETED]
    return max(1, sum(metric in run.metrics for run in done))


def surety(probability: float | None) -> str:
    """Return the probability of a real gain in words that claim no more than is known."""
    if probability is None:
        return "noise unknown, so no confidence"
    if probability > 0.999:
        return "a real gain with over 99.9 % confidence"
    if probability < 0.001:
        return "a real gain with under 0.1 % confidence"
    return f"a real gain with {probability:.1%} confidence".replace("%", " %")


def refuse(candidate: Candidate, history: History, config: Config) -> Decision | None:
    """Return the verdict that no score can change: crash, quarantine, too large; None if none.

    The order is that of the protocol: a run without a score is a crash, a broken rule outweighs
    any score, a too large artifact outweighs any gain, and a gain over
    ``config.metric.implausible_gain`` is for a person to look at.
    """
    return (
        _without_score(candidate)
        or _broken_rule(candidate)
        or _too_large(candidate, config.limits.artifact_bytes)
        or _implausible(candidate, history, config)
    )


def _without_score(candidate: Candidate) -> Decision | None:
    status = candidate.status
    if status is RunStatus.STOPPED_EARLY:
        return Decision(verdict=Verdict.DISCARD, reason="the run was stopped early as hopeless")
    if candidate.metric is None or status in (RunStatus.CRASHED, RunStatus.TIMED_OUT):
        return Decision(verdict=Verdict.CRASH, reason=_ENDINGS[status])
    return None


def _broken_rule(candidate: Candidate) -> Decision | None:
    broken = [item for item in candidate.violations if item.blocks]
    if not broken:
        return None
    rules = "; ".join(f"{item.rule}: {item.detail}" for item in broken[:3])
    return Decision(verdict=Verdict.QUARANTINE, reason=f"the result breaks a rule: {rules}")


def _too_large(candidate: Candidate, limit: int) -> Decision | None:
    size = candidate.artifact_bytes
    if limit <= 0 or (size is not None and size < limit):
        return None
    if size is None:
        reason = f"the artifact's size is not known, so it cannot be shown to be under {limit:,} B"
    else:
        reason = f"the artifact has {size:,} B and must be under {limit:,} B"
    return Decision(verdict=Verdict.DISCARD, reason=reason)


def _implausible(candidate: Candidate, history: History, config: Config) -> Decision | None:
    limit, found = config.metric.implausible_gain, compare(candidate, history, config.metric.sd)
    if limit <= 0 or found is None or found.gain <= limit or candidate.experiment.number == 0:
        return None
    return Decision(
        verdict=Verdict.QUARANTINE,
        reason=f"{found.sentence}; a gain over {limit:g} in one step is too good to believe",
        confidence=found.confidence,
        delta=found.delta,
    )
