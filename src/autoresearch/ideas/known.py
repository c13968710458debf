"""What is known to help, to fail and to be forbidden in a task, with effects and sources.

A campaign names such a file with the setting ``knowledge``: a CSV with the columns key, area,
direction, verdict, effect, measured, changes, note and source. ``effect`` is the change of the
campaign's metric on the stack on which it was measured; it rarely transfers whole to another one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attrs import frozen

from autoresearch.errors import ConfigError, why

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
