"""Stops a doomed run: a number that is not finite, or a curve that cannot catch up any more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from attrs import frozen

from autoresearch.config import setting
from autoresearch.history import History, spread
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.model import Experiment, Run, RunRequest
from autoresearch.policies import student

_RECENT = 50  # decided experiments that are looked at, so that it costs the same for ever


@frozen(kw_only=True)
class Settings:
    """How sure it must be that a run loses before it is stopped; see docs/stages.md."""

    confidence: float = setting(0.99, "a run that loses with this probability is stopped")
    curves: int = setting(5, "finished runs with a curve that must be known before")
    margin: float = setting(
        0.1, "until then, behind by more than this share of the best's value at that step"
    )
    from_step: int = setting(0, "never compare before this training step")
    losses: tuple[str, ...] = setting(
        ("train_loss", "val_loss", "loss"), "numbers of the log that must stay finite"
    )


class Plugin(WithTable[Settings]):
    """Compares with the curve of the best at the newest step at which both were evaluated."""

    name, Settings = "curves", Settings

    @hookimpl
    def should_stop_run(
        self, request: RunRequest, observed: Mapping[str, float], history: History
    ) -> str | None:
        """Return why the run cannot win any more; None lets it go on."""
        for name in (history.metric, *self._settings.losses):
            if not math.isfinite(observed.get(name, 0.0)):
                return f"{name} is {observed[name]}, it has diverged"
        runs = history.experiments[request.experiment].runs
        run = next((item for item in runs if item.name == request.name), None)
        best = () if history.best is None else finished(history, [history.best])
        if run is None or run.control or not best:
            return None
        return self._behind(run, best[0], history)

    def _behind(self, run: Run, best: Run, history: History) -> str | None:
        step = max(run.observed.keys() & best.observed.keys(), default=-1)
        if step < self._settings.from_step:
            return None
        there, now = best.observed[step], run.observed[step]
        lost = history.gain(there, now)
        told = f"{history.metric} {now:.4f} at step {step}, where the best run had {there:.4f}"
        caught = caught_up(step, best, finished(history, history.decided[-_RECENT:]), history)
        if len(caught) < max(2, self._settings.curves):
            allowed = self._settings.margin * abs(there)
            return f"{told}: behind by more than {allowed:.4f}" if lost > allowed else None
        sure = loses(lost, caught)
        told += f": it loses with {100 * sure:.1f} % probability, since {len(caught)} finished runs"
        told += f" came nearer by {fmean(caught):.4f} on average from there on"
        return told if sure >= self._settings.confidence else None


def finished(history: History, experiments: Iterable[Experiment]) -> list[Run]:
    """Return the runs of some experiments that have a curve and a score in the stage."""
    runs = (run for item in experiments for run in item.runs if run.stage == history.stage)
    return [run for run in runs if run.counts and run.observed and history.metric in run.metrics]


def caught_up(step: int, best: Run, known: Iterable[Run], history: History) -> list[float]:
    """Return by how much each finished run came nearer to the best from a step to its end."""
    name = history.metric
    return [
        history.gain(best.observed[step], run.observed[step])
        - history.gain(best.metrics[name], run.metrics[name])
        for run in known
        if run is not best and step in run.observed
    ]


def loses(lost: float, caught: Sequence[float]) -> float:
    """Return the probability (0 to 1) that a run that is behind by ``lost`` does not catch up.

    How much it will come nearer is taken as one more draw of what others did, by Student's t.
    """
    sd = spread(max(stdev(caught), 1e-12), 1, len(caught))
    return student((lost - fmean(caught)) / sd, len(caught) - 1)
