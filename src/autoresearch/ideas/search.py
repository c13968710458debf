"""Tries what promises most for a GPU hour: known effects and moves of numbers, many in one run.

What every single value is worth is believed from the knowledge and from every experiment of the
campaign, those that changed several values included. One run tries the changes that together
promise the most; where that brings less than was hoped for, or crashes, the next runs tell whose
fault it was. Thompson sampling: a gain is drawn from each belief, and the largest draw leads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from random import Random
from statistics import NormalDist

from attrs import evolve, field, frozen

from autoresearch.config import Config, setting
from autoresearch.history import History, PerExperiment, family, is_open, parent_of, script_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas import Hyperparameter, catalogue, describe, key, knobs, moves, script
from autoresearch.ideas.catalogue import UNMEASURED_GAIN, Known, known
from autoresearch.model import Experiment, Idea, Value, ValueChange

Named = Mapping[str, Hyperparameter]
Part = tuple[str, Value]  # a key and a value, which is worth a gain over the one it began with
_REFUTED = ("fails", "illegal")
_DOUBT = {"isolated": 0.5}  # sd of a known effect, as a share of it; of any other the whole
_LEAST_DOUBT = 3 * UNMEASURED_GAIN  # sd of any known effect, however small
_SHARED = 0.3  # the same, of how far all effects hold here, and those of one area
_OF_MOVES = 0.3  # of what a number's name promises: most moves of one number bring nothing
_OF_SCALE = 0.15  # sd of a move of a number, as a share of a good gain
_MODEL = 0.1  # of what a run was expected to bring: gains do not simply add up
_CRASHES, _TRIES = 1.0, 20.0  # so many of so many new values crash, before any was tried
_CRASH_COST = 0.25  # of a run
_EARLY = 20.0  # variance of a gain that an early stage showed, in that of one whole run
_NEWEST = 300  # experiments that are learned from, so that an idea costs the same in long campaigns
_SIZE_SD, _SIZE_NOISE = 0.01, 0.0003  # of the limit: what one value may weigh, and two runs differ


@frozen(kw_only=True)
class Settings:
    """How much is tried at once, and how boldly."""

    bundle: int = setting(12, "changes that are tried in one run at the most")
    boldness: float = setting(1.0, "factor on the doubt that gains are drawn with; 0: none")
    radical_tries: int = setting(1, "bold ideas in a row after a plateau")


@frozen(kw_only=True)
class Arm:
    """New values of some keys; the gain that is expected and the one drawn, positive is better."""

    direction: str
    values: Mapping[str, Value]
    mean: float
    drawn: float
    why: str
    known: bool = False
    cites: tuple[int, ...] = ()


# What a run of these arms is worth that is expected to gain so much.
Worth = Callable[[Sequence[Arm], float], float]


@frozen(kw_only=True)
class Shown:
    """What an experiment showed of its changes: gain and growth in bytes over its parent."""

    number: int
    changes: Mapping[str, tuple[Value, Value]]  # by key, old and new
    gain: float | None
    grown: float | None
    share: float  # the variance of the gain, in that of one run


def _shown(item: Experiment, history: History) -> Shown | None:
    parent = parent_of(item, history)
    if is_open(item) or parent is None or not item.idea.changes:
        return None
    share = sum(1 / max(len(history.scores(one)), 1) for one in (item, parent))
    new, old = history.score(item), history.score(parent)
    if new is None and item.stage != history.stage:  # a cheaper run is all that there was of it
        early, share = evolve(history, stage=item.stage), _EARLY
        new, old = early.score(item), early.score(parent)
    size, before = item.metrics.get(history.size), parent.metrics.get(history.size)
    return Shown(
        number=item.number,
        changes={key(one.name, one.file): (one.old, one.new) for one in item.idea.changes},
        gain=None if new is None or old is None else history.gain(new, old),
        grown=None if size is None or before is None else size - before,
        share=share,
    )


_SHOWN = PerExperiment(_shown)


@frozen
class Belief:
    """Means and variances of the parts of sums, learned from sums that were seen."""

    doubt: float
    known: dict[Part, tuple[float, float]] = field(factory=dict)

    def of(self, weights: Mapping[Part, float]) -> tuple[float, float]:
        """Return mean and variance of a weighted sum."""
        told = [(w, *self.known.get(part, (0.0, self.doubt**2))) for part, w in weights.items()]
        return sum(w * m for w, m, _ in told), sum(w * w * v for w, _, v in told)

    def learn(self, weights: Mapping[Part, float], seen: float, variance: float) -> None:
        """Take in a sum that was seen with some variance: the least sure part moves the most."""
        mean, spread = self.of(weights)
        for part, weight in weights.items():
            before, own = self.known.get(part, (0.0, self.doubt**2))
            share = weight * own / (spread + variance)
            self.known[part] = before + share * (seen - mean), own * (1 - share * weight)


class Learned:
    """What the knowledge and the campaign's experiments say of values: gains, sizes, crashes."""

    def __init__(
        self, config: Config, named: Named, scale: float, sd: float, shown: Sequence[Shown]
    ) -> None:
        self._lower, self._limit = config.lower_is_better, config.limits.artifact_bytes
        self._sd = max(sd, 0.01 * scale)
        self.gains, self._sizes = Belief(_OF_SCALE * scale), Belief(_SIZE_SD * self._limit)
        self.starts = {name: item.value for name, item in named.items()}
        for one in reversed(shown):
            self.starts |= {name: old for name, (old, _) in one.changes.items()}
        self._promised: dict[Part, tuple[str, float]] = {}
        self.tried: dict[Part, int] = {}
        self._safe: set[Part] = set()
        self._crashed: list[set[Part]] = []
        self.rows = [row for row in known(config.knowledge) if self._expect(row)]
        for one in shown[-_NEWEST:]:
            self._take(one)

    def _expect(self, row: Known) -> bool:
        """Believe a row of the knowledge at first; False where the script has not its settings."""
        if not row.settings or not {item.name for item in row.settings} <= self.starts.keys():
            return False
        change, count = row.expected_change(lower_is_better=self._lower), len(row.settings)
        gain = (-change if self._lower else change) / count
        sd = max(_DOUBT.get(row.measured, 1.0) * abs(gain), _LEAST_DOUBT / count)
        for part in self.values(row).items():
            self.gains.known.setdefault(part, (gain, sd**2 * count))
            self._promised.setdefault(part, (row.area, gain))
        return True

    def values(self, row: Known) -> dict[str, Value]:
        """Return the values that a row asks for, on what the script began with."""
        olds = {item.name: self.starts[item.name] for item in row.settings}
        return {
            item.name: catalogue.value(item.applied(float(olds[item.name])), olds[item.name])
            for item in row.settings
        }

    def parts(self, changes: Mapping[str, tuple[Value, Value]]) -> dict[Part, float]:
        """Return changes, key to (old, new), as a sum of what values are worth."""
        parts: dict[Part, float] = {}
        for name, (old, new) in changes.items():
            parts |= {(name, old): -1.0, (name, new): 1.0}
        return {part: sign for part, sign in parts.items() if part[1] != self.starts[part[0]]}

    def _shared(self, parts: Mapping[Part, float]) -> dict[Part, float]:
        """Add what known effects have in common: how far those of an area, and all, hold here."""
        found = dict(parts)
        for part, sign in parts.items():
            area, promise = self._promised.get(part, ("", 0.0))
            for group in (f"all {area}", "all") if promise else ():
                shared = (group, "share")
                self.gains.known.setdefault(shared, (0.0, _SHARED**2))
                found[shared] = found.get(shared, 0.0) + sign * promise
        return found

    def _take(self, shown: Shown) -> None:
        """Learn from an experiment."""
        parts = self.parts(shown.changes)
        for name, (old, new) in shown.changes.items():
            if (name, new) in parts:  # what nothing is known of is worth what it replaces
                mean, _ = self.gains.of({part: 1.0 for part in [(name, old)] if part in parts})
                self.gains.known.setdefault((name, new), (mean, self.gains.doubt**2))
                self.tried[name, new] = shown.number
        if shown.gain is None:
            self._crashed.append(parts.keys() - self._safe)
            return
        self._safe |= parts.keys()
        model = _MODEL * sum(abs(self.gains.of({part: 1.0})[0]) for part in parts)
        variance = self._sd**2 * shown.share + model**2
        self.gains.learn(self._shared(parts), shown.gain, variance)
        if shown.grown is not None and self._limit > 0:
            self._sizes.learn(parts, shown.grown, (_SIZE_NOISE * self._limit) ** 2)

    def gain(self, changes: Mapping[str, tuple[Value, Value]]) -> tuple[float, float]:
        """Return mean and standard deviation of what changes are believed to bring."""
        mean, variance = self.gains.of(self._shared(self.parts(changes)))
        return mean, math.sqrt(variance)

    def worth(
        self, gain: float, changes: Mapping[str, tuple[Value, Value]], size: float | None
    ) -> float:
        """Return a gain for the cost of its run, which may crash or get too large from ``size``."""
        parts = self.parts(changes)
        runs = math.prod(1 - self._crash(part) for part in parts.keys() - self._safe)
        fits = 1.0
        if self._limit > 0 and size is not None and parts:
            mean, variance = self._sizes.of(parts)
            fits = NormalDist(size + mean, math.sqrt(variance) + 1).cdf(self._limit)
        return gain * runs * fits / (runs + _CRASH_COST * (1 - runs))

    def _crash(self, part: Part) -> float:
        """Return how probably a value that was in no finished run crashes."""
        count = len(self._crashed)
        usual = (_CRASHES + count) / (_TRIES + len(self._safe) + count)
        guilty = [len(group - self._safe) for group in self._crashed if part in group]
        return min(0.99, max([usual, *(usual / (1 - (1 - usual) ** many) for many in guilty)]))


