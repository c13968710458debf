"""A log that keeps everything in memory: for tests, replays and trying a plugin."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import duckdb
from attrs import define, field

from autoresearch.codec import encode, type_of
from autoresearch.errors import LogError, StreamHeldError
from autoresearch.events import Event
from autoresearch.log.lines import checked_moment, checked_name, pack
from autoresearch.log.records import GENESIS, Head, Recorded, utc_now
from autoresearch.log.schema import Schema
from autoresearch.log.table import memory_connection


@define
class MemoryLog:
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

    def head(self) -> Head:
        """Return the position and hash of the newest event."""
        last = self._records[-1] if self._records else None
        return Head(last.position, last.hash) if last else Head(0, GENESIS)

    def find(self, event_id: str) -> Recorded | None:
        """Return the event with an id, or None."""
        return self._by_id.get(event_id)

    def fold(self) -> bool:
        """Do nothing: every connection is made from the records."""
        return True

    def connect(self, at: int | None = None) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection that sees the events up to position ``at``."""
        return memory_connection(self.schema, self.read(until=at))

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
        self, writer: MemoryWriter, events: list[Event], event_id: str | None, at: str | None
    ) -> list[Recorded]:
        """Put events behind the others, all or none."""
        with self._mutex:
            head, version = self.head(), self._versions.get(writer.stream, 0)
            made: list[Recorded] = []
            for number, event in enumerate(events, 1):
                previous = made[-1].hash if made else head.hash
                made.append(
                    _recorded(
                        writer, event, head.position + number, version + number, previous,
                        event_id, self.clock() if at is None else checked_moment(at),
                    )
                )  # fmt: skip
            self._records += made
            self._by_id.update((record.event_id, record) for record in made)
            self._versions[writer.stream] = version + len(made)
        return made


class MemoryWriter:
    """The writer of a stream of a MemoryLog."""

    def __init__(self, log: MemoryLog, campaign: str, stream: str, actor: str) -> None:
        self.campaign = checked_name(campaign, "campaign")
        self.stream = checked_name(stream, "stream")
        self.actor = checked_name(actor, "actor")
        self._log: MemoryLog | None = log
        log.take(stream, actor)

    def append(
        self, event: Event, *, event_id: str | None = None, at: str | None = None
    ) -> Recorded:
        """Record an event; see :class:`autoresearch.log.Writer`."""
        log = self._open_log()
        if event_id is not None:
            earlier = log.find(checked_name(event_id, "event id"))
            if earlier is not None:
                return earlier
        return log.record(self, [event], event_id, at)[0]

    def append_many(self, events: Iterable[Event]) -> tuple[Recorded, ...]:
        """Record several events together."""
        return tuple(self._open_log().record(self, list(events), None, None))

    def close(self) -> None:
        """Let go of the stream."""
        if self._log is not None:
            self._log.give(self.stream)
        self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_log(self) -> MemoryLog:
        if self._log is None:
            raise LogError(f"the writer of stream {self.stream!r} was closed; open a new writer")
        return self._log


def _recorded(
    writer: MemoryWriter, event: Event, position: int, version: int, previous: str,
    event_id: str | None, at: str,
) -> Recorded:  # fmt: skip
    given = event_id or f"{writer.stream}:{version}:{os.urandom(4).hex()}"
    name, payload, schema = type_of(event), encode(event), event.schema_version
    _, digest = pack(
        actor=writer.actor, at=at, campaign=writer.campaign, event_id=given, payload=payload,
        schema_version=schema, stream=writer.stream, type_name=name, version=version,
        previous=previous,
    )  # fmt: skip
    return Recorded(
        position=position, event_id=given, campaign=writer.campaign, stream=writer.stream,
        version=version, type=name, schema_version=schema, at=at, actor=writer.actor,
        hash=digest, previous_hash=previous, payload=payload,
    )  # fmt: skip
