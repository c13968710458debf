"""The verbs about the log itself: sql, in one line, from a pipe or at a prompt; verify; rebuild."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import click
import duckdb

from autoresearch.cli.shared import (
    at_option,
    check_position,
    json_option,
    print_json,
    print_rows,
    tag_option,
    with_log,
)
from autoresearch.errors import AutoresearchError, WorkspaceError
from autoresearch.evidence import anchors_in, left_over, missing_things
from autoresearch.log import FileLog, VerifyReport
from autoresearch.opening import campaigns, no_campaign, tags, write_projections
from autoresearch.projections.tables import people_schema
from autoresearch.text import counted, one_line

# --- verify and rebuild ----------------------------------------------------------------------


@click.command()
@with_log
@json_option
def verify(log: FileLog, as_json: bool) -> None:
    """Check the log, and that everything it names is there and is what it was.

    Every line and row of the log, the tips in commits, every source, commit, ref and run output.
    Prints the number of events and the tip, and exits with 0; or names each place where the log is
    not what was written, and exits with 1.
    """
    report = log.verify(anchors_in(log.root.parent))
    if report.ok:
        report.findings += missing_things(log)
    report.notes += left_over(log)
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "events": report.events,
                "tip": str(report.tip),
                "findings": [attrs.asdict(item) for item in report.findings],
                "notes": report.notes,
            }
        )
    else:
        _print_report(report)
    if not report.ok:
        sys.exit(1)


def _print_report(report: VerifyReport) -> None:
    for line in (*map(str, report.findings), *report.notes):
        click.echo(one_line(line, 500))
    if report.ok:
        click.echo(f"{report.events} events, tip {report.tip}: the log is whole")
    else:
        findings = counted(len(report.findings), "finding")
        click.echo(f"{findings}: the log is not what was written")


@click.command()
@with_log
def rebuild(log: FileLog) -> None:
    """Make the database and every file again from the log.

    events.duckdb, results.tsv and notes.md come back from the journals byte for byte.
    """
    if not campaigns(log):
        raise no_campaign(log.root)
    report = log.rebuild()
    click.echo(f"{report.events} events, tip {report.tip}: events.duckdb was rebuilt")
    for path in write_projections(log.root.parent, log):
        click.echo(f"wrote {path}")


# --- sql -------------------------------------------------------------------------------------

PROMPT, MORE = "sql> ", "...> "
_WORDS = (
    "select from where group by order limit with as join left using count avg min max sum "
    "filter having distinct case when then else end and or not null is in between like desc "
    "asc over"
)


@click.command()
@click.argument("query", required=False)
@with_log
@tag_option
@click.option("--all", "everything", is_flag=True, help="Ask all campaigns here, not one.")
@at_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), help="Write the answer into this file.")
def sql(
    log: FileLog, query: str | None, tag: str | None, everything: bool, at: int | None,
    as_json: bool, as_csv: bool, parquet: Path | None,
) -> None:  # fmt: skip
    """Ask the history of a campaign a QUERY in SQL; without one, at a prompt.

    The dialect is DuckDB's. Tables: experiments, runs, metrics, decisions, gain, lineage,
    best_so_far, lessons, dead_ends, ideas, costs, sources, events, and one for each type of event.
    They hold the last active campaign, or the one named with --tag; with --all every one here.
    Works while a campaign runs. A query may also come through a pipe.
    """
    check_position(log, at)
    chosen = None if everything else _chosen(log, tag)
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    with log.connect(at=at, external=parquet is not None) as connection:
        if chosen is not None:
            _show_only(connection, chosen)
        if query is None:
            _prompt(connection)
        elif parquet is not None:
            _write_parquet(connection, query, parquet)
        else:
            columns, rows = _answer(connection, query)
            if as_csv and not as_json:
                csv.writer(sys.stdout).writerows([columns, *rows])
            else:
                print_rows(columns, rows, as_json)


def _chosen(log: FileLog, tag: str | None) -> str | None:
    """Return the campaign to ask; None where there is one alone or none at all."""
    known = tags(log)
    if tag is not None and tag not in known:
        raise WorkspaceError(f"there is no campaign {tag!r}; use one of {', '.join(sorted(known))}")
    return (tag or known[-1]) if len(known) > 1 else None


def _show_only(connection: duckdb.DuckDBPyConnection, campaign: str) -> None:
    """Hide the tables of events behind temporary ones that have one campaign.

    The views name their tables without a schema, so they read these.
    """
    database = str(connection.execute("SELECT current_database()").fetchall()[0][0])
    tag = campaign.replace("'", "''")
    query = "SELECT view_name, sql FROM duckdb_views() WHERE temporary AND NOT internal"
    laid: dict[str, str] = dict(connection.execute(query).fetchall())
    for table in ("events", *(item.name for item in people_schema().tables)):
        own = f'FROM "{database}".main."{table}"'
        body = laid[table].partition(" AS ")[2].rstrip("; ") if table in laid else own
        connection.execute(
            f'CREATE OR REPLACE TEMP VIEW "{table}" AS '
            f"SELECT * FROM ({body}) WHERE campaign = '{tag}'"
        )


def _answer(
    connection: duckdb.DuckDBPyConnection, query: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    try:
        cursor = connection.execute(query)
        if cursor is None or cursor.description is None:
            raise AutoresearchError(f"the query {query.strip()!r} asks nothing; write a select")
        return [item[0] for item in cursor.description], cursor.fetchall()
    except duckdb.Error as error:
        raise _failed(error) from None


def _failed(error: duckdb.Error) -> AutoresearchError:
    """Return DuckDB's complaint, and for a wrong name how to see the right ones."""
    advice: dict[type[duckdb.Error], str] = {
        duckdb.BinderException: 'autoresearch sql "describe TABLE" lists the columns',
        duckdb.CatalogException: 'autoresearch sql "show tables" lists the tables',
    }
    # Below its complaint DuckDB draws the query with an arrow, which needs lines of their own.
    said, _, lacks = str(error).partition("\n\nLINE ")[0].partition(", due to the following Python")
    more = "pip install pytz, or cast the time: at::timestamp" if lacks else advice.get(type(error))
    parts = (f"the query failed: {one_line(said, 500)}", more)
    return AutoresearchError("; ".join(filter(None, parts)))