class Plugin(WithTable[Settings]):
    """Draws a gain for every change and tries those that together promise the most."""

    name, Settings = "search", Settings

    def __init__(self) -> None:
        super().__init__()
        self._numbers = script.Plugin()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read the plugin's table, the knowledge, and what is protected."""
        super().configure(config)
        self._numbers.configure(config)

    @hookimpl
    def propose_idea(
        self, history: History, source: str, rng: Random, files: Mapping[str, str]
    ) -> Idea | None:
        """Return the changes that promise the most and are new; None when all were tried."""
        name = script_of(history)
        files = {**files, name: source}
        found = knobs(files, name)
        table = self._numbers.table(history, found)
        named: Named = {item.key: item for item in found}
        for arm in self._ranked(table, named, history, rng):
            changes = script.changes_of(arm.values, named)
            texts = script.new_texts(files, changes, history)
            if not texts or not table.feasible(arm.values):
                continue
            idea = _idea(arm, changes, history)
            idea = evolve(idea, source=texts.pop(name, None), files=texts)
            if script.is_new(history, idea.id):
                return idea
        return None

    @hookimpl
    def explain_no_idea(self) -> str:
        """Say what was looked for."""
        return "every known direction and every move of a number was tried"

    def _ranked(
        self, table: moves.Table, named: Named, history: History, rng: Random
    ) -> Iterator[Arm]:
        """Yield the best bundle, that without its last parts, and then single arms."""
        shown = [*filter(None, _SHOWN.of(history))]
        learned = Learned(self._config, named, table.scale, history.noise.sd, shown)
        size = history.best.metrics.get(history.size) if history.best else None

        def worth(arms: Sequence[Arm], gain: float) -> float:
            return learned.worth(gain, _changes(_values(arms), named), size)

        found = [*self._known(learned, named, rng), *self._moves(learned, table, named, rng)]
        found += self._bold(table, history, rng)
        dead = history.dead_families
        arms = [arm for arm in found if family(arm.direction) not in dead]
        arms.sort(key=lambda arm: -worth([arm], arm.drawn))
        chosen = self._together(arms, worth, table)
        yield from (_bundle(chosen[:count]) for count in range(len(chosen), 1, -1))
        yield from arms

    def _together(self, arms: Sequence[Arm], worth: Worth, table: moves.Table) -> Sequence[Arm]:
        """Return the arms that are best tried in one run, the leading one first.

        The arm that drew the most leads; others join it where they are expected to help, and for
        as long as the run is worth more with them in spite of what may go wrong.
        """
        joining = sorted(((worth([arm], arm.mean), arm) for arm in arms[1:]), key=lambda x: -x[0])
        chosen, total = arms[:1], sum(arm.drawn for arm in arms[:1])
        for _, arm in takewhile(lambda pair: pair[0] > 0, joining):
            together = [*chosen, arm]
            keys = [name for one in together for name in one.values]
            crowded = len(together) > self._settings.bundle or len(keys) > len({*keys})
            # Of the moves that nobody knows one is enough to tell what it did.
            if crowded or sum(not one.known for one in together) > 1:
                continue
            better = worth(together, total + arm.mean) > worth(chosen, total)
            if better and table.feasible(_values(together)):
                chosen, total = together, total + arm.mean
        return chosen

    def _known(self, learned: Learned, named: Named, rng: Random) -> Iterator[Arm]:
        """Yield the rows of the knowledge, and the way back from those that head has."""
        for row in learned.rows:
            values = learned.values(row)
            if row.verdict in _REFUTED or not values.keys() <= named.keys():
                continue
            told = row.sentence(self._config.metric.name)
            if all(named[name].value == value for name, value in values.items()):
                values = {name: learned.starts[name] for name in values}
                told = f"without it, as it may not hold here: {told}"
            drawn = self._drawn(*learned.gain(_changes(values, named)), rng)
            yield _arm(row.direction, values, drawn, told, learned, known=True)

    def _moves(
        self, learned: Learned, table: moves.Table, named: Named, rng: Random
    ) -> Iterator[Arm]:
        """Yield the moves of single numbers, but none to where a loss is known."""
        lost = [row for row in learned.rows if row.verdict in _REFUTED]
        bad = {item.name for row in lost for item in row.settings}
        for move in moves.singles(table):
            if move.gain <= 0 or bad & move.values.keys():
                continue
            mean, sd = learned.gain(_changes(move.values, named))
            if not learned.tried.keys() & move.values.items():
                # A fresh win is followed: that is in the worth, not in the gain.
                mean, sd = _OF_MOVES * move.worth, learned.gains.doubt
            drawn = self._drawn(mean, sd, rng)
            yield _arm(move.direction, move.values, drawn, move.why, learned, cites=move.cites)

    def _bold(self, table: moves.Table, history: History, rng: Random) -> Iterator[Arm]:
        """Yield jumps after a plateau, which lead where nothing else promises as much."""
        if script.radical_due(history, self._settings.radical_tries):
            done = {item.idea.direction for item in history.experiments}
            for move in moves.radicals(table, rng):
                if move.direction not in done:
                    yield Arm(
                        direction=move.direction, values=move.values, mean=0.0, drawn=move.gain,
                        why=move.why,
                    )  # fmt: skip

    def _drawn(self, mean: float, sd: float, rng: Random) -> tuple[float, float]:
        return mean, mean + self._settings.boldness * rng.gauss(0, sd)


def _changes(values: Mapping[str, Value], named: Named) -> dict[str, tuple[Value, Value]]:
    return {name: (named[name].value, new) for name, new in values.items()}


def _values(arms: Sequence[Arm]) -> dict[str, Value]:
    return {name: new for arm in arms for name, new in arm.values.items()}


def _arm(
    direction: str, values: Mapping[str, Value], drawn: tuple[float, float], why: str,
    learned: Learned, known: bool = False, cites: Sequence[int] = (),
) -> Arm:  # fmt: skip
    rests = [learned.tried[part] for part in values.items() if part in learned.tried]
    return Arm(
        direction=direction, values=values, mean=drawn[0], drawn=drawn[1], why=why, known=known,
        cites=(*rests, *cites),
    )  # fmt: skip


def _bundle(parts: Sequence[Arm]) -> Arm:
    directions = sorted({arm.direction for arm in parts})
    return Arm(
        direction=f"bundle: {' + '.join(directions)}"[:80],
        values=_values(parts),
        mean=sum(arm.mean for arm in parts),
        drawn=sum(arm.drawn for arm in parts),
        why="together they promise the most for one run, and what it brings tells of each",
        cites=tuple(sorted({number for arm in parts for number in arm.cites})),
    )


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
