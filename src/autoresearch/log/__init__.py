"""The event log: append, read, verify, rebuild; journals and DuckDB live here and nowhere else."""

from autoresearch.log.memory import MemoryLog
from autoresearch.log.reading import export_parquet
from autoresearch.log.records import (
    GENESIS,
    Anchor,
    EventLog,
    Finding,
    RebuildReport,
    Receipt,
    Recorded,
    Tip,
    VerifyReport,
    Writer,
)
from autoresearch.log.snapshots import SnapshotStore
from autoresearch.log.sources import SourceStore
from autoresearch.log.store import FileLog, is_own_name, open_log, to_stderr
from autoresearch.log.tables import Column, EventTable, Schema, View
from autoresearch.log.writer import Holder

__all__ = [
    "GENESIS",
    "Anchor",
    "Column",
    "EventLog",
    "EventTable",
    "FileLog",
    "Finding",
    "Holder",
    "MemoryLog",
    "RebuildReport",
    "Receipt",
    "Recorded",
    "Schema",
    "SnapshotStore",
    "SourceStore",
    "Tip",
    "VerifyReport",
    "View",
    "Writer",
    "export_parquet",
    "is_own_name",
    "open_log",
    "to_stderr",
]
