"""Connections for reading: the database file as it is, with what is not yet synced laid over it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import duckdb

from autoresearch.durable import make_durable
from autoresearch.errors import LogError
from autoresearch.log.database import Database, first_line, is_held
from autoresearch.log.order import Order, Synced, load_synced
from autoresearch.log.records import EventLog, Tip
from autoresearch.log.tables import (
    Row,
    Schema,
    add_rows,
    last_row,
    memory_connection,
    shut,
    value,
)

_PATIENCE = 0.3  # seconds that a sync elsewhere may take before we read without the file
_MENTIONED = """digest IN (
    SELECT unnest(regexp_extract_all(CAST(payload AS VARCHAR), '"([0-9a-f]{64})"', 1)) FROM events)
"""  # a source has no position of its own: it is there from the first event that names it


def connect(
    database: Database, at: int | None = None, *, external: bool = False
) -> duckdb.DuckDBPyConnection:
    """Return a connection that sees everything acknowledged, or everything up to ``at``.

    The file is opened read-only. When another process has it open for writing, or it is missing or
    damaged, the tables are made in memory from the journals. Unless ``external``, the connection
    can neither read nor write any other file. Raises LogError where the journals contradict
    themselves.
    """
    database.sync()
    connection = _open(database, external)
    order = database.ordering.sequence()  # after opening: nothing is synced any more
    until = order.position if at is None else max(0, min(at, order.position))
    if connection is not None and not _is_whole(database, connection, order):
        connection.close()
        connection = None
        database.ordering.notify("events.duckdb is not read: it is not what the last sync left")
    if connection is None:
        connection = _in_memory(database, order)
    _lay_over(database, connection, order, until)
    return connection if external else shut(connection)


def _in_memory(database: Database, order: Order) -> duckdb.DuckDBPyConnection:
    try:
        return memory_connection(
            database.schema,
            database.rows(order, 0),
            database.rejected(order, 0),
            database.texts(set()),
        )
    except duckdb.Error as error:
        raise LogError(f"the events make no tables: {first_line(error)}; run verify") from None


def _open(database: Database, external: bool) -> duckdb.DuckDBPyConnection | None:
    # Open and shut connections have different settings, so that in one process DuckDB never lets
    # the one kind share what the other has open.
    settings: dict[str, str | bool] = {} if external else {"enable_external_access": "false"}
    deadline = time.monotonic() + _PATIENCE
    while database.path.exists():
        try:
            return duckdb.connect(database.path, read_only=True, config=settings)  # type: ignore[arg-type]
        except duckdb.Error as error:
            if not is_held(error):
                database.ordering.notify(f"events.duckdb is not read: {first_line(error)}")
                return None
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)
    return None


def _is_whole(database: Database, connection: duckdb.DuckDBPyConnection, order: Order) -> bool:
    """Return whether the file ends with the event that the journals have at that position."""
    state = load_synced(database.state)
    try:
        count, last, hashed = last_row(connection)
        current = value(connection, "SELECT value FROM _about WHERE name = 'schema'")
    except duckdb.Error:
        return False
    if state is None or count != last or not state.position <= last <= order.position:
        return False
    expected = state.hash
    if last > state.position:
        expected = next(database.ordering.read(order, last - 1, last)).hash
    return hashed == expected and current == database.schema.digest


def _lay_over(
    database: Database, connection: duckdb.DuckDBPyConnection, order: Order, until: int
) -> None:
    """Hide tables behind temporary views that add what is not synced, or end at a position.

    The persistent views name their tables without a schema, so they read the temporary ones.
    """
    last, cut = last_row(connection)[1], until < order.position
    if last != until:
        up_to = f"position <= {until}"
        _lay(connection, "events", database.rows(order, last, until), up_to)
        for table in database.schema.tables:
            _hide(connection, table.name, up_to, table.select("_more_events"))
    if cut:
        _lay(connection, "rejected_events", database.rejected(order, 0, until), "false")
    else:
        state = load_synced(database.state) or Synced()
        new = list(database.rejected(order, state.entries))
        there = connection.execute("SELECT journal, start FROM rejected_events").fetchall()
        _lay(connection, "rejected_events", [row for row in new if row[-2:] not in there])
    digests = connection.execute("SELECT digest FROM source_texts").fetchall()
    texts = list(database.texts({digest for (digest,) in digests}))
    _lay(connection, "source_texts", texts, _MENTIONED if cut else "true")


def _lay(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Row], keep: str = "true"
) -> None:
    """Show a table with more rows, and of its own only those that are to be kept."""
    if not rows and keep == "true":
        return
    connection.execute(f"CREATE TEMP TABLE _more_{table} AS FROM {table} LIMIT 0")
    add_rows(connection, f"_more_{table}", rows)
    _hide(connection, table, keep, f"FROM _more_{table}")


def _hide(connection: duckdb.DuckDBPyConnection, table: str, keep: str, more: str) -> None:
    name = value(connection, "SELECT current_database()")
    own = f'FROM "{name}".main."{table}" WHERE {keep}'
    connection.execute(f'CREATE TEMP VIEW "{table}" AS {own} UNION ALL {more}')


def export_parquet(log: EventLog, directory: Path, schema: Schema, at: int | None = None) -> Tip:
    """Write all events and tables up to position ``at`` into a new folder; return the log's tip.

    ``events/campaign=<tag>/*.parquet`` is partitioned by campaign; every typed table and view of
    ``schema`` is one file ``<name>.parquet``. The folder appears whole or not at all. Raises
    LogError when it exists or cannot be written.
    """
    if directory.exists():
        raise LogError(f"{directory} exists; choose a folder that does not")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    tip = log.tip()
    try:
        temporary.mkdir(parents=True)
        until = tip.position if at is None else at
        with log.connect(at=until, external=True) as connection:
            _write_tables(connection, temporary, schema)
        temporary.rename(directory)
        make_durable(directory.parent)
    except (OSError, duckdb.Error) as error:
        raise LogError(
            f"cannot export to {directory}: {first_line(error)}; choose a folder with space that "
            "you may write"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tip


def _write_tables(connection: duckdb.DuckDBPyConnection, folder: Path, schema: Schema) -> None:
    events = "SELECT * EXCLUDE (journal, start) FROM events ORDER BY position"
    if connection.execute(f"{events} LIMIT 1").fetchall():
        by_campaign = ", PARTITION_BY (campaign), WRITE_PARTITION_COLUMNS true"
        _write(connection, events, folder / "events", by_campaign)
    else:
        (folder / "events").mkdir()
    for name in [table.name for table in schema.tables] + [view.name for view in schema.views]:
        _write(connection, f'SELECT * FROM "{name}"', folder / f"{name}.parquet")


def _write(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, options: str = ""
) -> None:
    target = str(path).replace("'", "''")
    parquet = f"FORMAT parquet, COMPRESSION zstd{options}"
    connection.execute(f"COPY ({query}) TO '{target}' ({parquet})").fetchall()
