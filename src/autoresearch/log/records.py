"""What the log gives back: events with their place, the end of the log, and what checks found."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property

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
