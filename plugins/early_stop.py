"""Stops a doomed run: a loss that is not a number, or one far behind the best at the same step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import frozen

from autoresearch import Config, History, RunRequest, hookimpl, setting


@frozen(kw_only=True)
class Settings:
    """How bad a run must look; the defaults catch disasters and nothing else.

    Early scores order good runs poorly (rank correlation with the final score about 0.25 in the
    first tenth of a run, 0.5 at half), so a margin of a few per cent would kill winners.
    """

    margin: float = setting(
        0.1, "stop when behind by more than this share of the best run's value at that step"
    )
    from_step: int = setting(0, "never compare before this training step")
    losses: tuple[str, ...] = setting(
        ("train_loss", "val_loss", "loss"), "numbers of the log that must stay finite"
    )


class Plugin:
    """Compares with the kept best run, at the newest step at which both were evaluated."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.early_stop]``."""
        self._settings = config.settings("early_stop", Settings)

    @hookimpl
    def should_stop_run(
        self, request: RunRequest, observed: Mapping[str, float], history: History
    ) -> str | None:
        """Return why the run cannot win any more; None lets it go on."""
        for name in (history.metric, *self._settings.losses):
            if not math.isfinite(observed.get(name, 0.0)):
                return f"{name} is {observed[name]}, it has diverged"
        if history.best is None:
            return None
        now = _seen(history, request.experiment, request.name)
        best = _seen(history, history.best.number)
        return self._far_behind(now, best, history)

    def _far_behind(
        self, now: Mapping[int, float], best: Mapping[int, float], history: History
    ) -> str | None:
        step = max(now.keys() & best.keys(), default=-1)
        if step < self._settings.from_step:
            return None
        lost = history.gain(best[step], now[step])
        allowed = self._settings.margin * abs(best[step])
        if lost <= allowed:
            return None
        return (
            f"{history.metric} {now[step]:.4f} at step {step}, where the best run had "
            f"{best[step]:.4f}: behind by more than {allowed:.4f}"
        )


def _seen(history: History, number: int, name: str | None = None) -> dict[int, float]:
    """Return step to value of one run, or of all runs of an experiment."""
    runs = history.experiments[number].runs
    wanted = (run.observed for run in runs if name in (None, run.name))
    return {step: value for observed in wanted for step, value in observed.items()}
