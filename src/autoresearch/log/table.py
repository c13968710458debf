"""The tables in DuckDB: events with a typed envelope, what was rejected, and the sources.

An event's ``at`` is called ``recorded_at`` here, because ``at`` is a reserved word there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from autoresearch.log.lines import Line
from autoresearch.log.records import GENESIS, Recorded
from autoresearch.log.schema import Schema

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
    """Make the typed tables and the views anew, and fill them, when they are not the schema's."""
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


def unlike_their_hash(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Return the positions of rows whose columns do not give their hash: the chain, in SQL."""
    found = connection.execute(_UNLIKE).fetchall()
    return [position for (position,) in found]


_UNLIKE = """
    SELECT position FROM events WHERE hash <> sha256(previous_hash
        || '{"actor":"' || actor
        || '","at":"' || strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ')
        || '","campaign":"' || campaign || '","event_id":"' || event_id
        || '","payload":' || payload || ',"schema_version":' || schema_version
        || ',"stream":"' || stream || '","type":"' || type || '","version":' || version || '}')
    ORDER BY position
"""


def line_row(line: Line, position: int, journal: str, start: int) -> Row:
    """Return a journal line as a row of the table ``events``."""
    return (
        position,
        line.event_id,
        line.campaign,
        line.stream,
        line.version,
        line.type,
        line.schema_version,
        line.at,
        line.actor,
        line.hash,
        line.previous_hash,
        line.payload,
        journal,
        start,
    )


def record_row(record: Recorded) -> Row:
    """Return an event as a row of the table ``events``, of no journal."""
    return (
        record.position,
        record.event_id,
        record.campaign,
        record.stream,
        record.version,
        record.type,
        record.schema_version,
        record.at,
        record.actor,
        record.hash,
        record.previous_hash,
        record.payload,
        "",
        0,
    )


def add_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Row]) -> int:
    """Append rows to a table and return their number."""
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for item in rows:
            count += 1
            yield item

    with connection.appender(table) as appender:
        appender.append_rows(counted())
    return count


def memory_connection(
    schema: Schema, records: Iterable[Recorded], sources: Iterable[Row] = ()
) -> duckdb.DuckDBPyConnection:
    """Return a connection to a database in memory with the given events and the views."""
    connection = duckdb.connect(":memory:")
    create_tables(connection)
    add_rows(connection, "events", map(record_row, records))
    add_rows(connection, "source_texts", sources)
    create_keys(connection)
    create_schema(connection, schema)
    return connection
