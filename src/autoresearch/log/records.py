"""What every event log can do, and what it gives back: events with their place, and findings.

FileLog keeps it on disk, MemoryLog does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Protocol, Self, runtime_checkable

import duckdb
from attrs import Factory, define, frozen

from autoresearch.codec import decode
from autoresearch.events import Event

GENESIS = "0" * 64  # what the first line of every chain follows


@frozen(kw_only=True)
class Receipt:
    """An event that is durable; ``hash`` is the sha256 of ``previous_hash`` and the line's bytes.

    ``previous_hash`` is that of the line before it in the same journal. ``version`` counts the
    events of a stream from 1. ``at`` is ISO 8601 in UTC with microseconds. ``payload`` is the
    canonical JSON as stored.
    """

    event_id: str
    campaign: str
    stream: str
    version: int
    type: str
    schema_version: int
    at: str
    actor: str
    hash: str
    previous_hash: str
    payload: str

    @cached_property
    def event(self) -> Event:
        """The event itself, in the newest version of its type; UnknownEvent when it is from a
        newer release."""
        return decode(self.type, self.schema_version, self.payload)


@frozen(kw_only=True)
class Recorded(Receipt):
    """An event in its place: ``position`` counts all events of the log from 1."""

    position: int


@frozen
class Tip:
    """The end of the log: how many events it has, and the hash of the order up to there."""

    position: int
    hash: str

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


@frozen
class Anchor:
    """A tip that was written down outside the store; ``where`` says where, for messages."""

    position: int
    hash: str
    where: str = ""


@frozen
class Finding:
    """One thing that is not as it was written; ``file`` is relative to the store."""

    file: str
    problem: str
    line: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        line = f" line {self.line}" if self.line is not None else ""
        position = f" (position {self.position})" if self.position is not None else ""
        return f"{self.file}{line}{position}: {self.problem}"


@define
class VerifyReport:
    """The event count and tip that were found, what is wrong, and what is merely remarkable."""

    tip: Tip
    events: int = 0
    findings: list[Finding] = Factory(list)
    notes: list[str] = Factory(list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(
        self, file: str, problem: str, line: int | None = None, position: int | None = None
    ) -> None:
        """Remember a finding."""
        self.findings.append(Finding(file, problem, line, position))


@frozen
class RebuildReport:
    """What a rebuilt database holds, and how long it took in seconds."""

    events: int
    rejected: int
    sources: int
    tip: Tip
    seconds: float


def utc_now() -> str:
    """Return the time as the log writes it: ISO 8601, UTC, microseconds, ``Z``."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


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
