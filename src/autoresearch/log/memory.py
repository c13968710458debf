"""A log that keeps everything in memory: for tests, replays and trying a plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import duckdb
from attrs import asdict, define, field

from autoresearch.errors import LogError, StreamHeldError
from autoresearch.events import Event
from autoresearch.log.journal import (
    Pair,
    append_new,
    checked_moment,
    checked_name,
    paired,
    seal_all,
)
from autoresearch.log.records import GENESIS, EventLog, Recorded, Tip, Writer, utc_now
from autoresearch.log.tables import Schema, line_row, memory_connection, shut


@define
class MemoryLog(EventLog):
    """An EventLog without files; ``clock`` gives the time of events that bring none."""

    schema: Schema = field(factory=Schema)
    clock: Callable[[], str] = utc_now
    _records: list[Recorded] = field(factory=list)
    _by_id: dict[str, Recorded] = field(factory=dict)
    _versions: dict[str, int] = field(factory=dict)
    _held: dict[str, str] = field(factory=dict)
    _mutex: threading.RLock = field(factory=threading.RLock)

    def writer(self, campaign: str, stream: str | None = None, actor: str = "loop") -> MemoryWriter:
        """Open the one writer of a stream; see :class:`autoresearch.log.EventLog`."""
        return MemoryWriter(self, campaign, stream or campaign, actor)

    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        """Yield the events with ``after`` < position <= ``until``."""
        chosen = self._records[after : len(self._records) if until is None else max(until, 0)]
        return (record for record in chosen if campaign in (None, record.campaign))

    def tip(self) -> Tip:
        """Return the position and hash of the newest event."""
        last = self._records[-1] if self._records else None
        return Tip(last.position, last.hash) if last else Tip(0, GENESIS)

    def find(self, event_id: str) -> Recorded | None:
        """Return the event with an id, or None."""
        return self._by_id.get(event_id)

    def sync(self) -> bool:
        """Do nothing: every connection is made from the records."""
        return True

    def connect(
        self, at: int | None = None, *, external: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection that sees the events up to position ``at``."""
        connection = memory_connection(self.schema, map(line_row, self.read(until=at)))
        return connection if external else shut(connection)

    def take(self, stream: str, actor: str) -> None:
        """Give a stream to a writer; raises StreamHeldError when another has it."""
        with self._mutex:
            if stream in self._held:
                holder = f"{self._held[stream]} in this process; close that writer first"
                raise StreamHeldError(f"stream {stream!r} is being written by {holder}")
            self._held[stream] = actor

    def give(self, stream: str) -> None:
        """Take a stream back from its writer."""
        self._held.pop(stream, None)

    def record(
        self, writer: MemoryWriter, events: Iterable[Pair], at: str | None
    ) -> tuple[Recorded, ...]:
        """Put events behind the others, all or none."""
        with self._mutex:
            tip, version = self.tip(), self._versions.get(writer.stream, 0)
            _, receipts = seal_all(
                events, version=version, previous_hash=tip.hash,
                actor=writer.actor, campaign=writer.campaign, stream=writer.stream,
                at=self.clock() if at is None else checked_moment(at),
            )  # fmt: skip
            made = [
                Recorded(position=number, **asdict(receipt))
                for number, receipt in enumerate(receipts, tip.position + 1)
            ]
            self._records += made
            self._by_id.update((record.event_id, record) for record in made)
            self._versions[writer.stream] = version + len(made)
        return tuple(made)


class MemoryWriter(Writer):
    """The writer of a stream of a MemoryLog."""

    def __init__(self, log: MemoryLog, campaign: str, stream: str, actor: str) -> None:
        self.campaign: str = checked_name(campaign, "campaign")
        self.stream: str = checked_name(stream, "stream")
        self.actor: str = checked_name(actor, "actor")
        self._log: MemoryLog | None = log
        log.take(stream, actor)

    def append(
        self, event: Event, *, event_id: str | None = None, at: str | None = None
    ) -> Recorded:
        """Record an event; see :class:`autoresearch.log.Writer`."""
        log = self._open_log()
        return append_new([(event, event_id)], log.find, partial(log.record, self), at)[0]

    def append_many(
        self, events: Iterable[Event], *, event_ids: Sequence[str | None] = ()
    ) -> tuple[Recorded, ...]:
        """Record several events together; see :class:`autoresearch.log.Writer`."""
        log = self._open_log()
        return append_new(paired(events, event_ids), log.find, partial(log.record, self), None)

    def close(self) -> None:
        """Let go of the stream."""
        if self._log is not None:
            self._log.give(self.stream)
        self._log = None

    def _open_log(self) -> MemoryLog:
        if self._log is None:
            raise LogError(f"the writer of stream {self.stream!r} was closed; open a new writer")
        return self._log
