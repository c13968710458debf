"""The verbs about the log itself: verify and rebuild."""

from __future__ import annotations

import sys

import attrs
import click

from autoresearch.cli.output import print_json
from autoresearch.cli.project import json_option, with_log
from autoresearch.evidence import anchors_in, left_over, missing_things
from autoresearch.index import campaigns
from autoresearch.log import FileLog, VerifyReport
from autoresearch.opening import no_campaign, write_projections
from autoresearch.text import one_line


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
        count = len(report.findings)
        click.echo(f"{count} finding{'s'[: count > 1]}: the log is not what was written")


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
