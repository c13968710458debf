"""Checks every byte of a store against every other record of it, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from autoresearch.codec import canonical
from autoresearch.durable import UNWRITABLE, FileLock, digest_files
from autoresearch.errors import LogError
from autoresearch.log.database import Database, first_line, is_held
from autoresearch.log.journal import (
    BadJournalError,
    could_be_torn,
    is_journal,
    journal_sizes,
    read_lines,
)
from autoresearch.log.order import ENTRY_START, Entry, Order, Synced, load_synced, lost_lines
from autoresearch.log.placing import Ordering, ever_synced
from autoresearch.log.records import Anchor, VerifyReport
from autoresearch.log.snapshots import unpack_snapshot
from autoresearch.log.sources import is_digest
from autoresearch.log.tables import ENVELOPE, PLACE, Row, value

SHOWN = 20  # findings of one kind that are listed one by one
_MANIFEST, _DATABASE = "manifest.jsonl", "events.duckdb"
_REPAIR = "run `autoresearch rebuild`"
_NAMES = [name for name, _ in ENVELOPE + PLACE]
# Times are compared as the journals write them.
_SELECTED = [
    "strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ')" if name == "recorded_at" else name
    for name in _NAMES
]


def verify(database: Database, anchors: Iterable[Anchor] = ()) -> VerifyReport:
    """Check journals, manifest, database, sources and locks, and tips written down outside.

    An anchor is a tip that was noted elsewhere, such as in a commit: with one, a store from which
    the end of every file was cut off is found out too.
    """
    ordering, root, order = database.ordering, database.ordering.root, Order()
    report = VerifyReport(order.tip)
    with _held_if_possible(database.lock), _held_if_possible(ordering.locks / "order.lock"):
        sizes = journal_sizes(ordering.journals)
        whole = _check_manifest(root, order, report)
        report.tip, report.events = order.tip, order.position
        _check_anchors(order, anchors, report)
        sound = _check_journals(ordering, order, sizes, report)
        _check_database(database, order, sound and whole, report)
    _check_small_files(root, report)
    for kept in sorted(root.glob("events.duckdb.damaged-*")):
        report.notes.append(f"{kept.name} was set aside earlier; delete it when it is not needed")
    return report


@contextmanager
def _held_if_possible(path: Path) -> Iterator[None]:
    """Hold a lock; where the folder cannot be written no other process can hold it either."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in UNWRITABLE and not isinstance(error, FileNotFoundError):
            raise
    try:
        yield
    finally:
        lock.release()


def _check_manifest(root: Path, order: Order, report: VerifyReport) -> bool:
    """Read the order; return whether the manifest has all that it ever had."""
    path = root / _MANIFEST
    *lines, tail = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines, 1):
        try:
            order.add_line(line)
        except ValueError as error:
            problem = f"{error}; nothing behind it is ordered"
            report.add(_MANIFEST, problem, number, order.position + 1)
            return False
    lost = lost_lines(order, *ever_synced(root))
    if lost:
        report.add(_MANIFEST, lost, len(lines) or None, order.position or None)
    if tail and could_be_torn(tail, ENTRY_START):
        report.notes.append(f"{_MANIFEST} ends in a torn line of {len(tail)} bytes, never read")
    elif tail:
        report.add(_MANIFEST, f"{len(tail)} stray bytes at the end; remove them", len(lines) + 1)
    return lost is None


def _check_anchors(order: Order, anchors: Iterable[Anchor], report: VerifyReport) -> None:
    for anchor in anchors:
        where, position = anchor.where or "an anchor", anchor.position
        if position > order.position:
            problem = f"ends at position {order.position}, but {where} saw position {position}"
            problem += ": the end of the log was cut off"
            report.add(_MANIFEST, problem, position=order.position)
        elif anchor.hash not in order.hash_at(position):
            problem = f"is not the log that {where} saw: there the hash was {anchor.hash[:12]}"
            report.add(_MANIFEST, problem, position=position)


# --- the small files ------------------------------------------------------------------------


def _check_small_files(root: Path, report: VerifyReport) -> None:
    """Check names and content of all that is neither in order nor in the database."""
    for folder, check in (
        ("journal", _journal_problem),
        ("sources", _source_problem),
        ("snapshots", _snapshot_problem),
        ("locks", _lock_problem),
    ):
        place = root / folder
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            name = f"{folder}/{path.name}"
            if path.name.startswith("."):
                report.notes.append(f"{name} is hidden or left from an interrupted write; not read")
            elif problem := check(path):
                report.add(name, problem)


