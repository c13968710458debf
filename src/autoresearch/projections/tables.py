"""The SQL tables of the store: one typed table for each event type, and the views for people.

A table's columns are derived from the fields of the event's class.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from autoresearch.events import EVENT_TYPES, Event
from autoresearch.log import Column, EventTable, FileLog, Schema, open_log, to_stderr
from autoresearch.presets import metric_columns
from autoresearch.projections.views_memory import VIEWS
from autoresearch.projections.views_runs import (
    CAMPAIGNS,
    DECISIONS,
    EXPERIMENTS,
    RUNS,
    column,
    with_metrics,
)

ENVELOPE = (
    column("position", "BIGINT", "place of the event in the log", sql="position"),
    column("campaign", "VARCHAR", "campaign it belongs to", sql="campaign"),
    column("recorded_at", "TIMESTAMP", "when it was recorded, UTC", sql="recorded_at"),
    column("actor", "VARCHAR", "who recorded it", sql="actor"),
)
_PLAIN = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def event_tables() -> tuple[EventTable, ...]:
    """Return the typed tables of all event types, by name."""
    return tuple(event_table(name) for name in sorted(EVENT_TYPES))


def event_table(name: str) -> EventTable:
    """Return the typed table of one event type."""
    shape = EVENT_TYPES[name]
    hints = get_type_hints(shape)
    columns = tuple(_column(item, hints[item.name]) for item in _fields(shape))
    doc = (shape.__doc__ or "").strip().split("\n")[0]
    return EventTable(name=name, doc=doc, columns=ENVELOPE + columns)


def sql_kind(hint: Any) -> str:
    """Return the SQL type of a field's annotation; what has no better one is JSON."""
    plain = _without_none(hint)
    if plain in _PLAIN:
        return _PLAIN[plain]
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is tuple and len(arguments) == 2 and arguments[0] in _PLAIN:
        return f"{_PLAIN[arguments[0]]}[]"
    if origin is not None and issubclass(origin, Mapping) and arguments[1] in _PLAIN:
        return f"MAP(VARCHAR, {_PLAIN[arguments[1]]})"
    return "JSON"


def _fields(shape: type[Event]) -> tuple[Any, ...]:
    found: Any = shape
    return tuple(attrs.fields(found))


def _column(item: Any, hint: Any) -> Column:
    kind = sql_kind(hint)
    arrow = "->>" if kind in _PLAIN.values() else "->"
    value = f"payload{arrow}'$.{item.name}'"
    if was := item.metadata.get("was"):
        value = f"coalesce({value}, payload{arrow}'$.{was}')"
    # TRY_CAST: a payload of an older version may lack the field or have it in another form, and
    # one such row must not make the table unreadable.
    return Column(
        name=item.name,
        kind=kind,
        doc=item.metadata.get("doc", ""),
        unit=item.metadata.get("unit", ""),
        sql=value if kind == "JSON" else f"TRY_CAST({value} AS {kind})",
    )


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kept = [argument for argument in get_args(hint) if argument is not type(None)]
        return kept[0] if len(kept) == 1 else hint
    return hint


@cache
def people_schema() -> Schema:
    """Return the typed tables of all event types and the views that people ask for."""
    runs, experiments = (with_metrics(view, metric_columns()) for view in (RUNS, EXPERIMENTS))
    views = (CAMPAIGNS, runs, DECISIONS, experiments, *VIEWS)
    return Schema(event_tables(), views)


def open_store(root: Path, notify: Callable[[str], None] = to_stderr) -> FileLog:
    """Open the log in the store folder ``root`` (a project's ``.autoresearch``) with all tables.

    ``notify`` gets one line for everything that had to be repaired.
    """
    return open_log(root, people_schema(), notify)
