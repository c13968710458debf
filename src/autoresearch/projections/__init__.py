"""Files, tables and states that are pure functions of the log.

A History is had without reading a whole log: from a snapshot, and what came after it. A snapshot is
only a cache in the store. It is read back by an unpickler that knows nothing but the values that a
History is made of, so that a store from someone else cannot run code here.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import attrs

from autoresearch import model
from autoresearch.durable import digest
from autoresearch.folding import empty, fold
from autoresearch.history import History
from autoresearch.log import FileLog, SnapshotStore


@runtime_checkable
class Projection(Protocol):
    """A file that can be thrown away and made again from the log, byte for byte."""

    @property
    def file_name(self) -> str:
        """Name of the file, without a folder."""

    def render(self, history: History) -> str:
        """Return the whole text of the file; the same history gives the same text."""


WORTH = 2_000  # events: folding fewer takes less than a tenth of a second
_TRUSTED = (
    "autoresearch.events.",
    "autoresearch.history",
    "autoresearch.model",
    "autoresearch.frozen",
)
_MAKERS = frozenset(
    {
        ("pvectorc", "pvector"),
        ("pyrsistent._pvector", "python_pvector"),
        ("pyrsistent._pmap", "pmap"),
        ("pyrsistent._pset", "pset"),
    }
)


def remembered_history(log: FileLog, campaign: str) -> History:
    """Return the History of a campaign up to the newest event.

    The state is kept in the store whenever many events had to be folded, and is used again as long
    as the log still has the tip that it was made from.
    """
    snapshots = SnapshotStore(log.ordering)
    with _without_collector():
        history = _load(snapshots, campaign)
        before, tip = history.position, log.tip()
        history = fold(history, log.lines(after=before, until=tip.position))
        # A long History is dear to keep: it is kept again when the log grew by a fiftieth of it.
        if tip.position - before >= max(WORTH, before // 50):
            snapshots.save(_name(campaign), tip, pickle.dumps(history, protocol=5))
    return history


def _name(campaign: str) -> str:
    # A History of another release has other fields: it must not be taken for one of this release.
    shapes = (History, model.Experiment, model.Idea, model.Run)
    fields = [item.name for kind in shapes for item in attrs.fields(kind)]
    return f"history {digest(','.join(fields))} {campaign}"[:200]


def _load(snapshots: SnapshotStore, campaign: str) -> History:
    found = snapshots.load(_name(campaign))
    if found is not None:
        try:
            history = _Unpickler(io.BytesIO(found[1])).load()
        except Exception:  # whatever a pickle of another release raises: then it is of no use
            return empty(campaign)
        if isinstance(history, History) and history.campaign == campaign:
            return history
    return empty(campaign)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _MAKERS:
            return super().find_class(module, name)
        if module.startswith(_TRUSTED) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a History")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Make a million small values without looking for cycles among them, which doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
