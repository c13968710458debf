"""Named numbers in a line of output: ``name: value``, ``name value | name value``, JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from attrs import frozen

LONGEST_LINE = 20_000
"""A longer line is a progress bar or a dump; a backtracking pattern on it could take for ever."""

NUMBER = (
    r"(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|\d[\d_]*\.?\d*|\.\d+)"
    r"(?:e[-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?))"
)
WRAPPER = r"(?:(?:(?:np|numpy|torch|jnp)\.)?(?:tensor|array|float\d*|int\d*)\()?"
LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR"})

NAMED = r"[\w./@-]"
"""What a name is made of: ``val/loss``, ``Acc@1``; before a name, none of it may stand."""

_NAME = rf"(?P<name>[^\W\d]{NAMED}{{0,63}})"
# A unit may follow; a digest, a time of day, a version and a decimal comma are no number.
_END = r"(?=(?:%|[mun]?s|h|x|[kmgt]?i?b|[kmgt])?(?!\.?\w|,\d|:\d))"
_PAIR = re.compile(
    rf"(?:(?<!\S)(?P<word>[A-Za-z][A-Za-z_]*)[ \t]+)?(?<!{NAMED}){_NAME}[\"']?\s?[:=]\s*"
    rf"{WRAPPER}{NUMBER}{_END}",
    re.IGNORECASE,
)
_CELL = re.compile(
    rf"\s*{_NAME}(?:\s*[:=]\s*|\s+){WRAPPER}{NUMBER}{_END}(?!\S*\d)[^|]*", re.IGNORECASE
)
_STEPS = ("step", "global_step", "iteration", "iter", "epoch")
_STEP = re.compile(rf"\b({'|'.join(_STEPS)})\b\W{{0,3}}(\d+)(?!\.?\w)", re.IGNORECASE)
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
SIZED = NUMBER.replace(r"\d{1,3}(?:,\d{3}){2,}", r"\d{1,3}(?:,\d{3})+")
"""The same where 1,234 can only be a thousand: bytes have no decimal comma."""

SIZE = r"(?:\s?(?P<bytes>(?:[kmg]i?)?b(?:ytes?)?)\b)?(?!\s?[kmgt]i?b)"
"""Behind a number: the unit of a size, decimal (MB) or binary (MiB)."""


@frozen
class Line:
    """What a line says: its numbers by name, NaN and infinity included, and the training step."""

    numbers: dict[str, float]
    step: int | None = None


def named(line: str) -> Line:
    """Return the named numbers of a line of clean text; a line without any has no step either."""
    if len(line) > LONGEST_LINE or not any(sign in line for sign in ":=|"):
        return Line({})
    found = _of_json(line) or dict(_pairs(line))
    told = {name.lower(): float(digits) for name, digits in _STEP.findall(line)}
    for name in [name for name in found if name.lower() in _STEPS]:
        told[name.lower()] = found.pop(name)
    step = next((told[name] for name in _STEPS if name in told), math.nan)
    return Line(found, int(step) if math.isfinite(step) and step < 2**53 else None)


def size_in_bytes(number: float, unit: str) -> float:
    """Return a size in bytes; ``unit`` is empty, B, bytes, kB, MB, GB, KiB, MiB or GiB."""
    return number * _BYTES[re.sub(r"b(ytes?)?$", "", unit.lower())]


def _pairs(line: str) -> Iterator[tuple[str, float]]:
    cells = line.split("|")
    if len(cells) > 1:
        for match in filter(None, map(_CELL.fullmatch, cells)):
            yield match["name"], _value(match["number"])
    for match in _PAIR.finditer(line):
        word = match["word"] or ""
        # `train loss: 2.3` is not the loss.
        name = f"{word}_{match['name']}" if word and word.upper() not in LEVELS else match["name"]
        yield name, _value(match["number"])


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _of_json(line: str) -> dict[str, float]:
    """Return the numbers of an object, those of an object inside it as ``outer/inner``."""
    text = line.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return {}
    try:
        return dict(_leaves(json.loads(text)))
    except (ValueError, RecursionError):
        return {}


def _leaves(table: dict[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, dict) and not prefix:
            yield from _leaves(value, f"{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            name = f"{prefix}{key}"
            if re.fullmatch(_NAME, name):
                yield name, float(value)
