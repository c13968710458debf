"""Signal 2: the kept changes together are worse than an earlier state, so go back to the best."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.events import Backtracked
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Backtrack, Experiment, Signal


@frozen(kw_only=True)
class Settings:
    """What counts as a series of keeps that went wrong."""

    series: int = setting(2, "kept experiments since the best")
    margin_sds: float = setting(
        1.42, "head must be worse by this many metric.sd; 1.42 is one sd of a two-run difference"
    )


class Plugin:
    """Answers when head lies behind the best, or when a released result is the best elsewhere."""

    def __init__(self) -> None:
        self._settings, self._sd = Settings(), 0.0

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.regression]`` and the metric's noise."""
        self._settings, self._sd = config.settings("regression", Settings), config.metric.sd

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Go back to the best experiment, or None while head is fine."""
        best, head = history.best, history.head
        if best is None or head is None or head == best.number:
            return None
        line = tuple(_ancestors(history, head))
        if best.number not in [item.number for item in line]:
            return _elsewhere(history, best)
        since = tuple(item for item in line if item.number > best.number)
        return self._worse(history, best, since)

    def _worse(
        self, history: History, best: Experiment, since: tuple[Experiment, ...]
    ) -> Backtrack | None:
        scores = [history.score(item) for item in since]
        if len(since) < self._settings.series or scores[0] is None or history.best_metric is None:
            return None
        loss = -history.gain(scores[0], history.best_metric)
        if loss <= self._settings.margin_sds * self._sd:
            return None
        kept = ", ".join(str(item.number) for item in reversed(since))
        return Backtrack(
            signal=Signal.REGRESSION,
            to_experiment=best.number,
            reason=f"after keeping {kept} {history.metric} is {loss:.4f} worse than that of "
            f"experiment {best.number}: the changes interact badly",
            experiments=tuple(item.number for item in reversed(since)),
        )


def _elsewhere(history: History, best: Experiment) -> Backtrack | None:
    # Once is enough: whoever leaves this best again does so on purpose.
    been_there = any(
        isinstance(entry, Backtracked) and entry.to_experiment == best.number
        for entry in history.timeline
    )
    if been_there or not best.commit:
        return None
    return Backtrack(
        signal=Signal.REGRESSION,
        to_experiment=best.number,
        reason=f"experiment {best.number} is now the best ({history.metric} "
        f"{history.score(best):.4f}) and head does not build on it",
        experiments=(best.number,),
    )


def _ancestors(history: History, number: int) -> Iterator[Experiment]:
    """Yield the kept experiments that a commit builds on, newest first, itself included."""
    by_commit = {item.commit: item for item in history.experiments if item.commit}
    item: Experiment | None = history.experiments[number]
    seen: set[int] = set()
    while item is not None and item.number not in seen:
        seen.add(item.number)
        yield item
        item = by_commit.get(item.parent_commit)
