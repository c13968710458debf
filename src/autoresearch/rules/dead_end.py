"""Signal 1: several failures in a row in one direction make it a dead end."""

from __future__ import annotations

from autoresearch.config import Config
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Backtrack, Experiment, Signal, Verdict

_FAILURES = {Verdict.DISCARD, Verdict.CRASH}


class Plugin:
    """Counts within a direction: other experiments in between do not interrupt the series.

    A crash counts as a failed attempt, because the protocol answers it with a discard; a
    quarantined experiment neither counts nor ends the series, because nobody knows yet.
    """

    def __init__(self) -> None:
        self._config = Config()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Take ``rules.dead_end_discards``."""
        self._config = config

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Declare the direction of the newest experiment dead, once."""
        last = _last_decided(history)
        if (
            last is None
            or last.number <= history.baseline_number
            or last.idea.direction in history.dead_ends
        ):
            return None
        failed = failures_in_a_row(history, last.idea.direction)
        if len(failed) < self._config.rules.dead_end_discards:
            return None
        return Backtrack(
            signal=Signal.DEAD_END,
            direction=last.idea.direction,
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


def _last_decided(history: History) -> Experiment | None:
    numbers = [entry for entry in history.timeline if isinstance(entry, int)]
    return history.experiments[numbers[-1]] if numbers else None


def _why(failed: tuple[Experiment, ...], history: History) -> str:
    told = ", ".join(f"{item.number} ({_outcome(item, history)})" for item in failed[-5:])
    return f"{len(failed)} failed attempts in a row: {told}"


def _outcome(item: Experiment, history: History) -> str:
    score = history.score(item)
    return item.verdict or "open" if score is None else f"{history.metric} {score:.4f}"
