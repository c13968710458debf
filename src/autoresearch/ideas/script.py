"""Proposes real edits of the script's own hyperparameters; needs no model and no account."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from random import Random

from attrs import evolve, frozen

from autoresearch import events
from autoresearch.config import Config, setting
from autoresearch.durable import digest
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas import families, moves, trials, wording
from autoresearch.ideas.edits import Hyperparameter, hyperparameters, with_values
from autoresearch.ideas.moves import Move, Table
from autoresearch.model import Idea

# What is measured, on what, and for how long must not move, or scores stop being comparable.
PROTECTED = (
    *("*SEED*", "*PATH*", "*_DIR", "DATA*", "*VAL_*", "*EVAL*", "*TOKENIZER*", "*VOCAB*", "RUN_ID"),
    *("*WALLCLOCK*", "*SECONDS*", "*TIMEOUT*", "*BUDGET*", "ITERATIONS", "*_ITERATIONS"),
    *("MAX_ITERS", "MAX_STEPS", "NUM_STEPS", "TRAIN_STEPS", "TOTAL_STEPS", "STEPS", "*EPOCHS"),
    *("WARMUP_STEPS", "*BATCH_TOKENS", "*SEQ_LEN*", "*ACCUM*", "*LOG_*", "*PRINT*", "*_EVERY"),
    *("COMPILE*", "CPU_*", "*DTYPE*", "*PRECISION*", "*DEVICE*", "*RANK", "WORLD_SIZE"),
    *("RELOAD*", "*_CHECK", "*TEST*", "*TOLERANCE*", "*DEBUG*", "*VERSION*", "*MAGIC*", "*SHARD*"),
    *("*HEADER*", "*BYTES*", "*LIMIT*", "*PERCENTILE*", "*QUANTILE*", "*ZLIB*", "*LEVEL*"),
    *("*THREADS*", "*WORKERS*", "*INT8*"),
)


@frozen(kw_only=True)
class Settings:
    """What the generator leaves alone, and how often it jumps after a plateau."""

    protected: tuple[str, ...] = setting(
        PROTECTED, "names it never touches; * matches anything, upper and lower case are the same"
    )
    radical_tries: int = setting(2, "bold ideas in a row after a plateau was declared")
    jitter: float = setting(0.1, "share by which chance may reorder ideas of similar worth")


class Plugin:
    """Ranks every move by what the campaign has learned, and gives the best that is new."""

    def __init__(self) -> None:
        self._config, self._settings = Config(), Settings()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.script_ideas]``."""
        self._config = config
        self._settings = config.settings("script_ideas", Settings)

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        """Return the best new edit, None when the script has nothing left to move."""
        table = self._table(history, source)
        parameters = table.named()
        seen = frozenset(history.tried) | refused(history)
        for move in self._ranked(table, history, rng):
            if move.direction in history.dead_ends or not table.feasible(move):
                continue
            changed = with_values(source, move.values)
            if changed == source or digest(changed) in history.tried_sources:
                continue
            idea = wording.idea(move, parameters, changed, history)
            if idea.id not in seen:
                return idea
        return None

    def _table(self, history: History, source: str) -> Table:
        best = history.best_metric
        scale = max(5 * self._config.metric.sd, 0.003 * abs(best if best is not None else 1.0))
        return Table(
            parameters=tuple(self._movable(history, source)),
            known=trials.trials(history),
            scale=scale,
            near=max(2 * self._config.metric.sd, 0.3 * scale),
            fixed=_fixed(self._config),
            room=_room(self._config, history),
        )

    def _movable(self, history: History, source: str) -> Iterator[Hyperparameter]:
        overridden = set(self._config.env).union(*(item.idea.env for item in history.kept))
        found = hyperparameters(source)
        overridden |= families.idle(found)
        in_environment = any(item.form == "environment" for item in found)
        for item in found:
            if item.name in overridden or self._is_protected(item.name):
                continue
            # Where settings are read from the environment, a bare constant is rarely one of them.
            if (
                in_environment
                and item.form == "constant"
                and families.family(item) is families.OTHER
            ):
                continue
            yield item

    def _is_protected(self, name: str) -> bool:
        return any(fnmatchcase(name.upper(), rule.upper()) for rule in self._settings.protected)

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


def refused(history: History) -> frozenset[str]:
    """Return the ids of the ideas that were dropped without a run."""
    return frozenset(item.idea for item in history.rejected if isinstance(item, events.IdeaDropped))


def radical_due(history: History, tries: int) -> bool:
    """Return whether the newest plateau has not been answered by ``tries`` bold ideas yet."""
    if not history.plateaus:
        return False
    last = max(history.plateaus[-1].experiments, default=0)
    since = [item for item in history.experiments if item.number > last]
    return sum(item.idea.direction.startswith(moves.RADICAL) for item in since) < tries
