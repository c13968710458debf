"""Checks every byte of a store against every other record of it, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from autoresearch.codec import canonical
from autoresearch.log.database import Database
from autoresearch.log.files import UNWRITABLE, FileLock
from autoresearch.log.journal import is_journal, journal_sizes
from autoresearch.log.manifest import could_be_torn_entry, unpack_entry
from autoresearch.log.order import Order
from autoresearch.log.records import GENESIS, Anchor
from autoresearch.log.report import VerifyReport
from autoresearch.log.snapshots import unpack_snapshot
from autoresearch.log.sources import is_digest
from autoresearch.log.verify_database import check_database
from autoresearch.log.verify_journals import check_journals


def verify(database: Database, anchors: Iterable[Anchor] = ()) -> VerifyReport:
    """Check journals, manifest, database, sources and locks, and heads written down outside.

    An anchor is a head that was noted elsewhere, such as in a commit: with one, a store from which
    the end of every file was cut off is found out too.
    """
    root = database.ordering.root
    order = Order()
    report = VerifyReport(order.head)
    fold_lock, order_lock = database.lock, database.ordering.locks / "order.lock"
    with _held_if_possible(fold_lock), _held_if_possible(order_lock):
        sizes = journal_sizes(database.ordering.journals)
        _check_manifest(root, order, report)
        report.head, report.events = order.head, order.position
        _check_anchors(order, anchors, report)
        sound = check_journals(database.ordering, order, sizes, report)
        check_database(database, order, sound, report)
    _check_names(database.ordering.journals, report)
    _check_sources(root, report)
    _check_snapshots(root, report)
    _check_locks(root, report)
    for kept in sorted(root.glob("events.duckdb.damaged-*")):
        report.notes.append(f"{kept.name} was set aside earlier; delete it when nobody needs it")
    return report


@contextmanager
def _held_if_possible(path: Path) -> Iterator[None]:
    """Hold a lock; where the folder cannot be written nobody else can hold it either."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in UNWRITABLE and not isinstance(error, FileNotFoundError):
            raise
    try:
        yield
    finally:
        lock.release()


def _check_manifest(root: Path, order: Order, report: VerifyReport) -> None:
    name = "manifest.jsonl"
    try:
        *lines, tail = (root / name).read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            previous = order.hashes[-1] if order.hashes else GENESIS
            order.add(*unpack_entry(line.decode(errors="replace"), previous))
        except ValueError as error:
            report.add(name, f"{error}; nothing behind it is ordered", number, order.position + 1)
            return
    if tail and could_be_torn_entry(tail):
        report.notes.append(f"{name} ends in a torn line of {len(tail)} bytes, which nobody read")
    elif tail:
        report.add(name, f"{len(tail)} stray bytes at the end; remove them", len(lines) + 1)


def _check_anchors(order: Order, anchors: Iterable[Anchor], report: VerifyReport) -> None:
    for anchor in anchors:
        where = anchor.where or "an anchor"
        if anchor.position > order.position:
            report.add(
                "manifest.jsonl",
                f"ends at position {order.position}, but {where} saw position {anchor.position}: "
                "the end of the log was cut off",
                position=order.position,
            )
        elif anchor.hash not in order.hash_at(anchor.position):
            report.add(
                "manifest.jsonl",
                f"is not the log that {where} saw: there the hash was {anchor.hash[:12]}",
                position=anchor.position,
            )


def _check_names(folder: Path, report: VerifyReport) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            report.notes.append(f"journal/{path.name} is a hidden file and not read")
        elif not path.is_file() or not is_journal(path.name):
            report.add(f"journal/{path.name}", "is not a journal; move it away")


def _check_sources(root: Path, report: VerifyReport) -> None:
    folder = root / "sources"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = f"sources/{path.name}"
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            report.notes.append(f"{name} is left from an interrupted write; delete it")
        elif not path.is_file() or not is_digest(path.name):
            report.add(name, "is not a source; move it away")
        elif sha256(path.read_bytes()).hexdigest() != path.name:
            report.add(name, "does not match its digest; restore it from its commit")


def _check_snapshots(root: Path, report: VerifyReport) -> None:
    folder = root / "snapshots"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            report.notes.append(f"snapshots/{path.name} is left from an interrupted write")
        elif unpack_snapshot(path.read_bytes()) is None:
            report.add(f"snapshots/{path.name}", "is not what was kept; delete it")


def _check_locks(root: Path, report: VerifyReport) -> None:
    folder = root / "locks"
    for path in sorted(folder.glob("*.lock")) if folder.is_dir() else []:
        data = path.read_bytes()
        if data and not _is_holder(data):
            report.add(f"locks/{path.name}", "has bytes that no holder wrote; empty it")


def _is_holder(data: bytes) -> bool:
    try:
        found = json.loads(data)
        return isinstance(found, dict) and canonical(found).encode() + b"\n" == data
    except (ValueError, TypeError):
        return False
