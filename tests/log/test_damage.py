"""A damaged database is noticed, set aside and made again; a killed sync is completed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autoresearch import events
from autoresearch.log import FileLog

Open = Callable[[], FileLog]


def note(text: str) -> events.NoteAdded:
    return events.NoteAdded(text=text, author="a")


def rows(log: FileLog, query: str = "SELECT text FROM note_added ORDER BY position") -> list[Any]:
    with log.connect() as connection:
        return connection.execute(query).fetchall()


def damage_flip(root: Path) -> None:
    data = bytearray((root / "events.duckdb").read_bytes())
    data[5000] ^= 1
    (root / "events.duckdb").write_bytes(data)


def damage_cut(root: Path) -> None:
    data = (root / "events.duckdb").read_bytes()
    (root / "events.duckdb").write_bytes(data[: len(data) // 2])


def damage_grow(root: Path) -> None:
    with (root / "events.duckdb").open("ab") as file:
        file.write(b"x")


def damage_rows(root: Path) -> None:
    size = (root / "events.duckdb").stat().st_size
    with duckdb.connect(root / "events.duckdb") as connection:
        connection.execute("DROP TRIGGER events_no_delete ON events")
        connection.execute("DELETE FROM events WHERE position = 3")
    with (root / "events.duckdb").open("r+b") as file:
        file.truncate(size)


def damage_wal(root: Path) -> None:
    (root / "events.duckdb.wal").write_bytes(b"left over")


def damage_text(root: Path) -> None:
    (root / "events.duckdb").write_bytes(b"this is no database\n" * 500)


def damage_state(root: Path) -> None:
    (root / "fold.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        damage_cut,
        damage_grow,
        damage_rows,
        damage_wal,
        damage_text,
        damage_state,
    ],
)
def test_a_damaged_database_is_set_aside_and_rebuilt(
    filled: FileLog, reopen: Open, said: list[str], damage: Callable[[Path], None]
) -> None:
    """A database that is not what the last sync left is noticed, renamed, rebuilt and told of."""
    before = rows(filled, "SELECT position, hash, payload FROM events ORDER BY position")
    damage(filled.root)
    log = reopen()
    with log.writer("a") as writer:
        writer.append(note("afterwards"))
    after = rows(log, "SELECT position, hash, payload FROM events ORDER BY position")
    assert after[:-1] == before
    assert len(list(filled.root.glob("events.duckdb.damaged-*"))) >= 1
    assert [line for line in said if "not what it was, kept as events.duckdb.damaged-" in line]
    assert said[-1] == "events.duckdb was rebuilt with 7 events"
    report = log.verify()
    assert report.ok
    assert any("set aside" in text for text in report.notes)


def kill_during_a_sync(root: Path) -> None:
    """Leave what a sync leaves that is killed between its commit and its checkpoint."""
    code = """
import os, signal, sys
import duckdb
from autoresearch.log.database import Database
from autoresearch.log.tables import create_tables, load_journals, rows_with_wrong_hash
from autoresearch.projections.tables import open_store
log = open_store(sys.argv[1])
plain = Database._described
def kill(self, connection, order):
    os.kill(os.getpid(), signal.SIGKILL)
Database._described = kill
connect = duckdb.connect
def without_checkpoints(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.execute("SET wal_autocheckpoint = '1TB'")
    return Unchecked(connection)
class Unchecked:
    def __init__(self, connection): self.connection = connection
    def __enter__(self): return self
    def __exit__(self, *error): self.connection.close()
    def __getattr__(self, name): return getattr(self.connection, name)
    def execute(self, statement, *rest):
        return None if statement == "CHECKPOINT" else self.connection.execute(statement, *rest)
duckdb.connect = without_checkpoints
log.sync()
"""
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("part", [1.0, 0.5, 0.0])
def test_a_sync_that_was_killed_is_completed(
    filled: FileLog, reopen: Open, said: list[str], part: float
) -> None:
    """Whatever a killed sync left of its write-ahead log, the next sync has every event once."""
    with filled.writer("a") as writer:
        writer.append_many([note(f"in the killed sync {n}") for n in range(20)])
    kill_during_a_sync(filled.root)
    wal = filled.root / "events.duckdb.wal"
    data = wal.read_bytes()
    assert data
    wal.write_bytes(data[: int(len(data) * part)])
    log = reopen()
    assert log.sync()
    assert len(rows(log)) == 26
    assert log.verify().ok
