"""The table of a campaign, and where to look next."""

from __future__ import annotations

from typing import Any

import click

from autoresearch.campaign import Campaign
from autoresearch.cli.output import print_table
from autoresearch.history import History
from autoresearch.model import Experiment
from autoresearch.presets import metric_columns

QUERIES = (
    "select experiment, status, {metric}, description from experiments order by 1",
    "select direction, count(*) as tries, count(*) filter (status = 'keep') as kept "
    "from experiments group by 1 order by 2 desc",
    "select experiment, reason from decisions order by 1",
)


def print_summary(campaign: Campaign) -> None:
    """Print every experiment, the files that were written, and three queries to try."""
    history = campaign.history
    print_table(
        ("experiment", "commit", history.metric, "artifact_mb", "verdict", "description"),
        [row(history, item) for item in history.experiments],
    )
    click.echo(f"memory: results.tsv, notes.md; branch: git log {campaign.lab.branch}")
    click.echo("ask the history, for example:")
    for query in queries(history.metric):
        click.echo(f'  autoresearch sql "{query}"')


def queries(metric: str) -> tuple[str, ...]:
    """Return the three example queries, about the campaign's own metric."""
    column = metric if metric in metric_columns() else "metric"
    return tuple(query.format(metric=column) for query in QUERIES)


def row(history: History, experiment: Experiment) -> tuple[Any, ...]:
    """Return one experiment as a row of the table."""
    size = experiment.metrics.get(history.size)
    return (
        experiment.number,
        experiment.commit[:7],
        history.score(experiment),
        None if size is None else f"{size / 1e6:.3f}",
        experiment.verdict.value if experiment.verdict else "running",
        experiment.idea.description,
    )
