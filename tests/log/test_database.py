"""events.duckdb: always complete, never in the way, thrown away and made again when damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch import events
from autoresearch.errors import LogError
from autoresearch.log import FileLog, Schema, open_log
from autoresearch.log.database import Database
from autoresearch.log.tables import create_tables, load_journals, rows_with_wrong_hash
from autoresearch.projections.tables import open_store

Open = Callable[[], FileLog]


def note(text: str) -> events.NoteAdded:
    return events.NoteAdded(text=text, author="a")


def rows(log: FileLog, query: str = "SELECT text FROM note_added ORDER BY position") -> list[Any]:
    with log.connect() as connection:
        return connection.execute(query).fetchall()


@contextmanager
def held_outside(log: FileLog, *, read_only: bool) -> Iterator[None]:
    """Keep the database open in another process, as an analyst's tool would."""
    code = f"""
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only={read_only})
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(log.root / "events.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate(timeout=30)


def test_syncing_twice_adds_nothing(filled: FileLog, reopen: Open) -> None:
    """Every event is in the table once, however often and by whomever it is synced."""
    assert filled.sync()
    assert reopen().sync()
    with duckdb.connect(filled.root / "events.duckdb", read_only=True) as plain:
        assert plain.execute("SELECT count(*), max(position) FROM events").fetchall() == [(6, 6)]


def test_a_plain_duckdb_sees_the_tables(filled: FileLog) -> None:
    """Any DuckDB process can open the file and ask the documented tables."""
    assert open_store(filled.root).sync()
    code = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print(connection.execute("SELECT text FROM note_added ORDER BY position LIMIT 1").fetchall())
print(connection.execute("SELECT experiment, status, val_bpb FROM experiments").fetchall())
"""
    path = str(filled.root / "events.duckdb")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "[('first 0',)]\n[]\n", done.stderr


@pytest.mark.parametrize("table", ["events", "rejected_events", "source_texts"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET hash = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_update_and_delete_are_refused(filled: FileLog, table: str, verb: str) -> None:
    """The database itself refuses to change or remove what was recorded."""
    statement = verb.format(table).replace("hash", "digest" if "source" in table else "hash")
    with (
        duckdb.connect(filled.root / "events.duckdb") as connection,
        pytest.raises(duckdb.Error, match="append-only"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_foreign_process_with_the_file_open_delays_nobody(
    filled: FileLog, reopen: Open, said: list[str], read_only: bool
) -> None:
    """While another tool has the file open, syncs wait; appends and our own reads do not."""
    with held_outside(filled, read_only=read_only), filled.writer("a") as writer:
        for n in range(3):
            writer.append(note(f"late {n}"))
            assert not filled.sync()
            assert len(list(reopen().read())) == 7 + n
            assert rows(reopen())[-1] == (f"late {n}",)
        with reopen().connect(at=5) as connection:
            assert connection.execute("SELECT count(*) FROM note_added").fetchall() == [(5,)]
    assert said == []
    assert filled.sync()
    assert len(rows(filled)) == 9
    assert filled.verify().ok


def test_a_file_that_somebody_is_changing_is_not_taken_away(
    filled: FileLog, said: list[str]
) -> None:
    """While another process writes into the file it is left alone; afterwards it is made anew."""
    code = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE mine AS SELECT range AS x FROM range(100000)")
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(filled.root / "events.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert not filled.sync()
        assert len(rows(filled)) == 6
        assert said == []
        process.communicate(timeout=30)
    assert filled.sync()
    assert said[-1] == "events.duckdb was rebuilt with 6 events"
    assert filled.verify().ok


def test_our_own_open_connection_delays_nobody(filled: FileLog) -> None:
    """A connection in the same process may stay open; newer ones see more."""
    old = filled.connect()
    with filled.writer("a") as writer:
        writer.append(note("new"))
        assert not filled.sync()
        new = filled.connect()
        assert old.execute("SELECT count(*) FROM events").fetchall() == [(6,)]
        assert new.execute("SELECT count(*) FROM events").fetchall() == [(7,)]
        assert new.execute("SELECT count(*) FROM note_added").fetchall() == [(7,)]
    old.close()
    new.close()
    assert filled.sync()
    assert filled.verify().ok


def test_threads_may_sync_and_read_together(filled: FileLog) -> None:
    """Syncing and connecting from several threads of one process stays correct."""
    failures: list[BaseException] = []

    def work(stream: str) -> None:
        try:
            with filled.writer("a", stream) as writer:
                for n in range(8):
                    writer.append(note(f"{stream} {n}"))
                    filled.sync()
                    found = rows(filled, "SELECT count(*) FROM note_added")
                    assert found[0][0] >= 7 + n
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{k}",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(rows(filled)) == 30
    assert filled.verify().ok


def test_deleting_the_database_loses_nothing(filled: FileLog, reopen: Open) -> None:
    """The journals alone give back the same positions and hashes."""
    query = "SELECT * EXCLUDE (journal, start) FROM events ORDER BY position"
    before = rows(filled, query)
    (filled.root / "events.duckdb").unlink()
    report = reopen().rebuild()
    assert (report.events, report.sources, report.tip) == (6, 1, filled.tip())
    assert rows(filled, query) == before
    assert filled.verify().ok


def loaded_in_bulk(log: FileLog) -> list[Any] | None:
    """Return the rows that the fast way of loading makes, or None where it gives up."""
    with duckdb.connect() as connection:
        create_tables(connection)
        if not load_journals(connection, log.ordering.journals, log.ordering.sequence()):
            return None
        if rows_with_wrong_hash(connection):
            return None
        moment = "strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ') AS recorded_at"
        query = f"SELECT * REPLACE ({moment}) FROM events ORDER BY position"
        return connection.execute(query).fetchall()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=12))
def test_loading_in_bulk_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    """Whatever the texts, DuckDB cuts the lines as the reader does."""
    log = open_log(tmp_path_factory.mktemp("bulk"))
    with log.writer("a") as first, log.writer("b é", actor="bob ☃") as second:
        for text in words:
            first.append(note(text), event_id=f"row {text.encode().hex()[:150]}")
            second.append_many([note(text), note(f'x,"schema_version":9,"payload":{text}')])
            log.tip()
    with open_log(log.root).writer("a") as writer:
        writer.append(note("not yet ordered by the log that loads"))
        found = loaded_in_bulk(log)
    assert found == list(log.database.rows(log.ordering.sequence(), 0))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"first 2", b"FIRST 2"), (b'"actor":"loop"', b'"actor":"l\\"p"'), (b"first", b"fi\xffst")],
)
def test_loading_in_bulk_gives_up_on_damage(filled: FileLog, old: bytes, new: bytes) -> None:
    """A changed line is never loaded: the slow way then names it."""
    filled.tip()
    (path,) = (filled.root / "journal").glob("a@*")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert loaded_in_bulk(filled) is None


