"""The event log: append, read, verify, rebuild; journals and DuckDB live here and nowhere else."""

from autoresearch.log.memory import MemoryLog
from autoresearch.log.protocol import EventLog, Writer
from autoresearch.log.records import GENESIS, Anchor, Head, Receipt, Recorded
from autoresearch.log.report import Finding, RebuildReport, VerifyReport
from autoresearch.log.schema import Column, EventTable, Schema, View
from autoresearch.log.sources import SourceStore
from autoresearch.log.store import FileLog, open_log

__all__ = [
    "GENESIS",
    "Anchor",
    "Column",
    "EventLog",
    "EventTable",
    "FileLog",
    "Finding",
    "Head",
    "MemoryLog",
    "RebuildReport",
    "Receipt",
    "Recorded",
    "Schema",
    "SourceStore",
    "VerifyReport",
    "View",
    "Writer",
    "open_log",
]
