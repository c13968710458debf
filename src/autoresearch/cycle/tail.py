"""Follows a growing log for the numbers in it, without ever reading a byte twice."""

from __future__ import annotations

import math
import re
from codecs import BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path

from attrs import define, frozen

from autoresearch.numbers import LONGEST_LINE, named
from autoresearch.text import encoding_of, without_escapes

MOST_NAMES = 32
_PIECE = 4 << 20
_LINE_END = re.compile(r"[\r\n]")
# torchrun and other launchers have the last word after the traceback.
_ERROR = re.compile(r"(?:\[?rank\d+\]?:?\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)")
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
        self.last_line = ""
        self.error = ""

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
        if error := _ERROR.match(line[:2_000]):
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
