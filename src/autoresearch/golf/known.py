"""What is known to help, to fail and to be forbidden in the challenge, with sizes and sources.

The rows of ``known.csv`` are facts from the challenge's public records and pull requests, as they
stood in spring 2026. ``effect_bpb`` is the change of val_bpb (negative is better) on the stack on
which it was measured; it rarely transfers whole to another one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from attrs import frozen

from autoresearch.errors import ConfigError

_CHANGE = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*)(?P<how>[*=])(?P<number>[-+.0-9e]+)$")


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
    effect_bpb: float | None
    measured: str
    settings: tuple[Setting, ...]
    note: str
    source: str

    @property
    def prior(self) -> float:
        """The gain to expect before anything is measured here, bpb, positive is better.

        Half of an isolated effect and a quarter of any other: published effects are the winners
        of many tries, on other stacks. Unmeasured directions get 0.0005, a typical honest step.
        """
        if self.effect_bpb is None:
            return 0.0005
        return -self.effect_bpb * (0.5 if self.measured == "isolated" else 0.25)

    @property
    def sentence(self) -> str:
        """The row for a reader: direction, verdict, effect, note, source."""
        effect = (
            "" if self.effect_bpb is None else f" ({self.effect_bpb:+.4f} bpb, {self.measured})"
        )
        return f"{self.direction} {self.verdict}{effect}: {self.note} [{self.source}]"


@lru_cache(maxsize=1)
def known() -> tuple[Known, ...]:
    """Return all rows in the order of the file, which is that in which they are worth trying."""
    text = files("autoresearch.golf").joinpath("known.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def _row(row: Mapping[str, str]) -> Known:
    return Known(
        key=row["key"],
        area=row["area"],
        direction=row["direction"],
        verdict=row["verdict"],
        effect_bpb=float(row["effect_bpb"]) if row["effect_bpb"] else None,
        measured=row["measured"],
        settings=tuple(_setting(text) for text in row["changes"].split()),
        note=row["note"],
        source=row["source"],
    )


def _setting(text: str) -> Setting:
    match = _CHANGE.match(text)
    if match is None:
        raise ConfigError(f"{text!r} in known.csv is no change; write NAME=value or NAME*factor")
    number = float(match["number"])
    if match["how"] == "*":
        return Setting(name=match["name"], factor=number)
    return Setting(name=match["name"], value=number)
