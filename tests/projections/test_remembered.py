"""History from a snapshot is the History, and a snapshot from elsewhere runs nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from autoresearch import events, projections
from autoresearch.folding import empty, fold
from autoresearch.log import FileLog, SnapshotStore, open_log
from autoresearch.projections import remembered_history


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileLog:
    monkeypatch.setattr(projections, "WORTH", 5)
    return open_log(tmp_path / "store")


def propose(log: FileLog, numbers: range) -> None:
    with log.writer("camp") as writer:
        for number in numbers:
            writer.append(
                events.IdeaProposed(
                    experiment=number,
                    idea=f"i{number}",
                    direction="d",
                    description="x",
                    hypothesis="h",
                    author="g",
                    env={"A": "1"},
                )
            )
            verdict = events.Decided(
                experiment=number, verdict="keep", reason="r", author="p", metric=1.5
            )
            writer.append(verdict)


def snapshots(log: FileLog) -> list[Path]:
    return list((log.root / "snapshots").glob("*"))


def test_a_snapshot_and_what_came_after_it(log: FileLog) -> None:
    """The History is the same with and without a snapshot, at every length of the log."""
    for first in range(0, 12, 2):
        propose(log, range(first, first + 2))
        found = remembered_history(log, "camp")
        assert found == fold(empty("camp"), log.read())
        assert len(found.experiments) == first + 2
    assert len(snapshots(log)) == 1


def test_short_logs_keep_no_snapshot(log: FileLog) -> None:
    """A History that is folded in no time leaves nothing behind."""
    propose(log, range(2))
    remembered_history(log, "camp")
    assert snapshots(log) == []


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("rubbish", ["a trap", "another value", "no pickle"])
def test_a_foreign_snapshot_is_not_believed(log: FileLog, tmp_path: Path, rubbish: str) -> None:
    """A snapshot that is not a History is passed over, and nothing in it is executed."""
    propose(log, range(3))
    remembered_history(log, "camp")
    state = {
        "a trap": pickle.dumps(Trap(tmp_path / "sprung")),
        "another value": pickle.dumps(empty("other")),
        "no pickle": b"no pickle",
    }[rubbish]
    store = SnapshotStore(log.ordering)
    store.save(projections._name("camp"), log.tip(), state)
    assert remembered_history(log, "camp") == fold(empty("camp"), log.read())
    assert not (tmp_path / "sprung").exists()


def test_names_cannot_lead_out_of_our_values(log: FileLog) -> None:
    """A dotted name that would reach another module through a trusted one is refused."""
    payload = b"\x80\x04\x8c\x12autoresearch.model\x8c\x07hashlib\x93."
    dotted = b"\x80\x04\x8c\x12autoresearch.model\x8c\x0ehashlib.sha256\x93."
    for state in (payload, dotted):
        store = SnapshotStore(log.ordering)
        propose(log, range(1))
        store.save(projections._name("camp"), log.tip(), state)
        assert projections._load(store, "camp") == empty("camp")
