"""What is in events.duckdb: its tables, how rows get into them, and how they are loaded in bulk.

The log knows the names and texts of typed tables and views, not their meaning: what they say about
experiments is written where experiments are known. An event's ``at`` is called ``recorded_at``
here, because ``at`` is a reserved word there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb
from attrs import frozen

from autoresearch.durable import digest
from autoresearch.log.journal import SUFFIX, Line
from autoresearch.log.order import Order
from autoresearch.log.records import GENESIS, Recorded

ENVELOPE = (
    ("position", "BIGINT"),
    ("event_id", "VARCHAR"),
    ("campaign", "VARCHAR"),
    ("stream", "VARCHAR"),
    ("version", "BIGINT"),
    ("type", "VARCHAR"),
    ("schema_version", "INTEGER"),
    ("recorded_at", "TIMESTAMP"),
    ("actor", "VARCHAR"),
    ("hash", "VARCHAR"),
    ("previous_hash", "VARCHAR"),
    ("payload", "JSON"),
)
PLACE = (("journal", "VARCHAR"), ("start", "BIGINT"))
_fields = attrgetter(*(name.replace("recorded_at", "at") for name, _ in ENVELOPE[1:]))
COLUMNS = ", ".join(name for name, _ in ENVELOPE)
Row = tuple[object, ...]


def _columns(columns: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind} NOT NULL" for name, kind in columns)


_TABLES = (
    f"CREATE TABLE events ({_columns(ENVELOPE + PLACE)})",
    f"CREATE TABLE rejected_events (reason VARCHAR NOT NULL, {_columns(ENVELOPE[1:] + PLACE)})",
    "CREATE TABLE source_texts (digest VARCHAR NOT NULL, bytes BIGINT NOT NULL, "
    "text VARCHAR NOT NULL)",
    "CREATE TABLE _about (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
    "CREATE TABLE _guard (refused INTEGER)",
)
OWN_TABLES = ("events", "rejected_events", "source_texts", "_about", "_guard")
_KEYS = (
    "ALTER TABLE events ADD PRIMARY KEY (position)",
    "CREATE UNIQUE INDEX events_by_id ON events (event_id)",
    "CREATE UNIQUE INDEX events_by_version ON events (stream, version)",
    "ALTER TABLE rejected_events ADD PRIMARY KEY (journal, start)",
    "ALTER TABLE source_texts ADD PRIMARY KEY (digest)",
)


@frozen(kw_only=True)
class Column:
    """A column for people: its SQL ``kind``, its unit and meaning, and how it is computed.

    ``sql`` is an expression over the columns of ``events``, or over those of a view's query.
    """

    name: str
    kind: str
    doc: str
    unit: str = ""
    sql: str = ""


@frozen(kw_only=True)
class EventTable:
    """A typed table with one row for each event of a type, filled at every sync."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def select(self, source: str, condition: str = "true") -> str:
        """Return the SELECT that makes the rows from a table of events."""
        columns = ", ".join(f'{column.sql} AS "{column.name}"' for column in self.columns)
        return f"SELECT {columns} FROM {source} WHERE type = '{self.name}' AND {condition}"


@frozen(kw_only=True)
class View:
    """A view over the tables and over the views before it; ``query`` yields its columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    query: str

    @property
    def sql(self) -> str:
        """The SELECT of the view: its columns cast to their kinds.

        TRY_CAST, so that one number beyond its kind is NULL and leaves the view readable.
        """
        columns = ", ".join(
            f'TRY_CAST({column.sql or column.name} AS {column.kind}) AS "{column.name}"'
            for column in self.columns
        )
        return f"SELECT {columns} FROM ({self.query})"


@frozen
class Schema:
    """The typed tables of the event types, and the views in the order in which they are made."""

    tables: tuple[EventTable, ...] = ()
    views: tuple[View, ...] = ()

    @property
    def digest(self) -> str:
        """A sha256 over all definitions: a database with another one gets new tables."""
        texts = [f"{table.name}\0{table.select('events')}" for table in self.tables]
        texts += [f"{view.name}\0{view.sql}" for view in self.views]
        return digest("\0".join(texts))


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the empty tables, without keys: many rows are loaded faster before them."""
    for statement in _TABLES:
        connection.execute(statement)


