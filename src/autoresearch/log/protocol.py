"""What every event log can do; FileLog keeps it on disk, MemoryLog does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self, runtime_checkable

import duckdb

from autoresearch.events import Event
from autoresearch.log.records import Receipt, Recorded, Tip


@runtime_checkable
class Writer(Protocol):
    """Appends to one stream; a stream has one writer at a time, until ``close``."""

    def append(
        self, event: Event, *, event_id: str | None = None, at: str | None = None
    ) -> Receipt:
        """Make an event durable and return its receipt.

        An ``event_id`` that the log already has changes nothing and returns the earlier record.
        ``at`` defaults to now. Raises CodecError for a value that cannot be recorded, LogError
        when the disk does not take it; then nothing was recorded.
        """

    def append_many(
        self, events: Iterable[Event], *, event_ids: Sequence[str | None] = ()
    ) -> tuple[Receipt, ...]:
        """Make several events durable together, in their order: one write, so no kill parts them.

        ``event_ids`` has one id, or None, for each event, or is empty. Events whose id the log
        already has are left out, and their earlier records are returned.
        """

    def close(self) -> None:
        """Let go of the stream."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@runtime_checkable
class EventLog(Protocol):
    """An append-only log of facts in one total order, positions 1 to N without gaps."""

    def writer(self, campaign: str, stream: str | None = None, actor: str = "loop") -> Writer:
        """Open the one writer of a stream (by default the campaign's own).

        Raises StreamHeldError, naming the holder, when the stream is being written elsewhere.
        """

    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        """Yield the events with ``after`` < position <= ``until``, in their order."""

    def tip(self) -> Tip:
        """Return the position and hash of the newest event; position 0 for an empty log."""

    def sync(self) -> bool:
        """Bring the SQL tables up to date if that is possible now; False when it is not."""

    def connect(
        self, at: int | None = None, *, external: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection that sees every event, or those up to position ``at``.

        It reads and writes no other file unless ``external`` says so.
        """
