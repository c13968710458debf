"""verify finds every change to every file, says where, and changes nothing itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from autoresearch import events
from autoresearch.log import Anchor, FileLog, Schema, VerifyReport, open_log

Tamper = Callable[[Path], None]


def tampered(
    store: FileLog, path: Path, tamper: Tamper, schema: Schema | None = None
) -> VerifyReport:
    """Verify a copy of the store after something was done to it."""
    shutil.copytree(store.root, path)
    tamper(path)
    before = snapshot(path)
    report = open_log(path, schema or store.schema, notify=pytest.fail).verify()
    assert snapshot(path) == before
    return report


def snapshot(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def journal(root: Path, stream: str = "a") -> Path:
    (path,) = (root / "journal").glob(f"{stream}@*")
    return path


def test_a_healthy_store(filled: FileLog) -> None:
    """A healthy store has nothing to find, and the report has the event count and the head."""
    report = filled.verify()
    assert report.ok
    assert (report.events, report.tip, report.notes) == (6, filled.tip(), [])


def test_an_empty_store(store: FileLog) -> None:
    """A store in which nothing happened is healthy."""
    assert store.verify().ok


def test_a_store_that_was_never_synced(store: FileLog) -> None:
    """Without a database the journals alone are healthy."""
    with store.writer("a") as writer:
        writer.append(events.NoteAdded(text="x", author="a"))
        report = store.verify()
    assert (report.ok, report.events) == (True, 0)


def test_one_byte_more_in_any_file_is_found(filled: FileLog, tmp_path: Path) -> None:
    """After ``printf x >>`` on any one file of the store that file is named."""
    files = sorted(path.relative_to(filled.root) for path in snapshot(filled.root))
    assert {str(path).split("/")[0] for path in files} == {
        "events.duckdb",
        "fold.json",
        "journal",
        "locks",
        "manifest.jsonl",
        "sources",
    }
    for number, name in enumerate(files):

        def append(root: Path, name: Path = name) -> None:
            with (root / name).open("ab") as file:
                file.write(b"x")

        report = tampered(filled, tmp_path / str(number), append)
        assert [found.file for found in report.findings] == [str(name)]


def test_every_changed_byte_of_the_text_files_is_found(filled: FileLog, tmp_path: Path) -> None:
    """A byte changed in a journal, the manifest, a source or the sidecar is found in that file."""
    number = 0
    for path in sorted(snapshot(filled.root)):
        name, data = path.relative_to(filled.root), path.read_bytes()
        if name.name == "events.duckdb" or not data:
            continue
        for at in range(0, len(data), max(1, len(data) // 12)):

            def flip(root: Path, name: Path = name, at: int = at) -> None:
                changed = bytearray((root / name).read_bytes())
                changed[at] ^= 1
                (root / name).write_bytes(changed)

            report = tampered(filled, tmp_path / str(number), flip, Schema())
            number += 1
            assert str(name) in {found.file for found in report.findings}, (name, at)


def test_a_changed_payload_names_its_event(filled: FileLog, tmp_path: Path) -> None:
    """An edited event is named with file, line, position, id and type."""

    def edit(root: Path) -> None:
        path = journal(root)
        path.write_bytes(path.read_bytes().replace(b"first 2", b"FIRST 2"))

    report = tampered(filled, tmp_path / "t", edit)
    (found,) = report.findings
    assert (found.file, found.line, found.position) == (
        f"journal/{journal(filled.root).name}",
        3,
        3,
    )
    assert "event a:3:" in found.problem
    assert "type note_added" in found.problem


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], 2),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [*lines, lines[-1]], 5),
        (lambda lines: lines[:-1], 3),
        (lambda lines: [], 0),
    ],
    ids=["removed", "reordered", "repeated", "cut", "emptied"],
)
def test_changed_lines_are_located(
    filled: FileLog, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    """Lines removed, reordered, repeated or cut off are found at their line."""

    def apply(root: Path) -> None:
        path = journal(root)
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    report = tampered(filled, tmp_path / "t", apply)
    assert [found.line for found in report.findings] == [line]


def test_a_missing_journal_is_found(filled: FileLog, tmp_path: Path) -> None:
    """A journal that the manifest knows cannot disappear."""
    report = tampered(filled, tmp_path / "t", lambda root: journal(root).unlink())
    assert "is missing" in str(report.findings[0])


def test_cutting_the_end_of_every_file_is_found_by_an_anchor(
    filled: FileLog, tmp_path: Path
) -> None:
    """A store that was consistently cut back is sound in itself, but not to an outside anchor."""
    early = tmp_path / "early"
    shutil.copytree(filled.root, early)
    with filled.writer("a") as writer:
        writer.append(events.NoteAdded(text="later", author="a"))
    head = filled.tip()
    anchor = Anchor(head.position, head.hash, "commit 1234567")
    assert filled.verify([anchor]).ok
    cut = open_log(early, filled.schema)
    assert cut.verify().ok
    (found,) = cut.verify([anchor]).findings
    assert "commit 1234567 saw position 7: the end of the log was cut off" in found.problem
    with cut.writer("a") as writer:
        writer.append(events.NoteAdded(text="another history", author="a"))
    cut.tip()
    (found,) = cut.verify([anchor]).findings
    assert "is not the log that commit 1234567 saw" in found.problem
    assert found.position == 7


def execute(root: Path, *statements: str) -> None:
    """Change the database as somebody with DuckDB would, and keep its size unsuspicious."""
    with duckdb.connect(root / "events.duckdb") as connection:
        for trigger in ("events_no_update", "events_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger} ON events")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "problem", "position"),
    [
        (
            "UPDATE events SET actor = 'eve' WHERE position = 3",
            "event a:3:* (type note_added) was changed in actor",
            3,
        ),
        ("DELETE FROM events WHERE position = 2", "event a:2:* (type note_added) is missing", 2),
        (
            "INSERT INTO events SELECT 7, 'x', campaign, 'z', 1, type, schema_version, "
            "recorded_at, actor, hash, previous_hash, payload, journal, start "
            "FROM events WHERE position = 1",
            "event x (type note_added) is in no journal",
            7,
        ),
        ("UPDATE note_added SET text = 'lie' WHERE position = 1", "table note_added has 2 rows", 0),
        ("UPDATE source_texts SET text = 'lie'", "source * was changed", 0),
    ],
    ids=["updated", "deleted", "inserted", "typed table", "source"],
)
def test_a_changed_row_is_named(
    filled: FileLog, tmp_path: Path, statement: str, problem: str, position: int
) -> None:
    """A row edited, deleted or inserted with the guards taken off is found and named."""

    def change(root: Path) -> None:
        if "source_texts" in statement:
            execute(root, "DROP TRIGGER source_texts_no_update ON source_texts", statement)
        else:
            execute(root, statement)

    report = tampered(filled, tmp_path / "t", change)
    rows = [found for found in report.findings if "bytes" not in found.problem]
    first, *rest = problem.split("*")
    assert any(
        first in found.problem
        and all(part in found.problem for part in rest)
        and (found.position or 0) == position
        for found in rows
    ), [str(found) for found in report.findings]


def test_a_missing_database_is_found(filled: FileLog, tmp_path: Path) -> None:
    """A deleted database is named with the way to get it back."""
    report = tampered(filled, tmp_path / "t", lambda root: (root / "events.duckdb").unlink())
    assert [str(found) for found in report.findings] == [
        "events.duckdb: is missing; run `autoresearch rebuild`"
    ]


@pytest.mark.parametrize("name", ["journal/readme.txt", "sources/readme.txt", "events.duckdb.wal"])
def test_a_strange_file_is_found(filled: FileLog, tmp_path: Path, name: str) -> None:
    """A file that the log did not make is named."""
    report = tampered(filled, tmp_path / "t", lambda root: (root / name).write_text("x") and None)
    assert name in {found.file for found in report.findings}


def test_small_files_may_hold_any_json(filled: FileLog, tmp_path: Path) -> None:
    """A number that no log can keep is a finding like any other bytes."""

    def spoil(root: Path) -> None:
        (root / "locks" / "t1.stream.lock").write_text(f'{{"pid": {10**30}}}')
        (root / "fold.json").write_text('{"position": NaN, "digest": ""}')

    found = {item.file for item in tampered(filled, tmp_path / "t", spoil).findings}
    assert {"locks/t1.stream.lock", "fold.json"} <= found


def test_a_source_that_is_none_bars_no_question(filled: FileLog, tmp_path: Path) -> None:
    """Its text is left out and named once; the events can be asked all the same."""
    told: list[str] = []
    (filled.root / "sources" / ("a" * 64)).write_bytes(b"\xff")
    log = FileLog(filled.root, notify=told.append)
    with log.connect() as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(6,)]
    assert told
    assert all("a source is left out: " in line for line in told)


def test_a_flipped_byte_of_the_database_is_found(filled: FileLog, tmp_path: Path) -> None:
    """A byte changed where the events are stored does not go unnoticed."""
    data = (filled.root / "events.duckdb").read_bytes()
    at = data.rindex(b"first 1")

    def flip(root: Path) -> None:
        (root / "events.duckdb").write_bytes(data[:at] + b"F" + data[at + 1 :])

    report = tampered(filled, tmp_path / "t", flip)
    assert [found.file for found in report.findings] == ["events.duckdb"]


def test_verifying_while_others_append(filled: FileLog) -> None:
    """A store in use is as healthy as one at rest."""
    with filled.writer("a") as writer:
        for n in range(5):
            writer.append(events.NoteAdded(text=str(n), author="a"))
            assert filled.verify().ok
            filled.sync()
            assert filled.verify().ok
