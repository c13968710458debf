"""Parquet for other engines, sources by digest, snapshots that are never believed blindly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from autoresearch import events
from autoresearch.errors import LogError
from autoresearch.log import FileLog, SnapshotStore, SourceStore, export_parquet


def ask(query: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def test_an_export_can_be_asked_by_campaign(filled: FileLog, tmp_path: Path) -> None:
    """Events come partitioned by campaign, every table as one file, equal to the log."""
    target = tmp_path / "it's here"
    assert export_parquet(filled, target, filled.schema) == filled.tip()
    path = str(target).replace("'", "''")
    assert sorted(item.name for item in (target / "events").iterdir()) == [
        "campaign=a",
        "campaign=b",
    ]
    files = f"read_parquet('{path}/events/*/*.parquet')"
    found = ask(f"SELECT position, hash, payload FROM {files} ORDER BY position")
    assert found == [(item.position, item.hash, item.payload) for item in filled.read()]
    assert ask(f"SELECT count(*) FROM '{path}/note_added.parquet'") == [(6,)]
    assert ask(f"SELECT text FROM '{path}/sources.parquet'") == [("print('hello')\n",)]


def test_an_export_as_of_a_position(filled: FileLog, tmp_path: Path) -> None:
    """An export can be made of the log as it was."""
    export_parquet(filled, tmp_path / "out", filled.schema, at=2)
    assert ask(f"SELECT count(*) FROM '{tmp_path}/out/note_added.parquet'") == [(2,)]


def test_an_export_of_nothing(store: FileLog, tmp_path: Path) -> None:
    """An empty log gives empty tables."""
    export_parquet(store, tmp_path / "out", store.schema)
    assert ask(f"SELECT count(*) FROM '{tmp_path}/out/note_added.parquet'") == [(0,)]


def test_an_export_never_overwrites(filled: FileLog, tmp_path: Path) -> None:
    """A folder that exists is left alone."""
    (tmp_path / "out").mkdir()
    with pytest.raises(LogError, match="exists; choose a folder that does not"):
        export_parquet(filled, tmp_path / "out", filled.schema)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_source_is_stored_once_and_checked(root: Path) -> None:
    """The digest is that of the text; the same text is one file; a changed file is refused."""
    sources = SourceStore(root)
    digest = sources.put("text = 'é'\n")
    assert sources.put("text = 'é'\n") == digest
    assert (digest in sources, "0" * 64 in sources, "../x" in sources) == (True, False, False)
    assert list(sources) == [digest]
    assert sources.get(digest) == "text = 'é'\n"
    (root / "sources" / digest).write_text("other")
    with pytest.raises(LogError, match="was changed; restore it"):
        sources.get(digest)
    with pytest.raises(LogError, match="is not in"):
        sources.get("0" * 64)
    with pytest.raises(LogError, match="surrogates not allowed at 1"):
        sources.put("a\ud800")


def test_a_snapshot_is_used_while_the_log_goes_on(filled: FileLog) -> None:
    """A snapshot comes back with its head as long as the log had that head there."""
    snapshots = SnapshotStore(filled.ordering)
    assert snapshots.load("history a") is None
    tip = filled.tip()
    snapshots.save("history a", tip, b"state\nof 6")
    with filled.writer("a") as writer:
        writer.append(events.NoteAdded(text="later", author="a"))
    assert snapshots.load("history a") == (tip, b"state\nof 6")
    assert snapshots.load("history b") is None


def test_a_snapshot_of_another_log_is_not_used(
    filled: FileLog, reopen: Callable[[], FileLog]
) -> None:
    """A snapshot of a log that was cut back, or one that was changed, is as good as none."""
    snapshots = SnapshotStore(filled.ordering)
    tip = filled.tip()
    snapshots.save("h", tip, b"state")
    (path,) = snapshots.folder.iterdir()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"state", b"lies!"))
    assert snapshots.load("h") is None
    assert [found.file for found in filled.verify().findings] == [f"snapshots/{path.name}"]
    path.write_bytes(b"rubbish")
    assert snapshots.load("h") is None
    path.write_bytes(data)
    for name in ("manifest.jsonl", "fold.json", "events.duckdb"):
        (filled.root / name).unlink()
    next((filled.root / "journal").glob("a@*")).unlink()
    with reopen().writer("c") as writer:
        writer.append(events.NoteAdded(text="another order", author="a"))
    assert SnapshotStore(reopen().ordering).load("h") is None