def test_a_damaged_journal_stops_a_rebuild(filled: FileLog, reopen: Open) -> None:
    """A rebuild from a changed line is refused by name, and the old database stays."""
    (path,) = (filled.root / "journal").glob("a@*")
    path.write_bytes(path.read_bytes().replace(b"first 2", b"FIRST 2"))
    before = (filled.root / "events.duckdb").read_bytes()
    with pytest.raises(LogError, match=r"jsonl line 3 does not match its hash"):
        reopen().rebuild()
    assert (filled.root / "events.duckdb").read_bytes() == before
    assert not list(filled.root.glob("*.new*"))


def test_a_rebuild_takes_away_what_a_killed_one_left(filled: FileLog, reopen: Open) -> None:
    """Half a database, its log, and the folder of what DuckDB's memory had no room for."""
    fresh = filled.root / "events.duckdb.new"
    fresh.write_bytes(b"half")
    fresh.with_name(f"{fresh.name}.wal").write_bytes(b"half")
    spilled = fresh.with_name(f"{fresh.name}.tmp")
    spilled.mkdir()
    (spilled / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"half")
    reopen().rebuild()
    assert not list(filled.root.glob("*.new*"))


def test_new_tables_come_with_a_new_release(filled: FileLog) -> None:
    """A database made with other tables gets the current ones at the next sync."""
    bare = open_log(filled.root, Schema())
    assert bare.sync()
    with (
        duckdb.connect(filled.root / "events.duckdb", read_only=True) as plain,
        pytest.raises(duckdb.CatalogException),
    ):
        plain.execute("FROM note_added")
    assert filled.sync()
    assert len(rows(filled)) == 6
    assert filled.verify().ok


def test_new_sources_are_synced(filled: FileLog) -> None:
    """A source that was stored without an event is in the table after the next sync."""
    digest = filled.sources.put("x = 1\ny = 2\n")
    found = rows(filled, f"SELECT bytes, lines, text FROM sources WHERE digest = '{digest}'")
    assert found == [(12, 2, "x = 1\ny = 2\n")]
    assert filled.verify().ok


def test_sources_and_conflicts_are_seen_before_they_are_synced(
    filled: FileLog, reopen: Open, tmp_path: Path
) -> None:
    """While somebody has the file open, new sources and rejected events are in SQL all the same."""
    other = tmp_path / "other"
    shutil.copytree(filled.root, other)
    with filled.writer("a") as mine, open_log(other).writer("a") as theirs:
        mine.append(note("here"))
        filled.tip()
        theirs.append(note("there"))
    with held_outside(filled, read_only=True):
        digest = filled.sources.put("new = 1\n")
        (path,) = (other / "journal").glob("a@*")
        shutil.copy(path, filled.root / "journal" / "a@elsewhere-1.jsonl")
        query = "SELECT payload->>'text' FROM rejected_events"
        assert rows(reopen(), query) == [("there",)]
        query = f"SELECT text FROM sources WHERE digest = '{digest}'"
        assert rows(reopen(), query) == [("new = 1\n",)]
    assert filled.sync()
    assert rows(filled, "SELECT payload->>'text' FROM rejected_events") == [("there",)]
    assert filled.verify().ok


