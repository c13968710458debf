"""What was written by the first release is read by every later one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from autoresearch.codec import UnknownEvent, canonical, encode
from autoresearch.events import EVENT_TYPES
from autoresearch.log import FileLog
from autoresearch.projections.tables import open_store

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEAD = FIXTURES / "log_v1" / "manifest.jsonl"
# Types that are younger than the first release, by the fixture that has them.
LATER = {
    "log_control": ("paused", "resumed", "stop_requested"),
    "log_v1_plain": ("evaluated", "retention_applied"),
    "log_boundary": ("checkout_changed",),
    "log_overruled": ("overruled",),
    "log_digests": ("digest_written",),
    "log_minds": (
        "budget_reserved",
        "lease_ended",
        "lease_taken",
        "mind_answered",
        "mind_asked",
        "mind_resumed",
        "mind_suspended",
        "proposal_refused",
        "steering_given",
        "steering_withdrawn",
    ),
    "log_stages": ("run_promoted",),
}
FIRST = sorted(set(EVENT_TYPES) - {name for names in LATER.values() for name in names})


def store(tmp_path_factory: pytest.TempPathFactory, name: str) -> FileLog:
    """Open a copy of a fixture."""
    root = tmp_path_factory.mktemp("past") / "store"
    shutil.copytree(FIXTURES / name, root)
    return open_store(root, notify=pytest.fail)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> FileLog:
    """A store that the first release left."""
    return store(tmp_path_factory, "log_v1")


def test_every_type_is_there(past: FileLog) -> None:
    """The fixture has each event type twice: with everything, and with as little as possible."""
    found = [record.type for record in past.read()]
    assert sorted(found) == sorted([*FIRST, *FIRST]), (
        "a new type needs a fixture: see tests/log/make_fixture.py"
    )


@pytest.mark.parametrize("name", LATER)
def test_later_types_mean_the_same(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Types that came later are read like those of the first release."""
    later = store(tmp_path_factory, name)
    assert [record.type for record in later.read()] == sorted([*LATER[name], *LATER[name]])
    for record in later.read():
        assert not isinstance(record.event, UnknownEvent), record.type
        assert canonical(json.loads(encode(record.event))) == record.payload
    assert later.verify().ok


def test_every_event_still_means_the_same(past: FileLog) -> None:
    """Each old payload becomes an event of today that says all that the payload said."""
    for record in past.read():
        assert not isinstance(record.event, UnknownEvent), record.type
        if record.schema_version == EVENT_TYPES[record.type].schema_version:
            old, new = json.loads(record.payload), json.loads(encode(record.event))
            kept = {key: new[key] for key in old}
            assert canonical(kept) == record.payload


def test_old_bytes_have_their_old_hashes(past: FileLog) -> None:
    """Positions, hashes and the head are those that the first release wrote."""
    last = HEAD.read_text().splitlines()[-1]
    head = past.tip()
    assert head.hash == json.loads(last)["hash"]
    assert head.position == 2 * len(FIRST)
    assert past.verify().ok


def test_old_events_have_their_tables(past: FileLog) -> None:
    """Every old event is a row of the table of its type."""
    with past.connect() as connection:
        for name in FIRST:
            found = connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()
            assert found == [(2,)], name


def test_the_hash_of_a_review_has_a_new_name(past: FileLog) -> None:
    """``head_hash`` of a recorded review is ``tip_hash`` today, as an event and in SQL."""
    old = [record for record in past.read() if record.type == "memory_reviewed"]
    hashes = [json.loads(record.payload)["head_hash"] for record in old]
    assert [record.schema_version for record in old] == [1, 1]
    assert [getattr(record.event, "tip_hash", None) for record in old] == hashes
    with past.connect() as connection:
        query = "SELECT tip_hash FROM memory_reviewed ORDER BY position"
        assert connection.execute(query).fetchall() == [(text,) for text in hashes]


def test_a_renamed_field_keeps_its_old_rows_in_sql(past: FileLog) -> None:
    """``run_locked.measurement`` was called locks; SQL shows both versions under one name."""
    with past.connect() as connection:
        query = "SELECT count(*) FROM run_locked WHERE cardinality(measurement) = 2"
        assert connection.execute(query).fetchall() == [(1,)]
