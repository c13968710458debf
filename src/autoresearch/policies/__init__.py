"""Built-in judges: what a run's numbers are, what they mean, and what to do about them.

Here is what every policy checks first: limits, rules, noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, cos, pi, sin
from statistics import NormalDist

from attrs import frozen

from autoresearch.config import Config
from autoresearch.history import History, spread
from autoresearch.model import Candidate, Decision, Experiment, RunStatus, Verdict
from autoresearch.projections.memory import SEEDLESS

_STANDARD = NormalDist()
_FAR_SDS = 20.0
_ENDINGS = {
    RunStatus.CRASHED: "the run crashed",
    RunStatus.TIMED_OUT: "the run was killed at its deadline",
    RunStatus.INFRA_FAILED: "the machine failed and no run finished: no fault of the change",
    RunStatus.COMPLETED: "the run ended without a finite score",
    RunStatus.STOPPED_EARLY: "the run was stopped early as hopeless",
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
    noise: str = ""

    @property
    def sentence(self) -> str:
        """The comparison in one clause, in the metric's own units."""
        if self.gain == 0:
            relation = "equal to"
        else:
            relation = f"{abs(self.gain):.4f} {'better' if self.gain > 0 else 'worse'} than"
        return (
            f"{self.metric} {self.score:.4f} is {relation} {self.best:.4f} "
            f"of experiment {self.number} ({likelihood(self.confidence)}{self.noise})"
        )


def compare(candidate: Candidate, history: History) -> Comparison | None:
    """Compare a candidate with the best so far; None where one of the two has no score."""
    best, score, noise = history.best_metric, candidate.metric, history.noise
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
        confidence=confidence(
            gain, noise.sd, runs, scored(history.best, history.metric), noise.freedom
        ),
        metric=history.metric,
        noise=f"; {noise.source}" if noise.own else "",
    )


def knows_noise(history: History, config: Config) -> bool:
    """Whether the noise was set or measured: an estimate from discards is no evidence."""
    noise = history.noise
    return noise.sd > 0 and (noise.measured or config.metric.sd > 0)


def confidence(
    gain: float, sd: float, new_runs: int = 1, old_runs: int = 1, freedom: int = 0
) -> float | None:
    """Return the probability (0 to 1) that a measured ``gain`` is not luck, None when sd is 0.

    The difference of the means of ``new_runs`` and ``old_runs`` runs has the standard deviation
    ``sd * sqrt(1 / new_runs + 1 / old_runs)``, so ``sd * sqrt(2)`` for two single runs. It is
    taken as Student's t with the ``freedom`` that ``sd`` has, as normal with 0 for a certain one.
    """
    if sd <= 0:
        return None
    return student(gain / spread(sd, new_runs, old_runs), freedom)


def student(t: float, freedom: int) -> float:
    """Return the share of Student's t below ``t``; normal for 0 or many degrees of freedom.

    The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    if not 0 < freedom <= 100:
        return _STANDARD.cdf(t)
    odd, angle = freedom % 2, atan2(t, freedom**0.5)
    term, total = (cos(angle) if odd else 1.0), 0.0
    for number in range(1 + odd, freedom, 2):
        total += term
        term *= cos(angle) ** 2 * number / (number + 1)
    total *= sin(angle)
    return 0.5 + ((angle + total) / pi if odd else total / 2)


def student_bar(share: float, freedom: int) -> float:
    """Return the value that a share (0 to 1) of Student's t lies below, found by halving."""
    low, high = -1e4, 1e4
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if student(middle, freedom) < share else (low, middle)
    return high


def scored(experiment: Experiment, metric: str) -> int:
    """Return how many completed runs of an experiment have a score; at least 1."""
    return max(1, sum(run.counts and metric in run.metrics for run in experiment.runs))


def likelihood(probability: float | None) -> str:
    """Return the probability of a real gain (0 to 1) as how sure the gain, or else the loss, is."""
    if probability is None:
        return "noise unknown, so no confidence"
    if probability < 0.5:  # more likely a loss, so say how sure that is
        return likelihood(1 - probability).replace("gain", "loss")
    return f"a real gain with {percent(probability)} confidence"


def percent(probability: float) -> str:
    """Return a probability (0 to 1) in words; nothing measured is certain, or impossible."""
    if not 0.001 <= probability <= 0.999:
        return "over 99.9 %" if probability > 0.5 else "under 0.1 %"
    return f"{probability:.1%}".replace("%", " %")


