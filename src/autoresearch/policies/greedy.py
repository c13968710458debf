"""The protocol's own policy: keep what scores better and fits, and say how sure that is."""

from __future__ import annotations

from autoresearch.config import Config
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Candidate, Decision, Verdict
from autoresearch.policies import judging


class Plugin:
    """Keeps every improvement, however small; the confidence tells how far to trust it."""

    def __init__(self) -> None:
        self._config = Config()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Remember the limits and the noise of the campaign."""
        self._config = config

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Always answer: keep, discard, crash or quarantine, with the reason in metric units."""
        refused = judging.refuse(candidate, history, self._config)
        if refused is not None:
            return refused
        found = judging.compare(candidate, history, self._config.metric.sd)
        if found is None:
            return first_score(candidate, history)
        better = found.gain > 0
        return Decision(
            verdict=Verdict.KEEP if better else Verdict.DISCARD,
            reason=found.sentence,
            confidence=found.confidence,
            delta=found.delta,
        )


def first_score(candidate: Candidate, history: History) -> Decision:
    """Keep the first score of a campaign: it is what everything after it has to beat."""
    what = "the baseline" if candidate.experiment.number == 0 else "the first score within limits"
    return Decision(
        verdict=Verdict.KEEP, reason=f"{history.metric} {candidate.metric:.4f} is {what}"
    )
