"""Proposes known directions that are edits of hyperparameters, the most promising first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.history import History, script_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas.hyperparameters import (
    Hyperparameter,
    describe,
    digest_of,
    hyperparameters,
    with_values,
)
from autoresearch.ideas.known import Known, known
from autoresearch.ideas.script import refused
from autoresearch.model import Idea, Value, ValueChange

_TRIED_VERDICTS = ("works", "mixed", "neutral", "unknown")


@frozen(kw_only=True)
class Settings:
    """What of the catalogue is left out."""

    skip: tuple[str, ...] = setting((), "keys of directions that are never proposed; * matches")
    unmeasured: bool = setting(True, "also propose directions that were never measured alone")


class Plugin(WithTable[Settings]):
    """Each known direction is proposed once; what it needs must be in the script and movable."""

    name, Settings = "catalogue", Settings

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[Known, float]] = []

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read the plugin's table and the knowledge."""
        super().configure(config)
        lower = config.lower_is_better
        rows = [
            (row, row.expected_change(lower_is_better=lower)) for row in known(config.knowledge)
        ]
        self._rows = sorted(rows, key=lambda pair: pair[1] if lower else -pair[1])

    @hookimpl
    def propose_idea(self, history: History, source: str, files: Mapping[str, str]) -> Idea | None:
        """Return the untried direction with the largest expected gain, None when all were tried."""
        present = {item.name: item for item in hyperparameters(source)}
        made = [item.idea.changes for item in history.experiments]
        files = {**files, script_of(history): source}
        for direction, change in self._rows:
            done = any(is_tried(direction, changes) for changes in made)
            if done or not self._wanted(direction, present, history):
                continue
            idea = _idea(direction, change, present, files, history)
            if idea is not None and idea.id not in history.tried | refused(history):
                return idea
        return None

    @hookimpl
    def explain_no_idea(self) -> str:
        """Say what every direction needs."""
        return "no untried known direction whose settings are in the script"

    def _wanted(
        self, direction: Known, present: dict[str, Hyperparameter], history: History
    ) -> bool:
        names = {item.name for item in direction.settings}
        overridden = set(self._config.env).union(*(item.idea.env for item in history.kept))
        return (
            bool(names)
            and direction.verdict in _TRIED_VERDICTS
            and (self._settings.unmeasured or direction.effect is not None)
            and names <= present.keys()
            and not names & overridden
            and history.dead(direction.direction) is None
            and not any(fnmatchcase(direction.key, rule) for rule in self._settings.skip)
        )


def _idea(
    direction: Known,
    change: float,
    present: dict[str, Hyperparameter],
    files: Mapping[str, str],
    history: History,
) -> Idea | None:
    values = {
        item.name: value(item.applied(float(present[item.name].value)), present[item.name].value)
        for item in direction.settings
    }
    script = script_of(history)
    changed = with_values(files[script], values)
    tried = digest_of({**files, script: changed}) in history.tried_sources
    if changed == files[script] or tried:
        return None
    changes = tuple(
        ValueChange(name=name, old=present[name].value, new=new) for name, new in values.items()
    )
    best, gain = history.best, -change if history.lower_is_better else change
    told = f" experiment {best.number} stands at {history.best_metric:.4f}" if best else ""
    return Idea(
        direction=direction.direction,
        description=f"{direction.key}: {describe(changes)}",
        hypothesis=f"{direction.note} A gain of {gain:.4f} is expected here;{told}",
        author="catalogue",
        evidence=(direction.sentence(history.metric),),
        cites=(best.number,) if best else (0,),
        risk=f"measured on another stack ({direction.source}); it may not transfer",
        source=changed,
        changes=changes,
        predicted=None if history.best_metric is None else history.best_metric + change,
        expected_gain=gain,
    )


def is_tried(direction: Known, changes: Sequence[ValueChange]) -> bool:
    """Return whether an experiment changed just what a direction changes, in the same way."""
    made = {item.name: item for item in changes if not item.file}
    asked = {item.name: item for item in direction.settings}
    return made.keys() == asked.keys() and all(
        not isinstance(made[name].old, str)
        and made[name].new == value(asked[name].applied(float(made[name].old)), made[name].old)
        for name in asked
    )


def value(new: float, old: Value) -> Value:
    """Return a new value in the type of the old one."""
    if isinstance(old, bool):
        return bool(new)
    return round(new) if isinstance(old, int) else float(f"{new:.6g}")
