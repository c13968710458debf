"""One line of a journal: the envelope and payload of an event, and the hash that chains it.

    {"event":{"actor":…,"at":…,"campaign":…,"event_id":…,"payload":{…},…},"hash":"…"}

The whole line is canonical JSON. ``hash`` is the sha256 of the hash before it (64 hex digits) and
the exact bytes of the value of ``event``.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

from autoresearch.errors import LogError

_NAME = re.compile(r'[^"\\\x00-\x1f\x7f]{1,200}')
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_LINE = re.compile(
    r'\{"event":(\{"actor":"([^"\\]*)","at":"([^"\\]*)","campaign":"([^"\\]*)",'
    r'"event_id":"([^"\\]*)","payload":(\{.*\}),"schema_version":(\d+),"stream":"([^"\\]*)",'
    r'"type":"([^"\\]*)","version":(\d+)\}),"hash":"([0-9a-f]{64})"\}'
)
_START = '{"event":{"actor":"'
_AROUND = len('{"event":,"hash":""}\n') + 64  # bytes of a line beside its event


class Line(NamedTuple):
    """A line taken apart; ``size`` counts its bytes with the newline."""

    actor: str
    at: str
    campaign: str
    event_id: str
    payload: str
    schema_version: int
    stream: str
    type: str
    version: int
    hash: str
    previous_hash: str
    size: int


class BadLineError(ValueError):
    """A line that was not written by a journal, or was changed since."""


def pack(
    *,
    actor: str,
    at: str,
    campaign: str,
    event_id: str,
    payload: str,
    schema_version: int,
    stream: str,
    type_name: str,
    version: int,
    previous: str,
) -> tuple[bytes, str]:
    """Return the bytes of a line and its hash; names must have passed :func:`checked_name`."""
    body = (
        f'{{"actor":"{actor}","at":"{at}","campaign":"{campaign}","event_id":"{event_id}",'
        f'"payload":{payload},"schema_version":{schema_version},"stream":"{stream}",'
        f'"type":"{type_name}","version":{version}}}'
    ).encode()
    digest = sha256(previous.encode() + body).hexdigest()
    return b'{"event":' + body + b',"hash":"' + digest.encode() + b'"}\n', digest


def unpack(text: str, previous: str) -> Line:
    """Take a line apart (without its newline) and check that it follows ``previous``.

    Raises BadLineError saying what is wrong.
    """
    match = _LINE.fullmatch(text)
    if match is None:
        raise BadLineError("is not a line of a journal")
    body, actor, at, campaign, event_id, payload, schema, stream, kind, version, stated = (
        match.groups()
    )
    raw = body.encode()
    if sha256(previous.encode() + raw).hexdigest() != stated:
        raise BadLineError(f"does not match its hash (event {event_id}, type {kind})")
    return Line(
        actor, at, campaign, event_id, payload, int(schema), stream, kind, int(version),
        stated, previous, len(raw) + _AROUND,
    )  # fmt: skip


def could_be_torn(tail: bytes) -> bool:
    """Return whether bytes after the last newline may be the beginning of a line."""
    text = tail.decode(errors="replace")
    return text.startswith(_START) or _START.startswith(text)


def checked_name(value: str, what: str) -> str:
    """Return a campaign, stream, actor or event id that can stand in a line as it is.

    Raises LogError for an empty or too long one, or one with quotes, backslashes or controls.
    """
    if not _NAME.fullmatch(value) or not _is_unicode(value):
        raise LogError(
            f"{what} is {value!r}; use 1 to 200 characters without quotes, backslashes or controls"
        )
    return value


def checked_moment(value: str) -> str:
    """Return a time that is written as the log writes it; raises LogError for any other."""
    if not _MOMENT.fullmatch(value):
        raise LogError(f"time is {value!r}; write it like 2026-03-18T02:00:00.000000Z")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
