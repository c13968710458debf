"""What the log gives back: an acknowledged event, an event in its place, and the end of the log."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property

from attrs import frozen

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
class Head:
    """The end of the log: how many events it has, and the hash of the order up to there."""

    position: int
    hash: str

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


@frozen
class Anchor:
    """A head that was written down outside the store; ``where`` says where, for messages."""

    position: int
    hash: str
    where: str = ""


def utc_now() -> str:
    """Return the time as the log writes it: ISO 8601, UTC, microseconds, ``Z``."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
