"""Giving new journal lines their place: grouping them into entries, once each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from autoresearch.errors import LogError
from autoresearch.log.journal import SUFFIX, journal_sizes, read_lines
from autoresearch.log.lines import Line
from autoresearch.log.manifest import LONGEST, Entry, pack_entry
from autoresearch.log.order import Order

DUPLICATE = "duplicate"  # the reason of lines that repeat an event; anything else is a conflict

_OURS = re.compile(r".*:\d+:[0-9a-f]{8}")


def is_given(line: Line) -> bool:
    """Return whether the caller chose the event id; ours begin with their stream and version."""
    return not line.event_id.startswith(f"{line.stream}:{line.version}:")


def _looks_like_ours(line: Line) -> bool:
    # A caller repeats an event under the id that we gave it: it may be in the group still open.
    return is_given(line) and _OURS.fullmatch(line.event_id) is not None


@define
class Sequencer:
    """Places the new lines of a journal folder behind an order.

    ``stuck`` remembers, by journal, the file size at which nothing more could be placed and why
    (None: only a torn tail), so that the same bytes are not read again and again.
    """

    folder: Path
    order: Order
    notify: Callable[[str], None]
    stuck: dict[str, tuple[int, str | None]] = field(factory=dict)
    _given: dict[str, tuple[int, int]] = field(factory=dict)
    _given_read: int = 0
    _near: tuple[int, dict[int, Line]] = (-1, {})

    def waiting(self) -> list[tuple[str, int]]:
        """Return the journals that have grown beyond the order, with their sizes.

        Those that are known come first: a journal that was just copied here loses a conflict.
        """
        found = []
        for journal, size in journal_sizes(self.folder).items():
            stuck = self.stuck.get(journal)
            if size > self.order.place(journal).end and (stuck is None or stuck[0] != size):
                found.append((journal, size))
        return sorted(found, key=lambda item: self.order.place(item[0]).end == 0)

    def place_new(self, waiting: list[tuple[str, int]]) -> bytes:
        """Add the new lines of the waiting journals to the order; return the manifest lines."""
        self._read_given()
        written = [self._place_journal(journal, size) for journal, size in waiting]
        return b"".join(written)

    def find(self, event_id: str) -> tuple[int, Line] | None:
        """Return the index of the entry and the line that has an event id, or None."""
        self._read_given()
        if _OURS.fullmatch(event_id):
            stream, version, _ = event_id.rsplit(":", 2)
            holder = self.order.holder(stream, int(version))
            if holder is not None:
                line = self._line(holder, int(version))
                if line.event_id == event_id:
                    return holder, line
        if event_id not in self._given:
            return None
        holder, number = self._given[event_id]
        return holder, self._line(holder, number)

    def _place_journal(self, journal: str, size: int) -> bytes:
        place = self.order.place(journal)
        written, group = [], _Group(journal, place.end)
        problem = None
        try:
            for line in read_lines(self._path(journal), place.end, size, place.head):
                if not group.is_followed_by(line) or _looks_like_ours(line):
                    written.append(self._close(group))
                    group = _Group(journal, group.end)
                reason = self._reason(line)
                if group.count and reason != group.reason:
                    written.append(self._close(group))
                    group = _Group(journal, group.end)
                group.add(line, reason)
                if is_given(line) and reason is None:
                    self._given[line.event_id] = (len(self.order.entries), line.version)
        except LogError as error:
            problem = str(error)
        written.append(self._close(group))
        self._remember(journal, group.end, size, problem)
        return b"".join(written)

    def _remember(self, journal: str, end: int, size: int, problem: str | None) -> None:
        known = self.stuck.pop(journal, (0, None))[1]
        if end < size:
            self.stuck[journal] = (size, problem)
        if problem is not None and problem != known:
            self.notify(f"events from there on are left out: {problem}")

    def _close(self, group: _Group) -> bytes:
        if not group.count:
            return b""
        entry = group.entry(self.order.position + 1)
        data, digest = pack_entry(entry, self.order.head.hash)
        self.order.add(entry, digest)
        self._given_read = len(self.order.entries)
        return data

    def _reason(self, line: Line) -> str | None:
        """Say why a line gets no position; None for a line that gets one."""
        if line.event_id in self._given:
            return DUPLICATE
        if line.version <= self.order.last_version(line.stream):
            holder = self.order.holder(line.stream, line.version)
            if holder is not None:
                other = self._line(holder, line.version)
                same = other.event_id == line.event_id
                taken = f"conflict: version {line.version} of the stream is {other.event_id}"
                return DUPLICATE if same else f"{taken} in {self.order.entries[holder].journal}"
        found = self.find(line.event_id) if is_given(line) else None
        return DUPLICATE if found else None

    def _line(self, holder: int, version: int) -> Line:
        if self._near[0] != holder:
            self._near = (holder, {line.version: line for line in self._lines(holder)})
        if version not in self._near[1]:
            path = self._path(self.order.entries[holder].journal)
            raise LogError(f"{path} is not what manifest.jsonl says; run `autoresearch verify`")
        return self._near[1][version]

    def _lines(self, index: int) -> Iterator[Line]:
        span = self.order.span(index)
        return read_lines(self._path(span.journal), span.start, span.end, span.before)

    def _read_given(self) -> None:
        for index in range(self._given_read, len(self.order.entries)):
            entry = self.order.entries[index]
            if entry.given and entry.reason is None:
                given = (line for line in self._lines(index) if is_given(line))
                self._given.update((line.event_id, (index, line.version)) for line in given)
        self._given_read = len(self.order.entries)

    def _path(self, journal: str) -> Path:
        return self.folder / (journal + SUFFIX)


class _Group:
    """Lines of one journal that will share an entry."""

    def __init__(self, journal: str, start: int) -> None:
        self.journal, self.start, self.end = journal, start, start
        self.count = self.given = self.version = 0
        self.stream = self.head = ""
        self.reason: str | None = None

    def is_followed_by(self, line: Line) -> bool:
        if not self.count:
            return True
        follows = line.stream == self.stream and line.version == self.version + self.count
        return follows and self.count < LONGEST

    def add(self, line: Line, reason: str | None) -> None:
        if not self.count:
            self.stream, self.version, self.reason = line.stream, line.version, reason
        self.count += 1
        self.given += is_given(line)
        self.end += line.size
        self.head = line.hash

    def entry(self, first: int) -> Entry:
        return Entry(
            journal=self.journal,
            start=self.start,
            end=self.end,
            count=self.count,
            first=first,
            given=self.given,
            head=self.head,
            stream=self.stream,
            version=self.version,
            reason=self.reason,
        )
