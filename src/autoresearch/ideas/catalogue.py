"""Proposes known directions that are edits of hyperparameters, the most promising first.

What is known to help, to fail and to be forbidden in a task stands in a file that a campaign names
with the setting ``knowledge``: a CSV with the columns key, area, direction, verdict, effect,
measured, changes, note and source. ``effect`` is the change of the campaign's metric on the stack
on which it was measured; it rarely transfers whole to another one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.errors import ConfigError, why
from autoresearch.history import History, script_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas import Hyperparameter, describe, hyperparameters
from autoresearch.ideas.script import changes_of, is_new, new_texts
from autoresearch.model import Idea, Value, ValueChange

_CHANGE = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*)(?P<how>[*=])(?P<number>[-+.0-9e]+)$")
_COLUMNS = (
    "key", "area", "direction", "verdict", "effect", "measured", "changes", "note", "source",
)  # fmt: skip

# What to expect of a direction that no one measured: a typical honest step of the records that the
# first file of this kind was made from. It only decides what is tried first.
UNMEASURED_GAIN = 0.0005


@frozen(kw_only=True)
class Setting:
    """One hyperparameter of a known direction: a new value, or a factor on the present one."""

    name: str
    factor: float | None = None
    value: float | None = None

    def applied(self, present: float) -> float:
        """Return the new value in the hyperparameter's own unit."""
        return present * self.factor if self.factor is not None else float(self.value or 0.0)


@frozen(kw_only=True)
class Known:
    """One known direction; ``verdict`` is works, mixed, neutral, unknown, fails or illegal.

    ``measured`` says how: isolated (one change), bundle (with others), claimed (by its author).
    ``settings`` is empty where the direction needs more than hyperparameters.
    """

    key: str
    area: str
    direction: str
    verdict: str
    effect: float | None
    measured: str
    settings: tuple[Setting, ...]
    note: str
    source: str

    def expected_change(self, *, lower_is_better: bool) -> float:
        """Return the change of the metric to expect before anything is measured here.

        Half of an isolated effect and a quarter of any other: published effects are the winners
        of many tries, on other stacks.
        """
        if self.effect is None:
            return -UNMEASURED_GAIN if lower_is_better else UNMEASURED_GAIN
        return self.effect * (0.5 if self.measured == "isolated" else 0.25)

    def sentence(self, metric: str) -> str:
        """Return the row for a reader: direction, verdict, effect, note, source."""
        effect = "" if self.effect is None else f" ({self.effect:+.4f} {metric}, {self.measured})"
        return f"{self.direction} {self.verdict}{effect}: {self.note} [{self.source}]"


@lru_cache(maxsize=4)
def known(knowledge: str) -> tuple[Known, ...]:
    """Return the rows of a file, ``path`` or ``package:file``, in the order to try them.

    Empty for an empty name; ConfigError for a file that is not there or has another shape.
    """
    if not knowledge:
        return ()
    try:
        text = _file(knowledge).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError, ImportError) as error:
        raise ConfigError(
            f"cannot read the knowledge {knowledge}: {why(error)}; name a file"
        ) from None
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{knowledge} has no column {missing[0]}; write {','.join(_COLUMNS)}")
    return tuple(_row(row, knowledge) for row in reader)


def _file(knowledge: str) -> Traversable:
    package, colon, name = knowledge.partition(":")
    return files(package).joinpath(name) if colon else Path(knowledge)


def _row(row: Mapping[str, str | None], place: str) -> Known:
    cells = {name: row[name] or "" for name in _COLUMNS}
    changes, effect = cells.pop("changes"), cells.pop("effect")
    try:
        return Known(
            **cells,
            effect=float(effect) if effect else None,
            settings=tuple(_setting(text) for text in changes.split()),
        )
    except ValueError as error:
        raise ConfigError(f"{place}, row {cells['key']!r}: {error}; correct it") from None


def _setting(text: str) -> Setting:
    match = _CHANGE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a change like NAME=value or NAME*factor")
    number = float(match["number"])
    if match["how"] == "*":
        return Setting(name=match["name"], factor=number)
    return Setting(name=match["name"], value=number)


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
            if idea is not None and is_new(history, idea.id):
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
    changes = changes_of(values, present)
    texts = new_texts(files, changes, history)
    if not texts:
        return None
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
        source=texts[script_of(history)],
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
