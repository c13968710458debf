"""The verbs about the log itself: verify, rebuild, export."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import click

from autoresearch.cli.output import print_json
from autoresearch.cli.project import json_option, project_option, root_of, store_at
from autoresearch.evidence import anchors_in, changed_outputs
from autoresearch.log import VerifyReport, export_parquet
from autoresearch.opening import no_campaign, tags, write_projections
from autoresearch.text import one_line


@click.command()
@project_option
@json_option
def verify(project: Path, as_json: bool) -> None:
    """Check every line, row and source of the log, the tips in commits, and the runs' outputs.

    Prints the number of events and the tip, and exits with 0; or names each place where the log
    is not what was written, and exits with 1.
    """
    log = store_at(project)
    report = log.verify(anchors_in(root_of(project)))
    if report.ok:
        report.findings += changed_outputs(log)
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
        count = len(report.findings)
        click.echo(f"{count} finding{'s'[: count > 1]}: the log is not what was written")


@click.command()
@project_option
def rebuild(project: Path) -> None:
    """Make events.duckdb, results.tsv and notes.md again from the journals, byte for byte."""
    log = store_at(project)
    if not tags(log):
        raise no_campaign(log.root)
    report = log.rebuild()
    written = write_projections(root_of(project), log)
    click.echo(f"{report.events} events, tip {report.tip}: events.duckdb was made again")
    for path in written:
        click.echo(f"wrote {path}")


@click.command()
@project_option
@click.option(
    "--parquet",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write; it must not exist yet.",
)
def export(project: Path, directory: Path) -> None:
    """Write the events, partitioned by campaign, and all tables as Parquet files."""
    log = store_at(project)
    export_parquet(log, directory, log.schema)
    click.echo(f"wrote {directory}")


COMMANDS = (verify, rebuild, export)
