"""The total order: positions are given once, to lines that are there; conflicts stay visible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch import events
from autoresearch.errors import LogError
from autoresearch.log import FileLog, Tip, open_log, placing
from autoresearch.log.order import LONGEST, Order

Open = Callable[[], FileLog]


def note(text: str) -> events.NoteAdded:
    return events.NoteAdded(text=text, author="a")


def texts(log: FileLog) -> list[str]:
    return [record.event.text for record in log.read()]  # type: ignore[attr-defined]


def rejected(log: FileLog) -> list[tuple[str, str]]:
    with log.connect() as connection:
        query = "SELECT reason, payload->>'text' FROM rejected_events ORDER BY journal, start"
        return connection.execute(query).fetchall()


def copied(log: FileLog, path: Path) -> FileLog:
    """Return the store as it is after somebody copied it to another machine."""
    shutil.copytree(log.root, path)
    return open_log(path, log.schema)


def rename_host(log: FileLog, host: str) -> None:
    """Give the journals the names that another machine would have given them."""
    for path in list((log.root / "journal").iterdir()):
        stream, rest = path.name.split("@")
        path.rename(path.with_name(f"{stream}@{host}-{rest.rsplit('-', 1)[1]}"))


def test_journals_from_another_machine_become_one_log(store: FileLog, tmp_path: Path) -> None:
    """Journals copied into the folder are read behind what is already there, once."""
    other = open_log(tmp_path / "other")
    with store.writer("a") as mine, other.writer("b") as theirs:
        mine.append(note("mine"))
        theirs.append_many([note("theirs 1"), note("theirs 2")])
    rename_host(other, "elsewhere")
    assert texts(store) == ["mine"]
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    assert texts(store) == ["mine", "theirs 1", "theirs 2"]
    assert store.sync()
    assert store.verify().ok


def test_a_version_that_was_taken_is_rejected_visibly(store: FileLog, tmp_path: Path) -> None:
    """When two machines went on with one stream, the later journal's events are kept aside."""
    with store.writer("a") as writer:
        writer.append(note("common"))
    store.tip()
    other = copied(store, tmp_path / "other")
    with store.writer("a") as mine, other.writer("a") as theirs:
        mine.append(note("here"))
        theirs.append_many([note("there 1"), note("there 2")])
    rename_host(other, "elsewhere")
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    assert texts(store) == ["common", "here", "there 2"]
    ((reason, text),) = rejected(store)
    assert text == "there 1"
    assert reason.startswith("conflict: version 2 of the stream is a:2:")
    assert store.sync()
    assert store.rebuild().rejected == 1
    assert rejected(store) == [(reason, text)]
    assert store.verify().ok


def test_a_journal_that_was_replaced_is_an_error_by_name(
    store: FileLog, reopen: Open, said: list[str], tmp_path: Path
) -> None:
    """Another machine's journal copied over ours is noticed, and everything else is read."""
    with store.writer("a") as writer:
        writer.append(note("ours"))
    store.tip()
    other = open_log(tmp_path / "other")
    with other.writer("a") as writer:
        writer.append(note("a longer text of theirs"))
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    with store.writer("b") as writer:
        writer.append(note("other"))
    with pytest.raises(LogError, match=r"a@.*jsonl"):
        list(reopen().read())
    assert [str(found) for found in reopen().verify().findings if "a@" in found.file]


def test_the_same_journal_twice_counts_once(store: FileLog) -> None:
    """A copy of a journal under another name adds nothing and rejects nothing."""
    with store.writer("a") as writer:
        writer.append_many([note(str(n)) for n in range(3)])
    (path,) = (store.root / "journal").iterdir()
    shutil.copy(path, path.with_name("a@copy-1.jsonl"))
    assert texts(store) == ["0", "1", "2"]
    assert rejected(store) == []
    assert store.verify().ok


def test_an_id_that_two_streams_raced_for_counts_once(store: FileLog, tmp_path: Path) -> None:
    """Two writers that append one event id at the same moment leave one event."""
    other = open_log(tmp_path / "other")
    with store.writer("a") as mine, other.writer("b") as theirs:
        mine.append(note("first"), event_id="one")
        theirs.append(note("second"), event_id="one")
        theirs.append(note("third"))
    assert texts(store) == ["first"]
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    assert texts(store) == ["first", "third"]
    assert store.sync()
    assert store.verify().ok


