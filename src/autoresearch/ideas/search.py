"""Tries what promises most: known effects and moves of numbers, by Thompson sampling.

Each arm is a change with an expected gain: a row of the knowledge, a move of one number, a change
that lost next to nothing, several of those together. How far such expectations held in this
campaign is learned for each group of arms, so that what is known elsewhere fades as own evidence
grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from attrs import evolve, frozen

from autoresearch.config import Config, setting
from autoresearch.history import History, family, gain_of, script_of
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas import catalogue, families, moves, script
from autoresearch.ideas.hyperparameters import Hyperparameter, describe, knobs
from autoresearch.ideas.known import known
from autoresearch.model import Experiment, Idea, Value, ValueChange, Verdict

Named = Mapping[str, Hyperparameter]
_TRUST = 3.0  # tries of one's own that weigh as much as what is expected of a group
_OF_MOVES = 0.3  # of what a number's name promises: most moves of one number bring nothing
_FEWEST = 2  # near misses that are tried together


@frozen(kw_only=True)
class Settings:
    """How near misses are put together."""

    bundle: int = setting(4, "near misses that are tried together at the most; 0: none")
    radical_tries: int = setting(1, "bold ideas in a row after a plateau")


@frozen(kw_only=True)
class Arm:
    """A change with what is expected of it: mean and spread of its gain, positive is better."""

    direction: str
    values: Mapping[str, Value]
    mean: float
    sd: float
    group: str
    why: str
    cites: tuple[int, ...] = ()


class Plugin:
    """Draws a gain for every arm and tries the arm that drew the most."""

    def __init__(self) -> None:
        self._config, self._settings = Config(), Settings()
        self._numbers = script.Plugin()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.search]``, the knowledge, and what is protected."""
        self._config, self._settings = config, config.settings("search", Settings)
        self._numbers.configure(config)

    @hookimpl
    def propose_idea(
        self, history: History, source: str, rng: Random, files: Mapping[str, str]
    ) -> Idea | None:
        """Return the arm that drew the largest gain and is new; None when all were tried."""
        name = script_of(history)
        files = {**files, name: source}
        found = knobs(files, name)
        table = self._numbers.table(history, found)
        named: Named = {item.key: item for item in found}
        seen = frozenset(history.tried) | script.refused(history)
        for arm in self._drawn(table, named, history, rng):
            changes = script.changes_of(arm.values, named)
            texts = script.new_texts(files, changes, history)
            if not texts:
                continue
            idea = _idea(arm, changes, history)
            idea = evolve(idea, source=texts.pop(name, None), files=texts)
            if idea.id not in seen:
                return idea
        return None

    @hookimpl
    def explain_no_idea(self) -> str:
        """Say what was looked for."""
        return "every known direction and every move of a number was tried"

    def _drawn(
        self, table: moves.Table, named: Named, history: History, rng: Random
    ) -> Iterator[Arm]:
        arms = [*self._known(named, history), *self._moves(table)]
        groups = {arm.group for arm in arms}
        shares = self._shares(named, history)
        held = {group: _held(group, shares.get(group, [])) for group in groups}
        drawn: list[tuple[float, int, Arm]] = []
        for index, arm in enumerate([*arms, *self._near(named, history)]):
            share, spread = held.get(arm.group, (1.0, 0.0))
            factor = max(rng.gauss(share, spread), 0.1)
            drawn.append((factor * arm.mean + rng.gauss(0.0, arm.sd), -index, arm))
        if script.radical_due(history, self._settings.radical_tries):
            done = {item.idea.direction for item in history.experiments}
            for move in moves.radicals(table, rng):
                if table.feasible(move) and move.direction not in done:
                    yield _of_move(move, "radical", 0.0)
        dead = history.dead_families
        for _, _, arm in sorted(drawn, key=lambda item: item[:2], reverse=True):
            if family(arm.direction) not in dead:
                yield arm

    def _known(self, named: Named, history: History) -> Iterator[Arm]:
        """Yield the rows of the knowledge that are settings of this script and were not tried."""
        lower = self._config.lower_is_better
        done = [item.idea.changes for item in history.experiments]
        for row in known(self._config.knowledge):
            names = {item.name for item in row.settings}
            if not names or not names <= named.keys() or row.verdict in ("fails", "illegal"):
                continue
            if any(catalogue.is_tried(row, changes) for changes in done):
                continue
            change = row.expected_change(lower_is_better=lower)
            mean = -change if lower else change
            olds = {item.name: named[item.name].value for item in row.settings}
            values = {
                item.name: catalogue.value(item.applied(float(olds[item.name])), olds[item.name])
                for item in row.settings
            }
            measured = row.effect is not None
            yield Arm(
                direction=row.direction, values=values, mean=mean,
                sd=0.5 * abs(mean) if measured else 2 * abs(mean), group=f"known {row.area}",
                why=row.sentence(history.metric),
            )  # fmt: skip

    def _shares(self, named: Named, history: History) -> Mapping[str, list[float]]:
        """Return which share of what was expected came true, a try each, by group.

        A try that gave no score counts as one that lost what was hoped for.
        """
        found: dict[str, list[float]] = {}
        for item in history.decided:
            expected, gain = item.idea.expected_gain, gain_of(item, history)
            if expected and expected > 0:
                share = (-expected if gain is None else gain) / expected
                group = self._group(item.idea.changes, named)
                found.setdefault(group, []).append(max(-1.0, min(2.0, share)))
        return found

    def _group(self, changes: Sequence[ValueChange], named: Named) -> str:
        for row in known(self._config.knowledge):
            if row.settings and catalogue.is_tried(row, changes):
                return f"known {row.area}"
        item = named.get(changes[0].name) if len(changes) == 1 else None
        return "" if item is None else f"move {families.family(item).name}"

    def _moves(self, table: moves.Table) -> Iterator[Arm]:
        """Yield the moves of single numbers, but none to where a loss is known."""
        named = table.named()
        bad = {
            item.name
            for row in known(self._config.knowledge)
            if row.verdict in ("fails", "illegal")
            for item in row.settings
        }
        for move in moves.singles(table):
            if table.feasible(move) and move.gain > 0 and not bad & move.values.keys():
                kind = families.family(named[next(iter(move.values))]).name
                # A fresh win is followed: that is in the worth, not in the gain.
                yield _of_move(evolve(move, gain=move.worth), f"move {kind}", 0.15 * table.scale)

    def _near(self, named: Named, history: History) -> Iterator[Arm]:
        """Yield near misses again, on a head that has moved, and several of them together."""
        sd = self._config.metric.sd or history.noise.sd
        if sd <= 0:
            return
        found: dict[str, tuple[float, Experiment]] = {}
        for item in history.experiments:
            gain = gain_of(item, history)
            fits = item.idea.changes and all(
                not c.file and c.name in named and named[c.name].value == c.old
                for c in item.idea.changes
            )
            if item.verdict is Verdict.DISCARD and gain is not None and fits and gain > -0.5 * sd:
                runs = max(len(history.scores(item)), 1)
                noise = sd**2 * (1 / runs + 0.5)
                weight = (1.5 * sd) ** 2 / ((1.5 * sd) ** 2 + noise)
                found[item.idea.direction] = (weight * gain, item)
        best = sorted(found.values(), key=lambda pair: -pair[0])
        for mean, item in best[:8]:
            yield _together([(mean, item)], sd)
        for count in range(_FEWEST, self._settings.bundle + 1):
            chosen = _apart([pair for pair in best if pair[0] > 0], count)
            if len(chosen) == count:
                yield _together(chosen, sd)


