"""What a campaign's own experiments say about each hyperparameter, read from their descriptions."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from autoresearch.history import History
from autoresearch.ideas.families import Family
from autoresearch.ideas.literals import Value
from autoresearch.model import Experiment, Verdict

_CHANGE = re.compile(r"([A-Za-z_]\w*) (\S+) -> ([^\s,;]+)")


@frozen(kw_only=True)
class Trial:
    """One decided experiment that changed hyperparameters: name to (old, new) value.

    ``gain`` is against the best of its time, positive when better, None when there was no score.
    """

    number: int
    changes: Mapping[str, tuple[Value, Value]]
    gain: float | None
    verdict: Verdict

    @property
    def single(self) -> str | None:
        """The only name that was changed, None when there were several."""
        return next(iter(self.changes)) if len(self.changes) == 1 else None


def describe(changes: Mapping[str, tuple[Value, Value]]) -> str:
    """Return ``NAME old -> new, ...``, the form that `trials` reads back."""
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())


def parse(description: str) -> dict[str, tuple[Value, Value]]:
    """Return the changes that a description names; empty for any other description."""
    found: dict[str, tuple[Value, Value]] = {}
    for name, old, new in _CHANGE.findall(description):
        before, after = _value(old), _value(new)
        if before is not None and after is not None:
            found[name] = (before, after)
    return found


def _value(text: str) -> Value | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, (bool, int, float)) else None


def trials(history: History) -> tuple[Trial, ...]:
    """Return every decided experiment that changed hyperparameters, oldest first."""
    return tuple(
        Trial(
            number=item.number,
            changes=changes,
            gain=_gain(item, history),
            verdict=item.verdict,
        )
        for item in history.decided
        if item.verdict is not None and (changes := parse(item.idea.description))
    )


def _gain(item: Experiment, history: History) -> float | None:
    if history.score(item) is None or item.decision is None or item.decision.delta is None:
        return None
    return -item.decision.delta if history.lower_is_better else item.decision.delta


def of(name: str, known: Iterable[Trial]) -> tuple[Trial, ...]:
    """Return the trials that changed this name alone, newest first."""
    return tuple(trial for trial in reversed(tuple(known)) if trial.single == name)


def near_misses(known: Iterable[Trial], near: float) -> tuple[Trial, ...]:
    """Return the single-change discards that lost at most ``near``, the least loss first."""
    missed = [
        trial
        for trial in known
        if trial.single and trial.verdict is Verdict.DISCARD and trial.gain is not None
        if trial.gain >= -near
    ]
    return tuple(sorted(missed, key=lambda trial: (-(trial.gain or 0.0), trial.number)))


def expected_gain(
    kind: Family, old: float, new: float, seen: Iterable[Trial], scale: float
) -> float:
    """Predict the gain of moving a value, from trials of the same name, newest first.

    Untried: the family's weight times ``scale``. At a known loss, or beyond it, a loss is expected
    again; short of it a little may be left. Else the newest slope is followed at half strength:
    on after a win, and with more doubt to the other side after a loss.
    """
    prior = kind.weight * scale * (1.0 if (new > old) == (kind.lean > 0) else 0.8)
    steps = [_Step.of(kind, trial, scale) for trial in seen]
    start, end = kind.place(old), kind.place(new)
    side = math.copysign(1.0, end - start)
    for place, gain in _worse_places(steps):
        if side * (place - start) > 1e-9:
            beyond = side * (end - place) > -1e-9
            return gain - 0.01 * scale if beyond else 0.1 * scale
    if not steps:
        return prior
    newest = steps[0]
    slope = newest.gain / (newest.end - newest.start or 1.0)
    limit = 0.5 * max(newest.gain, scale)  # so that a bolder step promises no more than the same
    return max(-limit, min(limit, 0.5 * slope * (end - start))) + 0.2 * prior


@frozen(kw_only=True)
class _Step:
    start: float
    end: float
    gain: float

    @classmethod
    def of(cls, kind: Family, trial: Trial, scale: float) -> _Step:
        (old, new) = next(iter(trial.changes.values()))
        # A run without a score says nothing of how far to stay away; call it a clear loss.
        gain = -3 * scale if trial.gain is None else trial.gain
        return cls(start=kind.place(float(old)), end=kind.place(float(new)), gain=gain)


def _worse_places(steps: Iterable[_Step]) -> Iterator[tuple[float, float]]:
    """Yield where a value lost, and where one was left for a better one, with the loss."""
    for step in steps:
        yield (step.end, step.gain) if step.gain <= 0 else (step.start, -step.gain)
