"""Vetoes a small gain that makes the script longer: complexity has to be paid for."""

from __future__ import annotations

from collections.abc import Generator

from attrs import evolve, frozen

from autoresearch import Candidate, Config, Decision, History, Verdict, hookimpl, setting


@frozen(kw_only=True)
class Settings:
    """When a gain is small, and what a small gain may cost."""

    small_gain: float = setting(
        0.0, "a gain below this must not add lines, metric units; 0: two metric.sd"
    )
    free_lines: int = setting(0, "lines that a small gain may add all the same, net")


class Plugin:
    """Stands around every policy; it only ever turns a keep into a discard."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.simplicity_veto]``; without any threshold nothing is vetoed."""
        self._settings = config.settings("simplicity_veto", Settings)
        # A difference of two runs has sqrt(2) sd: below two sd a gain is not even one in ten sure.
        self._small = self._settings.small_gain or 2 * config.metric.sd

    @hookimpl(wrapper=True)
    def decide(
        self, candidate: Candidate, history: History
    ) -> Generator[None, Decision | None, Decision | None]:
        """Let the policies decide, and discard what they keep for a small gain with more lines."""
        decision = yield
        reason = self._objection(candidate, history)
        if decision is None or decision.verdict is not Verdict.KEEP or reason is None:
            return decision
        return evolve(decision, verdict=Verdict.DISCARD, reason=f"{reason}; {decision.reason}")

    def _objection(self, candidate: Candidate, history: History) -> str | None:
        if candidate.metric is None or history.best_metric is None:
            return None
        experiment = candidate.experiment
        gain = history.gain(candidate.metric, history.best_metric)
        longer = experiment.added_lines - experiment.removed_lines
        if gain >= self._small or longer <= self._settings.free_lines:
            return None
        return (
            f"too little for its length: a gain of {gain:.6f} is under {self._small:.6f}, "
            f"and the script grows by {longer} lines"
        )
