"""The verbs that read: status, show, sql, project, plot."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import attrs
import click
import duckdb

from autoresearch.cli.output import print_json, print_table
from autoresearch.cli.project import (
    at_option,
    campaign_at,
    check_position,
    history_at,
    json_option,
    project_option,
    store_at,
    tag_option,
)
from autoresearch.cli.summary import row
from autoresearch.errors import AutoresearchError, WorkspaceError
from autoresearch.history import History
from autoresearch.model import Experiment
from autoresearch.plugins import Plugins
from autoresearch.projections import Projection
from autoresearch.projections.blocks import analysis_block, reasoning_block, shown_status
from autoresearch.projections.notes_md import NotesMd
from autoresearch.projections.results_tsv import ResultsTsv
from autoresearch.text import block, one_line


@click.command()
@project_option
@tag_option
@at_option
@json_option
def status(project: Path, tag: str | None, at: int | None, as_json: bool) -> None:
    """Say where a campaign stands: its best, what runs, what was spent."""
    campaign = campaign_at(project, tag)
    history = history_at(campaign, at)
    tip = campaign.log.tip() if at is None else f"{history.position}:{history.tip_hash}"
    facts = _facts(campaign.lab.branch, history, str(tip))
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name + ':':<14}{one_line(str(value), 300)}")


def _facts(branch: str, history: History, tip: str) -> dict[str, Any]:
    best, current = history.best, history.current
    return {
        "campaign": history.campaign,
        "branch": branch,
        "metric": history.metric,
        "experiments": len(history.decided),
        "kept": len(history.kept),
        "best": history.best_metric,
        "best_commit": best.commit if best else None,
        "best_change": best.idea.description if best else None,
        "running": current.idea.description if current else None,
        "stopped": history.stopped,
        "dead_ends": ", ".join(sorted(history.dead_ends)) or None,
        "queue": len(history.queue),
        "run_hours": round(history.spent.seconds / 3600, 3),
        "gpu_hours": round(history.spent.gpu_seconds / 3600, 3),
        "usd": round(history.spent.usd, 2),
        "tip": tip,
    }


@click.command()
@click.argument("experiment", type=click.IntRange(min=0), required=False)
@project_option
@tag_option
@at_option
@json_option
def show(
    experiment: int | None, project: Path, tag: str | None, at: int | None, as_json: bool
) -> None:
    """Show one EXPERIMENT with its reasoning, analysis and decision, or list them all."""
    campaign = campaign_at(project, tag)
    history = history_at(campaign, at)
    if experiment is None:
        _list(history, as_json)
        return
    if experiment >= len(history.experiments):
        count = len(history.experiments)
        has = f"it has 0 to {count - 1}" if count else "run some with autoresearch run"
        raise WorkspaceError(f"{campaign.tag} has no experiment {experiment}; {has}")
    found = history.experiments[experiment]
    if as_json:
        print_json(_as_json(found))
    else:
        click.echo(_as_text(found))


def _list(history: History, as_json: bool) -> None:
    if as_json:
        print_json([_as_json(item) for item in history.experiments])
        return
    columns = ("experiment", "commit", history.metric, "artifact_mb", "verdict", "description")
    print_table(columns, [row(history, item) for item in history.experiments])


def _as_json(experiment: Experiment) -> dict[str, Any]:
    plain = attrs.asdict(experiment, recurse=True, value_serializer=_serialise)
    plain["verdict"] = experiment.verdict
    return plain


def _serialise(_: type[Any], __: attrs.Attribute[Any], value: Any) -> Any:
    return dict(value) if hasattr(value, "evolver") else value


def _as_text(experiment: Experiment) -> str:
    lines = [
        f"experiment {experiment.number}: {one_line(experiment.idea.description, 300)}",
        f"commit {experiment.commit or 'none yet'}, by {one_line(experiment.idea.generator)}",
    ]
    if experiment.reasoning:
        lines.append(reasoning_block(experiment.reasoning))
    for run in experiment.runs:
        numbers = " ".join(f"{name}={value:g}" for name, value in sorted(run.metrics.items()))
        parts = (f"seed {run.seed}", run.status or "running", run.detail, numbers)
        lines.append(f"run {run.name}: {', '.join(part for part in parts if part)}")
    if experiment.analysis:
        lines.append(analysis_block(experiment.analysis, shown_status(experiment)))
    if experiment.decision:
        verdict = experiment.decision.verdict
        lines.append(f"{verdict} by {experiment.decision.policy}: {experiment.decision.reason}")
    return block("\n".join(lines))


@click.command()
@click.argument("query")
@project_option
@at_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def sql(query: str, project: Path, at: int | None, as_json: bool, as_csv: bool) -> None:
    """Ask the experiment history of every campaign here a QUERY in DuckDB's SQL.

    Tables: experiments, runs, metrics, decisions, lessons, dead_ends, ideas, costs, sources,
    events, and a view for each type of event. Works while a campaign runs.
    """
    store = store_at(project)
    check_position(store, at)
    with store.connect(at=at) as connection:
        try:
            cursor = connection.execute(query)
            if cursor is None:
                raise AutoresearchError(f"the query {query!r} asks nothing; write a select")
            columns = [item[0] for item in cursor.description or ()]
            rows = cursor.fetchall()
        except duckdb.Error as error:
            raise AutoresearchError(f"the query failed: {one_line(str(error), 500)}") from None
    if as_json:
        print_json([dict(zip(columns, values, strict=True)) for values in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        print_table(columns, rows)


@click.command("project")
@click.argument("file_name")
@project_option
@tag_option
@at_option
def project_file(file_name: str, project: Path, tag: str | None, at: int | None) -> None:
    """Print a projection (results.tsv, notes.md, or a plugin's) as the log gives it."""
    campaign = campaign_at(project, tag)
    active = Plugins.load(campaign.config, campaign.project)
    known: tuple[Projection, ...] = (ResultsTsv(), NotesMd(), *active.projections(campaign.config))
    found = {item.file_name: item for item in known}
    if file_name not in found:
        raise WorkspaceError(f"no projection is called {file_name}; known: {', '.join(found)}")
    history = history_at(campaign, at)
    click.echo(found[file_name].render(history), nl=False)


@click.command()
@project_option
@tag_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("progress.png"), help="File to write."
)
def plot(project: Path, tag: str | None, out: Path) -> None:
    """Draw the score of every experiment and the best so far into a PNG file."""
    from autoresearch.report.progress import draw

    if out.suffix.lower() != ".png":
        raise WorkspaceError(f"--out {out} is no PNG file; name one like progress.png")
    campaign = campaign_at(project, tag)
    draw(campaign.history, out)
    click.echo(f"wrote {out}")


COMMANDS = (status, show, sql, project_file, plot)
