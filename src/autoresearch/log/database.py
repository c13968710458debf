"""The file events.duckdb: syncing new events into it, and noticing when it is not what it was.

Nothing here opens the file except through DuckDB: its locks belong to the process, and closing
the file by any other way would silently give them up.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from attrs import evolve

from autoresearch.durable import FileLock, locked, make_durable
from autoresearch.errors import LogError, why
from autoresearch.log.order import Order, Synced, load_synced
from autoresearch.log.placing import DUPLICATE, Ordering
from autoresearch.log.records import RebuildReport
from autoresearch.log.sources import SourceStore
from autoresearch.log.tables import (
    WORTH,
    Row,
    Schema,
    add_rows,
    create_keys,
    create_schema,
    create_tables,
    fill_tables,
    last_row,
    line_row,
    load_journals,
    rows_with_wrong_hash,
)

_BLOCK = "65536"  # bytes; with DuckDB's 262144 the tables of a short log are mostly empty blocks

# Megabytes in which DuckDB makes a file of a million events, measured; a longer log gets more. What
# does not fit goes to a folder beside the file.
_BUILDING = 150


class Database:
    """events.duckdb of one store, with the sidecar ``fold.json`` that says what is in it.

    The sidecar and ``fold.lock`` keep the names of the first release: one of its processes may
    still run beside this one.
    """

    def __init__(self, ordering: Ordering, sources: SourceStore, schema: Schema) -> None:
        self.ordering: Ordering = ordering
        self.sources: SourceStore = sources
        self.schema: Schema = schema
        self.path: Path = ordering.root / "events.duckdb"
        self.wal: Path = ordering.root / "events.duckdb.wal"
        self.state: Path = ordering.root / "fold.json"
        self.lock: Path = ordering.locks / "fold.lock"

    def sync(self) -> bool:
        """Bring the file up to date; False when it is held elsewhere or cannot be written."""
        lock = FileLock(self.lock)
        try:
            if not lock.acquire(wait=False):
                return False
            return self._sync(self.ordering.sequence())
        except (duckdb.InterruptException, RuntimeError) as error:  # DuckDB's words for Ctrl-C
            if "interrupt" in str(error).lower():
                raise KeyboardInterrupt from None
            raise
        except (OSError, LogError, duckdb.Error) as error:
            if not isinstance(error, FileNotFoundError):
                self.ordering.notify(f"events.duckdb is not up to date: {first_line(error)}")
            return False
        finally:
            lock.release()

    def build(self, order: Order) -> Synced:
        """Make the file from the journals and put it in place; the caller holds the lock."""
        fresh = self.path.with_name("events.duckdb.new")
        try:
            made = self._build(fresh, order, bulk=order.position >= WORTH)
            make_durable(fresh)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        made = evolve(made, size=fresh.stat().st_size)
        made.save(self.state, writing=True)
        self.wal.unlink(missing_ok=True)
        fresh.replace(self.path)
        make_durable(self.path.parent)
        made.save(self.state)
        return made

    def rebuild(self) -> RebuildReport:
        """Replace the file by one made from the journals and the manifest alone.

        Every line is checked against its chain while it is read, and every row against its hash
        once it is stored. Raises LogError, naming the line, when a journal is damaged; then nothing
        changes.
        """
        started = time.monotonic()
        fresh = Ordering(self.ordering.root, self.ordering.notify)
        try:
            with locked(self.lock):
                order = fresh.sequence()
                made = Database(fresh, self.sources, self.schema).build(order)
        except (OSError, duckdb.IOException) as error:
            raise LogError(
                f"cannot rebuild {self.path}: {why(error)}; free some space or make it writable"
            ) from None
        return RebuildReport(
            events=made.position,
            rejected=made.rejected,
            sources=made.sources,
            tip=order.tip,
            seconds=time.monotonic() - started,
        )

    def _build(self, fresh: Path, order: Order, *, bulk: bool) -> Synced:
        for leftover in (fresh, fresh.with_name(f"{fresh.name}.wal")):
            leftover.unlink(missing_ok=True)
        # Where DuckDB lays what its memory has no room for; a killed rebuild leaves it.
        shutil.rmtree(fresh.with_name(f"{fresh.name}.tmp"), ignore_errors=True)
        megabytes = max(_BUILDING, order.position * _BUILDING // 1_000_000)
        settings = {"default_block_size": _BLOCK, "memory_limit": f"{megabytes}MB"}
        with duckdb.connect(fresh, config=settings) as connection:  # type: ignore[arg-type]
            create_tables(connection)
            loaded = not bulk or load_journals(connection, self.ordering.journals, order)
            if loaded:
                self._add(connection, order, Synced(), last_row(connection)[1])
                loaded = not rows_with_wrong_hash(connection)
            if loaded:
                create_keys(connection)
                create_schema(connection, self.schema)
                return self._described(connection, order)
        if not bulk:
            raise LogError(f"{fresh} does not keep what is stored in it; check the disk")
        return self._build(fresh, order, bulk=False)  # which names the line that is damaged

    def rows(self, order: Order, after: int, until: int | None = None) -> Iterator[Row]:
        """Yield the rows of the table ``events`` behind a position."""
        last = order.position if until is None else until
        for entry in order.spans(after, last):
            start = entry.start
            for line in self.ordering.lines(entry):
                if after < line.position <= last:
                    yield line_row(line, entry.journal, start)
                start += line.size

    def rejected(self, order: Order, entries: int, until: int | None = None) -> Iterator[Row]:
        """Yield the rows of the table ``rejected_events`` from a manifest line on.

        With ``until`` those are left out that came when the log was already longer.
        """
        for entry in order.entries_from(entries):
            late = until is not None and entry.last > until
            if entry.reason not in (None, DUPLICATE) and not late:
                start = entry.start
                for line in self.ordering.lines(entry):
                    yield entry.reason, *line_row(line, entry.journal, start)[1:]
                    start += line.size

    def texts(self, known: set[str]) -> Iterator[Row]:
        """Yield the rows of the table ``source_texts`` for sources that are not yet known."""
        for digest in self.sources:
            if digest not in known:
                try:
                    text = self.sources.get(digest)
                except (LogError, UnicodeDecodeError) as error:
                    # The rest can be asked all the same.
                    self.ordering.notify(f"a source is left out: {error}")
                else:
                    yield digest, len(text.encode()), text

    def _sync(self, order: Order) -> bool:
        state = load_synced(self.state)
        if state is None and not self.path.exists():
            self.build(order)
            return True
        try:
            if state is None:
                raise DamagedError("fold.json is missing or damaged")
            self._check_outside(state)
            if self._is_current(state, order):
                return True
            return self._sync_into(state, order)
        except DamagedError as damage:
            if is_held_for_writing(self.path):
                return False  # not to be moved from under whoever is changing it
            self.set_aside(str(damage))
            made = self.build(order)
            self.ordering.notify(f"events.duckdb was rebuilt with {made.position} events")
            return True

    def _check_outside(self, state: Synced) -> None:
        """Compare what can be seen without opening the file."""
        if not self.path.exists():
            raise DamagedError("the file is missing")
        size = self.path.stat().st_size
        if not state.writing and (size != state.size or _size(self.wal)):
            raise DamagedError(
                f"it has {size} bytes and {_size(self.wal)} in its write-ahead log, "
                f"but the last sync left {state.size} and 0"
            )

    def _is_current(self, state: Synced, order: Order) -> bool:
        same_schema = state.schema == self.schema.digest
        same_sources = state.sources == len(self.sources)
        return not state.writing and same_schema and same_sources and state.entries == order.lines

    def _sync_into(self, state: Synced, order: Order) -> bool:
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
                state.save(self.state, writing=True)
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
        self, connection: duckdb.DuckDBPyConnection, state: Synced, order: Order
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
                f"but the last sync left {state.position}"
            )
        return last

    def _add(
        self, connection: duckdb.DuckDBPyConnection, order: Order, state: Synced, last: int
    ) -> None:
        """Insert what is not there yet; an interrupted sync may have inserted all of it."""
        add_rows(connection, "events", self.rows(order, last))
        if rejected := list(self.rejected(order, state.entries)):
            found = connection.execute("SELECT journal, start FROM rejected_events").fetchall()
            add_rows(connection, "rejected_events", (r for r in rejected if r[-2:] not in found))
        if state.writing or state.sources != len(self.sources):
            digests = connection.execute("SELECT digest FROM source_texts").fetchall()
            add_rows(connection, "source_texts", self.texts({digest for (digest,) in digests}))

    def _described(self, connection: duckdb.DuckDBPyConnection, order: Order) -> Synced:
        count, last, digest = last_row(connection)
        if (count, last) != (order.position, order.position):
            raise LogError(f"{self.path} has {count} of {order.position} events; run rebuild")
        counts = (
            "SELECT (SELECT count(*) FROM rejected_events), (SELECT count(*) FROM source_texts)"
        )
        ((rejected, sources),) = connection.execute(counts).fetchall()
        return Synced(
            position=last,
            hash=digest,
            entries=order.lines,
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
        self.state.unlink(missing_ok=True)
        self.ordering.notify(f"events.duckdb is not what it was{where}: {reason}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# --- telling a damaged file from one that is held, a full disk, and a mistake made here --------


class DamagedError(Exception):
    """events.duckdb is not what the last sync left; the text says why."""


def is_held(error: duckdb.Error) -> bool:
    """Return whether DuckDB refused because the file is open elsewhere."""
    text = str(error)
    return "Could not set lock" in text or "different configuration" in text


def is_held_for_writing(path: Path) -> bool:
    """Return whether another process has a database open for writing.

    Asked in a process of its own: whoever closes the file gives up all locks that its process has
    on it, also those of a DuckDB connection in use here.
    """
    probe = [sys.executable, "-I", "-c", _PROBE, str(path)]
    return path.exists() and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 3


_PROBE = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "rb"), fcntl.LOCK_SH | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def is_damage(error: duckdb.Error) -> bool:
    """Return whether the file is to blame, not a full disk and not a mistake made here."""
    full = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES)
    if any(os.strerror(code) in str(error) for code in full):
        return False
    bad = (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException)
    return isinstance(
        error, (*bad, duckdb.FatalException, duckdb.ConstraintException)
    ) or "orrupt" in str(error)


def first_line(error: Exception) -> str:
    """Return what is wrong in one line."""
    return str(error).strip().split("\n")[0]
