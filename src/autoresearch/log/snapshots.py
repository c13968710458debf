"""States computed from the log, kept so that a long log need not be read from its beginning.

A snapshot is a cache: it is only used when the log still has, at the snapshot's position, the very
tip that it was made from, and it can be deleted at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.durable import digest, make_folder, replace_file
from autoresearch.log.journal import checked_name
from autoresearch.log.records import Tip

if TYPE_CHECKING:
    from autoresearch.log.placing import Ordering

SNAPSHOTS = "snapshots"


class SnapshotStore:
    """Snapshots in the folder ``snapshots`` of a store, one for each name."""

    def __init__(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self.folder: Path = ordering.root / SNAPSHOTS

    def save(self, name: str, tip: Tip, state: bytes) -> None:
        """Keep a state that was computed from all events up to ``tip``, where that is possible."""
        checked_name(name, "snapshot")
        try:
            keep(self.folder, name, tip, state)
        except OSError as error:
            self._ordering.notify(f"the snapshot {name} was not kept: {error.strerror}")

    def load(self, name: str) -> tuple[Tip, bytes] | None:
        """Return the newest state with its tip, or None when there is none of this log."""
        found = kept(self.folder, name)
        return found if found is not None and self._ordering.saw(found[0]) else None


def keep(folder: Path, name: str, tip: Tip, state: bytes) -> None:
    """Write a snapshot; raises OSError with the one before in its place."""
    make_folder(folder)
    stated = digest(str(tip).encode() + state)
    replace_file(folder / digest(name)[:32], f"{stated} {tip}\n".encode() + state)


def kept(folder: Path, name: str) -> tuple[Tip, bytes] | None:
    """Return the tip and the state of a snapshot as it was written, or None."""
    try:
        return unpack_snapshot((folder / digest(name)[:32]).read_bytes())
    except OSError:
        return None


def unpack_snapshot(data: bytes) -> tuple[Tip, bytes] | None:
    """Return the tip and the state in a snapshot's file, or None when it was changed."""
    try:
        first, _, state = data.partition(b"\n")
        stated, _, text = first.decode().partition(" ")
        position, _, hashed = text.partition(":")
        tip = Tip(int(position), hashed)
    except ValueError:
        return None
    whole = digest(str(tip).encode() + state) == stated
    return (tip, state) if whole else None
