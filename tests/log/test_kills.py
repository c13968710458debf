"""kill -9 at any moment: no acknowledged event lost, none twice, the order never changes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoresearch.log import Anchor, FileLog

ROUNDS = 4


def table(log: FileLog) -> list[Any]:
    with log.connect() as connection:
        query = "SELECT position, event_id, hash FROM events ORDER BY position"
        return connection.execute(query).fetchall()


def test_sigkill_at_random_moments(
    root: Path, reopen: Callable[[], FileLog], request: pytest.FixtureRequest
) -> None:
    """Writing and syncing processes are killed again and again, 200 times or ``--kills N``."""
    kills = request.config.getoption("--kills", default=200)
    before: list[Any] = []
    reopen()
    for number in range(ROUNDS):
        program = Path(__file__).with_name("killing.py")
        command = [sys.executable, program, root, -(-kills // ROUNDS), number]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        before = check(root, reopen, before)
    assert len(before) > kills


def check(root: Path, reopen: Callable[[], FileLog], before: list[Any]) -> list[Any]:
    """Check the store against everything that was ever acknowledged; return its events."""
    log = reopen()
    events = [(record.position, record.event_id, record.hash) for record in log.read()]
    assert [position for position, _, _ in events] == list(range(1, len(events) + 1))
    assert events[: len(before)] == before
    ids = Counter(event_id for _, event_id, _ in events)
    assert max(ids.values()) == 1
    acknowledged = {
        tuple(line.split("\t"))
        for path in root.parent.glob("acks-*")
        for line in path.read_text().splitlines()
    }
    assert acknowledged <= {(event_id, digest) for _, event_id, digest in events}
    anchors = [
        Anchor(int(position), digest, "a tip seen earlier")
        for path in root.parent.glob("tips-*")
        for position, digest in (line.split(":") for line in path.read_text().splitlines())
    ]
    assert table(log) == events
    report = log.verify(anchors)
    assert report.ok, [str(found) for found in report.findings]
    (root / "events.duckdb").unlink()
    assert log.rebuild().events == len(events)
    assert table(log) == events
    return events
