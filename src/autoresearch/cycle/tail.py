"""Follows a growing log for the numbers in it, without ever reading a byte twice."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

_NUMBER = re.compile(r"\b([A-Za-z_]\w*)\s?[:=]\s?([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf))\b")
_PROGRESS = re.compile(r"\bstep:(\d+)/\d+")


@frozen
class _Seen:
    step: int | None
    value: float


class Tail:
    """Reads what a growing log says of numbers, a piece at a time, never the whole again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = ""
        self._numbers: dict[str, float] = {}
        self._seen: dict[str, list[_Seen]] = {}
        self.last_line = ""

    def read(self) -> dict[str, float]:
        """Return the newest value of every ``name:value`` in the log so far, NaN included."""
        for line in self._lines():
            self.last_line = line.strip() or self.last_line
            found = {name: float(text) for name, text in _NUMBER.findall(line[:2_000])}
            self._numbers.update(found)
            progress = _PROGRESS.search(line)
            if progress:
                for name, value in found.items():
                    self._seen.setdefault(name, []).append(_Seen(int(progress[1]), value))
        return dict(self._numbers)

    def take(self, name: str) -> Iterator[tuple[int, float]]:
        """Yield the new (step, value) pairs of a number since the last call, finite ones only."""
        for seen in self._seen.pop(name, []):
            if seen.step is not None and math.isfinite(seen.value):
                yield seen.step, seen.value
        self._seen.clear()

    def _lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(4 << 20)
        except OSError:
            return []
        self._offset += len(piece)
        *lines, self._rest = (self._rest + piece.decode("utf-8", "replace")).split("\n")
        self._rest = self._rest[-10_000:]
        return lines