def create_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the keys and the guards that refuse UPDATE and DELETE."""
    for statement in _KEYS:
        connection.execute(statement)
    for table in ("events", "rejected_events", "source_texts"):
        for action in ("UPDATE", "DELETE"):
            # A trigger's body has to be an INSERT; error() stops it before anything is inserted.
            connection.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} AFTER {action} ON {table} "
                f"FOR EACH STATEMENT INSERT INTO _guard "
                f"SELECT error('{table} is append-only: {action} is refused')"
            )


def create_schema(connection: duckdb.DuckDBPyConnection, schema: Schema) -> None:
    """Replace the typed tables and the views, and fill them, when they are not the schema's."""
    if value(connection, "SELECT value FROM _about WHERE name = 'schema'") == schema.digest:
        return
    _drop_schema(connection)
    for table in schema.tables:
        columns = ", ".join(f'"{column.name}" {column.kind}' for column in table.columns)
        connection.execute(f'CREATE TABLE "{table.name}" ({columns})')
    for view in schema.views:
        connection.execute(f'CREATE VIEW "{view.name}" AS {view.sql}')
    connection.execute(
        "INSERT INTO _about VALUES ('schema', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [schema.digest],
    )
    fill_tables(connection, schema, 0)


def fill_tables(connection: duckdb.DuckDBPyConnection, schema: Schema, after: int) -> None:
    """Add the events behind a position to the typed tables."""
    found = connection.execute(f"SELECT DISTINCT type FROM events WHERE position > {after}")
    types = {kind for (kind,) in found.fetchall()}
    for table in schema.tables:
        if table.name in types:
            select = table.select("events", f"position > {after}")
            connection.execute(f'INSERT INTO "{table.name}" {select}')


def _drop_schema(connection: duckdb.DuckDBPyConnection) -> None:
    views = "SELECT view_name FROM duckdb_views() WHERE NOT internal"
    for (name,) in connection.execute(views).fetchall():
        connection.execute(f'DROP VIEW "{name}"')
    tables = "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
    for (name,) in connection.execute(tables).fetchall():
        if name not in OWN_TABLES:
            connection.execute(f'DROP TABLE "{name}"')


def value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """Return the one value of a query, or None when it has no row."""
    # Every result is fetched to its end: DuckDB refuses other work beside an unfinished one.
    rows = connection.execute(query).fetchall()
    return rows[0][0] if rows else None


def last_row(connection: duckdb.DuckDBPyConnection) -> tuple[int, int, str]:
    """Return the number of events, the last position and the hash there."""
    query = "SELECT count(*), coalesce(max(position), 0) FROM events"
    ((count, last),) = connection.execute(query).fetchall()
    digest = value(connection, f"SELECT hash FROM events WHERE position = {last}")
    return count, last, digest or GENESIS


