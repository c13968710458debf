"""A noise-aware policy: keeps what is probably a true gain, pays seeds only where they decide."""

from __future__ import annotations

from statistics import NormalDist, fmean

from attrs import frozen

from autoresearch import policies
from autoresearch.config import setting
from autoresearch.history import History, gain_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.model import Candidate, Decision, Verdict
from autoresearch.text import counted

_STANDARD = NormalDist()
_USUAL_SHARE, _USUAL_WEIGHT = 0.25, 8  # of ideas that truly help, and how many tries that is worth


@frozen(kw_only=True)
class Settings:
    """The thresholds, as probabilities from 0 to 1 unless they say otherwise.

    ``noise_sds`` and ``smaller_bytes`` were measured for the challenge, on 353 groups of at least
    three seeds (median standard deviation 0.0006 bpb, 4.6 kB); ``least``, ``worth`` and
    ``effect_sds`` were chosen in the simulator, see docs/strategies.md.
    """

    confirmed_p: float = setting(0.05, "of all keeps this share may be expected to be no true gain")
    least: float = setting(0.95, "what is less probable to be a true gain is not kept")
    clear_p: float = setting(
        0.01, "one run is kept without a second when it is no true gain less often than this"
    )
    further_seeds: int = setting(2, "runs spent on an unclear gain; 0: none")
    worth: float = setting(
        0.15, "a further run is paid when it leads to a keep at least this often"
    )
    effect_sds: float = setting(
        3.0, "spread of the true effects of ideas, in standard deviations of the noise"
    )
    noise_sds: float = setting(0.8, "smaller differences are noise, in standard deviations")
    smaller_bytes: int = setting(
        10_700, "within the noise, keep when smaller by this; 1.65 sd of two runs' sizes (4.6 kB)"
    )
    correct_for_tries: bool = setting(
        True, "the fewer ideas of this campaign held, the more a gain has to show"
    )


@frozen(kw_only=True)
class Belief:
    """What is believed of a gain: its mean and standard deviation, in units of the metric."""

    mean: float
    sd: float


class Plugin(WithTable[Settings]):
    """Judges by probability; passes on when the noise is neither configured nor measured."""

    name, Settings = "evidence", Settings

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision | None:
        """Keep a true gain, rerun where that can decide, discard the rest; None: noise unknown."""
        if not policies.knows_noise(history, self._config):
            return None
        refused = policies.refuse(candidate, history, self._config)
        if refused is not None:
            return refused
        found = policies.compare(candidate, history)
        if found is None:
            return policies.first_score(candidate, history, self._config)
        runs = policies.scored(candidate.experiment, history.metric)
        judged = _Judged(history, self._settings, found.gain)
        sure = judged.sure(runs)
        verdict, why = self._judge(candidate, history, judged, runs, sure)
        return Decision(
            verdict=verdict,
            reason=f"{found.sentence}; {why}",
            confidence=sure,
            delta=found.delta,
        )

    def _judge(
        self, candidate: Candidate, history: History, judged: _Judged, runs: int, sure: float
    ) -> tuple[Verdict, str]:
        rules = self._settings
        room = self._room(history)
        needed = 1 - min(max(room, rules.confirmed_p / 5), 1 - rules.least)
        told = (
            f"a true improvement with {policies.percent(sure)} probability "
            f"after {counted(runs, 'run')}{judged.base}; {policies.percent(needed)} are needed"
        )
        left = rules.further_seeds - (runs - 1)
        if judged.gain > 0 and sure >= needed:
            if runs > 1 or left <= 0 or sure >= 1 - rules.clear_p:
                return Verdict.KEEP, told
            return Verdict.RERUN, f"{told}; a second run makes its score a fair bar"
        chance = judged.chance(runs, left, needed) if left > 0 else 0.0
        if chance >= rules.worth:
            return (
                Verdict.RERUN,
                f"{told}; {counted(left, 'further run')} would keep it with "
                f"{policies.percent(chance)} probability",
            )
        tie = _tie(candidate, history, judged.gain, rules.noise_sds * judged.noise.sd, rules)
        if tie and 1 - sure <= room:
            return Verdict.KEEP, f"{told}; within the noise and {tie}"
        if tie:
            return Verdict.DISCARD, f"{told}; {tie}, which takes more clear keeps beside it"
        why = "no run could change that" if left > 0 else "all runs are spent"
        return Verdict.DISCARD, f"{told}; {why}"

    def _room(self, history: History) -> float:
        """Return how improbable a keep may be as a gain, so that not too many of all are false.

        Clear keeps leave room for one that is less clear, or a tie: the expected share counts.
        """
        rules = self._settings
        kept = [item for item in history.kept if item.number != history.baseline_number]
        risks = [
            1 - item.decision.confidence
            for item in kept
            if item.decision and item.decision.confidence is not None
        ]
        return rules.confirmed_p * (len(risks) + 1) - sum(risks)


