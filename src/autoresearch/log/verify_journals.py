"""Checks the journals line by line against their own chains and against the manifest."""

from __future__ import annotations

from autoresearch.errors import LogError
from autoresearch.log.journal import BadJournalError, read_lines
from autoresearch.log.lines import could_be_torn
from autoresearch.log.manifest import Entry
from autoresearch.log.order import Order
from autoresearch.log.ordering import Ordering
from autoresearch.log.records import GENESIS
from autoresearch.log.report import VerifyReport


def check_journals(
    ordering: Ordering, order: Order, sizes: dict[str, int], report: VerifyReport
) -> bool:
    """Check every journal; return whether all that has a position can be read."""
    entries: dict[str, list[Entry]] = {}
    for entry in order.entries:
        entries.setdefault(entry.journal, []).append(entry)
    sound = True
    for journal in sorted(entries.keys() | sizes.keys()):
        checker = _Journal(ordering, journal, entries.get(journal, []), report)
        sound &= checker.check(sizes.get(journal))
    return sound


class _Journal:
    """One journal and the manifest entries that speak of it."""

    def __init__(
        self, ordering: Ordering, journal: str, entries: list[Entry], report: VerifyReport
    ) -> None:
        self.path = ordering.journal_path(journal)
        self.file = f"journal/{self.path.name}"
        self.entries, self.report = entries, report
        self.offset, self.number = 0, 0

    def check(self, size: int | None) -> bool:
        """Return whether everything that has a position is there and whole."""
        if size is None:
            self._say("is missing", position=self.entries[0].first)
            return False
        try:
            held = self._follow(size)
        except BadJournalError as bad:
            self._say(bad.problem, bad.line, self._position(bad.offset))
            return False
        except LogError as error:
            self._say(str(error))
            return False
        if size > self.offset:
            self._check_tail(size)
        return held

    def _follow(self, size: int) -> bool:
        """Read all whole lines, checking where each entry must end."""
        head = GENESIS
        waiting = iter(self.entries)
        entry = next(waiting, None)
        count = 0
        for line in read_lines(self.path, 0, size):
            self.offset, self.number, head = self.offset + line.size, self.number + 1, line.hash
            count += 1
            if entry is not None and self.offset >= entry.end:
                if (self.offset, head, count) != (entry.end, entry.head, entry.count):
                    self._say("is not what manifest.jsonl says", self.number, entry.first)
                    return False
                entry, count = next(waiting, None), 0
        if entry is not None:
            self._say(
                f"ends after {self.offset} bytes, but manifest.jsonl knows {entry.end}: "
                "its end was cut off",
                self.number,
                entry.first + count,
            )
        return entry is None

    def _check_tail(self, size: int) -> None:
        count = size - self.offset
        with self.path.open("rb") as file:
            file.seek(self.offset)
            tail = file.read(count)
        if could_be_torn(tail):
            self.report.notes.append(
                f"{self.file} ends in a torn line of {count} bytes, which was never acknowledged"
            )
        else:
            self._say(f"{count} stray bytes at the end; remove them", self.number + 1)

    def _position(self, offset: int) -> int | None:
        """Return the position of the line at an offset, if it has one."""
        for entry in self.entries:
            if entry.start <= offset < entry.end and entry.reason is None:
                lines = read_lines(self.path, entry.start, offset, self._before(entry))
                return entry.first + sum(1 for _ in lines)
        return None

    def _before(self, entry: Entry) -> str:
        index = self.entries.index(entry)
        return self.entries[index - 1].head if index else GENESIS

    def _say(self, problem: str, line: int | None = None, position: int | None = None) -> None:
        self.report.add(self.file, problem, line, position)
