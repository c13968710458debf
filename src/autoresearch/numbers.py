"""Named numbers in a line of output, in a log that grows, and in the cell of a table.

A line may say ``name: value``, ``name value | name value``, or an object of JSON. A log is followed
without ever reading a byte twice.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from attrs import define, frozen

from autoresearch.text import encoding_of, without_escapes

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
GROWING = re.compile(
    r"acc|f1|auc|auroc|precision|recall|bleu|rouge|reward|return|win|iou|m?ap|r2|ndcg|mrr|psnr|ssim"
    r"|top[15]?"
)
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


def grows(metric: str) -> bool:
    """Whether more of a metric is better, by the parts of its name; of other names less is."""
    parts = re.split(r"[^a-z0-9]+", metric.lower())
    return any(GROWING.fullmatch(part) or part.startswith("acc") for part in parts)


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


# --- in a log that grows -------------------------------------------------------------------------

MOST_NAMES = 32
_PIECE = 4 << 20
_LINE_END = re.compile(r"[\r\n]")
# torchrun and other launchers have the last word after the traceback.
_ERRORS = ("Error", "Exception", "Interrupt")
_ERROR = re.compile(rf"(?:\[?rank\d+\]?:?\s*)?((?:\w+\.)*\w*(?:{'|'.join(_ERRORS)})\b.*)")
# After its first points a curve is thinned out: each next one is so much further on. Of 1,000
# lines the metric keeps 186 points, any other number 58; of 100,000 they keep 420 and 107.
_GROWTH, _OTHERS_GROWTH = 0.02, 0.1


@frozen
class Point:
    """A number at a training step."""

    name: str
    step: int
    value: float


@define
class _Curve:
    growth: float
    seen: int = 0
    due: float = 0.0
    last: Point | None = None  # seen, but thinned out so far

    def take(self, point: Point) -> bool:
        self.seen += 1
        taken = self.seen >= self.due
        self.last = None if taken else point
        if taken:
            self.due = self.seen + max(1.0, self.seen * self.growth)
        return taken


class Tail:
    """Reads what a growing log says of numbers, a piece at a time, never the whole again.

    ``numbers`` has the newest value of each name, NaN included; ``step`` is the last training step
    seen; ``diverged`` is the step from which the metric was not finite, None while it is;
    ``error`` is the last line that looks like the end of a traceback.
    """

    def __init__(self, path: Path, metric: str = "") -> None:
        self._path = path
        self._metric = metric
        self._offset = 0
        self._encoding = ""
        self._rest = b""
        self._curves: dict[str, _Curve] = {}
        self._points: list[Point] = []
        self.numbers: dict[str, float] = {}
        self.step: int | None = None
        self.diverged: int | None = None
        self.last_line: str = ""
        self.error: str = ""

    def read(self) -> dict[str, float]:
        """Return the newest value of every named number in the log so far, NaN included."""
        for line in self._lines():
            self._take(line)
        return dict(self.numbers)

    def finish(self) -> dict[str, float]:
        """Read to the end, a last line without a line end too; the run is over."""
        offset = -1
        while offset != self._offset:
            offset = self._offset
            self.read()
        self._take(self._decoded(self._rest))
        self._rest = b""
        self._points += [curve.last for curve in self._curves.values() if curve.last]
        return dict(self.numbers)

    def take(self) -> Iterator[Point]:
        """Yield the points of all curves that are new since the last call, finite ones only."""
        points, self._points = self._points, []
        yield from (point for point in points if math.isfinite(point.value))

    def _take(self, line: str) -> None:
        self.last_line = line.strip() or self.last_line
        head = line[:2_000]
        if any(word in head for word in _ERRORS) and (error := _ERROR.match(head)):
            self.error = error[1].strip()
        found = named(line)
        for name, value in found.numbers.items():
            if name in self.numbers or len(self.numbers) < MOST_NAMES or name == self._metric:
                self.numbers[name] = value
        if found.step is None:
            return
        self.step = found.step
        for name, value in found.numbers.items():
            if name in self.numbers:
                self._add(Point(name, found.step, value))

    def _add(self, point: Point) -> None:
        mine = point.name == self._metric
        if mine and math.isfinite(point.value):
            self.diverged = None
        elif mine and self.diverged is None:
            self.diverged = point.step
        growth = _GROWTH if mine else _OTHERS_GROWTH
        if self._curves.setdefault(point.name, _Curve(growth)).take(point):
            self._points.append(point)

    def _lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(_PIECE)
        except OSError:
            return []
        if not self._encoding and piece:
            self._encoding = encoding_of(piece)
            if self._encoding == "utf-16":  # the mark that says the order stands once, in front
                self._encoding = "utf-16-le" if piece.startswith(BOM_UTF16_LE) else "utf-16-be"
        if self._encoding.startswith("utf-16"):
            piece = piece[: len(piece) // 2 * 2]
        self._offset += len(piece)
        data = self._rest + piece
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if self._encoding.startswith("utf-16"):
            end += end % 2  # the other byte of the line end
        self._rest = data[end:][-2 * LONGEST_LINE :]
        return _LINE_END.split(self._decoded(data[:end]))

    def _decoded(self, data: bytes) -> str:
        return without_escapes(data.decode(self._encoding or "utf-8", "replace"))


# --- in the cell of a table, as people and their tools write it ---------------------------------

# How long something took: 1h02m, 45.2 min, 0:12:03, 0 days 00:00:40.4; what follows in brackets is
# a remark. The letters tell a time from a number of parameters (25M) and from a time of day.
_PART = r"\d+(?:\.\d+)?\s*(?:d(?:ays?)?|h(?:(?:ou)?rs?)?|ms|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)"
SPAN = re.compile(
    rf"(?:{_PART}[\s,]*)+(?:\d+:\d\d:\d\d(?:\.\d+)?)?(?:\(.*\))?|\d+:\d\d:\d\d(?:\.\d+)?"
)
SCALES = {
    "d": 86_400.0, "h": 3_600.0, "hours": 3_600.0, "m": 60.0, "min": 60.0, "minutes": 60.0,
    "s": 1.0, "ms": 0.001,
}  # fmt: skip


def number_in(text: str, *, decimal_comma: bool = False) -> float | None:
    """Return the number of a cell, None where there is none; a percentage becomes a fraction."""
    text = re.split(r"±|\+/?-", text.strip().lstrip("~≈"))[0]
    words = text.strip().replace("_", "").replace("\u202f", "").replace(" ", "")
    percent, words = words.endswith("%"), words.rstrip("%")
    if decimal_comma and words.count(",") == 1:
        words = words.replace(".", "").replace(",", ".")
    words = words.replace(",", "")
    try:
        value = float(words)
    except ValueError:
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return round(value / 100, 12) if percent else value


def seconds_in(text: str) -> float | None:
    """Return the seconds of a time such as 1h02m or 0:12:03, None where it is none."""
    if not SPAN.fullmatch(text.strip()):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[dhms])", text.partition("(")[0])
    clock = re.search(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    parts += zip(clock.groups(), "hms", strict=True) if clock else ()
    return sum(float(number) * SCALES[unit] for number, unit in parts)


_FAR = 30.0  # between 1, where a reading fits the others, and 1,000, where it does not


def has_decimal_commas(cells: Iterable[str]) -> bool:
    """Return whether the commas of a column are decimal: some are not followed by three digits.

    Where all are, numbers without a comma tell: 1,005 is no thousand among scores of about 1.
    """
    told = [cell.strip() for cell in cells]
    commas = [cell for cell in told if "," in cell]
    if any(re.fullmatch(r"[-+]?\d+,(?!\d{3}$)\d+\s?%?", cell) for cell in commas):
        return True
    plain = [abs(value) for cell in told if "," not in cell and (value := number_in(cell))]
    thousands = [abs(value) for cell in commas if (value := number_in(cell))]
    return bool(plain and thousands) and median(thousands) > _FAR * median(plain)
