"""The order of all events: which bytes of which journal hold which positions, chained by hash.

    {"entry":{"count":…,"first":…,"from":…,…},"hash":"…"}

An entry covers consecutive versions of one stream in one journal. An entry with a ``reason``
covers lines that have no position: the same event twice, or a version that was taken.
"""

from __future__ import annotations

import re
from hashlib import sha256
from sys import intern

from attrs import frozen

from autoresearch.codec import canonical

_LINE = re.compile(
    r'\{"entry":(\{"count":(\d+),"first":(\d+),"from":(\d+),"given":(\d+),"head":"([0-9a-f]{64})",'
    r'"journal":"([^"\\]*)","reason":(null|"[^"\\]*"),"stream":"([^"\\]*)","to":(\d+),'
    r'"version":(\d+)\}),"hash":"([0-9a-f]{64})"\}'
)
_START = '{"entry":{"count":'
LONGEST = 4096  # lines in one entry: a reader that starts inside one reads it from its beginning


@frozen(kw_only=True)
class Entry:
    """Bytes ``start`` to ``end`` of a journal, their ``count`` lines from position ``first`` on.

    ``given`` counts the lines whose event id was chosen by the caller, ``head`` is the hash of
    the last line, ``version`` the stream's version of the first, and ``reason`` says why the
    lines have no position, or is None.
    """

    journal: str
    start: int
    end: int
    count: int
    first: int
    given: int
    head: str
    stream: str
    version: int
    reason: str | None = None

    @property
    def last(self) -> int:
        """The newest position of the log after this entry."""
        return self.first - 1 if self.reason else self.first + self.count - 1


def pack_entry(entry: Entry, previous: str) -> tuple[bytes, str]:
    """Return the bytes of a manifest line and its hash, which follows ``previous``."""
    body = canonical(
        {
            "count": entry.count,
            "first": entry.first,
            "from": entry.start,
            "given": entry.given,
            "head": entry.head,
            "journal": entry.journal,
            "reason": entry.reason,
            "stream": entry.stream,
            "to": entry.end,
            "version": entry.version,
        }
    )
    digest = sha256((previous + body).encode()).hexdigest()
    return f'{{"entry":{body},"hash":"{digest}"}}\n'.encode(), digest


def unpack_entry(text: str, previous: str) -> tuple[Entry, str]:
    """Return the entry in a manifest line and its hash; raises ValueError saying what is wrong."""
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError("is not a line of the manifest")
    body, count, first, start, given, head, journal, reason, stream, end, version, stated = (
        match.groups()
    )
    if sha256((previous + body).encode()).hexdigest() != stated:
        raise ValueError(f"does not match its hash (journal {journal}, position {first})")
    return (
        Entry(
            journal=intern(journal),  # few names, many entries
            start=int(start),
            end=int(end),
            count=int(count),
            first=int(first),
            given=int(given),
            head=head,
            stream=intern(stream),
            version=int(version),
            reason=None if reason == "null" else reason[1:-1],
        ),
        stated,
    )


def could_be_torn_entry(tail: bytes) -> bool:
    """Return whether bytes after the last newline may be the beginning of a manifest line."""
    text = tail.decode(errors="replace")
    return text.startswith(_START) or _START.startswith(text)
