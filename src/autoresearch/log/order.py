"""The order of all events: which bytes of which journal hold which positions, chained by hash.

    {"entry":{"count":…,"first":…,"from":…,…},"hash":"…"}

A line of the manifest is an entry: consecutive versions of one stream in one journal. An entry with
a ``reason`` covers lines that have no position: the same event twice, or a version that was taken.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from sys import intern
from typing import Any

from attrs import asdict, astuple, define, evolve, field, fields, frozen

from autoresearch.codec import canonical
from autoresearch.durable import digest, replace_file
from autoresearch.log.records import GENESIS, Tip

_LINE = re.compile(
    r'\{"entry":(\{"count":(\d+),"first":(\d+),"from":(\d+),"given":(\d+),"head":"([0-9a-f]{64})",'
    r'"journal":"([^"\\]*)","reason":(null|"[^"\\]*"),"stream":"([^"\\]*)","to":(\d+),'
    r'"version":(\d+)\}),"hash":"([0-9a-f]{64})"\}'
)
ENTRY_START = '{"entry":{"count":'
LONGEST = 4096  # lines in one entry: a reader that starts inside one reads it from its beginning


@define(kw_only=True)
class Entry:
    """Bytes ``start`` to ``end`` of a journal, their ``count`` lines from position ``first`` on.

    ``given`` counts the lines whose event id was chosen by the caller, ``last_hash`` is the hash of
    the last line, ``version`` the stream's version of the first, and ``reason`` says why the
    lines have no position, or is None. ``before``, the hash that the first line follows, is not in
    the manifest: :meth:`Order.add` fills it in.
    """

    journal: str
    start: int
    end: int
    count: int
    first: int
    given: int
    last_hash: str
    stream: str
    version: int
    reason: str | None = None
    before: str = field(default=GENESIS, eq=False)

    @property
    def last(self) -> int:
        """The newest position of the log after this entry."""
        return self.first - 1 if self.reason else self.first + self.count - 1

    def is_followed_by(self, other: Entry) -> bool:
        """Return whether the two may be one: they are neighbours, and it will not be too long."""
        return (
            self.reason is other.reason is None
            and (self.journal, self.stream) == (other.journal, other.stream)
            and self.end == other.start
            and self.version + self.count == other.version
            and self.count + other.count <= LONGEST
        )


_FIELDS = tuple(item.name for item in fields(Entry))


def pack_entry(entry: Entry, previous: str) -> tuple[bytes, str]:
    """Return the bytes of a manifest line and its hash, which follows ``previous``."""
    body = canonical(
        {
            "count": entry.count,
            "first": entry.first,
            "from": entry.start,
            "given": entry.given,
            "head": entry.last_hash,
            "journal": entry.journal,
            "reason": entry.reason,
            "stream": entry.stream,
            "to": entry.end,
            "version": entry.version,
        }
    )
    hashed = digest(previous + body)
    return f'{{"entry":{body},"hash":"{hashed}"}}\n'.encode(), hashed


def unpack_entry(text: str, previous: str) -> tuple[Entry, str]:
    """Return the entry in a manifest line and its hash; raises ValueError saying what is wrong."""
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError("is not a line of the manifest")
    body, count, first, start, given, last_hash, journal, reason, stream, end, version, stated = (
        match.groups()
    )
    if sha256((previous + body).encode()).hexdigest() != stated:
        raise ValueError(f"does not match its hash (journal {journal}, position {first})")
    entry = Entry(
        journal=intern(journal),  # few names, many entries
        start=int(start),
        end=int(end),
        count=int(count),
        first=int(first),
        given=int(given),
        last_hash=last_hash,
        stream=intern(stream),
        version=int(version),
        reason=None if reason == "null" else reason[1:-1],
    )
    return entry, stated


def last_position(text: str) -> int | None:
    """Return the log's newest position after a manifest line, None for another text."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    count, first, reason = int(match[2]), int(match[3]), match[8]
    return first - 1 + (count if reason == "null" else 0)


@frozen
class Place:
    """How far a journal is in the order: bytes covered, and the hash of the last line covered."""

    end: int = 0
    last_hash: str = GENESIS


