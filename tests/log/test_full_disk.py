"""A disk that takes no more: a clear error, nothing torn, and all from before still there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoresearch.errors import LogError
from autoresearch.log import FileLog, SourceStore
from autoresearch.projections.tables import open_store

Open = Callable[[], FileLog]

# Appends, one by one or in batches, until the disk refuses; then makes room and goes on.
FILL = """
import json, resource, sys
from autoresearch import events
from autoresearch.errors import LogError
from autoresearch.projections.tables import open_store

root, limit, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = open_store(root, notify=lambda line: None)
writer = log.writer("a")
soft = resource.getrlimit(resource.RLIMIT_FSIZE)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, soft[1]))
acknowledged, error = [], ""
while not error:
    texts = [f"{len(acknowledged) + n}" + "x" * 100 for n in range(batch)]
    try:
        writer.append_many([events.NoteAdded(text=text, author="a") for text in texts])
        acknowledged += texts
        if len(acknowledged) % (7 * batch) == 0:
            log.tip()
    except LogError as refused:
        error = str(refused)
seen = [record.event.text for record in log.read()]
synced = log.sync()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    writer.append(events.NoteAdded(text="after", author="a"))
    acknowledged.append("after")
print(json.dumps([acknowledged, error, seen, synced]))
"""


def fill(root: Path, limit: int, batch: int) -> tuple[list[str], str, list[str], bool]:
    command = [sys.executable, "-c", FILL, str(root), str(limit), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    acknowledged, error, seen, synced = json.loads(done.stdout)
    return acknowledged, error, seen, synced


def texts(log: FileLog) -> list[str]:
    return [record.event.text for record in log.read()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [20_000, 20_001, 20_177])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_file_that_may_not_grow(root: Path, reopen: Open, limit: int, batch: int) -> None:
    """At a file-size limit an append fails whole, and works again as soon as there is room."""
    acknowledged, error, seen, _ = fill(root, limit, batch)
    assert "cannot append to" in error
    assert "File too large; nothing was recorded; free some space and retry" in error
    assert seen == acknowledged[:-1]
    assert texts(reopen()) == acknowledged
    report = reopen().verify()
    assert report.ok, [str(found) for found in report.findings]
    assert report.notes == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here; it needs the right to mount")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("batch", [1, 40])
def test_a_full_disk(small_disk: Path, batch: int) -> None:
    """On a full disk nothing acknowledged is lost, nothing is torn, and reading goes on."""
    root = small_disk / "store"
    acknowledged, error, seen, synced = fill(root, 0, batch)
    assert "No space left on device; nothing was recorded; free some space and retry" in error
    assert seen == acknowledged
    assert not synced
    log = open_store(root, notify=lambda _: None)
    assert texts(log) == acknowledged
    report = log.verify()
    assert report.ok, [str(found) for found in report.findings]
    with log.connect() as connection:
        found = connection.execute("SELECT count(*) FROM note_added").fetchall()
    assert found == [(len(acknowledged),)]
    with pytest.raises(LogError, match=r"cannot rebuild .*No space left.*free some space"):
        log.rebuild()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with log.writer("a") as writer:
        assert writer.append_many([]) == ()
    assert log.sync()
    assert open_store(root).verify().ok
    assert texts(log) == acknowledged


def test_a_source_that_does_not_fit(small_disk: Path) -> None:
    """A source is stored wholly or not at all."""
    sources = SourceStore(small_disk)
    digest = sources.put("small")
    with pytest.raises(
        LogError, match=r"cannot store source .*No space left.*free some space and retry"
    ):
        sources.put("x" * 3_000_000)
    assert list(sources) == [digest]
    assert [path.name for path in sources.folder.iterdir()] == [digest]
    assert sources.get(digest) == "small"
