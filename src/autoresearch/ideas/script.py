"""Proposes real edits of hyperparameters in every editable file; needs no model, no account."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from random import Random

from attrs import evolve, frozen

from autoresearch import events
from autoresearch.config import Config, setting
from autoresearch.history import History, family, gain_of, script_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas import (
    Hyperparameter,
    describe,
    digest_of,
    families,
    knobs,
    moves,
    with_changes,
)
from autoresearch.ideas.moves import Move, Table
from autoresearch.model import Idea, Value, ValueChange
from autoresearch.projections.memory import better_by, shrinkage

# Another seed is another draw of luck and no idea, whatever `protected` says.
SEEDS = ("*SEED*", "*RANDOM_STATE*")
# What is measured, on what, and for how long must not move, or scores stop being comparable.
PROTECTED = (
    *("*PATH*", "*_DIR", "DATA*", "*VAL_*", "*EVAL*", "*TOKENIZER*", "*VOCAB*", "RUN_ID"),
    *("*WALLCLOCK*", "*SECONDS*", "*TIMEOUT*", "*BUDGET*", "ITERATIONS", "*_ITERATIONS"),
    *("MAX_ITERS", "MAX_STEPS", "NUM_STEPS", "TRAIN_STEPS", "TOTAL_STEPS", "STEPS", "*EPOCHS"),
    *("WARMUP_STEPS", "*BATCH_TOKENS", "*SEQ_LEN*", "*ACCUM*", "*LOG_*", "*PRINT*", "*_EVERY"),
    *("COMPILE*", "CPU_*", "*DTYPE*", "*PRECISION*", "*DEVICE*", "*RANK", "*WORLD_SIZE*"),
    *("RELOAD*", "*_CHECK", "*TEST*", "*TOLERANCE*", "*DEBUG*", "*VERSION*", "*MAGIC*", "*SHARD*"),
    *("*HEADER*", "*BYTES*", "*LIMIT*", "*PERCENTILE*", "*QUANTILE*", "*ZLIB*", "*LEVEL*"),
    *("*THREADS*", "*WORKERS*", "*INT8*"),
)


def is_protected(name: str, rules: Sequence[str] = PROTECTED) -> bool:
    """Return whether a name, or the last part of a dotted one, is a seed or held by a rule."""
    names = {name.upper(), name.rpartition(".")[2].upper()}
    return any(fnmatchcase(item, rule.upper()) for item in names for rule in (*SEEDS, *rules))


def movable(
    history: History,
    found: tuple[Hyperparameter, ...],
    config: Config,
    protected: Sequence[str] = PROTECTED,
) -> Iterator[Hyperparameter]:
    """Yield the hyperparameters that an idea may move and that do something, as far as is known."""
    overridden = set(config.env).union(*(item.idea.env for item in history.kept))
    overridden |= {word.lstrip("-").replace("-", "_") for word in config.command[1:]}
    idle = families.idle(found) | moves.without_effect(moves.trials(history))
    in_environment = any(item.form == "environment" for item in found)
    for item in found:
        set_outside = item.name in overridden and item.form != "setting"
        if set_outside or item.key in idle or is_protected(item.name, protected):
            continue
        # Where settings are read from the environment, a bare constant is rarely one of them.
        bare = in_environment and item.form == "constant"
        if not bare or families.family(item) is not families.OTHER:
            yield item


Menu = Mapping[str, tuple[Hyperparameter, tuple[Value, ...]]]


def menu(history: History, files: Mapping[str, str], config: Config, most: int) -> Menu:
    """Return by key the most important values that may move, with those that each may become.

    What was tried of the files as they are is left out, and what lies in a dead end.
    """
    found = sorted(movable(history, knobs(files, script_of(history)), config), key=_unimportance)
    alive = (i for i in found if family(moves.direction_of(i.key)) not in history.dead_families)
    offered: dict[str, tuple[Hyperparameter, tuple[Value, ...]]] = {}
    for item in alive:
        if len(offered) == most:
            break
        fresh = [v for v in item.ladder if new_texts(files, [changed(item, v)], history)]
        if fresh:
            offered[item.key] = item, tuple(fresh)
    return offered


def _unimportance(item: Hyperparameter) -> float:
    return -families.importance(item)


def changed(item: Hyperparameter, new: Value) -> ValueChange:
    """Return the change of a hyperparameter to a new value."""
    return ValueChange(name=item.name, old=item.value, new=new, file=item.file)


@frozen(kw_only=True)
class Settings:
    """What the generator leaves alone, and how often it jumps after a plateau."""

    protected: tuple[str, ...] = setting(
        PROTECTED, "names it never touches; * matches anything, upper and lower case are the same"
    )
    radical_tries: int = setting(2, "bold ideas in a row after a plateau was declared")
    jitter: float = setting(0.1, "share by which chance may reorder ideas of similar worth")


class Plugin(WithTable[Settings]):
    """Ranks every move by what the campaign has learned, and gives the best that is new."""

    name, Settings = "script_ideas", Settings

    @hookimpl
    def propose_idea(
        self, history: History, source: str, rng: Random, files: Mapping[str, str]
    ) -> Idea | None:
        """Return the best new edit, None when the files have nothing left to move."""
        script = script_of(history)
        files = {**files, script: source}
        table = self.table(history, knobs(files, script))
        named, (share, _) = table.named(), shrinkage(history, "script_ideas")
        dead = history.dead_families
        for move in self._ranked(table, history, rng):
            if family(move.direction) in dead or not table.feasible(move.values):
                continue
            changes = changes_of(move.values, named)
            texts = new_texts(files, changes, history)
            if not texts:
                continue
            made = _idea(evolve(move, gain=move.gain * share), changes, named, history)
            idea = evolve(made, source=texts.pop(script, None), files=texts)
            if is_new(history, idea.id):
                return idea
        return None

    @hookimpl
    def explain_no_idea(self, history: History, source: str, files: Mapping[str, str]) -> str:
        """Say that there is no number to move, or that all moves were tried."""
        script = script_of(history)
        if not any(self._movable(history, knobs({**files, script: source}, script))):
            return f"no movable number in {script}, such as a constant LEARNING_RATE = 0.1"
        return f"every move of the numbers in {script} was tried or is in a dead end"

    def table(self, history: History, found: tuple[Hyperparameter, ...]) -> Table:
        """Return what may move, what was tried, and the size of a good gain."""
        best = history.best_metric
        scale = max(5 * self._config.metric.sd, 0.003 * abs(best if best is not None else 1.0))
        return Table(
            parameters=tuple(self._movable(history, found)),
            known=moves.trials(history),
            scale=scale,
            near=max(2 * self._config.metric.sd, 0.3 * scale),
            fixed=_fixed(self._config),
            room=_room(self._config, history),
        )

    def _movable(
        self, history: History, found: tuple[Hyperparameter, ...]
    ) -> Iterator[Hyperparameter]:
        return movable(history, found, self._config, self._settings.protected)

    def _ranked(self, table: Table, history: History, rng: Random) -> Iterator[Move]:
        """Yield all moves, best first; bold ones lead while a plateau asks for them."""
        done = {item.idea.direction for item in history.experiments}
        bold = [move for move in moves.radicals(table, rng) if move.direction not in done]
        if radical_due(history, self._settings.radical_tries):
            yield from bold
        usual = [*moves.singles(table), *moves.near_miss_pairs(table)]
        amount = self._settings.jitter
        jittered = [
            evolve(move, worth=move.worth + table.scale * amount * (rng.random() - 0.5))
            for move in usual
        ]
        yield from sorted(jittered, key=lambda move: -move.worth)
        yield from bold
        yield from sorted(moves.pairs(table), key=lambda move: -move.worth)


def _room(config: Config, history: History) -> float:
    """Return the share by which the best artifact may grow under the limit."""
    limit = config.limits.artifact_bytes
    size = history.best.metrics.get(history.size) if history.best else None
    return limit / size - 1 if limit > 0 and size else math.inf


def _fixed(config: Config) -> dict[str, float]:
    fixed: dict[str, float] = {}
    for name, text in config.env.items():
        try:
            fixed[name.lower()] = float(text)
        except ValueError:
            continue
    return fixed


def is_new(history: History, *ids: str) -> bool:
    """Return whether no idea of these ids was tried, or dropped without a run."""
    if any(name in history.tried for name in ids):  # mostly, and without a search
        return False
    dropped = (item.idea for item in history.rejected if isinstance(item, events.IdeaDropped))
    return not any(name in ids for name in dropped)


def changes_of(
    values: Mapping[str, Value], named: Mapping[str, Hyperparameter]
) -> tuple[ValueChange, ...]:
    """Return new values by key as changes of the hyperparameters of these keys."""
    return tuple(changed(named[key], new) for key, new in values.items())


def new_texts(
    files: Mapping[str, str], changes: Iterable[ValueChange], history: History
) -> dict[str, str]:
    """Return the texts that changes make, by path; empty where nothing differs or it was tried."""
    texts = with_changes(files, changes, script_of(history))
    return {} if digest_of({**files, **texts}) in history.tried_sources else texts


def cited(cites: Iterable[int], history: History) -> tuple[int, ...]:
    """Return the experiments that an idea rests on, the best, which it builds on, among them."""
    best = history.best
    numbers = tuple(dict.fromkeys([*cites, *([best.number] if best else [])])) or (0,)
    return tuple(number for number in numbers if number < history.next_number)


def predicted(gain: float, history: History) -> float | None:
    """Return the metric that a gain on the best would give; None before there is a best."""
    if history.best_metric is None:
        return None
    sign = -1.0 if history.lower_is_better else 1.0
    return round(history.best_metric + sign * gain, 6)


def radical_due(history: History, tries: int) -> bool:
    """Return whether the newest plateau has not been answered by ``tries`` bold ideas yet."""
    if not history.plateaus:
        return False
    last = max(history.plateaus[-1].experiments, default=0)
    since = [item for item in history.experiments if item.number > last]
    return sum(item.idea.direction.startswith(moves.RADICAL) for item in since) < tries


# --- in words -------------------------------------------------------------------------------


def _idea(
    move: Move,
    changes: tuple[ValueChange, ...],
    parameters: Mapping[str, Hyperparameter],
    history: History,
) -> Idea:
    """Return the move as an idea whose hypothesis and evidence refer to what was measured."""
    cites = cited(move.cites, history)
    return Idea(
        direction=move.direction,
        description=describe(changes),
        hypothesis=_hypothesis(move, changes, history),
        author="script_ideas",
        evidence=_evidence(cites, history),
        cites=cites,
        risk=_risk(move, parameters),
        changes=changes,
        predicted=predicted(move.gain, history),
        expected_gain=round(move.gain, 6) if math.isfinite(move.gain) else None,
    )


def _hypothesis(move: Move, changes: tuple[ValueChange, ...], history: History) -> str:
    seen = [number for number in move.cites if number < len(history.experiments)]
    told = describe(changes)
    gain = better_by(move.gain, digits=4)
    effect = "leave {} as it is" if gain == "no change" else f"make {{}} {gain}"
    base = f"{told} should {effect.format(history.metric)}: {move.why}"
    if not seen:
        return f"{base}; nothing was measured in this direction yet"
    newest = max(seen)
    return f"{base}; {_outcome(newest, history)}"


def _outcome(number: int, history: History) -> str:
    item = history.experiments[number]
    score = history.score(item)
    if score is None:
        return f"experiment {number} ({item.idea.description}) gave no score"
    gain = gain_of(item, history)
    against = "" if gain is None else f", {better_by(gain, digits=4)} against the best then"
    return f"experiment {number} ({item.idea.description}) scored {score:.4f}{against}"


def _evidence(cites: tuple[int, ...], history: History) -> tuple[str, ...]:
    """Return the cited results, and the newest lesson among them."""
    known = [number for number in cites if number < len(history.experiments)]
    told = [_outcome(number, history) for number in known]
    lessons = [item for item in history.lessons if item.experiment in known]
    told += [f"lesson of experiment {item.experiment}: {item.text}" for item in lessons[-1:]]
    return tuple(told)


_RISKS = {
    families.DEPTH.name: "slower steps and a larger artifact",
    families.WIDTH.name: "slower steps, more memory and a larger artifact",
    families.EXPANSION.name: "slower steps, more memory and a larger artifact",
    families.LEARNING_RATE.name: "divergence, or too little learned in the time",
    families.MOMENTUM.name: "instability early in the run",
    families.BATCH.name: "out of memory, or fewer steps",
    families.SWITCH.name: "a code path that was never run here",
}


def _risk(move: Move, parameters: Mapping[str, Hyperparameter]) -> str:
    kinds = dict.fromkeys(families.family(parameters[name]).name for name in move.values)
    told = [_RISKS[kind] for kind in kinds if kind in _RISKS]
    return "; ".join(told) or "a regression no larger than the step is bold"
