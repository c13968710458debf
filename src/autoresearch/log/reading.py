"""Connections for reading: the database file as it is, with what is not yet folded laid over it."""

from __future__ import annotations

import time

import duckdb

from autoresearch.log.damage import first_line, is_held
from autoresearch.log.database import Database
from autoresearch.log.folded import Folded, load_folded
from autoresearch.log.order import Order
from autoresearch.log.table import (
    COLUMNS,
    Row,
    add_rows,
    last_row,
    memory_connection,
    record_row,
    value,
)

_PATIENCE = 0.3  # seconds that a fold elsewhere may take before we read without the file


def connect(database: Database, at: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that sees everything acknowledged, or everything up to ``at``.

    The file is opened read-only. When somebody has it open for writing, or it is missing or
    damaged, the tables are made in memory from the journals.
    """
    database.fold()
    connection = _open(database)
    order = database.ordering.sequence()  # after opening: nobody folds any more
    until = order.position if at is None else max(0, min(at, order.position))
    if connection is not None and not _is_ours(database, connection, order):
        connection.close()
        connection = None
        database.ordering.notify("events.duckdb is not read: it is not what the last fold left")
    if connection is None:
        return _in_memory(database, order, until)
    _lay_over(database, connection, order, until)
    return connection


def _in_memory(database: Database, order: Order, until: int) -> duckdb.DuckDBPyConnection:
    records = database.ordering.read(order, 0, until)
    connection = memory_connection(database.schema, records, database.texts(set()))
    add_rows(connection, "rejected_events", database.rejected(order, 0))
    return connection


def _open(database: Database) -> duckdb.DuckDBPyConnection | None:
    deadline = time.monotonic() + _PATIENCE
    while database.path.exists():
        try:
            return duckdb.connect(database.path, read_only=True)
        except duckdb.Error as error:
            if not is_held(error):
                database.ordering.notify(f"events.duckdb is not read: {first_line(error)}")
                return None
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)
    return None


def _is_ours(database: Database, connection: duckdb.DuckDBPyConnection, order: Order) -> bool:
    """Return whether the file ends with the event that the journals have at that position."""
    state = load_folded(database.state)
    try:
        count, last, digest = last_row(connection)
        current = value(connection, "SELECT value FROM _about WHERE name = 'schema'")
    except duckdb.Error:
        return False
    if state is None or count != last or not state.position <= last <= order.position:
        return False
    expected = state.hash
    if last > state.position:
        expected = next(database.ordering.read(order, last - 1, last)).hash
    return digest == expected and current == database.schema.digest


def _lay_over(
    database: Database, connection: duckdb.DuckDBPyConnection, order: Order, until: int
) -> None:
    """Hide tables behind temporary views that add what is not folded, or end at a position.

    The persistent views name their tables without a schema, so they read the temporary ones.
    """
    name = value(connection, "SELECT current_database()")
    last = last_row(connection)[1]
    _add_to(connection, name, "rejected_events", _new_rejected(database, connection, order))
    digests = connection.execute("SELECT digest FROM source_texts").fetchall()
    texts = list(database.texts({digest for (digest,) in digests}))
    _add_to(connection, name, "source_texts", texts)
    if last == until:
        return
    connection.execute("CREATE TEMP TABLE _unfolded AS FROM events LIMIT 0")
    tail = database.ordering.read(order, last, until)
    add_rows(connection, "_unfolded", map(record_row, tail))
    events = f'"{name}".main.events'
    connection.execute(
        f"CREATE TEMP VIEW events AS SELECT {COLUMNS}, journal, start FROM {events} "
        f"WHERE position <= {until} UNION ALL FROM _unfolded"
    )
    for table in database.schema.tables:
        connection.execute(
            f'CREATE TEMP VIEW "{table.name}" AS FROM "{name}".main."{table.name}" '
            f"WHERE position <= {until} UNION ALL {table.select('_unfolded')}"
        )


def _new_rejected(
    database: Database, connection: duckdb.DuckDBPyConnection, order: Order
) -> list[Row]:
    state = load_folded(database.state) or Folded()
    rows = list(database.rejected(order, state.entries))
    if not rows:
        return []
    found = connection.execute("SELECT journal, start FROM rejected_events").fetchall()
    return [row for row in rows if row[-2:] not in found]


def _add_to(connection: duckdb.DuckDBPyConnection, name: str, table: str, rows: list[Row]) -> None:
    if not rows:
        return
    connection.execute(f"CREATE TEMP TABLE _more_{table} AS FROM {table} LIMIT 0")
    add_rows(connection, f"_more_{table}", rows)
    connection.execute(
        f'CREATE TEMP VIEW {table} AS FROM "{name}".main.{table} UNION ALL FROM _more_{table}'
    )
