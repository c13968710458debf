"""Journals as files: reading whole lines by their bytes, and one writer's appends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from autoresearch.errors import LogError
from autoresearch.log.files import open_for_append, write_all
from autoresearch.log.lines import BadLineError, Line, unpack
from autoresearch.log.records import GENESIS

SUFFIX = ".jsonl"
_CHUNK = 1 << 20


def journal_name(stream: str, host: str, number: int) -> str:
    """Return the name of a stream's journal; the number counts those of one host."""
    return f"{quote(stream, safe='')}@{quote(host, safe='')}-{number}"


def journal_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes in each journal of a folder; names that no journal can have are left out."""
    try:
        found = [(item.name, item.stat().st_size) for item in os.scandir(folder) if item.is_file()]
    except FileNotFoundError:
        return {}
    return {name[: -len(SUFFIX)]: size for name, size in sorted(found) if is_journal(name)}


def is_journal(name: str) -> bool:
    """Return whether a file name can be a journal's."""
    plain = not name.startswith(".") and '"' not in name and "\\" not in name
    return plain and name.endswith(SUFFIX) and name.isprintable()


class BadJournalError(LogError):
    """A journal has a line that does not belong there; ``offset`` is its first byte."""

    def __init__(self, path: Path, offset: int, line: int, problem: str) -> None:
        self.offset, self.line, self.problem = offset, line, problem
        super().__init__(f"{path} line {line} {problem}; run `autoresearch verify`")


def read_lines(path: Path, start: int, end: int, previous: str = GENESIS) -> Iterator[Line]:
    """Yield the whole lines between two bytes of a journal, each checked against the one before.

    Bytes after the last newline are left alone. Raises BadJournalError at the first line that was
    changed, and LogError when the file is shorter than ``end`` or cannot be read.
    """
    offset = start
    for text in _whole_lines(path, start, end):
        try:
            line = unpack(text.decode(), previous)
        except (BadLineError, UnicodeDecodeError) as error:
            problem = str(error) if isinstance(error, BadLineError) else "is not UTF-8 text"
            raise BadJournalError(path, offset, line_number(path, offset), problem) from None
        yield line
        offset += line.size
        previous = line.hash


def line_number(path: Path, offset: int) -> int:
    """Return the number of the line that starts at a byte, counted from 1."""
    with path.open("rb") as file:
        return file.read(offset).count(b"\n") + 1


def _whole_lines(path: Path, start: int, end: int) -> Iterator[bytes]:
    rest = b""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(_CHUNK, end - start))
                if not chunk:
                    raise LogError(f"{path} ends at byte {start}, before {end}; run verify")
                start += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}; run verify") from None


class JournalFile:
    """One journal being written: it knows where it ends and refuses to write behind other bytes."""

    def __init__(self, path: Path, end: int, head: str) -> None:
        self.path, self.end, self.head = path, end, head
        self._handle = open_for_append(path)

    @property
    def intact(self) -> bool:
        """Whether the file ends where this writer left it."""
        return os.fstat(self._handle).st_size == self.end

    def append(self, data: bytes, head: str) -> None:
        """Write whole lines durably; raises OSError with the file possibly torn: then cut it."""
        write_all(self._handle, data)
        self.end += len(data)
        self.head = head

    def cut(self, end: int) -> None:
        """Take back bytes that were never acknowledged."""
        os.ftruncate(self._handle, end)
        os.fdatasync(self._handle)

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
