"""The file events.duckdb: folding new events into it, and noticing when it is not what it was.

Nothing here opens the file except through DuckDB: its locks belong to the process, and closing
the file by any other way would silently give them up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from attrs import evolve

from autoresearch.errors import LogError
from autoresearch.log.bulk import WORTH, load_journals
from autoresearch.log.damage import (
    DamagedError,
    first_line,
    is_damage,
    is_held,
    is_held_for_writing,
)
from autoresearch.log.files import FileLock, sync_folder
from autoresearch.log.folded import Folded, load_folded
from autoresearch.log.order import Order
from autoresearch.log.ordering import Ordering
from autoresearch.log.schema import Schema
from autoresearch.log.sequence import DUPLICATE
from autoresearch.log.sources import SourceStore
from autoresearch.log.table import (
    Row,
    add_rows,
    create_keys,
    create_schema,
    create_tables,
    fill_tables,
    last_row,
    line_row,
    unlike_their_hash,
)

_BLOCK = "65536"  # bytes; with DuckDB's 262144 the tables of a short log are mostly empty blocks


class Database:
    """events.duckdb of one store, with the sidecar ``fold.json`` that says what is in it."""

    def __init__(self, ordering: Ordering, sources: SourceStore, schema: Schema) -> None:
        self.ordering, self.sources, self.schema = ordering, sources, schema
        self.path = ordering.root / "events.duckdb"
        self.wal = ordering.root / "events.duckdb.wal"
        self.state = ordering.root / "fold.json"
        self.lock = ordering.locks / "fold.lock"

    def fold(self) -> bool:
        """Bring the file up to date; False when it is held elsewhere or cannot be written."""
        lock = FileLock(self.lock)
        try:
            if not lock.acquire(wait=False):
                return False
            return self._fold(self.ordering.sequence())
        except (OSError, LogError, duckdb.Error) as error:
            if not isinstance(error, FileNotFoundError):
                self.ordering.notify(f"events.duckdb is not up to date: {first_line(error)}")
            return False
        finally:
            lock.release()

    def build(self, order: Order) -> Folded:
        """Make the file anew from the journals and put it in place; the caller holds the lock."""
        fresh = self.path.with_name("events.duckdb.new")
        try:
            made = self._build(fresh, order, bulk=order.position >= WORTH)
            _sync(fresh)
        except BaseException:
            _remove(fresh)
            raise
        made = evolve(made, size=fresh.stat().st_size)
        made.begun().save(self.state)
        _remove(self.wal)
        fresh.replace(self.path)
        sync_folder(self.path.parent)
        made.save(self.state)
        return made

    def _build(self, fresh: Path, order: Order, *, bulk: bool) -> Folded:
        _remove(fresh)
        _remove(fresh.with_name(f"{fresh.name}.wal"))
        with duckdb.connect(fresh, config={"default_block_size": _BLOCK}) as connection:
            create_tables(connection)
            loaded = not bulk or load_journals(connection, self.ordering, order)
            if loaded:
                self._add(connection, order, Folded(), last_row(connection)[1])
                loaded = not unlike_their_hash(connection)
            if loaded:
                create_keys(connection)
                create_schema(connection, self.schema)
                return self._described(connection, order)
        if not bulk:
            raise LogError(f"{fresh} does not keep what is stored in it; check the disk")
        return self._build(fresh, order, bulk=False)  # which names the line that is damaged

    def rows(self, order: Order, after: int) -> Iterator[Row]:
        """Yield the rows of the table ``events`` behind a position."""
        for span in order.spans(after, order.position):
            start = span.start
            for position, line in enumerate(self.ordering.lines(span), span.first):
                if position > after:
                    yield line_row(line, position, span.journal, start)
                start += line.size

    def rejected(self, order: Order, entries: int) -> Iterator[Row]:
        """Yield the rows of the table ``rejected_events`` from a manifest line on."""
        for index in range(entries, len(order.entries)):
            entry = order.entries[index]
            if entry.reason not in (None, DUPLICATE):
                start = entry.start
                for line in self.ordering.lines(order.span(index)):
                    yield entry.reason, *line_row(line, 0, entry.journal, start)[1:]
                    start += line.size

    def texts(self, known: set[str]) -> Iterator[Row]:
        """Yield the rows of the table ``source_texts`` for sources that are not yet known."""
        for digest in self.sources:
            if digest not in known:
                text = self.sources.get(digest)
                yield digest, len(text.encode()), text

    def _fold(self, order: Order) -> bool:
        state = load_folded(self.state)
        if state is None and not self.path.exists():
            self.build(order)
            return True
        try:
            if state is None:
                raise DamagedError("fold.json is missing or damaged")
            self._check_outside(state)
            if self._is_current(state, order):
                return True
            return self._fold_into(state, order)
        except DamagedError as damage:
            if is_held_for_writing(self.path):
                return False  # not to be moved from under whoever is changing it
            self.set_aside(str(damage))
            made = self.build(order)
            self.ordering.notify(f"events.duckdb was rebuilt with {made.position} events")
            return True

    def _check_outside(self, state: Folded) -> None:
        """Compare what can be seen without opening the file."""
        if not self.path.exists():
            raise DamagedError("the file is missing")
        size = self.path.stat().st_size
        if not state.writing and (size != state.size or _size(self.wal)):
            raise DamagedError(
                f"it has {size} bytes and {_size(self.wal)} in its write-ahead log, "
                f"but the last fold left {state.size} and 0"
            )

    def _is_current(self, state: Folded, order: Order) -> bool:
        same_schema = state.schema == self.schema.digest
        same_sources = state.sources == sum(1 for _ in self.sources)
        return (
            not state.writing
            and same_schema
            and same_sources
            and state.entries == len(order.entries)
        )

    def _fold_into(self, state: Folded, order: Order) -> bool:
        try:
            connection = duckdb.connect(self.path)
        except duckdb.Error as error:
            if is_held(error):
                return False
            if is_damage(error):
                raise DamagedError(first_line(error)) from None
            raise
        try:
            with connection:
                last = self._check_inside(connection, state, order)
                state.begun().save(self.state)
                connection.begin()
                self._add(connection, order, state, last)
                fill_tables(connection, self.schema, last)
                if state.schema != self.schema.digest:
                    create_schema(connection, self.schema)
                connection.commit()
                connection.execute("CHECKPOINT")
                made = self._described(connection, order)
        except duckdb.Error as error:
            if is_damage(error):
                raise DamagedError(first_line(error)) from None
            raise
        evolve(made, size=self.path.stat().st_size).save(self.state)
        return True

    def _check_inside(
        self, connection: duckdb.DuckDBPyConnection, state: Folded, order: Order
    ) -> int:
        """Return the last position that is already in the file."""
        count, last, digest = last_row(connection)
        expected = state.hash
        if state.writing and last > state.position:
            found = list(self.ordering.read(order, last - 1, last))
            expected = found[0].hash if found else ""
        if count != last or last < state.position or digest != expected:
            raise DamagedError(
                f"it has {count} events, the last at position {last}, "
                f"but the last fold left {state.position}"
            )
        return last

    def _add(
        self, connection: duckdb.DuckDBPyConnection, order: Order, state: Folded, last: int
    ) -> None:
        """Insert what is not there yet; an interrupted fold may have inserted all of it."""
        add_rows(connection, "events", self.rows(order, last))
        if rejected := list(self.rejected(order, state.entries)):
            found = connection.execute("SELECT journal, start FROM rejected_events").fetchall()
            add_rows(connection, "rejected_events", (r for r in rejected if r[-2:] not in found))
        if state.writing or state.sources != sum(1 for _ in self.sources):
            digests = connection.execute("SELECT digest FROM source_texts").fetchall()
            add_rows(connection, "source_texts", self.texts({digest for (digest,) in digests}))

    def _described(self, connection: duckdb.DuckDBPyConnection, order: Order) -> Folded:
        count, last, digest = last_row(connection)
        if (count, last) != (order.position, order.position):
            raise LogError(f"{self.path} has {count} of {order.position} events; run rebuild")
        counts = (
            "SELECT (SELECT count(*) FROM rejected_events), (SELECT count(*) FROM source_texts)"
        )
        ((rejected, sources),) = connection.execute(counts).fetchall()
        return Folded(
            position=last,
            hash=digest,
            entries=len(order.entries),
            rejected=rejected,
            sources=sources,
            schema=self.schema.digest,
        )

    def set_aside(self, reason: str) -> None:
        """Give a damaged file another name, with its write-ahead log, and say so."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        kept = self.path.with_name(f"events.duckdb.damaged-{moment}")
        where = ""
        if self.path.exists():
            self.path.replace(kept)
            where = f", kept as {kept.name}"
        if self.wal.exists():
            self.wal.replace(kept.with_name(kept.name + ".wal"))
        _remove(self.state)
        self.ordering.notify(f"events.duckdb is not what it was{where}: {reason}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