def test_time_travel_in_sql(filled: FileLog) -> None:
    """Typed tables and events end together at the position asked for."""
    for at in range(7):
        with filled.connect(at=at) as connection:
            query = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM note_added)"
            assert connection.execute(query).fetchall() == [(at, at)]


def test_nothing_can_be_written_through_a_connection(filled: FileLog) -> None:
    """What people get for SQL changes nothing in the store."""
    with filled.connect() as connection:
        for statement in (
            "INSERT INTO source_texts VALUES ('a', 1, 'b')",
            "UPDATE events SET actor = 'eve'",
            "DROP TABLE events",
            "CREATE TABLE mine (x INTEGER)",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)
    assert filled.verify().ok


def test_sources_come_with_the_event_that_names_them(filled: FileLog) -> None:
    """``connect(at=N)`` shows a source from the first event on that names it."""
    named = filled.sources.put("x = 1\n")
    with filled.writer("a") as writer:
        writer.append(
            events.ChangeApplied(
                experiment=1, source_digest=named, parent_digest="", files=(),
                added_lines=1, removed_lines=0,
            )
        )  # fmt: skip
        writer.append(note("later"))
    for synced in (False, True):
        if synced:
            assert filled.sync()
        for at, expected in ((0, []), (6, []), (7, [(named,)])):
            with filled.connect(at=at) as connection:
                found = connection.execute("SELECT digest FROM sources").fetchall()
                assert found == expected, at
    assert len(rows(filled, "FROM sources")) == 2


OUTSIDE = (
    "COPY events TO '{}/out.csv'",
    "COPY (SELECT 1) TO '{}/events.duckdb' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '{}/events.duckdb.wal' (FORMAT csv, USE_TMP_FILE false)",
    "EXPORT DATABASE '{}/out'",
    "FROM read_csv('/etc/passwd')",
    "FROM read_text('{}/manifest.jsonl')",
    "FROM glob('/etc/*')",
    "ATTACH '{}/other.duckdb' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET disabled_filesystems = ''",
)


@pytest.mark.parametrize("held", [False, True], ids=["from the file", "from memory"])
def test_a_connection_reaches_nothing_outside(filled: FileLog, held: bool) -> None:
    """No file but the open one is read or written, and no setting opens the door again."""
    before = sorted(filled.root.rglob("*"))
    data = (filled.root / "events.duckdb").read_bytes()
    with ExitStack() as stack:
        if held:
            stack.enter_context(held_outside(filled, read_only=False))
        connection = stack.enter_context(filled.connect())
        for statement in OUTSIDE:
            with pytest.raises(duckdb.Error, match=r"disabled|locked"):
                connection.execute(statement.format(filled.root))
        assert connection.execute("SELECT count(*) FROM note_added").fetchall() == [(6,)]
        connection.execute("CREATE TEMP TABLE mine AS FROM events")
    assert sorted(filled.root.rglob("*")) == before
    assert (filled.root / "events.duckdb").read_bytes() == data


def test_a_connection_is_opened_to_the_outside_deliberately(
    filled: FileLog, tmp_path: Path
) -> None:
    """``external=True`` may copy into files, also beside a connection that may not."""
    target = tmp_path / "out.csv"
    with filled.connect() as shut, filled.connect(external=True) as connection:
        connection.execute(f"COPY (SELECT text FROM note_added) TO '{target}'")
        with pytest.raises(duckdb.Error, match="disabled"):
            shut.execute(f"COPY events TO '{tmp_path}/no.csv'")
    assert len(target.read_text().splitlines()) == 7
    with filled.connect(external=True) as connection, filled.connect() as shut:
        assert connection.execute(f"FROM read_csv('{target}')").fetchall()
        with pytest.raises(duckdb.Error, match="disabled"):
            shut.execute(f"FROM read_csv('{target}')")


def test_database_of_another_log_is_set_aside(
    filled: FileLog, reopen: Open, said: list[str], tmp_path: Path
) -> None:
    """As many events up to the same position are not enough: the last one's hash has to agree."""
    other = open_log(tmp_path / "other", filled.schema)
    with other.writer("c") as writer:
        for n in range(6):
            writer.append(note(f"foreign {n}"))
    other.sources.put("print('hello')\n")
    assert other.sync()
    ours, theirs = filled.root / "events.duckdb", other.root / "events.duckdb"
    assert theirs.stat().st_size == ours.stat().st_size  # or the size alone would tell
    shutil.copy(theirs, ours)
    with filled.writer("a") as writer:
        writer.append(note("one more"))
    assert reopen().sync()
    assert [text for (text,) in rows(reopen())][:2] == ["first 0", "first 1"]
    assert "is not what it was" in "".join(said)


@pytest.mark.parametrize(
    "told",
    [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT Error: Interrupted!")],
)
def test_ctrl_c_during_a_sync_is_an_interrupt(
    filled: FileLog, monkeypatch: pytest.MonkeyPatch, told: Exception
) -> None:
    """DuckDB tells of Ctrl-C as an error of its own; it stays a person's interrupt."""

    def interrupted(*_: object) -> bool:
        raise told

    with monkeypatch.context() as patched:
        patched.setattr(Database, "_sync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            filled.sync()
    assert filled.sync()
