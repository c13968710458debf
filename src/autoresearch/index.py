"""Which campaigns a store has, without reading its whole log: a small index, and what came after.

The index is a snapshot in the store, so it is only used while the log still has the tip that it was
made from. One that is missing, damaged or of another log is made again from the events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import asdict, evolve, frozen

from autoresearch.codec import canonical, decode
from autoresearch.events import CampaignResumed, CampaignStarted
from autoresearch.frozen import alike
from autoresearch.log import FileLog, Recorded, SnapshotStore

WORTH = 200  # events behind the index from which on it is written again
_NAME = "campaigns 1"  # a release that keeps other facts counts on


@frozen(kw_only=True)
class Entry:
    """A campaign: its newest start as recorded, and where and when it was started or resumed last.

    ``position`` is that of the start, ``active`` that of the last activity, ``at`` its time.
    """

    tag: str
    position: int
    schema_version: int
    payload: str
    active: int
    at: str

    @property
    def started(self) -> CampaignStarted | None:
        """The start itself; None when it was recorded by a newer release."""
        found = decode(CampaignStarted.type_name, self.schema_version, self.payload)
        return found if isinstance(found, CampaignStarted) else None


def campaigns(log: FileLog) -> tuple[Entry, ...]:
    """Return all campaigns of a store up to its tip, the one that was active last at the end."""
    snapshots, tip = SnapshotStore(log.ordering), log.tip()
    known, position = _load(snapshots)
    for record in log.read(after=position, until=tip.position):
        known = _with(known, record)
    if tip.position - position >= WORTH or (position == 0 and known):
        entries = {tag: asdict(entry) for tag, entry in known.items()}
        snapshots.save(_NAME, tip, canonical(entries).encode())
    return tuple(sorted(known.values(), key=lambda entry: entry.active))


def _with(known: Mapping[str, Entry], record: Recorded) -> Mapping[str, Entry]:
    before = known.get(record.campaign)
    if record.type == CampaignStarted.type_name:
        entry = alike(Entry, record, tag=record.campaign, active=record.position)
    elif record.type == CampaignResumed.type_name and before is not None:
        entry = evolve(before, active=record.position, at=record.at)
    else:
        return known
    return {**known, record.campaign: entry}


def _load(snapshots: SnapshotStore) -> tuple[Mapping[str, Entry], int]:
    found = snapshots.load(_NAME)
    if found is None:
        return {}, 0
    try:
        plain: dict[str, dict[str, Any]] = json.loads(found[1])
        return {tag: Entry(**fields) for tag, fields in plain.items()}, found[0].position
    except (ValueError, TypeError, AttributeError):
        return {}, 0  # of another release
