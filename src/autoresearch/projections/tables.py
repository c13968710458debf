"""The SQL tables of the store, and the one call that opens a store with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from autoresearch.log import FileLog, Schema, open_log, to_stderr
from autoresearch.presets import metric_columns
from autoresearch.projections.columns import event_tables
from autoresearch.projections.people import CAMPAIGNS, DECISIONS, EXPERIMENTS, RUNS, with_metrics
from autoresearch.projections.people_more import (
    COSTS,
    DEAD_ENDS,
    IDEAS,
    LESSONS,
    METRICS,
    SOURCES,
)

_MORE = (
    METRICS,
    IDEAS,
    LESSONS,
    DEAD_ENDS,
    COSTS,
    SOURCES,
)


@cache
def people_schema() -> Schema:
    """Return the typed tables of all event types and the views that people ask for."""
    runs, experiments = (with_metrics(view, metric_columns()) for view in (RUNS, EXPERIMENTS))
    return Schema(event_tables(), (CAMPAIGNS, runs, DECISIONS, experiments, *_MORE))


def open_store(root: Path, notify: Callable[[str], None] = to_stderr) -> FileLog:
    """Open the log in the store folder ``root`` (a project's ``.autoresearch``) with all tables.

    ``notify`` gets one line for everything that had to be repaired.
    """
    return open_log(root, people_schema(), notify)