@define
class Order:
    """All manifest entries so far, with what is asked of them in every call."""

    entries: list[Entry] = field(factory=list)
    hashes: list[str] = field(factory=list)
    places: dict[str, Place] = field(factory=dict)
    joined: int = 0  # manifest lines that are no entries of their own, at the beginning
    _lasts: list[int] = field(factory=list)
    _streams: dict[str, list[tuple[int, int, int]]] = field(factory=dict)

    def add(self, entry: Entry, hashed: str) -> None:
        """Take one more entry at the end; raises ValueError when it does not follow."""
        place = self.place(entry.journal)
        if entry.start != place.end or entry.first != self.position + 1 or entry.count < 1:
            raise ValueError(f"does not follow what is before it (journal {entry.journal})")
        if entry.reason is None:
            spans = self._streams.setdefault(entry.stream, [])
            span = (entry.version, entry.version + entry.count - 1, len(self.entries))
            spans.insert(bisect_left(spans, span), span)
        entry.before = place.last_hash
        self.entries.append(entry)
        self.hashes.append(hashed)
        self._lasts.append(entry.last)
        self.places[entry.journal] = Place(entry.end, entry.last_hash)

    def add_line(self, line: bytes) -> None:
        """Take one more line of the manifest; raises ValueError when it does not follow."""
        previous = self.hashes[-1] if self.hashes else GENESIS
        self.add(*unpack_entry(line.decode(errors="replace"), previous))

    def copy(self) -> Order:
        """Return an order that can grow without changing this one."""
        streams = {stream: list(spans) for stream, spans in self._streams.items()}
        return Order(
            list(self.entries), list(self.hashes), dict(self.places), self.joined,
            list(self._lasts), streams,
        )  # fmt: skip

    @property
    def lines(self) -> int:
        """How many lines of the manifest it has."""
        return self.joined + len(self.entries)

    def entries_from(self, line: int) -> list[Entry]:
        """Return the entries of the manifest's lines from one on, and maybe some before it."""
        return self.entries[max(0, line - self.joined) :]

    @property
    def position(self) -> int:
        """The newest position."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def tip(self) -> Tip:
        """The newest position, and the hash of the newest entry."""
        return Tip(self.position, self.hashes[-1] if self.hashes else GENESIS)

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

    def spans(self, after: int, until: int) -> Iterator[Entry]:
        """Yield the entries that hold positions ``after`` < p <= ``until``, and some around them.

        Those that follow each other in one journal come as one: a log whose events were placed
        one by one is read like one whose events were placed together.
        """
        joined: Entry | None = None
        for index in range(bisect_right(self._lasts, after), len(self.entries)):
            entry = self.entries[index]
            if entry.first > until:
                break
            if entry.reason is not None:
                continue
            if joined and (joined.journal, joined.end) == (entry.journal, entry.start):
                joined.count += entry.count
                joined.end, joined.last_hash = entry.end, entry.last_hash
                continue
            if joined:
                yield joined
            joined = evolve(entry)
        if joined:
            yield joined

    def to_state(self) -> list[list[object]]:
        """Return entries and their hashes as plain values, those that follow each other as one."""
        made: list[tuple[Entry, str]] = []
        for entry, hashed in zip(self.entries, self.hashes, strict=True):
            if made and (joined := made[-1][0]).is_followed_by(entry):
                joined.count += entry.count
                joined.given += entry.given
                joined.end, joined.last_hash = entry.end, entry.last_hash
                made[-1] = joined, hashed
            else:
                made.append((evolve(entry), hashed))
        return [[*astuple(entry), hashed] for entry, hashed in made]

    def add_state(self, state: list[list[Any]], lines: int) -> None:
        """Take over what :meth:`to_state` returned of so many lines into an empty order."""
        for *values, hashed in state:
            self.add(Entry(**dict(zip(_FIELDS, values, strict=True))), hashed)
        self.joined = lines - len(self.entries)

    def hash_at(self, position: int) -> list[str]:
        """Return the hashes under which the order ended at a position, as far as it has them."""
        low, high = bisect_left(self._lasts, position), bisect_right(self._lasts, position)
        return ([GENESIS] if position == 0 else []) + self.hashes[low:high]


@frozen(kw_only=True)
class Synced:
    """What the last sync left in events.duckdb; while ``writing`` only the sync's end is unsure.

    ``position`` and ``hash`` are those of its last event, ``entries`` counts the manifest lines it
    has, ``sources`` its sources, ``size`` its bytes, ``schema`` is the digest of its views.

    It is kept beside the database because DuckDB opens a file whose write-ahead log was cut as if
    nothing were missing, and ignores bytes behind its end: neither its rows nor its checksums can
    say that it is complete. It also says how long the manifest has been.
    """

    position: int = 0
    hash: str = GENESIS
    entries: int = 0
    rejected: int = 0
    sources: int = 0
    size: int = 0
    schema: str = ""
    writing: bool = False

    def to_bytes(self) -> bytes:
        """Return the state as one canonical JSON line with a digest of its own."""
        plain = asdict(self)
        return canonical({**plain, "digest": digest(canonical(plain))}).encode() + b"\n"

    def save(self, path: Path, *, writing: bool = False) -> None:
        """Write the state durably; ``writing`` says that a sync goes on."""
        replace_file(path, evolve(self, writing=writing).to_bytes())


def load_synced(path: Path) -> Synced | None:
    """Return the state of the last sync, or None when there is none that can be read."""
    try:
        data = path.read_bytes()
        plain = json.loads(data)
        plain.pop("digest")
        found = Synced(**plain)
        return found if found.to_bytes() == data else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def lost_lines(order: Order, synced: Synced | None, in_database: int) -> str | None:
    """Say what a manifest lacks that was read from it before, or None when it is all there.

    ``in_database`` is the last position in events.duckdb, as far as it can be asked.
    """
    entries = synced.entries if synced else 0
    if order.lines >= entries and order.position >= in_database:
        return None
    known = f"line {entries} was" if synced else f"position {in_database} was"
    state = (
        f"ends at line {order.lines} (position {order.position})"
        if order.entries
        else "is missing or empty"
    )
    return f"{state}, but {known} already synced into events.duckdb; restore it from a backup"
