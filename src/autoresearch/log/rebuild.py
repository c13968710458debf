"""Makes events.duckdb anew from the journals, with the same positions and hashes."""

from __future__ import annotations

import time

from autoresearch.errors import LogError
from autoresearch.log.database import Database
from autoresearch.log.files import locked
from autoresearch.log.ordering import Ordering
from autoresearch.log.report import RebuildReport


def rebuild(database: Database) -> RebuildReport:
    """Replace events.duckdb by one made from the journals and the manifest alone.

    Every line is checked against its chain while it is read, and every row against its hash once
    it is stored. Raises LogError, naming the line, when a journal is damaged; then nothing changes.
    """
    started = time.monotonic()
    fresh = Ordering(database.ordering.root, database.ordering.notify)
    try:
        with locked(database.lock):
            order = fresh.sequence()
            made = Database(fresh, database.sources, database.schema).build(order)
    except OSError as error:
        raise LogError(f"cannot rebuild {database.path}: {error.strerror}; make room") from None
    return RebuildReport(
        events=made.position,
        rejected=made.rejected,
        sources=made.sources,
        head=order.head,
        seconds=time.monotonic() - started,
    )