def _journal_problem(path: Path) -> str | None:
    named = path.is_file() and is_journal(path.name)
    return None if named else "is not a journal; move it away"


def _source_problem(path: Path) -> str | None:
    if not path.is_file() or not is_digest(path.name):
        return "is not a source; move it away"
    whole = digest_files(path) == path.name
    return None if whole else "does not match its digest; restore it from its commit"


def _snapshot_problem(path: Path) -> str | None:
    whole = path.is_file() and unpack_snapshot(path.read_bytes()) is not None
    return None if whole else "is not what was kept; delete it"


def _lock_problem(path: Path) -> str | None:
    data = path.read_bytes() if path.suffix == ".lock" else b""
    try:
        found = json.loads(data or b"{}")
        held = isinstance(found, dict) and canonical(found).encode() + b"\n" == data
    except (ValueError, TypeError):
        held = False
    return None if held or not data else "has bytes that no holder wrote; empty it"


# --- journals against their own chains and the manifest -------------------------------------


def _check_journals(
    ordering: Ordering, order: Order, sizes: dict[str, int], report: VerifyReport
) -> bool:
    """Check every journal; return whether all that has a position can be read."""
    entries: dict[str, list[Entry]] = {}
    for entry in order.entries:
        entries.setdefault(entry.journal, []).append(entry)
    sound = True
    for journal in sorted(entries.keys() | sizes.keys()):
        checker = _Journal(ordering.journal_path(journal), entries.get(journal, []), report)
        sound &= checker.check(sizes.get(journal))
    return sound


class _Journal:
    """One journal and the manifest entries that speak of it."""

    def __init__(self, path: Path, entries: list[Entry], report: VerifyReport) -> None:
        self.path, self.entries, self.report = path, entries, report
        self.offset, self.number = 0, 0

    def check(self, size: int | None) -> bool:
        """Return whether everything that has a position is there and whole."""
        if size is None:
            self._say("is missing", position=self.entries[0].first)
            return False
        try:
            held = self._follow(size)
        except BadJournalError as bad:
            self._say(bad.problem, bad.line, self._position(bad.offset))
            return False
        except LogError as error:
            self._say(str(error))
            return False
        if size > self.offset:
            self._check_tail(size)
        return held

    def _follow(self, size: int) -> bool:
        """Read all whole lines, checking where each entry must end."""
        waiting = iter(self.entries)
        entry, count = next(waiting, None), 0
        for line in read_lines(self.path, 0, size):
            self.offset, self.number = self.offset + line.size, self.number + 1
            count += 1
            if entry is not None and self.offset >= entry.end:
                found = (self.offset, line.hash, count)
                if found != (entry.end, entry.last_hash, entry.count):
                    self._say(f"is not what {_MANIFEST} says", self.number, entry.first)
                    return False
                entry, count = next(waiting, None), 0
        if entry is not None:
            problem = f"ends after {self.offset} bytes, but {_MANIFEST} knows {entry.end}"
            self._say(f"{problem}: its end was cut off", self.number, entry.first + count)
        return entry is None

    def _check_tail(self, size: int) -> None:
        count = size - self.offset
        with self.path.open("rb") as file:
            file.seek(self.offset)
            tail = file.read(count)
        if could_be_torn(tail):
            torn = f"torn line of {count} bytes, which was never acknowledged"
            self.report.notes.append(f"journal/{self.path.name} ends in a {torn}")
        else:
            self._say(f"{count} stray bytes at the end; remove them", self.number + 1)

    def _position(self, offset: int) -> int | None:
        """Return the position of the line at an offset, if it has one."""
        for entry in self.entries:
            if entry.start <= offset < entry.end and entry.reason is None:
                lines = read_lines(self.path, entry.start, offset, entry.before)
                return entry.first + sum(1 for _ in lines)
        return None

    def _say(self, problem: str, line: int | None = None, position: int | None = None) -> None:
        self.report.add(f"journal/{self.path.name}", problem, line, position)


# --- the database, row by row against the journals, and from outside against the last sync ----


