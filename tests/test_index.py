"""The index of campaigns: made from the log, brought up to date cheaply, never believed over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import autoresearch
from autoresearch import events, opening
from autoresearch.log import FileLog, open_log
from autoresearch.log import journal as journals
from autoresearch.opening import campaigns
from autoresearch.testing import make_project

Read = Callable[[], int]


def started(tag: str, base: str = "base") -> events.CampaignStarted:
    return events.CampaignStarted(
        tag=tag, branch=f"autoresearch/{tag}", base_commit=base, script="train.py",
        script_digest="", metric="score", better="lower", config={"metric": {"name": tag}},
        plugins={}, environment={},
    )  # fmt: skip


def resumed() -> events.CampaignResumed:
    return events.CampaignResumed(plugins={}, accepted_changes=())


def add_notes(log: FileLog, stream: str, count: int) -> None:
    with log.writer(stream) as writer:
        writer.append_many([events.NoteAdded(text=str(n), author="a") for n in range(count)])


@pytest.fixture
def log(tmp_path: Path) -> FileLog:
    """Two campaigns, the first of them active last, and a long log of another stream."""
    log = open_log(tmp_path / "store")
    with log.writer("first") as first, log.writer("second") as second:
        first.append(started("first", "old"))
        first.append(started("first", "new"))
        log.tip()
        second.append(started("second"))
        log.tip()
        first.append(resumed())
    add_notes(log, "foreign", 3_000)
    return log


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Counts the lines of journals that were taken apart."""
    count = 0
    plain = journals.unpack

    def counted(raw: bytes, previous: str, position: int = 0) -> journals.Line:
        nonlocal count
        count += 1
        return plain(raw, previous, position)

    monkeypatch.setattr(journals, "unpack", counted)
    return lambda: count


def tags(log: FileLog) -> list[str]:
    return [entry.tag for entry in campaigns(log)]


def test_the_campaign_that_was_active_last_is_last(log: FileLog) -> None:
    """Campaigns come in the order of their last start or resumption, with their newest start."""
    first = campaigns(log)[-1]
    assert tags(log) == ["second", "first"]
    assert first.started is not None
    assert (first.started.base_commit, first.position, first.active) == ("new", 2, 4)


def test_a_long_log_is_read_once(log: FileLog, read: Read) -> None:
    """With an index only what came after it is read, also by another process."""
    assert tags(log) == ["second", "first"]
    for _ in range(3):
        add_notes(open_log(log.root), "foreign", 10)
        before = read()
        assert tags(open_log(log.root)) == ["second", "first"]
        assert read() - before <= 60
    with open_log(log.root).writer("second") as writer:
        writer.append(resumed())
    before = read()
    assert tags(open_log(log.root)) == ["first", "second"]
    assert read() - before <= 60


def test_opening_a_campaign_does_not_read_a_long_foreign_log(tmp_path: Path, read: Read) -> None:
    """The verbs of a campaign do not pay for what other streams recorded before."""
    project = make_project(tmp_path / "project")
    made = autoresearch.start(project, tag="mine")
    add_notes(made.log, "foreign", 3_000)
    autoresearch.open_campaign(project)
    before = read()
    again = autoresearch.open_campaign(project)
    assert (again.tag, again.config) == ("mine", made.config)
    assert read() - before <= 10


def test_the_index_is_brought_up_to_date(log: FileLog, read: Read) -> None:
    """When much came after the index, the next call keeps a new one."""
    campaigns(log)
    add_notes(log, "foreign", opening.WORTH)
    campaigns(log)
    before = read()
    campaigns(open_log(log.root))
    assert read() == before


@pytest.mark.parametrize("damage", ["missing", "changed", "of another release"])
def test_an_index_that_cannot_be_used_is_made_again(log: FileLog, damage: str) -> None:
    """Whatever happened to the index, the log is asked, silently."""
    expected = campaigns(log)
    (path,) = (log.root / "snapshots").iterdir()
    if damage == "missing":
        shutil.rmtree(path.parent)
    elif damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"second", b"third!"))
    else:
        snapshots = autoresearch.log.SnapshotStore(log.ordering)
        snapshots.save(opening._INDEX, log.tip(), b'{"first": {"other": 1}}')
    assert campaigns(open_log(log.root, notify=pytest.fail)) == expected
    assert log.verify().ok


def test_an_index_of_another_log_is_not_believed(log: FileLog, tmp_path: Path) -> None:
    """An index that knows a tip which the log never had says nothing."""
    campaigns(log)
    other = open_log(tmp_path / "other")
    with other.writer("third") as writer:
        writer.append(started("third"))
    shutil.copytree(log.root / "snapshots", other.root / "snapshots")
    assert tags(other) == ["third"]


def test_an_entry_has_what_was_recorded(log: FileLog) -> None:
    """The index keeps the payload of the start as it is in the log."""
    entry = campaigns(log)[-1]
    (record,) = log.read(after=entry.position - 1, until=entry.position)
    assert attrs.asdict(entry) == {
        "tag": "first",
        "position": record.position,
        "schema_version": record.schema_version,
        "payload": record.payload,
        "active": 4,
        "at": list(log.read(until=4))[-1].at,
    }
