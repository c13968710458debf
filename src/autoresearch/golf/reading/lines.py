"""Lines out of a log of any size, encoding and state; nothing here knows what a line means.

A line is numbered by its newline, as editors do. Progress that overwrites itself with carriage
returns gives several pieces with one number. Memory is bounded: of a piece longer than 64 KiB
only the beginning is kept.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from autoresearch.errors import AutoresearchError

Source = Path | str | bytes

LONGEST = 65_536
_BLOCK = 1 << 20

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
# What loggers, launchers and job systems put in front: a time, a rank, a stream, a level.
_PREFIX = re.compile(
    r"""(?:
      \[?\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?
    | \[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?
    | \d{10}(?:\.\d+)?
    | \[(?:default)?rank\ ?\d+\]:?
    | rank\ ?\d+:
    | \[\d+,\d+\]<std(?:out|err)>:?
    | std(?:out|err)\ [FP]
    | \(\w[\w.\- ]*pid=\d+(?:,[^)]{0,60})?\)
    | [\w.\-]{1,40}\ +\|(?=\ )
    | \d{1,7}:(?=[A-Za-z\ ])
    | \[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\]?(?:\ -|:)?(?=\ )
    )[ \t]?[-|]?[ \t]?""",
    re.VERBOSE,
)
# What a prefix that starts with a letter starts with, for a quick no to nearly every line.
_WORDS = ("rank", "std", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Line(NamedTuple):
    """One printed line: its 1-based ``number``, its text, and whether a newline ended it."""

    number: int
    text: str
    ended: bool = True


def open_source(source: Source) -> BinaryIO:
    """Open a path, or the text itself: bytes, or a string that has more than one line.

    Raises AutoresearchError where a one-line string or a path names no readable file.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str) and ("\n" in source or "\r" in source or not source):
        return io.BytesIO(source.encode("utf-8", "surrogatepass"))
    try:
        return Path(source).open("rb")
    except (OSError, ValueError) as error:
        raise AutoresearchError(
            f"cannot read the log {str(source)[:200]!r}: {type(error).__name__}; give the path of "
            "a log file"
        ) from error


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a stream as text; a broken byte becomes a replacement character."""
    number, held, skipping = 1, "", False
    for text in _decoded(stream):
        rows = (held + text).split("\n")
        held = rows.pop()
        for row in rows:
            yield from _pieces(number, row, from_middle=skipping)
            number, skipping = number + 1, False
        if len(held) > LONGEST:
            before, _, held = held.rpartition("\r")
            yield from _pieces(number, before, from_middle=skipping, ended=False)
            skipping = skipping and not before
            if len(held) > LONGEST:
                yield from _pieces(number, held, from_middle=skipping, ended=False)
                held, skipping = "", True
    if held:
        yield from _pieces(number, held, from_middle=skipping, ended=False)


def bare(text: str) -> str:
    """Return a line without escapes and without the times, ranks and levels in front of it."""
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    if text[:1].isalpha() and not text.startswith(_WORDS) and "|" not in text[:45]:
        return text
    for _ in range(4):
        found = _PREFIX.match(text)
        if found is None:
            break
        text = text[found.end() :]
    return text


def _decoded(stream: BinaryIO) -> Iterator[str]:
    head = stream.read(_BLOCK)
    decoder = codecs.getincrementaldecoder(_encoding(head))("replace")
    while head:
        yield decoder.decode(head)
        head = stream.read(_BLOCK)
    yield decoder.decode(b"", True)


def _encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = head[:4096]
    if len(sample) >= 8 and sample[1::2].count(0) > 0.4 * len(sample):
        return "utf-16-le"
    if len(sample) >= 8 and sample[0::2].count(0) > 0.4 * len(sample):
        return "utf-16-be"
    return "utf-8-sig"


def _pieces(number: int, row: str, *, from_middle: bool, ended: bool = True) -> Iterator[Line]:
    if "\r" not in row:
        if not from_middle:
            yield Line(number, row[:LONGEST], ended)
        return
    pieces = row.removesuffix("\r").split("\r")
    for piece in pieces[1:] if from_middle else pieces:
        yield Line(number, piece[:LONGEST], ended)
