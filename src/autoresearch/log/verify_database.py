"""Checks events.duckdb row by row against the journals, and from outside against the last fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from autoresearch.log.damage import first_line, is_held
from autoresearch.log.database import Database
from autoresearch.log.folded import load_folded
from autoresearch.log.order import Order
from autoresearch.log.report import SHOWN, VerifyReport
from autoresearch.log.table import ENVELOPE, PLACE, Row, value

FILE = "events.duckdb"
_MEND = "run `autoresearch rebuild`"
_NAMES = [name for name, _ in ENVELOPE + PLACE]
_TEXT_OF_TIME = "strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ')"


def check_database(database: Database, order: Order, sound: bool, report: VerifyReport) -> None:
    """Check the file; rows are only compared when the journals are ``sound``."""
    state = load_folded(database.state)
    if state is None and not database.state.exists() and not database.path.exists():
        return
    if state is None:
        report.add("fold.json", f"is missing or was changed; {_MEND}")
    elif not database.path.exists():
        report.add(FILE, f"is missing; {_MEND}")
        return
    elif state.writing:
        report.notes.append("the last fold was interrupted; the next one completes it")
    else:
        _check_size(database, state.size, report)
    if not sound:
        report.notes.append(f"{FILE} was not compared with journals that are damaged")
        return
    try:
        with duckdb.connect(database.path, read_only=True) as connection:
            _check_rows(database, connection, order, state.position if state else 0, report)
            _check_rest(database, connection, order, report)
    except duckdb.Error as error:
        if is_held(error):
            report.notes.append(f"{FILE} was not compared: somebody has it open for writing")
        else:
            report.add(FILE, f"cannot be read: {first_line(error)}; {_MEND}")


def _check_size(database: Database, expected: int, report: VerifyReport) -> None:
    size = database.path.stat().st_size
    if size != expected:
        report.add(FILE, f"has {size} bytes, but the last fold left {expected}; {_MEND}")
    if database.wal.exists() and database.wal.stat().st_size:
        report.add(
            f"{FILE}.wal", f"has {database.wal.stat().st_size} bytes that no fold left; {_MEND}"
        )


def _check_rows(
    database: Database,
    connection: duckdb.DuckDBPyConnection,
    order: Order,
    folded: int,
    report: VerifyReport,
) -> None:
    columns = ", ".join(name if name != "recorded_at" else _TEXT_OF_TIME for name in _NAMES)
    query = f"SELECT {columns} FROM events ORDER BY position"
    found = _rows(connection.cursor().execute(query))
    problems = _differences(found, database.rows(order, 0), folded)
    _report(report, problems)


def _differences(
    found: Iterator[Row], expected: Iterator[Row], folded: int
) -> Iterator[tuple[int, str]]:
    """Walk over both in their order and yield what differs, by position."""
    have, want = next(found, None), next(expected, None)
    while have is not None or (want is not None and _at(want) <= folded):
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


def _report(report: VerifyReport, problems: Iterable[tuple[int, str]]) -> None:
    more = 0
    for index, (position, problem) in enumerate(problems):
        if index < SHOWN:
            report.add(FILE, f"{problem}; {_MEND}", position=position)
        else:
            more += 1
    if more:
        report.add(FILE, f"{more} more rows differ; {_MEND}")


def _check_rest(
    database: Database, connection: duckdb.DuckDBPyConnection, order: Order, report: VerifyReport
) -> None:
    """Check rejected events, sources and the typed tables, which are all derived."""
    columns = _NAMES[1:]
    chosen = ", ".join(name if name != "recorded_at" else _TEXT_OF_TIME for name in columns)
    rejected = set(_rows(connection.execute(f"SELECT reason, {chosen} FROM rejected_events")))
    for row in sorted(rejected - set(database.rejected(order, 0)), key=str)[:SHOWN]:
        report.add(FILE, f"rejected event {row[1]} is in no journal; {_MEND}")
    query = "SELECT digest FROM source_texts WHERE sha256(text) <> digest"
    for (digest,) in connection.execute(query).fetchall():
        report.add(FILE, f"source {digest} was changed; {_MEND}")
    current = value(connection, "SELECT value FROM _about WHERE name = 'schema'")
    if current == database.schema.digest:
        _check_tables(database, connection, report)


def _check_tables(
    database: Database, connection: duckdb.DuckDBPyConnection, report: VerifyReport
) -> None:
    for table in database.schema.tables:
        derived, stored = table.select("events"), f'SELECT * FROM "{table.name}"'
        query = (
            f"SELECT (SELECT count(*) FROM ({derived} EXCEPT ALL {stored})) + "
            f"(SELECT count(*) FROM ({stored} EXCEPT ALL {derived}))"
        )
        differing = value(connection, query)
        if differing:
            report.add(FILE, f"table {table.name} has {differing} rows that differ; {_MEND}")


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    while rows := result.fetchmany(10_000):
        yield from rows
