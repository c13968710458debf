"""The protocol's own policy: whatever scores better than the best is kept."""

from __future__ import annotations

from autoresearch.history import PROVEN, History
from autoresearch.hookspecs import Configured, hookimpl
from autoresearch.model import Candidate, Decision, Verdict
from autoresearch.policies import compare, first_score, refuse


class Plugin(Configured):
    """Keeps every improvement, however small; says which of them are not proven."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Always answer: keep, discard, crash or quarantine, with the reason in metric units."""
        refused = refuse(candidate, history, self._config)
        if refused is not None:
            return refused
        found = compare(candidate, history)
        if found is None:
            return first_score(candidate, history, self._config)
        better = found.gain > 0
        sure = found.confidence is None or found.confidence >= PROVEN
        doubt = "; unproven: the gain is within the noise" if better and not sure else ""
        return Decision(
            verdict=Verdict.KEEP if better else Verdict.DISCARD,
            reason=found.sentence + doubt,
            confidence=found.confidence,
            delta=found.delta,
        )