def test_a_journal_that_is_still_being_copied_is_read_as_far_as_it_goes(
    store: FileLog, tmp_path: Path
) -> None:
    """Half a line is not read until its rest arrives."""
    other = open_log(tmp_path / "other")
    with other.writer("b") as theirs:
        theirs.append_many([note("1"), note("2")])
    (path,) = (other.root / "journal").iterdir()
    data = path.read_bytes()
    target = store.root / "journal" / "b@elsewhere-1.jsonl"
    for size, expected in ((len(data) // 2 + 10, ["1"]), (len(data), ["1", "2"])):
        target.write_bytes(data[:size])
        assert texts(store) == expected


def test_long_appends_are_ordered_in_pieces(store: FileLog) -> None:
    """A reader that starts late reads a bounded part of what is before it."""
    with store.writer("a") as writer:
        writer.append_many([note(str(n)) for n in range(LONGEST + 10)])
    assert store.tip().position == LONGEST + 10
    assert len((store.root / "manifest.jsonl").read_bytes().splitlines()) == 2
    assert [record.position for record in store.read(after=LONGEST + 8)] == [
        LONGEST + 9,
        LONGEST + 10,
    ]


@pytest.mark.parametrize("tail", [b'{"entry":{"co', b"x"])
def test_a_torn_manifest_is_mended(
    store: FileLog, reopen: Open, said: list[str], tail: bytes
) -> None:
    """What a killed process left of a manifest line is cut; bytes that are none are told of."""
    with store.writer("a") as writer:
        writer.append(note("1"))
        head = store.tip()
        with (store.root / "manifest.jsonl").open("ab") as file:
            file.write(tail)
        assert reopen().tip() == head
        writer.append(note("2"))
        assert texts(reopen()) == texts(store) == ["1", "2"]
    assert (said != []) == (tail == b"x")
    assert reopen().verify().ok


def test_a_changed_manifest_is_an_error(store: FileLog, reopen: Open) -> None:
    """An order that was changed is never guessed at."""
    with store.writer("a") as writer:
        for n in range(3):
            writer.append(note(str(n)))
            store.tip()
    path = store.root / "manifest.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"first":2', b'"first":3'))
    with pytest.raises(LogError, match=r"manifest.jsonl line 2 does not match its hash"):
        reopen().tip()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LogError, match="became shorter"):
        list(store.read())


def test_a_lost_manifest_is_not_replaced_silently(filled: FileLog, reopen: Open) -> None:
    """Events that were read in one order never get another one behind a person's back."""
    (filled.root / "manifest.jsonl").unlink()
    with pytest.raises(
        LogError, match=r"manifest.jsonl is missing or empty, but line \d was already synced"
    ):
        reopen().tip()
    for name in ("fold.json", "events.duckdb"):
        (filled.root / name).unlink()
    assert reopen().tip().position == 6


def test_where_nothing_can_be_written_all_is_read(store: FileLog) -> None:
    """In a read-only folder new events have the positions that they will have."""
    with store.writer("a") as writer:
        writer.append(note("ordered"))
        store.tip()
        writer.append(note("not yet"))
    code = """
import sys
from autoresearch.projections.tables import open_store
log = open_store(sys.argv[1])
print([record.position for record in log.read()], log.tip().position, log.sync())
with log.connect() as connection:
    print(connection.execute("SELECT count(*) FROM events").fetchall())
report = log.verify()
print(report.ok, report.events)
try:
    log.writer("a")
except Exception as error:
    print(type(error).__name__, error)
"""
    python_as_nobody(store.root, code)


def without_rights() -> list[str]:
    """Return what to put before a command so that it runs without the right to write."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534"]
    probe = [*prefix, sys.executable, "-c", "import autoresearch.log"]
    if shutil.which("setpriv") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this runs as root, and nobody else may read the project")
    return prefix


def python_as_nobody(store: Path, code: str) -> None:
    """Run code where a store cannot be written, and check what it printed."""
    prefix = without_rights()
    # Not in pytest's own folder: another pytest that starts meanwhile takes our rights there away.
    with tempfile.TemporaryDirectory() as name:
        root = shutil.copytree(store, Path(name, "store"))
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(name).chmod(0o755)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        done = subprocess.run(
            [*prefix, sys.executable, "-c", code, root], capture_output=True, text=True, timeout=60
        )
        after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["[1, 2] 2 False", "[(2,)]", "True 1"]
    assert lines[3].startswith("LogError cannot write ")
    assert lines[3].endswith("make the store writable")
    assert after == before


@pytest.fixture
def long(store: FileLog) -> FileLog:
    """A synced store whose manifest has five lines."""
    with store.writer("a") as writer:
        for n in range(5):
            writer.append(note(str(n)))
            store.tip()
    assert store.sync()
    return store


def cut_manifest(log: FileLog, lines: int) -> None:
    path = log.root / "manifest.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize("witness", ["fold.json", "events.duckdb"])
def test_a_manifest_that_was_cut_back_is_not_continued(
    long: FileLog, reopen: Open, witness: str
) -> None:
    """Positions that were synced are never given again: what was synced last is remembered."""
    cut_manifest(long, 3)
    if witness == "events.duckdb":
        (long.root / "fold.json").unlink()
    before = (long.root / "manifest.jsonl").read_bytes()
    lost = (
        r"manifest.jsonl ends at line 3 \(position 3\), but (line|position) 5 was already synced "
        r"into events.duckdb; restore it from a backup$"
    )
    log = reopen()
    for _ in range(2):
        with pytest.raises(LogError, match=lost):
            log.tip()
    with pytest.raises(LogError, match=lost):
        log.writer("b")
    assert not log.sync()
    assert (long.root / "manifest.jsonl").read_bytes() == before
    found = [str(item) for item in log.verify().findings]
    assert any(
        "already synced into events.duckdb; restore it from a backup" in item for item in found
    )


def test_a_lost_manifest_is_a_finding(long: FileLog, reopen: Open) -> None:
    """verify names a manifest that is gone altogether."""
    (long.root / "manifest.jsonl").unlink()
    (found,) = reopen().verify().findings
    assert str(found) == (
        "manifest.jsonl: is missing or empty, but line 5 was already synced into events.duckdb; "
        "restore it from a backup"
    )


def test_a_lost_database_alone_is_made_again(long: FileLog, reopen: Open) -> None:
    """The manifest is whole without the database, and a store without both is a new one."""
    (long.root / "events.duckdb").unlink()
    assert reopen().tip() == long.tip()
    assert reopen().sync()
    assert reopen().verify().ok


def test_a_callers_id_may_look_like_one_of_the_logs_own(
    store: FileLog, reopen: Open, said: list[str]
) -> None:
    """Whatever id a caller chooses, its event is recorded once and has its row in SQL."""
    names = [
        "mar18:1:import",
        "mar18:2:import",
        "mar18:9:import",
        "a:1:mar18:4:x",
        "mar18:01:import",
    ]
    with store.writer("mar18") as writer:
        first = [writer.append(note(name), event_id=name) for name in names]
        again = [writer.append(note("again"), event_id=name) for name in names]
        assert [item.hash for item in first] == [item.hash for item in again]
    with reopen().writer("other") as writer:
        assert [writer.append(note("again"), event_id=name).hash for name in names] == [
            item.hash for item in first
        ]
    assert texts(reopen()) == names
    assert store.sync()
    with store.connect() as connection:
        found = connection.execute("SELECT event_id FROM events ORDER BY position").fetchall()
    assert found == [(name,) for name in names]
    assert rejected(store) == []
    assert said == []
    assert store.verify().ok


def test_a_repeated_id_within_one_append_is_recorded_once(store: FileLog) -> None:
    """A journal that has the id of a line before it again, in one group, has one event."""
    with store.writer("a") as writer:
        writer.append_many([note("1"), note("2")])
        writer._write([(note("3"), "a:3:mine")], None)
        writer._write([(note("4"), "a:3:mine")], None)
        writer._write([(note("5"), "a:9:mine")], None)
        writer._write([(note("6"), "a:9:mine")], None)
    assert texts(store) == ["1", "2", "3", "5"]
    assert store.sync()
    assert store.verify().ok


def test_an_automatic_id_that_a_caller_had_taken_is_a_conflict(store: FileLog) -> None:
    """An event that got its id by itself is never mistaken for another one with that id."""
    with store.writer("a") as writer:
        writer.append(note("taken"), event_id="a:2:00000000")
        writer._write([(note("lost?"), "a:2:00000000")], None)
        writer.append(note("next"))
    assert texts(store) == ["taken", "next"]
    ((reason, text),) = rejected(store)
    assert (reason, text) == ("conflict: the id belongs to version 1 of a", "lost?")
    assert store.sync()
    assert store.verify().ok


def test_what_was_rejected_later_is_not_seen_earlier(store: FileLog, tmp_path: Path) -> None:
    """``connect(at=N)`` shows rejected events only as far as the log stood at N."""
    with store.writer("a") as writer:
        writer.append(note("common"))
    store.tip()
    other = copied(store, tmp_path / "other")
    with store.writer("a") as mine, other.writer("a") as theirs:
        mine.append(note("here"))
        theirs.append(note("there"))
    store.tip()
    rename_host(other, "elsewhere")
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    with store.writer("a") as writer:
        store.tip()
        writer.append(note("later"))
    query = "SELECT payload->>'text' FROM rejected_events"
    for synced in (False, True):
        if synced:
            assert store.sync()
        for at, expected in ((0, []), (1, []), (2, [("there",)]), (3, [("there",)])):
            with store.connect(at=at) as connection:
                assert connection.execute(query).fetchall() == expected, at


def seen(log: FileLog) -> list[object]:
    """Return what an order is asked for: tips, events, ids, places, and what is rejected."""
    middle = log.find("id 4")
    assert middle is not None
    found = [record.hash for record in log.read()], list(log.read(after=5, until=8)), middle
    order = log.ordering.sequence()
    return [*found, log.tip(), order.lines, order.places, order.last_version("a"), rejected(log)]


@pytest.fixture
def kept(store: FileLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileLog:
    """A log whose order was kept after some lines; more came since, and one was in conflict."""
    monkeypatch.setattr(placing, "MANY", 5)
    with store.writer("a") as writer:
        writer.append(note("common"))
    other = copied(store, tmp_path / "other")
    with store.writer("a") as mine, other.writer("a") as theirs:
        for n in range(1, 12):
            mine.append(note(str(n)), event_id=f"id {n}")
            store.tip()
        theirs.append(note("there"))
    rename_host(other, "elsewhere")
    for path in (other.root / "journal").iterdir():
        shutil.copy(path, store.root / "journal")
    assert open_log(store.root, store.schema).tip().position == 12  # which keeps the order
    with store.writer("a") as writer:
        writer.append(note("later"), event_id="id 12")
        store.tip()
    return store


def test_an_order_that_was_kept_is_the_one_that_is_read(kept: FileLog) -> None:
    """Opened by the kept order or line by line, a log answers the same; the kept one is short."""
    short = open_log(kept.root, kept.schema)
    told = seen(short)
    assert len(short.ordering.sequence().entries) < short.ordering.sequence().lines == 15
    assert all(short.ordering.saw(Tip(*tip)) for tip in tips(kept))
    assert not short.ordering.saw(Tip(3, "f" * 64))
    shutil.rmtree(kept.root / "snapshots")
    assert told == seen(open_log(kept.root, kept.schema))
    assert short.sync()
    assert short.verify().ok


def tips(log: FileLog) -> list[tuple[int, str]]:
    """Return every position with the hash of its manifest line."""
    whole = Order()
    for line in (log.root / "manifest.jsonl").read_bytes().splitlines():
        whole.add_line(line)
    return [(p, hashed) for p in range(1, whole.position + 1) for hashed in whole.hash_at(p)]


def test_a_kept_order_hides_no_damage(kept: FileLog) -> None:
    """A line of the manifest that was changed or cut is named although its order is known."""
    manifest = kept.root / "manifest.jsonl"
    whole = manifest.read_bytes()
    line = whole.index(b'"first":4')
    manifest.write_bytes(whole[:line] + b'"first":7' + whole[line + 9 :])
    with pytest.raises(LogError, match="line 4 does not match its hash"):
        open_log(kept.root, kept.schema).tip()
    kept.sync()
    manifest.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert not open_log(kept.root, kept.schema).verify().ok