class _Judged:
    """A gain against the best, with what is known of ideas, the best's luck and the noise."""

    def __init__(self, history: History, rules: Settings, gain: float) -> None:
        self.noise, self.gain = history.noise, gain
        kept, tries = holding(history)
        share = (_USUAL_SHARE * _USUAL_WEIGHT + kept) / (_USUAL_WEIGHT + tries)
        share = share if rules.correct_for_tries else _USUAL_SHARE
        self.base = f", where {kept} of {counted(tries, 'idea')} held" if tries else ""
        self._spread = rules.effect_sds * self.noise.sd
        self._usual = self._spread * _STANDARD.inv_cdf(min(share, 0.5))
        best = history.best
        self._runs = policies.scored(best, history.metric) if best else 1
        chosen = best is not None and best.number != history.baseline_number
        self._was = gain_of(best, history) if best is not None and chosen else None

    def _of_best(self, sd: float) -> tuple[float, float]:
        """Return how much the best's score is expected to flatter it, and the variance of that.

        It was kept for looking good: of its gain over the one before a share was its own luck, a
        large one of a small gain and next to none of one that is far outside the noise.
        """
        own = sd**2 / self._runs
        if self._was is None:
            return 0.0, own
        was = abs(self._was)
        share = own / (max(self._spread, was) ** 2 + 2 * own)
        return share * max(was - self._usual, 0.0), own * (1 - share)

    def belief(self, runs: int, sd: float) -> Belief:
        """Return what is believed of the true gain after so many runs of the candidate."""
        luck, known = self._of_best(sd)
        variance, surprise = sd**2 / runs + known, self.gain + luck - self._usual
        weight = self._spread**2 / (self._spread**2 + variance)
        return Belief(mean=self._usual + weight * surprise, sd=(weight * variance) ** 0.5)

    def sure(self, runs: int) -> float:
        """Return the probability (0 to 1) that the gain is true, whatever the noise may be.

        It is the mean over the deviations that the noise may have. Were nothing known of ideas and
        of the best, this would be Student's t. What the gain itself says of the noise is left out:
        with effects taken as normal it would call every large one noise, and real ones have long
        tails.
        """
        beliefs = [self.belief(runs, sd) for sd in self.noise.likely]
        return fmean(_STANDARD.cdf(one.mean / one.sd) for one in beliefs)

    def chance(self, runs: int, more: int, needed: float) -> float:
        """Return the probability that ``more`` further runs make the gain as sure as needed."""
        sd = self.noise.sd
        now, then = self.belief(runs, sd), self.belief(runs + more, sd)
        moves = max(now.sd**2 - then.sd**2, 1e-18) ** 0.5
        freedom = self.noise.freedom  # further runs tell of the noise as well
        bar = policies.student_bar(needed, freedom + more) * then.sd
        return policies.student((now.mean - bar) / moves, freedom)


def holding(history: History) -> tuple[int, int]:
    """Return how many of the last 200 ideas that gave a score were kept, and of how many."""
    recent = [item for item in history.experiments[-200:] if item.number > history.baseline_number]
    judged = [item for item in recent if item.verdict in (Verdict.KEEP, Verdict.DISCARD)]
    known = [item for item in judged if history.score(item) is not None]
    return sum(item.verdict is Verdict.KEEP for item in known), len(known)


def _tie(candidate: Candidate, history: History, gain: float, band: float, rules: Settings) -> str:
    """Return what a score within the noise has for it: smaller, faster or simpler; or nothing."""
    best, made = history.best, candidate.experiment
    if best is None or not 0 <= gain <= band:
        return ""
    old = best.metrics.get(history.size)
    saved = 0 if old is None or candidate.artifact_bytes is None else old - candidate.artifact_bytes
    if saved >= rules.smaller_bytes:
        return f"{saved:,.0f} B smaller"
    if made.removed_lines > made.added_lines:
        return f"{made.removed_lines - made.added_lines} lines shorter"
    return ""
