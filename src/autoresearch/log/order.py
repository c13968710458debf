"""The manifest in memory: which entries there are, where each journal and each stream stands."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from attrs import define, evolve, field, frozen

from autoresearch.log.manifest import Entry
from autoresearch.log.records import GENESIS, Head


@frozen
class Place:
    """How far a journal is in the order: bytes covered, and the hash of the last line covered."""

    end: int = 0
    head: str = GENESIS


@frozen
class Span:
    """Bytes of a journal whose lines have consecutive positions, with the hashes around them."""

    journal: str
    start: int
    end: int
    first: int
    count: int
    before: str
    head: str


@define
class Order:
    """All manifest entries so far, with what is asked of them in every call."""

    entries: list[Entry] = field(factory=list)
    hashes: list[str] = field(factory=list)
    before: list[str] = field(factory=list)
    places: dict[str, Place] = field(factory=dict)
    _lasts: list[int] = field(factory=list)
    _streams: dict[str, list[tuple[int, int, int]]] = field(factory=dict)

    def add(self, entry: Entry, digest: str) -> None:
        """Take one more entry at the end; raises ValueError when it does not follow."""
        place = self.places.get(entry.journal, Place())
        if entry.start != place.end or entry.first != self.position + 1 or entry.count < 1:
            raise ValueError(f"does not follow what is before it (journal {entry.journal})")
        if entry.reason is None:
            spans = self._streams.setdefault(entry.stream, [])
            span = (entry.version, entry.version + entry.count - 1, len(self.entries))
            spans.insert(bisect_left(spans, span), span)
        self.entries.append(entry)
        self.hashes.append(digest)
        self.before.append(place.head)
        self._lasts.append(entry.last)
        self.places[entry.journal] = Place(entry.end, entry.head)

    def copy(self) -> Order:
        """Return an order that can grow without changing this one."""
        return Order(
            list(self.entries),
            list(self.hashes),
            list(self.before),
            dict(self.places),
            list(self._lasts),
            {stream: list(spans) for stream, spans in self._streams.items()},
        )

    @property
    def position(self) -> int:
        """The newest position."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def head(self) -> Head:
        """The newest position, and the hash of the newest entry."""
        return Head(self.position, self.hashes[-1] if self.hashes else GENESIS)

    def place(self, journal: str) -> Place:
        """Return how far a journal is in the order."""
        return self.places.get(journal, Place())

    def last_version(self, stream: str) -> int:
        """Return the highest version of a stream, 0 for a stream without events."""
        spans = self._streams.get(stream)
        return spans[-1][1] if spans else 0

    def holder(self, stream: str, version: int) -> int | None:
        """Return the index of the entry that has a version of a stream, or None."""
        spans = self._streams.get(stream, [])
        index = bisect_right(spans, version, key=lambda span: span[0]) - 1
        return spans[index][2] if index >= 0 and version <= spans[index][1] else None

    def span(self, index: int) -> Span:
        """Return the bytes of one entry."""
        entry, before = self.entries[index], self.before[index]
        return Span(
            entry.journal, entry.start, entry.end, entry.first, entry.count, before, entry.head
        )

    def spans(self, after: int, until: int) -> Iterator[Span]:
        """Yield the bytes that hold positions ``after`` < p <= ``until``, and some around them.

        Entries that follow each other in one journal are one span: a log whose events were placed
        one by one is read like one whose events were placed together.
        """
        last: Span | None = None
        for index in range(bisect_right(self._lasts, after), len(self.entries)):
            entry = self.entries[index]
            if entry.first > until:
                break
            if entry.reason is not None:
                continue
            if last and (last.journal, last.end) == (entry.journal, entry.start):
                count = last.count + entry.count
                last = evolve(last, end=entry.end, count=count, head=entry.head)
                continue
            if last:
                yield last
            last = self.span(index)
        if last:
            yield last

    def hash_at(self, position: int) -> list[str]:
        """Return the hashes under which the order ended at a position, if it ever did."""
        low, high = bisect_left(self._lasts, position), bisect_right(self._lasts, position)
        return ([GENESIS] if position == 0 else []) + self.hashes[low:high]