def _write_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    if path.exists():
        raise WorkspaceError(f"{path} exists already; name a new file")
    try:
        connection.sql(query).write_parquet(str(path))
    except duckdb.Error as error:
        raise _failed(error) from None
    click.echo(f"wrote {path}")


def _prompt(connection: duckdb.DuckDBPyConnection) -> None:
    """Answer queries until exit or Ctrl-D; Tab completes tables, columns and words of SQL."""
    _complete(connection)
    click.echo("DuckDB over this campaign: end a query with ; tables; lists them, exit; leaves")
    lines: list[str] = []
    while True:
        try:
            lines.append(input(MORE if lines else PROMPT))
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            lines = []
            click.echo()
            continue
        query = "\n".join(lines).strip()
        if not query.endswith(";") and query:
            continue
        lines = []
        if query in ("exit;", "quit;"):
            return
        if query:
            _tell(connection, query.rstrip(";"))


def _tell(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    if query.strip() == "tables":
        rows: Iterable[Any] = [(view.name, view.doc) for view in people_schema().views]
        print_rows(("table", "what it has"), rows, False)
        return
    try:
        print_rows(*_answer(connection, query), False)
    except AutoresearchError as error:
        click.echo(str(error), err=True)


def _complete(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        import readline
    except ImportError:
        return
    names = connection.execute("SELECT DISTINCT table_name, column_name FROM duckdb_columns()")
    words = sorted({*_WORDS.split(), *(name for row in names.fetchall() for name in row)})

    def matching(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text.lower())]
        return found[state] if state < len(found) else None

    readline.set_completer(matching)
    readline.set_completer_delims(" \t\n,.()=<>*")
    readline.parse_and_bind("tab: complete")
