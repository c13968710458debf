"""The page that documents every SQL table and column, generated from their definitions.

``python -m autoresearch.projections.sql_page docs/sql.md`` writes it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from autoresearch.log import Column, EventTable, View
from autoresearch.projections.tables import ENVELOPE, people_schema

_HEAD = """\
# SQL tables and columns

<!-- generated: python -m autoresearch.projections.sql_page docs/sql.md -->

Ask with `autoresearch sql "…"`, with `autoresearch.connect()` from Python, or with any DuckDB 2.0
or newer on the file `.autoresearch/events.duckdb` (opened read-only it may stay open for hours).
The first two see everything acknowledged so far, the file itself what was synced into it last.

Times are UTC. A number that a run did not give is NULL, never 0. What the unit column calls
*metric* is in the unit of the campaign's own metric. Names that SQL reserves need quotes
(`"limit"`).

[Twenty-eight questions](sql-questions.md) that people ask have their query there, with what it
answers.

## Tables for people
"""

_EVENTS = """\
## The log itself

`events` has one row for each event, with `position` (place in the total order, from 1),
`event_id`, `campaign`, `stream` and `version` (place within the stream), `type`, `schema_version`,
`recorded_at`, `actor`, `hash`, `previous_hash` (sha256, see [the log](log.md)), `payload` (JSON as
written), and `journal` and `start` (the file and byte of its line). `rejected_events` has what
could not be given a place, with the `reason`. Both refuse UPDATE and DELETE.

## One table for each event type

Beside their own columns all of them have {envelope}.
"""


def sql_page() -> str:
    """Return the whole page."""
    schema = people_schema()
    envelope = ", ".join(f"`{column.name}` ({column.doc})" for column in ENVELOPE)
    parts = [_HEAD, *map(_section, schema.views), _EVENTS.format(envelope=envelope)]
    parts += [_section(table, ENVELOPE) for table in schema.tables]
    return "\n".join(parts)


def _section(table: EventTable | View, hidden: Iterable[Column] = ()) -> str:
    columns = [column for column in table.columns if column not in hidden]
    return "\n".join([f"### {table.name}\n", f"{table.doc}\n", *_rows(columns), ""])


def _rows(columns: list[Column]) -> Iterator[str]:
    if not columns:
        return
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in columns:
        yield f"| `{column.name}` | {column.kind} | {column.unit} | {column.doc} |"


def main(arguments: list[str]) -> None:
    """Write the page to the path given."""
    Path(arguments[0]).write_text(sql_page())


if __name__ == "__main__":
    main(sys.argv[1:])
