"""Journals: how a line is written and read back, and one writer's file.

    {"event":{"actor":…,"at":…,"campaign":…,"event_id":…,"payload":{…},…},"hash":"…"}

The whole line is canonical JSON. ``hash`` is the sha256 of the hash before it (64 hex digits) and
the exact bytes of the value of ``event``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from autoresearch.codec import encode, type_of
from autoresearch.durable import open_for_append, write_all
from autoresearch.errors import LogError
from autoresearch.events import Event
from autoresearch.log.records import GENESIS, Receipt, Recorded

SUFFIX = ".jsonl"
_CHUNK = 1 << 20
_NAME = re.compile(r'[^"\\\x00-\x1f\x7f]{1,200}')
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_LINE = re.compile(
    r'\{"event":\{"actor":"([^"\\]*)","at":"([^"\\]*)","campaign":"([^"\\]*)",'
    r'"event_id":"([^"\\]*)","payload":(\{(?s:.*)\}),"schema_version":(\d+),"stream":"([^"\\]*)",'
    r'"type":"([^"\\]*)","version":(\d+)\},"hash":"(.{64})"\}'
)
_START = '{"event":{"actor":"'
_BEFORE, _BEHIND = len('{"event":'), len(',"hash":""}') + 64  # bytes of a line beside its event


class Line(NamedTuple):
    """A line taken apart; ``size`` counts its bytes with the newline.

    ``position`` is its place in the order, where whoever reads it knows that, else 0.
    """

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
    position: int = 0


class BadLineError(ValueError):
    """A line that was not written by a journal, or was changed since."""


def seal(
    event: Event,
    *,
    actor: str,
    at: str,
    campaign: str,
    event_id: str | None,
    stream: str,
    version: int,
    previous_hash: str,
) -> tuple[bytes, Receipt]:
    """Return an event as a line and the receipt for it; without an id it gets an automatic one.

    The names must have passed :func:`checked_name`.
    """
    event_id = event_id or f"{_own_start(stream, version)}{os.urandom(4).hex()}"
    name, payload, schema_version = type_of(event), encode(event), event.schema_version
    body = (
        f'{{"actor":"{actor}","at":"{at}","campaign":"{campaign}","event_id":"{event_id}",'
        f'"payload":{payload},"schema_version":{schema_version},"stream":"{stream}",'
        f'"type":"{name}","version":{version}}}'
    ).encode()
    digest = sha256(previous_hash.encode() + body).hexdigest()
    return b'{"event":' + body + b',"hash":"' + digest.encode() + b'"}\n', Receipt(
        event_id=event_id, campaign=campaign, stream=stream, version=version, type=name,
        schema_version=schema_version, at=at, actor=actor, hash=digest,
        previous_hash=previous_hash, payload=payload,
    )  # fmt: skip


def seal_all(
    events: Iterable[Pair], *, version: int, previous_hash: str, **names: str
) -> tuple[bytes, list[Receipt]]:
    """Seal events one behind the other; ``version`` is the stream's highest so far."""
    lines, receipts = [], []
    for number, (event, event_id) in enumerate(events, version + 1):
        line, receipt = seal(
            event, event_id=event_id, version=number, previous_hash=previous_hash, **names
        )
        previous_hash = receipt.hash
        lines.append(line)
        receipts.append(receipt)
    return b"".join(lines), receipts


Pair = tuple[Event, str | None]  # an event and the id that its caller gave it
R = TypeVar("R", bound=Receipt)


def paired(events: Iterable[Event], event_ids: Sequence[str | None]) -> list[Pair]:
    """Return each event with its id; raises LogError when there are ids for some of them only."""
    chosen = list(events)
    if event_ids and len(event_ids) != len(chosen):
        raise LogError(f"{len(chosen)} events have {len(event_ids)} ids; give one, or None, each")
    return list(zip(chosen, event_ids or [None] * len(chosen), strict=True))


def append_new(
    events: list[Pair],
    find: Callable[[str], R | None],
    write: Callable[[list[Pair], str | None], Iterable[R]],
    at: str | None,
) -> tuple[R, ...]:
    """Write those events whose id the log does not have yet; return the record of each."""
    made: dict[str, R] = {}
    for given in {name for _, name in events if name is not None}:
        if (earlier := find(checked_name(given, "event id"))) is not None:
            made[given] = earlier
    new: list[Pair] = []
    asked = set(made)
    for event, name in events:
        if name is None or name not in asked:
            new.append((event, name))
        asked.update(() if name is None else (name,))
    written = list(write(new, at)) if new else []
    made.update(
        (name, record) for (_, name), record in zip(new, written, strict=True) if name is not None
    )
    unnamed = (record for (_, name), record in zip(new, written, strict=True) if name is None)
    return tuple(next(unnamed) if name is None else made[name] for _, name in events)


# --- event ids ------------------------------------------------------------------------------
# An id is either automatic or chosen by the caller ("given"). The definition is this: an automatic
# id begins with the stream and the version of its own line, so that its line is found from the id
# alone; all others are remembered. Manifests on people's disks count the given ids of each entry by
# this very rule, so it cannot become narrower.


