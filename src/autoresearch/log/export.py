"""The log as Parquet files, for any engine and for object storage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb

from autoresearch.errors import LogError
from autoresearch.log.damage import first_line
from autoresearch.log.files import sync_folder
from autoresearch.log.protocol import EventLog
from autoresearch.log.records import Head
from autoresearch.log.schema import Schema

_OPTIONS = "FORMAT parquet, COMPRESSION zstd"


def export_parquet(log: EventLog, directory: Path, schema: Schema, at: int | None = None) -> Head:
    """Write all events and tables up to position ``at`` into a new folder; return their head.

    ``events/campaign=<tag>/*.parquet`` is partitioned by campaign; every typed table and view of
    ``schema`` is one file ``<name>.parquet``. The folder appears whole or not at all. Raises
    LogError when it exists or cannot be written.
    """
    if directory.exists():
        raise LogError(f"{directory} exists; choose a folder that does not")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    head = log.head()
    try:
        temporary.mkdir(parents=True)
        with log.connect(at=head.position if at is None else at) as connection:
            _write_all(connection, temporary, schema)
        temporary.rename(directory)
        sync_folder(directory.parent)
    except (OSError, duckdb.Error) as error:
        raise LogError(f"cannot export to {directory}: {first_line(error)}; make room") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return head


def _write_all(connection: duckdb.DuckDBPyConnection, folder: Path, schema: Schema) -> None:
    _write(
        connection,
        "SELECT * EXCLUDE (journal, start) FROM events ORDER BY position",
        folder / "events",
        f"{_OPTIONS}, PARTITION_BY (campaign), WRITE_PARTITION_COLUMNS true",
    )
    for name in [table.name for table in schema.tables] + [view.name for view in schema.views]:
        _write(connection, f'SELECT * FROM "{name}"', folder / f"{name}.parquet", _OPTIONS)


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path, options: str) -> None:
    if "PARTITION_BY" in options and not connection.execute(f"{query} LIMIT 1").fetchall():
        path.mkdir()
        return
    target = str(path).replace("'", "''")
    connection.execute(f"COPY ({query}) TO '{target}' ({options})").fetchall()