def refuse(candidate: Candidate, history: History, config: Config) -> Decision | None:
    """Return the verdict that no score can change: crash, quarantine, too large; None if none.

    The order is that of the protocol: a run without a score is a crash, a broken rule outweighs
    any score, a too large artifact outweighs any gain, and a gain over
    ``config.metric.implausible_gain`` is for a person to look at.
    """
    return (
        _without_score(candidate, history)
        or _broken_rule(candidate)
        or _too_large(candidate, config.limits.artifact_bytes)
        or _implausible(candidate, history, config)
    )


def _without_score(candidate: Candidate, history: History) -> Decision | None:
    status = candidate.status
    if status is RunStatus.STOPPED_EARLY:
        why = ending(candidate.experiment, status, history)
        return Decision(verdict=Verdict.DISCARD, reason=why)
    if candidate.metric is None or status in (RunStatus.CRASHED, RunStatus.TIMED_OUT):
        return Decision(verdict=Verdict.CRASH, reason=ending(candidate.experiment, status, history))
    return None


def ending(experiment: Experiment, status: RunStatus, history: History) -> str:
    """Return how a run without a usable score ended, and what it had shown of the metric before."""
    run = experiment.runs[-1] if experiment.runs else None
    told = _ENDINGS[status]
    if run is None or status is RunStatus.INFRA_FAILED:
        return told
    if run.detail:
        again = run.detail.startswith(told.removeprefix("the run was "))
        told = f"the run was {run.detail}" if again else f"{told}: {run.detail}"
    if history.metric in run.metrics:
        return f"{told} after it had printed {history.metric} {run.metrics[history.metric]:.4f}"
    if run.observed and f"{history.metric} " not in run.detail:
        step = max(run.observed)
        value = f"{history.metric} {run.observed[step]:.4f} at step {step}"
        return f"{told}; the last value seen was {value}"
    return told


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
    found = compare(candidate, history)
    if found is None or candidate.experiment.number == 0:
        return None
    limit = config.metric.implausible_gain or _derived_limit(found, history)
    if limit <= 0 or found.gain <= limit:
        return None
    return Decision(
        verdict=Verdict.QUARANTINE,
        reason=f"{found.sentence}; a gain over {limit:.4g} in one step is too good to believe",
        confidence=found.confidence,
        delta=found.delta,
    )


def _derived_limit(found: Comparison, history: History) -> float:
    """Return the bound where none is set: half the way to a perfect 0, if far outside the noise.

    A loss halved in one step is rare in research and common in mistakes; of a score that has no
    natural end, or whose noise was not measured, no gain is called impossible.
    """
    noise = history.noise
    if not noise.measured or not history.lower_is_better or min(found.best, found.score) < 0:
        return 0.0
    return max(found.best / 2, _FAR_SDS * noise.sd)


def first_score(candidate: Candidate, history: History, config: Config) -> Decision:
    """Keep the first score of a campaign: it is what everything after it has to beat.

    A cheap baseline is repeated first, so that the noise is known before anything is compared.
    """
    experiment = candidate.experiment
    first = experiment.number == history.baseline_number
    if first and (why := _worth_repeating(experiment, history, config)):
        return Decision(verdict=Verdict.RERUN, reason=why)
    what = "the baseline" if first else "the first score within limits"
    return Decision(
        verdict=Verdict.KEEP,
        reason=f"{history.metric} {candidate.metric:.4f} is {what}"
        + (f" ({history.noise.source})" if history.noise.measured else "")
        + (f"; {SEEDLESS}" if first and _silent(history.scores(experiment)) else ""),
    )


def _silent(scores: Sequence[float]) -> bool:
    return len(scores) > 1 and len(set(scores)) == 1


def _worth_repeating(experiment: Experiment, history: History, config: Config) -> str:
    """Return why the baseline runs again, empty where it does not: it is dear, or tells nothing."""
    done, wanted = len(experiment.runs), min(config.noise.runs, 1 + config.limits.reruns)
    scores = history.scores(experiment)
    cheap = experiment.seconds / max(done, 1) * wanted <= config.noise.budget_seconds
    free = history.spent.usd == 0
    if config.metric.sd > 0 or done >= wanted or _silent(scores) or not (cheap and free):
        return ""
    return f"the noise is unknown: run {done + 1} of {wanted} of the baseline, with another seed"
