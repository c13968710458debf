"""The one writer of a stream: an append is on disk before it returns."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from urllib.parse import quote

from attrs import frozen

from autoresearch.codec import canonical
from autoresearch.durable import FileLock, is_locked
from autoresearch.errors import LogError, StreamHeldError
from autoresearch.events import Event
from autoresearch.log.journal import (
    SUFFIX,
    JournalFile,
    Pair,
    append_new,
    checked_moment,
    checked_name,
    journal_name,
    journal_sizes,
    paired,
    seal_all,
)
from autoresearch.log.order import Order
from autoresearch.log.placing import Ordering
from autoresearch.log.records import Receipt, Writer, utc_now

_GLANCE_SECONDS = 0.01  # a look at a lock takes far less


class FileWriter(Writer):
    """Appends to the stream's journal of this machine while it holds the stream's lock."""

    def __init__(self, ordering: Ordering, campaign: str, stream: str, actor: str) -> None:
        self.campaign: str = checked_name(campaign, "campaign")
        self.stream: str = checked_name(stream, "stream")
        self.actor: str = checked_name(actor, "actor")
        self._ordering = ordering
        self._mutex = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        self._failed: tuple[int, str, int] | None = None  # what to cut back to, before all else
        self._lock = _hold(ordering, stream, actor)
        try:
            self._journal, self._version = self._open(ordering.sequence())
        except BaseException:
            self._lock.release()
            raise

    def append(
        self, event: Event, *, event_id: str | None = None, at: str | None = None
    ) -> Receipt:
        """Make an event durable; see :class:`autoresearch.log.Writer`."""
        with self._mutex:
            self._check()
            return append_new([(event, event_id)], self._ordering.find, self._write, at)[0]

    def append_many(
        self, events: Iterable[Event], *, event_ids: Sequence[str | None] = ()
    ) -> tuple[Receipt, ...]:
        """Make several events durable together; see :class:`autoresearch.log.Writer`."""
        with self._mutex:
            self._check()
            return append_new(paired(events, event_ids), self._ordering.find, self._write, None)

    def close(self) -> None:
        """Let go of the stream; a forked child that calls it leaves the parent's hold alone."""
        self._journal.close()
        if self._process == os.getpid():
            self._lock.write(b"")
        self._lock.release()
        self._closed = True

    def _check(self) -> None:
        if self._process != os.getpid():
            raise LogError(
                f"the writer of stream {self.stream!r} belongs to process {self._process}; "
                "open another stream in this one"
            )
        if self._closed:
            raise LogError(f"the writer of stream {self.stream!r} was closed; open a new writer")
        if self._failed is not None:
            with suppress(OSError, LogError):
                self._take_back(*self._failed)
        if self._failed is not None or not self._journal.intact:
            self._move_on()

    def _write(self, events: list[Pair], at: str | None) -> list[Receipt]:
        end, last_hash = self._journal.end, self._journal.last_hash
        data, receipts = seal_all(
            events, version=self._version, previous_hash=last_hash,
            actor=self.actor, campaign=self.campaign, stream=self.stream,
            at=utc_now() if at is None else checked_moment(at),
        )  # fmt: skip
        try:
            self._journal.append(data, receipts[-1].hash)
            self._version = receipts[-1].version
        except BaseException as error:  # an interrupt may come at any of these steps too
            self._failed = (end, last_hash, receipts[0].version - 1)
            with suppress(OSError, LogError):
                self._take_back(*self._failed)
            if not isinstance(error, OSError):
                raise
            if self._failed is not None or self._journal.end < end + len(data):
                raise LogError(
                    f"cannot append to {self._journal.path}: {error.strerror}; "
                    "nothing was recorded; free some space and retry"
                ) from None
        return receipts

    def _take_back(self, end: int, last_hash: str, version: int) -> None:
        """Cut the bytes of a failed append, but for lines to which a reader gave a place."""
        name = self._journal.path.name.removesuffix(SUFFIX)
        with self._ordering.still() as order:
            place = order.place(name)
            if place.end > end:  # durable since, so they count as appended
                end, last_hash = place.end, place.last_hash
                version = max(version, order.last_version(self.stream))
            self._journal.cut(end)
        self._journal.end, self._journal.last_hash, self._version = end, last_hash, version
        self._failed = None

    def _open(self, order: Order) -> tuple[JournalFile, int]:
        """Go on with this machine's newest journal of the stream if it is whole, or start one.

        A torn tail is left where it is: the bytes may be evidence, and nothing is written behind.
        """
        host, sizes = socket.gethostname(), journal_sizes(self._ordering.journals)
        number = 1
        while journal_name(self.stream, host, number + 1) in sizes:
            number += 1
        name = journal_name(self.stream, host, number)
        place = order.place(name)
        if sizes.get(name, 0) != place.end:
            name = journal_name(self.stream, host, number + 1)
            place = order.place(name)
        version = max(order.last_version(self.stream), self._unplaced_version(order, sizes))
        return self._opened(name, place.end, place.last_hash), version

    def _opened(self, name: str, end: int, last_hash: str) -> JournalFile:
        try:
            return JournalFile(self._ordering.journal_path(name), end, last_hash)
        except OSError as error:
            raise LogError(
                f"cannot open journal {name}: {error.strerror}; make the store writable"
            ) from None

    def _unplaced_version(self, order: Order, sizes: dict[str, int]) -> int:
        """Return the highest version in lines that could not be placed, so as not to reuse it."""
        mark = f'"stream":"{re.escape(self.stream)}","type":"[^"]*","version":([0-9]+)}}'.encode()
        highest = 0
        for name, size in sizes.items():
            if size > order.place(name).end:
                with self._ordering.journal_path(name).open("rb") as file:
                    file.seek(order.place(name).end)
                    found = re.findall(mark, file.read())
                highest = max([highest, *map(int, found)])
        return highest

    def _move_on(self) -> None:
        """Start a new journal: this one has bytes that were never acknowledged."""
        order = self._ordering.sequence()
        old = self._journal
        self._journal, version = self._open(order)
        old.close()
        self._version, self._failed = max(self._version, version), None
        self._ordering.notify(
            f"{old.path} has bytes that its writer did not write; going on in a new file"
        )


