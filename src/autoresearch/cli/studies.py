"""The verbs about what is known from elsewhere: import, replay, simulate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.cli.output import print_json, print_table
from autoresearch.cli.project import json_option, project_option, root_of
from autoresearch.errors import WorkspaceError

if TYPE_CHECKING:
    from autoresearch.studies.imported import Plan


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@project_option
@click.option("--tag", help="Run tag of the campaign; by default made from the first file's name.")
@click.option(
    "--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Read a field from this column."
)
@click.option("--better", type=click.Choice(["lower", "higher"]), help="Which scores are better.")
@click.option("--yes", is_flag=True, help="Write it; without, only the plan is shown.")
@json_option
def import_history(
    files: tuple[str, ...],
    project: Path,
    tag: str | None,
    maps: tuple[str, ...],
    better: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Take over histories that other tools kept, as a campaign of its own.

    FILE is a table in TSV, CSV, JSON lines or Markdown, a notes.md, or a branch of experiments.
    How its columns are read is shown first. Rows that are dirty are kept with what is wrong;
    a file that was imported before adds only its new rows.
    """
    from autoresearch.studies import imported

    root = root_of(project)
    made = imported.plan(
        files, root, tag=tag, asked=pairs(maps), better=better or "", environ=os.environ
    )
    if yes:
        imported.write(made, root)
    if as_json:
        print_json(_plan_json(made, yes))
        return
    _print_plan(made)
    if yes:
        click.echo(f"written as campaign {made.tag}; autoresearch show --tag {made.tag} lists it")
    else:
        click.echo(f"nothing was written; --yes writes it as campaign {made.tag}")


def pairs(maps: tuple[str, ...]) -> dict[str, str]:
    """Return the fields and columns of ``FIELD=COLUMN`` words."""
    found = dict(word.split("=", 1) for word in maps if "=" in word)
    if len(found) != len(maps):
        raise WorkspaceError(f"--map {maps[-1]!r} is not FIELD=COLUMN, or names a field twice")
    return found


def _plan_json(made: Plan, written: bool) -> dict[str, object]:
    return {
        "tag": made.tag,
        "written": written,
        "metric": made.config.metric.name,
        "better": made.config.metric.better,
        "files": [
            {"source": each.table.source, "kind": each.table.kind, "rows": len(each.rows),
             "columns": dict(each.columns), "read_as": dict(each.told)}
            for each in made.readings
        ],
        "new_rows": made.new,
        "known_rows": made.known,
        "experiments": dict(made.verdicts),
        "aside": [
            {"source": row.source, "row": row.number, "why": row.aside} for row in made.lacking
        ],
        "problems": dict(made.problems),
    }  # fmt: skip


def _print_plan(made: Plan) -> None:
    for each in made.readings:
        click.echo(f"{each.table.source}: {each.table.kind}, {len(each.rows)} rows")
        names = [*each.columns, *(name for name in each.told if name not in each.columns)]
        rows = [(name, each.columns.get(name, ""), each.told.get(name, "")) for name in names]
        print_table(("field", "column", "read as"), sorted(rows))
        unknown = [name for name in each.table.columns if name not in each.columns.values()]
        if unknown:
            click.echo(f"kept as they are: {', '.join(unknown[:12])}")
        for problem in each.table.problems:
            click.echo(problem)
    for note in made.notes:
        click.echo(note)
    verdicts = ", ".join(f"{count} {name}" for name, count in made.verdicts.items())
    click.echo(f"{len(made.history.experiments)} experiments: {verdicts or 'none'}")
    if made.known:
        click.echo(f"{made.known} rows are in the campaign already, {made.new} are new")
    for problem, count in made.problems.items():
        click.echo(f"{count} rows: {problem}")
    if made.lacking:
        click.echo(f"{len(made.lacking)} rows are kept, but are no experiments:")
        for row in made.lacking[:20]:
            click.echo(f"  row {row.number}: {row.aside}")