def _apart(best: Sequence[tuple[float, Experiment]], count: int) -> list[tuple[float, Experiment]]:
    """Return the first so many that change different things."""
    taken: set[str] = set()
    chosen: list[tuple[float, Experiment]] = []
    for mean, item in best:
        names = {change.name for change in item.idea.changes}
        if len(chosen) < count and not names & taken:
            taken |= names
            chosen.append((mean, item))
    return chosen


def _together(parts: Sequence[tuple[float, Experiment]], sd: float) -> Arm:
    numbers = tuple(sorted(item.number for _, item in parts))
    directions = sorted({item.idea.direction for _, item in parts})
    single = len(parts) == 1
    return Arm(
        direction=directions[0] if single else f"bundle: {' + '.join(directions)}"[:80],
        values={change.name: change.new for _, item in parts for change in item.idea.changes},
        mean=sum(mean for mean, _ in parts),
        sd=0.5 * sd * math.sqrt(len(parts)),
        group="again" if single else "bundle",
        why="it looked like a small gain that one run could not prove"
        if single
        else "each looked like a small gain, and together they are easier to prove",
        cites=numbers,
    )


def _of_move(move: moves.Move, group: str, sd: float) -> Arm:
    return Arm(
        direction=move.direction, values=move.values, mean=move.gain, sd=sd, group=group,
        why=move.why, cites=move.cites,
    )  # fmt: skip


def _held(group: str, shares: Sequence[float]) -> tuple[float, float]:
    """Return which share of what was expected came, and how uncertain that is."""
    weight = _TRUST + len(shares)
    usual = 1.0 if group.startswith("known") else _OF_MOVES
    return (_TRUST * usual + sum(shares)) / weight, 0.5 * usual / math.sqrt(weight)


def _idea(arm: Arm, changes: tuple[ValueChange, ...], history: History) -> Idea:
    sign = -1.0 if history.lower_is_better else 1.0
    told = describe(changes)
    return Idea(
        direction=arm.direction,
        description=told,
        hypothesis=f"{told} should change {history.metric} by about {sign * arm.mean:+.4f}: "
        f"{arm.why}",
        author="search",
        cites=script.cited(arm.cites, history),
        risk="what held elsewhere, or looked small and good, may not hold here",
        changes=changes,
        predicted=script.predicted(arm.mean, history),
        expected_gain=round(arm.mean, 6),
    )
