"""States computed from the log, kept so that a long log need not be read from its beginning.

A snapshot is a cache: it is only used when the log still has, at the snapshot's position, the very
head that it was made from, and it can be deleted at any time.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from autoresearch.log.files import make_folder, replace_file
from autoresearch.log.lines import checked_name
from autoresearch.log.ordering import Ordering
from autoresearch.log.records import Head


class SnapshotStore:
    """Snapshots in the folder ``snapshots`` of a store, one for each name."""

    def __init__(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self.folder = ordering.root / "snapshots"

    def save(self, name: str, head: Head, state: bytes) -> None:
        """Keep a state that was computed from all events up to ``head``, where that is possible."""
        checked_name(name, "snapshot")
        digest = sha256(str(head).encode() + state).hexdigest()
        try:
            make_folder(self.folder)
            replace_file(self._path(name), f"{digest} {head}\n".encode() + state)
        except OSError as error:
            self._ordering.notify(f"the snapshot {name} was not kept: {error.strerror}")

    def load(self, name: str) -> tuple[Head, bytes] | None:
        """Return the newest state with its head, or None when there is none of this log."""
        try:
            found = unpack_snapshot(self._path(name).read_bytes())
        except OSError:
            return None
        if found is None:
            return None
        head, _ = found
        return found if head.hash in self._ordering.sequence().hash_at(head.position) else None

    def _path(self, name: str) -> Path:
        return self.folder / sha256(name.encode()).hexdigest()[:32]


def unpack_snapshot(data: bytes) -> tuple[Head, bytes] | None:
    """Return the head and the state in a snapshot's file, or None when it was changed."""
    try:
        first, _, state = data.partition(b"\n")
        digest, _, text = first.decode().partition(" ")
        position, _, hashed = text.partition(":")
        head = Head(int(position), hashed)
    except ValueError:
        return None
    whole = sha256(str(head).encode() + state).hexdigest() == digest
    return (head, state) if whole else None
