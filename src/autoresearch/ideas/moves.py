"""The moves that hyperparameters allow: single, combined and radical, each with its worth.

What a move is worth is judged by the campaign's own experiments, its trials.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random

from attrs import field, frozen

from autoresearch.history import History, PerExperiment, gain_of, is_open
from autoresearch.ideas import Hyperparameter, families, key
from autoresearch.ideas.families import Family
from autoresearch.model import Experiment, Value, Verdict

RADICAL = "radical"


@frozen(kw_only=True)
class Trial:
    """One decided experiment that changed hyperparameters: key to (old, new) value.

    ``gain`` is against the best of its time, positive when better, None when there was no score.
    """

    number: int
    changes: Mapping[str, tuple[Value, Value]]
    gain: float | None
    verdict: Verdict

    @property
    def single(self) -> str | None:
        """The key of the only value that was changed, None when there were several."""
        return next(iter(self.changes)) if len(self.changes) == 1 else None


def trials(history: History) -> tuple[Trial, ...]:
    """Return every decided experiment that changed hyperparameters, oldest first."""
    return tuple(filter(None, _TRIALS.of(history)))


def _trial(item: Experiment, history: History) -> Trial | None:
    changes = _numeric(item)
    if item.verdict is None or is_open(item) or not changes:
        return None
    gain = None if history.score(item) is None else gain_of(item, history)
    return Trial(number=item.number, changes=changes, gain=gain, verdict=item.verdict)


_TRIALS = PerExperiment(_trial)


def _numeric(item: Experiment) -> dict[str, tuple[Value, Value]]:
    return {
        key(change.name, change.file): (change.old, change.new)
        for change in item.idea.changes
        if not isinstance(change.old, str) and not isinstance(change.new, str)
    }


def by_key(known: Sequence[Trial]) -> Mapping[str, list[Trial]]:
    """Return, for every key, the trials that changed it alone, newest first."""
    found: dict[str, list[Trial]] = defaultdict(list)
    for item in reversed(known):
        if item.single is not None:
            found[item.single].append(item)
    return found


def without_effect(known: Iterable[Trial]) -> frozenset[str]:
    """Return the keys whose move alone left the score exactly as it was: nothing reads them."""
    return frozenset(item.single for item in known if item.single is not None and item.gain == 0.0)


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
    return _expected(kind, old, new, _steps(kind, seen, scale), scale)


def _steps(kind: Family, seen: Iterable[Trial], scale: float) -> list[_Step]:
    return [_Step.of(kind, trial, scale) for trial in seen]


def _expected(kind: Family, old: float, new: float, steps: Sequence[_Step], scale: float) -> float:
    prior = kind.weight * scale * (1.0 if (new > old) == (kind.lean > 0) else 0.8)
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


@frozen(kw_only=True)
class Move:
    """New values for some keys; ``worth`` ranks it, ``gain`` is what is honestly expected.

    Both are in units of the metric, positive is better. ``cites`` are experiments it rests on.
    """

    direction: str
    values: Mapping[str, Value]
    gain: float
    worth: float
    why: str
    cites: tuple[int, ...] = ()


@frozen(kw_only=True)
class Table:
    """The hyperparameters that may move, what was tried, and the size of a good gain.

    ``fixed`` holds the values that the environment sets: they take part in the checks of shape.
    ``scale`` and ``near`` are in units of the metric: a good gain, and a loss that is close to 0.
    ``room`` is the share by which the artifact may still grow.
    """

    parameters: tuple[Hyperparameter, ...]
    known: tuple[Trial, ...]
    scale: float
    near: float
    fixed: Mapping[str, float] = field(factory=dict)
    room: float = math.inf

    def named(self) -> dict[str, Hyperparameter]:
        """Return the movable hyperparameters by key."""
        return {item.key: item for item in self.parameters}

    def feasible(self, values: Mapping[str, Value]) -> bool:
        """Return whether attention can be built with new values and the artifact still fits.

        As far as is known; what may not move is left out of it.
        """
        named = self.named()
        moved = {name: new for name, new in values.items() if name in named}
        groups: dict[str, dict[str, float]] = defaultdict(lambda: dict(self.fixed))
        for name, item in named.items():
            value = moved.get(name, item.value)
            if not isinstance(value, str):  # values of one table of one file belong together
                groups[name[: -len(item.last)]][item.last] = float(value)
        agree = all(shapes_agree(group) for group in groups.values())
        return agree and growth(named, moved) <= self.room


def growth(present: Mapping[str, Hyperparameter], values: Mapping[str, Value]) -> float:
    """Return the share by which new values let a transformer grow; negative when it shrinks.

    Its weights go with the layers and with the square of the width; the feed-forward part, about
    half of them at the usual expansion, goes with the expansion.
    """
    factor = 1.0
    for name, value in values.items():
        kind = families.family(present[name])
        share = float(value) / (float(present[name].value) or 1.0)
        if kind is families.DEPTH:
            factor *= share
        elif kind is families.WIDTH:
            factor *= share**2
        elif kind is families.EXPANSION:
            factor *= (1 + share) / 2
    return factor - 1


_WIDTHS = ("model_dim", "d_model", "n_embd", "hidden_size", "dim")
_HEADS = ("num_heads", "n_head", "n_heads", "nhead")
_KV_HEADS = ("num_kv_heads", "n_kv_head", "n_kv_heads")


def shapes_agree(values: Mapping[str, float]) -> bool:
    """Return whether attention can be built: width over heads is even, key heads divide heads."""
    width, heads, kv_heads = (_first(values, names) for names in (_WIDTHS, _HEADS, _KV_HEADS))
    if width and heads and (width % heads or (width // heads) % 2):
        return False
    return not (heads and kv_heads and heads % kv_heads)


def _first(values: Mapping[str, float], names: Sequence[str]) -> int:
    return int(next((values[name] for name in names if name in values), 0))


def direction_of(name: str) -> str:
    """Return the direction of a hyperparameter, named by its key: its name as words."""
    return name.rpartition(":")[2].lower().replace("_", " ").replace(".", " ").strip()


def singles(table: Table) -> Iterator[Move]:
    """Yield every move of one hyperparameter, judged by the earlier trials of its name."""
    known = by_key(table.known)
    for parameter in table.parameters:
        kind, seen = families.family(parameter), known.get(parameter.key, [])
        steps = _steps(kind, seen, table.scale)  # once for all values of the parameter
        for index, value in enumerate(families.values(parameter)):
            old, new = float(parameter.value), float(value)
            gain = _expected(kind, old, new, steps, table.scale)
            if gain > 0:  # values come in pairs, one to each side, and the nearest is the safest
                gain *= 0.65 ** (index // 2) * families.importance(parameter)
            yield Move(
                direction=direction_of(parameter.key),
                values={parameter.key: value},
                gain=gain,
                worth=gain + _follow_up(table, seen, gain),
                why=kind.up if new > old else kind.down,
                cites=tuple(trial.number for trial in seen[:3]),
            )


def _follow_up(table: Table, seen: Sequence[Trial], gain: float) -> float:
    """A fresh win is followed at once; with each further win in a row others get their turn."""
    if not seen or not table.known or seen[0] is not table.known[-1] or gain <= 0:
        return 0.0
    wins = list(itertools.takewhile(lambda trial: (trial.gain or 0.0) > 0, seen))
    return table.scale * 0.5 ** (len(wins) - 1) if wins else 0.0


def near_miss_pairs(table: Table) -> Iterator[Move]:
    """Yield pairs of changes that each lost almost nothing: together they may be worth it."""
    named = table.named()
    close = [
        trial
        for trial in near_misses(table.known, table.near)
        if trial.single in named and named[trial.single].value == trial.changes[trial.single][0]
    ]
    for first, second in itertools.combinations(close[:8], 2):
        if first.single == second.single:
            continue
        values = {
            name: new for trial in (first, second) for name, (_, new) in trial.changes.items()
        }
        gain = (first.gain or 0.0) + (second.gain or 0.0)
        yield Move(
            direction=" with ".join(sorted(direction_of(name) for name in values)),
            values=values,
            gain=gain + 0.3 * table.scale,
            worth=gain + 0.6 * table.scale,
            why="each alone lost next to nothing, and they act on different parts",
            cites=(first.number, second.number),
        )


def pairs(table: Table) -> Iterator[Move]:
    """Yield every pair of first steps: what is left when all single moves are spent."""
    for first, second in itertools.combinations(table.parameters, 2):
        for one in families.values(first)[:3]:
            for other in families.values(second)[:3]:
                weight = families.family(first).weight * families.family(second).weight
                yield Move(
                    direction=f"{direction_of(first.key)} with {direction_of(second.key)}",
                    values={first.key: one, second.key: other},
                    gain=0.02 * weight * table.scale,
                    worth=0.02 * weight * table.scale,
                    why="neither helped alone, and together they were never measured",
                )


def radicals(table: Table, rng: Random) -> Iterator[Move]:
    """Yield bold moves of several hyperparameters at once, for the way out of a plateau."""
    rates = _of_family(table, families.LEARNING_RATE)
    depth, width = _of_family(table, families.DEPTH), _of_family(table, families.WIDTH)
    schedule = _of_family(table, families.SCHEDULE)
    momentum, mlp = _of_family(table, families.MOMENTUM), _of_family(table, families.EXPANSION)
    bold: list[tuple[str, str, list[tuple[Hyperparameter, int]]]] = [
        ("all learning rates down", "every rate may be high together", _all(rates, -1)),
        ("all learning rates up", "every rate may be low together", _all(rates, 1)),
        ("deeper and narrower", "depth for width", _all(depth, 1) + _all(width, -1)),
        ("wider and shallower", "width for depth", _all(depth, -1) + _all(width, 1)),
        ("more feed-forward", "layers for width inside them", _all(mlp, 1) + _all(depth, -1)),
        ("long memory, small steps", "quieter", _all(momentum, 1) + _all(rates, -1)),
        ("short memory, large steps", "livelier", _all(momentum, -1) + _all(rates, 1)),
        ("long schedule, large steps", "fast, then gentle", _all(schedule, 1) + _all(rates, 1)),
    ]
    for label, why, parts in bold:
        values = {item.key: new for item, side in parts if (new := _bold(item, side)) is not None}
        if len(values) > 1:
            yield _radical(table, label, why, values)
    yield from _wild(table, rng)


def _wild(table: Table, rng: Random) -> Iterator[Move]:
    movable = [item for item in table.parameters if len(families.values(item)) > 1]
    for _ in range(20 if len(movable) >= 3 else 0):
        chosen = sorted(rng.sample(movable, 3), key=lambda item: item.line)
        values = {item.key: rng.choice(families.values(item)[2:6] or (0,)) for item in chosen}
        label = ", ".join(direction_of(name) for name in values)
        if 0 not in values.values():
            yield _radical(table, label, "a jump far from everything tried", values, 0.2)


def _radical(
    table: Table, label: str, why: str, values: Mapping[str, Value], weight: float = 0.5
) -> Move:
    return Move(
        direction=f"{RADICAL}: {label}",
        values=values,
        gain=weight * table.scale,
        worth=weight * table.scale,
        why=f"{why}; small steps stopped paying",
    )


def _of_family(table: Table, kind: Family) -> list[Hyperparameter]:
    return [item for item in table.parameters if families.family(item) is kind]


def _all(items: Iterable[Hyperparameter], side: int) -> list[tuple[Hyperparameter, int]]:
    return [(item, side) for item in items]


def _bold(parameter: Hyperparameter, side: int) -> Value | None:
    """Return the second step on a side, the first where there is no second, None without any."""
    old = float(parameter.value)
    there = [item for item in families.values(parameter) if side * (float(item) - old) > 0]
    return there[min(1, len(there) - 1)] if there else None