def _own_start(stream: str, version: int) -> str:
    return f"{stream}:{version}:"


def is_given(line: Line) -> bool:
    """Return whether an id must be remembered: it does not tell where its line is."""
    return not line.event_id.startswith(_own_start(line.stream, line.version))


def places_named(event_id: str) -> list[tuple[str, int]]:
    """Return each stream and version whose own line could have this id."""
    # A stream may have colons in its name and a caller's id may have more of them: try them all.
    found = re.finditer(r":(?=([1-9][0-9]{0,17}):)", event_id)
    return [(event_id[: colon.start()], int(colon[1])) for colon in found]


def unpack(raw: bytes, previous: str, position: int = 0) -> Line:
    """Take a line apart (without its newline) and check that it follows ``previous``.

    Raises BadLineError saying what is wrong, UnicodeDecodeError where it is not UTF-8 text.
    """
    match = _LINE.fullmatch(raw.decode())
    if match is None:
        raise BadLineError("is not a line of a journal")
    actor, at, campaign, event_id, payload, schema, stream, kind, version, stated = match.groups()
    if sha256(previous.encode() + raw[_BEFORE:-_BEHIND]).hexdigest() != stated:
        raise BadLineError(f"does not match its hash (event {event_id}, type {kind})")
    return Line(
        actor, at, campaign, event_id, payload, int(schema), stream, kind, int(version),
        stated, previous, len(raw) + 1, position,
    )  # fmt: skip


def recorded(line: Line) -> Recorded:
    """Return a journal line as the event at its position."""
    told = line._asdict()
    del told["size"]
    return Recorded(**told)


def could_be_torn(tail: bytes, start: str = _START) -> bool:
    """Return whether bytes after the last newline may be the beginning of a line."""
    text = tail.decode(errors="replace")
    return text.startswith(start) or start.startswith(text)


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


# --- files ----------------------------------------------------------------------------------


def journal_name(stream: str, host: str, number: int) -> str:
    """Return the name of a stream's journal; the number counts those of one host."""
    return f"{quote(stream, safe='')}@{quote(host, safe='')}-{number}"


def journal_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes in each journal of a folder; names that no journal can have are left out."""
    try:
        found = [(item.name, item.stat().st_size) for item in os.scandir(folder) if item.is_file()]
    except FileNotFoundError:
        return {}
    return {name[: -len(SUFFIX)]: size for name, size in sorted(found) if is_journal(name)}


def is_journal(name: str) -> bool:
    """Return whether a file name can be a journal's."""
    plain = not name.startswith(".") and '"' not in name and "\\" not in name
    return plain and name.endswith(SUFFIX) and name.isprintable()


class BadJournalError(LogError):
    """A journal has a line that does not belong there; ``offset`` is its first byte."""

    def __init__(self, path: Path, offset: int, line: int, problem: str) -> None:
        self.offset, self.line, self.problem = offset, line, problem
        super().__init__(f"{path} line {line} {problem}; run `autoresearch verify`")


def read_lines(
    path: Path, start: int, end: int, previous: str = GENESIS, first: int = 0
) -> Iterator[Line]:
    """Yield the whole lines between two bytes of a journal, each checked against the one before.

    ``first`` is the position of the first one, where they have one. Bytes after the last newline
    are left alone. Raises BadJournalError at the first line that was changed, and LogError when the
    file is shorter than ``end`` or cannot be read.
    """
    offset = start
    for position, raw in enumerate(_whole_lines(path, start, end), first):
        try:
            line = unpack(raw, previous, position)
        except (BadLineError, UnicodeDecodeError) as error:
            problem = str(error) if isinstance(error, BadLineError) else "is not UTF-8 text"
            with path.open("rb") as file:
                number = file.read(offset).count(b"\n") + 1
            raise BadJournalError(path, offset, number, problem) from None
        yield line
        offset += line.size
        previous = line.hash


def _whole_lines(path: Path, start: int, end: int) -> Iterator[bytes]:
    rest = b""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(_CHUNK, end - start))
                if not chunk:
                    raise LogError(f"{path} ends at byte {start}, before {end}; run verify")
                start += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}; run verify") from None


class JournalFile:
    """One journal being written: it knows where it ends and refuses to write behind other bytes."""

    def __init__(self, path: Path, end: int, last_hash: str) -> None:
        self.path, self.end, self.last_hash = path, end, last_hash
        self._handle = open_for_append(path)

    @property
    def intact(self) -> bool:
        """Whether the file ends where this writer left it."""
        return os.fstat(self._handle).st_size == self.end

    def append(self, data: bytes, last_hash: str) -> None:
        """Write whole lines durably; raises OSError with the file possibly torn: then cut it."""
        write_all(self._handle, data)
        self.end += len(data)
        self.last_hash = last_hash

    def cut(self, end: int) -> None:
        """Take back bytes that were never acknowledged."""
        os.ftruncate(self._handle, end)
        os.fdatasync(self._handle)

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
