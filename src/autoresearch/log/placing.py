"""Giving new journal lines their place in the order, without a database.

Whoever needs the order takes ``locks/order.lock`` for a moment, reads the new whole lines of all
journals and appends manifest lines. Where the folder cannot be written, the new lines get the
places that they would get, in memory only.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import duckdb
from attrs import define, field

from autoresearch.codec import canonical
from autoresearch.durable import (
    UNWRITABLE,
    locked,
    make_durable,
    make_folder,
    open_for_append,
    write_all,
)
from autoresearch.errors import LogError
from autoresearch.log.journal import (
    SUFFIX,
    Line,
    could_be_torn,
    is_given,
    journal_sizes,
    places_named,
    read_lines,
    recorded,
)
from autoresearch.log.order import (
    ENTRY_START,
    LONGEST,
    Entry,
    Order,
    Synced,
    last_position,
    load_synced,
    lost_lines,
    pack_entry,
)
from autoresearch.log.records import Recorded, Tip
from autoresearch.log.snapshots import SNAPSHOTS, keep, kept

MANY = 1_000  # lines of the manifest: less is read in a few hundredths of a second
_KEPT = "the order of all events"
DUPLICATE = "duplicate"  # the reason of lines that repeat an event; anything else is a conflict


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
        for stream, version in places_named(event_id):
            holder = self.order.holder(stream, version)
            if holder is not None:
                line = self._line(holder, version)
                if line.event_id == event_id:
                    return holder, line
        if event_id not in self._given:
            return None
        holder, version = self._given[event_id]
        return holder, self._line(holder, version)

    def _place_journal(self, journal: str, size: int) -> bytes:
        place = self.order.place(journal)
        written, group = [], _Group(journal, place.end)
        problem = None
        try:
            for line in read_lines(self._path(journal), place.end, size, place.last_hash):
                # A line that repeats one of the open group must find it in the order.
                if not group.is_followed_by(line) or self._is_in_open_group(line, group):
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
        data, hashed = pack_entry(entry, self.order.tip.hash)
        self.order.add(entry, hashed)
        self._given_read = len(self.order.entries)
        return data

    def _reason(self, line: Line) -> str | None:
        """Say why a line gets no position; None for a line that gets one."""
        known, given = line.event_id in self._given, is_given(line)
        if known and given:
            return DUPLICATE
        if line.version <= self.order.last_version(line.stream):
            holder = self.order.holder(line.stream, line.version)
            if holder is not None:
                other = self._line(holder, line.version)
                same = other.event_id == line.event_id
                taken = f"conflict: version {line.version} of the stream is {other.event_id}"
                return DUPLICATE if same else f"{taken} in {self.order.entries[holder].journal}"
        found = self.find(line.event_id) if known or given else None
        if found is None or given or found[1].payload == line.payload:
            return DUPLICATE if found else None
        # A caller chose the very id that this line got by itself: its event is not the same.
        return f"conflict: the id belongs to version {found[1].version} of {found[1].stream}"

    def _is_in_open_group(self, line: Line, group: _Group) -> bool:
        if not is_given(line) and line.event_id not in self._given:
            return False  # nearly all lines
        holder = self._given.get(line.event_id, (-1, 0))[0]
        return holder == len(self.order.entries) or group.may_hold(line.event_id)

    def _line(self, holder: int, version: int) -> Line:
        if self._near[0] != holder:
            self._near = (holder, {line.version: line for line in self._lines(holder)})
        if version not in self._near[1]:
            path = self._path(self.order.entries[holder].journal)
            raise LogError(f"{path} is not what manifest.jsonl says; run `autoresearch verify`")
        return self._near[1][version]

    def _lines(self, index: int) -> Iterator[Line]:
        entry = self.order.entries[index]
        return read_lines(self._path(entry.journal), entry.start, entry.end, entry.before)

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
        self.stream = self.last_hash = ""
        self.reason: str | None = None

    def is_followed_by(self, line: Line) -> bool:
        if not self.count:
            return True
        follows = line.stream == self.stream and line.version == self.version + self.count
        return follows and self.count < LONGEST

    def may_hold(self, event_id: str) -> bool:
        versions = range(self.version, self.version + self.count)
        named = places_named(event_id)
        return any(stream == self.stream and version in versions for stream, version in named)

    def add(self, line: Line, reason: str | None) -> None:
        if not self.count:
            self.stream, self.version, self.reason = line.stream, line.version, reason
        self.count += 1
        self.given += is_given(line)
        self.end += line.size
        self.last_hash = line.hash

    def entry(self, first: int) -> Entry:
        return Entry(first=first, **vars(self))


class Ordering:
    """The order of one store's journals, kept up with from where the last call left it."""

    def __init__(self, root: Path, notify: Callable[[str], None]) -> None:
        self.root: Path = root
        self.notify: Callable[[str], None] = notify
        self.journals: Path = root / "journal"
        self.locks: Path = root / "locks"
        self.manifest: Path = root / "manifest.jsonl"
        self._mutex = threading.RLock()
        self._is_complete = False
        self._forget()

    def prepare(self) -> None:
        """Make the folders of the store; raises LogError when that cannot be done."""
        try:
            for folder in (self.journals, self.locks):
                make_folder(folder)
        except OSError as error:
            raise LogError(
                f"cannot make the store {self.root}: {error.strerror}; choose a writable folder"
            ) from None

    def journal_path(self, journal: str) -> Path:
        """Return the file of a journal."""
        return self.journals / (journal + SUFFIX)

    def sequence(self) -> Order:
        """Return the order of everything acknowledged so far."""
        with self._mutex:
            self._catch_up()
            if not self._sequencer.waiting():
                return self._sequencer.order
            try:
                with locked(self.locks / "order.lock"):
                    return self._place_new()
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise LogError(f"cannot order {self.root}: {error}; run verify") from None
                return self._provisional()

    @contextmanager
    def still(self) -> Iterator[Order]:
        """Hold the order: nobody gives or takes places during the block."""
        with self._mutex, locked(self.locks / "order.lock"):
            self._catch_up()
            yield self._sequencer.order

    def read(self, order: Order, after: int, until: int) -> Iterator[Line]:
        """Yield the lines of an order with ``after`` < position <= ``until``."""
        for entry in order.spans(after, until):
            for line in self.lines(entry):
                if line.position > until:
                    break
                if line.position > after:
                    yield line

    def lines(self, entry: Entry) -> Iterator[Line]:
        """Yield the lines of an entry; raises LogError when they are not what the order says."""
        path = self.journal_path(entry.journal)
        count, last_hash = 0, entry.before
        for line in read_lines(path, entry.start, entry.end, last_hash, entry.first):
            count, last_hash = count + 1, line.hash
            yield line
        if (count, last_hash) != (entry.count, entry.last_hash):
            raise LogError(f"{path} is not what manifest.jsonl says; run `autoresearch verify`")

    def find(self, event_id: str) -> Recorded | None:
        """Return the event with an id, or None."""
        with self._mutex:
            order = self.sequence()
            seeker = self._sequencer
            if order is not seeker.order:
                seeker = Sequencer(self.journals, order, self.notify)
            found = seeker.find(event_id)
        if found is None:
            return None
        entry, line = order.entries[found[0]], found[1]
        return recorded(line._replace(position=entry.first + line.version - entry.version))

    def _forget(self) -> None:
        self._sequencer = Sequencer(self.journals, Order(), self.notify)
        self._end = 0
        self._tail = b""

    def _catch_up(self) -> None:
        """Read what was added to the manifest since the last call."""
        if self._is_complete:
            self._read_manifest()
            return
        # Without all of its manifest a store would silently get another order than the one that
        # was read before. What was synced is looked up first: the manifest only grows meanwhile.
        known = ever_synced(self.root)
        self._read_manifest()
        if lost := lost_lines(self._sequencer.order, *known):
            raise LogError(f"{self.manifest} {lost}")
        self._is_complete = True

    def _read_manifest(self) -> None:
        size = self.manifest.stat().st_size if self.manifest.exists() else 0
        known = self._end + len(self._tail)
        if size < known:
            raise LogError(f"{self.manifest} became shorter; restore it from a backup")
        if size == known:
            return
        if not self._end:
            self._recall_order()
        with self.manifest.open("rb") as file:
            file.seek(self._end)
            data = file.read()
        *lines, self._tail = data.split(b"\n")
        for line in lines:
            self._take(line)
        if len(lines) >= MANY:
            self._keep_order()

    def _keep_order(self) -> None:
        """Spare the next process to take the manifest apart line by line."""
        order = self._sequencer.order
        state = {
            "bytes": self._end,
            "digest": _digest_of_start(self.manifest, self._end),
            "entries": order.to_state(),
            "lines": order.lines,
        }
        with suppress(OSError):
            keep(self.root / SNAPSHOTS, _KEPT, order.tip, canonical(state).encode())

    def _recall_order(self) -> None:
        """Take over the order of the manifest's first bytes, where they are what they were."""
        found = kept(self.root / SNAPSHOTS, _KEPT)
        state: dict[str, Any] = json.loads(found[1]) if found is not None else {"bytes": 0}
        if not 0 < state["bytes"] <= self.manifest.stat().st_size:
            return
        if _digest_of_start(self.manifest, state["bytes"]) == state["digest"]:
            self._sequencer.order.add_state(state["entries"], state["lines"])
            self._end = state["bytes"]

    def saw(self, tip: Tip) -> bool:
        """Return whether the order once ended with this tip."""
        if tip.hash in (order := self.sequence()).hash_at(tip.position):
            return True
        if not 0 < tip.position <= order.position:
            return False
        with self.manifest.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            end = data.find(f'"hash":"{tip.hash}"}}\n'.encode())
            start = data.rfind(b"\n", 0, max(end, 0)) + 1
            line = data[start : data.find(b"\n", start)].decode(errors="replace")
        return end >= 0 and last_position(line) == tip.position

    def _take(self, line: bytes) -> None:
        try:
            self._sequencer.order.add_line(line)
        except ValueError as error:
            number = self._sequencer.order.lines + 1
            raise LogError(f"{self.manifest} line {number} {error}; run verify") from None
        self._end += len(line) + 1

    def _place_new(self) -> Order:
        """Place the waiting lines and make their places durable; the caller holds the lock."""
        self._catch_up()
        handle = open_for_append(self.manifest)
        try:
            if self._tail:
                self._cut_tail(handle)
            waiting = self._sequencer.waiting()
            for journal, _ in waiting:
                # A place must never be given to bytes that a power cut can still take away.
                make_durable(self.journal_path(journal))
            data = self._sequencer.place_new(waiting)
            if data:
                self._write(handle, data)
        finally:
            os.close(handle)
        return self._sequencer.order

    def _cut_tail(self, handle: int) -> None:
        if not could_be_torn(self._tail, ENTRY_START):
            count = len(self._tail)
            self.notify(f"{self.manifest}: cut {count} stray bytes after byte {self._end}")
        os.ftruncate(handle, self._end)
        self._tail = b""

    def _write(self, handle: int, data: bytes) -> None:
        try:
            write_all(handle, data)
        except BaseException:
            # The order in memory has places that the manifest lacks: read it again from the start.
            end = self._end
            self._forget()
            os.ftruncate(handle, end)
            self._catch_up()
            raise
        self._end += len(data)

    def _provisional(self) -> Order:
        trial = Sequencer(self.journals, self._sequencer.order.copy(), self.notify)
        order = trial.order
        sizes = journal_sizes(self.journals).items()
        trial.place_new([(name, size) for name, size in sizes if size > order.place(name).end])
        return order


def _digest_of_start(path: Path, end: int) -> str:
    whole = sha256()
    with path.open("rb") as file:
        while end > 0 and (piece := file.read(min(end, 1 << 20))):
            whole.update(piece)
            end -= len(piece)
    return whole.hexdigest()


def ever_synced(root: Path) -> tuple[Synced | None, int]:
    """Return what is known of the last sync: its state, else the last position in the database."""
    synced, database = load_synced(root / "fold.json"), root / "events.duckdb"
    if synced is not None or not database.exists():
        return synced, 0
    try:
        with duckdb.connect(database, read_only=True) as connection:
            ((last,),) = connection.execute("SELECT max(position) FROM events").fetchall()
        return None, last or 0
    except duckdb.Error:  # damaged or held: it can bear witness to nothing
        return None, 0
