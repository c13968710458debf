"""The journals of a store in their total order, without a database.

Whoever needs the order takes ``locks/order.lock`` for a moment, reads the new whole lines of all
journals and appends manifest lines. Where the folder cannot be written, the new lines get the
places that they would get, in memory only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.errors import LogError
from autoresearch.log.files import UNWRITABLE, locked, make_folder, open_for_append, write_all
from autoresearch.log.folded import Folded, load_folded
from autoresearch.log.journal import SUFFIX, journal_sizes, read_lines
from autoresearch.log.lines import Line
from autoresearch.log.manifest import could_be_torn_entry, unpack_entry
from autoresearch.log.order import Order, Span
from autoresearch.log.records import GENESIS, Recorded
from autoresearch.log.sequence import Sequencer


class Ordering:
    """The order of one store's journals, kept up with from where the last call left it."""

    def __init__(self, root: Path, notify: Callable[[str], None]) -> None:
        self.root, self.notify = root, notify
        self.journals = root / "journal"
        self.locks = root / "locks"
        self.manifest = root / "manifest.jsonl"
        self._mutex = threading.RLock()
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

    def read(
        self, order: Order, after: int, until: int, campaign: str | None = None
    ) -> Iterator[Recorded]:
        """Yield the events of an order with ``after`` < position <= ``until``."""
        for span in order.spans(after, until):
            for position, line in enumerate(self.lines(span), span.first):
                if position > until:
                    break
                if position > after and campaign in (None, line.campaign):
                    yield recorded(line, position)

    def lines(self, span: Span) -> Iterator[Line]:
        """Yield the lines of a span; raises LogError when they are not what the order says."""
        path = self.journal_path(span.journal)
        count, head = 0, span.before
        for line in read_lines(path, span.start, span.end, head):
            count, head = count + 1, line.hash
            yield line
        if (count, head) != (span.count, span.head):
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
        return recorded(line, entry.first + line.version - entry.version)

    def _forget(self) -> None:
        self._sequencer = Sequencer(self.journals, Order(), self.notify)
        self._end = 0
        self._tail = b""

    def _catch_up(self) -> None:
        """Read what was added to the manifest since the last call."""
        try:
            if self.manifest.stat().st_size == self._end + len(self._tail):
                return
            with self.manifest.open("rb") as file:
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            self._check_never_ordered()
            data = b""
        if len(data) < len(self._tail) or (not data and self._end):
            raise LogError(f"{self.manifest} became shorter; run `autoresearch verify`")
        *lines, self._tail = data.split(b"\n")
        for line in lines:
            self._take(line)

    def _check_never_ordered(self) -> None:
        # Without its manifest a store would silently get another order than the one that was read.
        path = self.root / "fold.json"
        folded = load_folded(path) if path.exists() else Folded()
        if folded is None or folded.entries:
            raise LogError(
                f"{self.manifest} is missing; restore it, or delete events.duckdb and fold.json to "
                "give all events a new order"
            )

    def _take(self, line: bytes) -> None:
        order = self._sequencer.order
        try:
            order.add(*unpack_entry(line.decode(), order.hashes[-1] if order.hashes else GENESIS))
        except ValueError as error:
            number = len(order.entries) + 1
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
                self._make_durable(journal)
            data = self._sequencer.place_new(waiting)
            if data:
                self._write(handle, data)
        finally:
            os.close(handle)
        return self._sequencer.order

    def _cut_tail(self, handle: int) -> None:
        if not could_be_torn_entry(self._tail):
            count = len(self._tail)
            self.notify(f"{self.manifest}: cut {count} stray bytes after byte {self._end}")
        os.ftruncate(handle, self._end)
        self._tail = b""

    def _make_durable(self, journal: str) -> None:
        # A place must never be given to bytes that a power cut can still take away.
        handle = os.open(self.journal_path(journal), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)

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


def recorded(line: Line, position: int) -> Recorded:
    """Return a journal line as the event at its position."""
    return Recorded(
        position=position,
        event_id=line.event_id,
        campaign=line.campaign,
        stream=line.stream,
        version=line.version,
        type=line.type,
        schema_version=line.schema_version,
        at=line.at,
        actor=line.actor,
        hash=line.hash,
        previous_hash=line.previous_hash,
        payload=line.payload,
    )