def _check_database(database: Database, order: Order, sound: bool, report: VerifyReport) -> None:
    """Check the file; rows are only compared when the journals are ``sound``."""
    state = load_synced(database.state)
    if state is None and not database.state.exists() and not database.path.exists():
        return
    if state is None:
        report.add("fold.json", f"is missing or was changed; {_REPAIR}")
    elif not database.path.exists():
        report.add(_DATABASE, f"is missing; {_REPAIR}")
        return
    elif state.writing:
        report.notes.append("the last sync was interrupted; the next one completes it")
    else:
        _check_size(database, state, report)
    if not sound:
        report.notes.append(
            f"{_DATABASE} was not compared with an order or journals that are damaged"
        )
        return
    try:
        with duckdb.connect(database.path, read_only=True) as connection:
            _check_rows(database, connection, order, state.position if state else 0, report)
            _check_rejected(database, connection, order, report)
            _check_derived(database, connection, report)
    except duckdb.Error as error:
        if is_held(error):
            report.notes.append(f"{_DATABASE} was not compared: it is open elsewhere for writing")
        else:
            report.add(_DATABASE, f"cannot be read: {first_line(error)}; {_REPAIR}")


def _check_size(database: Database, state: Synced, report: VerifyReport) -> None:
    size = database.path.stat().st_size
    if size != state.size:
        report.add(_DATABASE, f"has {size} bytes, but the last sync left {state.size}; {_REPAIR}")
    wal = database.wal.stat().st_size if database.wal.exists() else 0
    if wal:
        report.add(f"{_DATABASE}.wal", f"has {wal} bytes that no sync left; {_REPAIR}")


def _check_rows(
    database: Database,
    connection: duckdb.DuckDBPyConnection,
    order: Order,
    synced: int,
    report: VerifyReport,
) -> None:
    query = f"SELECT {', '.join(_SELECTED)} FROM events ORDER BY position"
    found = _rows(connection.cursor().execute(query))
    more = 0
    for number, (position, problem) in enumerate(
        _differences(found, database.rows(order, 0), synced)
    ):
        if number < SHOWN:
            report.add(_DATABASE, f"{problem}; {_REPAIR}", position=position)
        else:
            more += 1
    if more:
        report.add(_DATABASE, f"{more} more rows differ; {_REPAIR}")


def _differences(
    found: Iterator[Row], expected: Iterator[Row], synced: int
) -> Iterator[tuple[int, str]]:
    """Walk over both in their order and yield what differs, by position."""
    have, want = next(found, None), next(expected, None)
    while have is not None or (want is not None and _at(want) <= synced):
        if want is None or (have is not None and _at(have) < _at(want)):
            assert have is not None
            yield _at(have), f"event {have[1]} (type {have[5]}) is in no journal"
            have = next(found, None)
        elif have is None or _at(have) > _at(want):
            yield _at(want), f"event {want[1]} (type {want[5]}) is missing"
            want = next(expected, None)
        else:
            if have != want:
                names = [n for n, a, b in zip(_NAMES, have, want, strict=True) if a != b]
                changed = ", ".join(names)
                yield _at(want), f"event {want[1]} (type {want[5]}) was changed in {changed}"
            have, want = next(found, None), next(expected, None)


def _at(row: Row) -> int:
    position: Any = row[0]
    return int(position)


def _check_rejected(
    database: Database, connection: duckdb.DuckDBPyConnection, order: Order, report: VerifyReport
) -> None:
    query = f"SELECT reason, {', '.join(_SELECTED[1:])} FROM rejected_events"
    rejected = set(_rows(connection.execute(query)))
    for row in sorted(rejected - set(database.rejected(order, 0)), key=str)[:SHOWN]:
        report.add(_DATABASE, f"rejected event {row[1]} is in no journal; {_REPAIR}")


def _check_derived(
    database: Database, connection: duckdb.DuckDBPyConnection, report: VerifyReport
) -> None:
    """Check the sources and the typed tables, where these are of the present schema."""
    query = "SELECT digest FROM source_texts WHERE sha256(text) <> digest"
    for (digest,) in connection.execute(query).fetchall():
        report.add(_DATABASE, f"source {digest} was changed; {_REPAIR}")
    current = value(connection, "SELECT value FROM _about WHERE name = 'schema'")
    for table in database.schema.tables if current == database.schema.digest else ():
        derived, stored = table.select("events"), f'SELECT * FROM "{table.name}"'
        differing = value(
            connection,
            f"SELECT (SELECT count(*) FROM ({derived} EXCEPT ALL {stored})) + "
            f"(SELECT count(*) FROM ({stored} EXCEPT ALL {derived}))",
        )
        if differing:
            report.add(_DATABASE, f"table {table.name} has {differing} rows that differ; {_REPAIR}")


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    while rows := result.fetchmany(10_000):
        yield from rows
