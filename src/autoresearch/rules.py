"""Built-in backtracking rules, one for each of the protocol's three signals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from attrs import frozen

from autoresearch.config import setting
from autoresearch.history import History, parent_of
from autoresearch.hookspecs import Configured, WithTable, hookimpl
from autoresearch.model import Backtrack, Experiment, Signal, Verdict

# --- signal 1: several failures in a row in one direction make it a dead end -----------------

_FAILURES = {Verdict.DISCARD, Verdict.CRASH}
_PARALLEL = 200  # newest decisions that are looked through: many more than are under way at once


class DeadEnd(Configured):
    """Counts within a direction: other experiments in between do not interrupt the series.

    A crash counts as a failed attempt, because the protocol answers it with a discard; a
    quarantined experiment neither counts nor ends the series, because no one knows yet.
    """

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Declare the direction of the newest experiment dead, once."""
        last = history.last_decided
        if last is None or last <= history.baseline_number:
            return None
        direction = history.experiments[last].idea.direction
        if history.dead(direction) is not None:
            return None
        failed = failures_in_a_row(history, direction)
        if len(failed) < self._config.rules.dead_end_discards:
            return None
        return Backtrack(
            signal=Signal.DEAD_END,
            direction=direction,
            reason=_why(failed, history),
            experiments=tuple(item.number for item in failed),
        )


def failures_in_a_row(history: History, direction: str) -> tuple[Experiment, ...]:
    """Return the newest failed experiments of a direction, oldest first, up to its last keep."""
    failed: list[Experiment] = []
    for item in history.recent(direction):
        if item.verdict is Verdict.KEEP:
            break
        if item.verdict in _FAILURES:
            failed.append(item)
    return tuple(reversed(failed))


def _why(failed: tuple[Experiment, ...], history: History) -> str:
    told = ", ".join(f"{item.number} ({_outcome(item, history)})" for item in failed[-5:])
    return f"{len(failed)} failed attempts in a row: {told}"


def _outcome(item: Experiment, history: History) -> str:
    score = history.score(item)
    return item.verdict or "open" if score is None else f"{history.metric} {score:.4f}"


# --- signal 2: the kept changes together are worse than an earlier state: back to the best ----


@frozen(kw_only=True)
class RegressionSettings:
    """What counts as a series of keeps that went wrong."""

    series: int = setting(2, "kept experiments since the best")
    margin_sds: float = setting(
        1.42, "head must be worse by this many metric.sd; 1.42 is one sd of a two-run difference"
    )


class Regression(WithTable[RegressionSettings]):
    """Answers when head lies behind the best, or when a released result is the best elsewhere."""

    name, Settings = "regression", RegressionSettings

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
        if loss <= self._settings.margin_sds * history.noise.sd:
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
    # Once is enough: whoever leaves this best, or has built on it, does so on purpose.
    been_there = any(event.to_experiment == best.number for event in history.backtracks)
    built_on = any(item.built_on == best.number for item in history.experiments[best.number :])
    if been_there or built_on or not best.commit:
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
    item: Experiment | None = history.experiments[number]
    seen: set[int] = set()
    while item is not None and item.number not in seen:
        seen.add(item.number)
        yield item
        item = parent_of(item, history) if item.parent_commit else None


# --- signal 3: the last experiments brought next to nothing, so something radical is due ------


class Plateau(Configured):
    """Looks at the newest window of experiments; a window is judged once."""

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Declare a plateau without moving head, or None while there is progress."""
        rules = self._config.rules
        window = newest_window(history, rules.plateau_experiments)
        if not window:
            return None
        gained = progress(history, window)
        if gained is None or gained >= rules.plateau_gain:
            return None
        return Backtrack(
            signal=Signal.PLATEAU,
            reason=f"experiments {window[0].number} to {window[-1].number} gained {gained:.4f} "
            f"{history.metric} in all, less than {rules.plateau_gain:g}",
            experiments=tuple(item.number for item in window),
        )


def newest_window(history: History, size: int) -> tuple[Experiment, ...]:
    """Return the newest ``size`` experiments decided since the last plateau, or none if fewer."""
    newest = history.plateaus[-_PARALLEL:]
    done = max((max(item.experiments, default=0) for item in newest), default=0)
    recent = reversed(history.timeline[-max(size, 0) - _PARALLEL :])
    newest_first = (entry for entry in recent if isinstance(entry, int))
    fresh = tuple(islice((number for number in newest_first if number > done), max(size, 0)))
    if size <= 0 or len(fresh) < size:
        return ()
    return tuple(history.experiments[number] for number in reversed(fresh))


def progress(history: History, window: tuple[Experiment, ...]) -> float | None:
    """Return by how much the best score got better within the window; None without a score."""
    first = window[0].number
    before = _best(history, (item for item in history.kept if item.number < first))
    after = _best(history, history.kept)
    if before is None or after is None:
        return None
    return max(0.0, history.gain(after, before))


def _best(history: History, experiments: Iterable[Experiment]) -> float | None:
    scores = [history.score(item) for item in experiments if item.verdict is Verdict.KEEP]
    known = [score for score in scores if score is not None]
    return (min(known) if history.lower_is_better else max(known)) if known else None