def _hold(ordering: Ordering, stream: str, actor: str) -> FileLock:
    lock = FileLock(ordering.locks / _lock_name(stream))
    try:
        taken = lock.acquire(wait=False)
        if not taken:  # perhaps for somebody who only looks
            time.sleep(_GLANCE_SECONDS)
            taken = lock.acquire(wait=False)
    except OSError as error:
        raise LogError(
            f"cannot write {lock.path}: {error.strerror}; make the store writable"
        ) from None
    if not taken:
        raise StreamHeldError(f"stream {stream!r} is being written by {_holder(ordering, stream)}")
    holder = {
        "actor": actor,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": utc_now(),
    }
    with suppress(OSError):  # who holds it is a help; on a full disk the lock holds all the same
        lock.write(canonical(holder).encode() + b"\n")
    return lock


@frozen(kw_only=True)
class Holder:
    """The process that writes a stream, or wrote it until it died: what its lock file says.

    ``held`` says whether its lock still is: no clock and no number of a process can mislead.
    """

    actor: str
    host: str
    pid: int
    since: str
    held: bool
    started: float = 0.0  # as earlier releases wrote it

    @property
    def alive(self) -> bool:
        """Whether the process is still there; of one on another host that is not known: yes."""
        return self.held or self.host != socket.gethostname()


def holder_of(ordering: Ordering, stream: str) -> Holder | None:
    """Return who holds a stream, alive or not; None for a stream that was let go."""
    file = ordering.locks / _lock_name(stream)
    try:
        return Holder(**json.loads(file.read_text()), held=is_locked(file))
    except (OSError, ValueError, TypeError):
        return None


def _lock_name(stream: str) -> str:
    return f"{quote(stream, safe='')}.stream.lock"


def _holder(ordering: Ordering, stream: str) -> str:
    found = holder_of(ordering, stream)
    if found is None:
        return "another process that is just starting; try again"
    return (
        f"{found.actor} (process {found.pid} on {found.host}, since {found.since}); "
        "autoresearch stop ends a loop"
    )
