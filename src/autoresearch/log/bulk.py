"""Loading whole journals into an empty table by DuckDB itself, several times faster than by line.

Nothing is believed here: the caller checks afterwards, also in SQL, that every row gives its hash,
and :func:`load_journals` that the hashes form the chains and ends that the manifest knows. Whatever
differs makes the caller read line by line, which names the line.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from autoresearch.log.order import Order
from autoresearch.log.ordering import Ordering
from autoresearch.log.records import GENESIS
from autoresearch.log.table import add_rows, value

WORTH = 20_000  # events from which on this is faster than line by line
_LONGEST = 1 << 26  # bytes in one line

_READ = """
    CREATE OR REPLACE TEMP TABLE _lines AS FROM read_csv(
        $path, columns = {{'line': 'VARCHAR'}}, delim = chr(1), quote = '', escape = '',
        header = false, auto_detect = false, max_line_size = {longest})
    LIMIT {count}
"""
# Narrow and in order: what has to be known of the neighbours of a line.
_PLACE = """
    CREATE OR REPLACE TEMP TABLE _places AS
    WITH measured AS (
        SELECT rowid AS number, left(right(line, 66), 64) AS hash, strlen(line) + 1 AS size
        FROM _lines
    ), chained AS (
        SELECT number, hash, size, sum(size) OVER (ORDER BY number) AS ends,
            lag(hash, 1, $genesis) OVER (ORDER BY number) AS previous_hash
        FROM measured
    )
    SELECT l.*, e.first + l.number - e.line AS position, e.placed
    FROM chained l ASOF JOIN _entries e ON l.number >= e.line
"""
# The layout of a line (see lines.py) cut at its fixed places: names have no quotes in them, so the
# parts before the payload and behind it split at quotes, always into the same pieces.
_INSERT = """
    INSERT INTO events
    WITH halved AS (
        SELECT rowid AS number, line, instr(line, ',"payload":') AS middle,
            string_split(right(line, 1000), ',"schema_version":')[-1] AS behind
        FROM _lines
    ), pieces AS (
        SELECT number, string_split(left(line, middle), '"') AS head,
            substr(line, middle + 11, length(line) - length(behind) - middle - 28) AS payload,
            string_split(behind, '"') AS tail
        FROM halved
    )
    SELECT n.position, head[18], head[14], tail[4], CAST(trim(tail[11], ':},') AS BIGINT),
        tail[8], CAST(rtrim(tail[1], ',') AS INTEGER), CAST(head[10] AS TIMESTAMP), head[6],
        n.hash, n.previous_hash, payload, $journal, n.ends - n.size
    FROM pieces p JOIN _places n USING (number) WHERE n.placed
"""
_WRONG_ENDS = """
    SELECT count(*) FROM _entries e LEFT JOIN _places l ON l.number = e.line + e.count - 1
    WHERE l.hash IS DISTINCT FROM e.head OR l.ends IS DISTINCT FROM e.ends
"""


def load_journals(connection: duckdb.DuckDBPyConnection, ordering: Ordering, order: Order) -> bool:
    """Fill the empty table ``events``; False (with the table in any state) when lines differ."""
    try:
        return all(
            _load(connection, ordering.journal_path(journal), journal, order)
            for journal in order.places
        )
    except duckdb.Error:
        return False


def _load(connection: duckdb.DuckDBPyConnection, path: Path, journal: str, order: Order) -> bool:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _entries (line BIGINT, count BIGINT, first BIGINT, "
        "ends BIGINT, head VARCHAR, placed BOOLEAN)"
    )
    line, rows = 0, []
    for entry in order.entries:
        if entry.journal == journal:
            placed = entry.reason is None
            rows.append((line, entry.count, entry.first, entry.end, entry.head, placed))
            line += entry.count
    add_rows(connection, "_entries", rows)
    read = _READ.format(count=line, longest=_LONGEST)
    connection.execute(read, {"path": str(path)}).fetchall()
    connection.execute(_PLACE, {"genesis": GENESIS}).fetchall()
    connection.execute(_INSERT, {"journal": journal}).fetchall()
    wrong = value(connection, _WRONG_ENDS)
    connection.execute("DROP TABLE _lines")
    return bool(wrong == 0)
