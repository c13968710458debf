"""The log on disk: journals that acknowledge, an order that is certain, a database to ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import duckdb

from autoresearch.errors import LogError
from autoresearch.log.database import Database
from autoresearch.log.journal import Line, recorded
from autoresearch.log.placing import Ordering
from autoresearch.log.reading import connect
from autoresearch.log.records import Anchor, EventLog, RebuildReport, Recorded, Tip, VerifyReport
from autoresearch.log.sources import SourceStore
from autoresearch.log.tables import Schema
from autoresearch.log.verify import verify
from autoresearch.log.writer import FileWriter, Holder, holder_of

_OWN_NAMES = frozenset(
    {"journal", "locks", "sources", "snapshots", "cache", "manifest.jsonl", "fold.json"}
)


def is_own_name(name: str) -> bool:
    """Return whether a name in the store folder belongs to the store, and to no campaign."""
    # DuckDB puts files of its own beside the database, and a damaged one is kept beside it.
    return name in _OWN_NAMES or name.startswith((".", "events.duckdb"))


def to_stderr(line: str) -> None:
    """Print one line for a person to see; where a FileLog says what it repaired."""
    print(f"autoresearch: {line}", file=sys.stderr, flush=True)


class FileLog(EventLog):
    """The EventLog of one store folder; any number of them may be open in any processes."""

    def __init__(
        self, root: Path, schema: Schema | None = None, notify: Callable[[str], None] = to_stderr
    ) -> None:
        self.root: Path = root
        self.schema: Schema = schema or Schema()
        self.sources: SourceStore = SourceStore(root)
        self.ordering: Ordering = Ordering(root, notify)
        self.database: Database = Database(self.ordering, self.sources, self.schema)

    def writer(self, campaign: str, stream: str | None = None, actor: str = "loop") -> FileWriter:
        """Open the one writer of a stream; see :class:`autoresearch.log.EventLog`."""
        self.ordering.prepare()
        return FileWriter(self.ordering, campaign, stream or campaign, actor)

    def holder(self, stream: str) -> Holder | None:
        """Return the process that holds a stream, also one that died with it; None: it is free."""
        return holder_of(self.ordering, stream)

    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        """Yield the events with ``after`` < position <= ``until``, straight from the journals.

        Raises LogError, naming the line, where a journal is not what it was.
        """
        lines = self.lines(after, until)
        return (recorded(line) for line in lines if campaign in (None, line.campaign))

    def lines(self, after: int = 0, until: int | None = None) -> Iterator[Line]:
        """Yield what `read` does as lines taken apart, for those who read very many."""
        order = self.ordering.sequence()
        stop = order.position if until is None else min(until, order.position)
        return self.ordering.read(order, after, stop)

    def tip(self) -> Tip:
        """Return the newest position, and the hash of the manifest up to there."""
        return self.ordering.sequence().tip

    def find(self, event_id: str) -> Recorded | None:
        """Return the event with an id, or None."""
        return self.ordering.find(event_id)

    def sync(self) -> bool:
        """Bring events.duckdb up to date; False when it is open elsewhere.

        A database that is not what the last sync left is set aside and rebuilt.
        """
        return self.database.sync()

    def connect(
        self, at: int | None = None, *, external: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection that sees every acknowledged event, or those up to ``at``.

        Nothing in the store can be written through it, and no other file read or written unless
        ``external``. While it is open others can append and read, but nothing is synced: close it
        when done.
        """
        return connect(self.database, at, external=external)

    def verify(self, anchors: Iterable[Anchor] = ()) -> VerifyReport:
        """Check every file of the store; see :func:`autoresearch.log.verify.verify`."""
        return verify(self.database, anchors)

    def rebuild(self) -> RebuildReport:
        """Make events.duckdb again from the journals; see :meth:`Database.rebuild`."""
        return self.database.rebuild()


def open_log(
    root: Path, schema: Schema | None = None, notify: Callable[[str], None] = to_stderr
) -> FileLog:
    """Open the log in the store folder ``root`` (a project's ``.autoresearch``).

    The folder is made if it is missing. ``notify`` gets one line for everything that was repaired.
    Raises LogError when the folder can be neither made nor read.
    """
    log = FileLog(Path(root), schema, notify)
    if not log.root.is_dir():
        log.ordering.prepare()
    if not log.root.is_dir():
        raise LogError(f"{root} is not a folder; choose another store")
    return log