def rows_with_wrong_hash(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Return the positions of rows whose columns do not give their hash: the chain, in SQL."""
    found = connection.execute(_WRONG_HASH).fetchall()
    return [position for (position,) in found]


_WRONG_HASH = """
    SELECT position FROM events WHERE hash <> sha256(previous_hash
        || '{"actor":"' || actor
        || '","at":"' || strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ')
        || '","campaign":"' || campaign || '","event_id":"' || event_id
        || '","payload":' || payload || ',"schema_version":' || schema_version
        || ',"stream":"' || stream || '","type":"' || type || '","version":' || version || '}')
    ORDER BY position
"""


def line_row(line: Line | Recorded, journal: str = "", start: int = 0) -> Row:
    """Return an event as a row of the table ``events``, of no journal unless told."""
    return (line.position, *_fields(line), journal, start)


def add_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Row]) -> None:
    """Append rows to a table."""
    with connection.appender(table) as appender:
        appender.append_rows(rows)


def memory_connection(
    schema: Schema,
    events: Iterable[Row],
    rejected: Iterable[Row] = (),
    sources: Iterable[Row] = (),
) -> duckdb.DuckDBPyConnection:
    """Return a connection to a database in memory with the given rows and the views."""
    connection = duckdb.connect(":memory:")
    create_tables(connection)
    add_rows(connection, "events", events)
    add_rows(connection, "rejected_events", rejected)
    add_rows(connection, "source_texts", sources)
    create_keys(connection)
    create_schema(connection, schema)
    return connection


# Connections of one process to one file share a database: two threads must not shut it at once.
_SHUTTING = threading.Lock()


def shut(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Keep a connection, and all others to its database, from every file but the open one."""
    with _SHUTTING:
        if not value(connection, "SELECT current_setting('lock_configuration')"):
            connection.execute("SET enable_external_access = false")
            # The setting above still lets a COPY overwrite the open file and its write-ahead log.
            connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
            connection.execute("SET lock_configuration = true")
    return connection


# --- loading whole journals -----------------------------------------------------------------
# DuckDB itself takes lines apart several times faster than Python, a piece of a journal at a time.
# Nothing is believed here: the caller checks afterwards, also in SQL, that every row gives its
# hash, and load_journals that the hashes form the chains and ends that the manifest knows. Whatever
# differs makes the caller read line by line, which names the line.

WORTH = 20_000  # events from which on this is faster than line by line
_PIECE = 1 << 23  # bytes of a journal that are taken apart at once
# The layout of a line (see journal.py) cut at its fixed places: names have no quotes in them, so
# the parts before the payload and behind it split at quotes, always into the same pieces.
_TAKE_APART = """
    CREATE OR REPLACE TEMP TABLE _lines AS
    WITH split AS (SELECT string_split($piece, chr(10)) AS lines),
    numbered AS (
        SELECT $number + unnest(range(len(lines))) AS number, unnest(lines) AS line FROM split
    ), measured AS (
        SELECT number, line, instr(line, ',"payload":') AS middle,
            left(right(line, 66), 64) AS hash,
            $start + sum(strlen(line) + 1) OVER (ORDER BY number) AS ends,
            string_split(right(line, 1000), ',"schema_version":')[-1] AS behind
        FROM numbered
    )
    SELECT number, hash, ends, ends - strlen(line) - 1 AS start,
        lag(hash, 1, $previous) OVER (ORDER BY number) AS previous_hash,
        string_split(left(line, middle), '"') AS head,
        substr(line, middle + 11, length(line) - length(behind) - middle - 28) AS payload,
        string_split(behind, '"') AS tail
    FROM measured
"""
_INSERT = """
    INSERT INTO events
    SELECT e.first + l.number - e.line, head[18], head[14], tail[4],
        CAST(trim(tail[11], ':},') AS BIGINT), tail[8], CAST(rtrim(tail[1], ',') AS INTEGER),
        CAST(head[10] AS TIMESTAMP), head[6], hash, previous_hash, payload, $journal, start
    FROM _lines l ASOF JOIN _entries e ON l.number >= e.line WHERE e.placed ORDER BY l.number
"""
_RIGHT_ENDS = """
    SELECT count(*) FROM _entries e JOIN _lines l
    ON l.number = e.line + e.count - 1 AND l.hash = e.last_hash AND l.ends = e.ends
"""


def load_journals(connection: duckdb.DuckDBPyConnection, folder: Path, order: Order) -> bool:
    """Fill the empty table ``events``; False (with the table in any state) when lines differ."""
    try:
        return all(
            _load(connection, folder / (journal + SUFFIX), journal, order)
            for journal in order.places
        )
    except (duckdb.Error, OSError, UnicodeDecodeError):
        return False


def _load(connection: duckdb.DuckDBPyConnection, path: Path, journal: str, order: Order) -> bool:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _entries (line BIGINT, count BIGINT, first BIGINT, "
        "ends BIGINT, last_hash VARCHAR, placed BOOLEAN)"
    )
    line, rows = 0, []
    for entry in order.entries:
        if entry.journal == journal:
            placed = entry.reason is None
            rows.append((line, entry.count, entry.first, entry.end, entry.last_hash, placed))
            line += entry.count
    add_rows(connection, "_entries", rows)
    at = {"number": 0, "start": 0, "previous": GENESIS}
    right = 0
    for piece in _pieces(path, order.place(journal).end):
        connection.execute(_TAKE_APART, {"piece": piece.decode(), **at}).fetchall()
        connection.execute(_INSERT, {"journal": journal}).fetchall()
        right += value(connection, _RIGHT_ENDS)
        last = "SELECT number + 1, ends, hash FROM _lines ORDER BY number DESC LIMIT 1"
        (found,) = connection.execute(last).fetchall()
        at = dict(zip(at, found, strict=True))
    connection.execute("DROP TABLE IF EXISTS _lines")
    return right == len(rows)


def _pieces(path: Path, end: int) -> Iterator[bytes]:
    """Yield the whole lines of a file up to a byte, some at a time, without the last newline."""
    with path.open("rb") as file:
        while (left := end - file.tell()) > 0:
            piece = file.read(min(_PIECE, left))
            if not piece.endswith(b"\n"):
                piece += file.readline(left - len(piece)) if len(piece) < left else b""
            if not piece:
                return
            yield piece.removesuffix(b"\n")
