"""The verbs that make a campaign go: init and run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from autoresearch.campaign import Campaign
from autoresearch.cli.output import Teller
from autoresearch.cli.project import root_of, with_asked
from autoresearch.cli.reading import print_summary
from autoresearch.errors import WorkspaceError
from autoresearch.model import Verdict
from autoresearch.opening import existing_store, open_campaign, settings_of, start, tags


@click.command()
@with_asked
def init(asked: Mapping[str, Any]) -> None:
    """Check everything and start a campaign, without running it.

    Creates the branch autoresearch/TAG, results.tsv with its header, and notes.md. Your checkout,
    index and settings stay as they are.
    """
    campaign = start(**asked)
    click.echo(
        f"campaign {campaign.tag} is ready on branch {campaign.lab.branch}; "
        f"go on with autoresearch run"
    )


@click.command()
@with_asked
@click.option(
    "--experiments", type=click.IntRange(min=1), help="Stop after this many more experiments."
)
@click.option("--until", type=click.IntRange(min=1), help="Stop with this many experiments in all.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Work in batches of this size: finish the batch under way, else do another.",
)
@click.option(
    "--accept-plugin-changes",
    is_flag=True,
    help="Go on although the active plugins are not those the campaign started with.",
)
@click.option("--wait/--no-wait", default=True, help="Wait when no generator has an idea.")
def run(
    asked: Mapping[str, Any],
    experiments: int | None,
    until: int | None,
    batch: int | None,
    accept_plugin_changes: bool,
    wait: bool,
) -> None:
    """Run experiments until a person, a budget or an option stops it.

    Ctrl-C stops it. Continues the campaign TAG (by default the last active one), also after a crash
    or kill -9, and starts it when there is none. A campaign keeps the settings it was started with.
    """
    campaign = _open_or_start(asked)
    if batch is not None:
        until = (len(campaign.history.decided) // batch + 1) * batch
    teller = Teller()
    try:
        reason = campaign.run(
            experiments,
            until=until,
            plugins=asked["plugins"],
            accept_plugin_changes=accept_plugin_changes,
            wait=wait,
            tell=teller.tell,
            tick=teller.tick,
        )
    finally:
        teller.clear()
    teller.tell(f"stopped: {reason}")
    print_summary(campaign)
    baseline = campaign.history.baseline
    if baseline is not None and baseline.verdict is Verdict.CRASH:
        raise WorkspaceError(
            f"{reason}; correct {campaign.config.script}, commit it, and start another campaign "
            "with autoresearch init"
        )


def _open_or_start(asked: Mapping[str, Any]) -> Campaign:
    root = root_of(asked["project"])
    known = tags(existing_store(root)) if (root / ".autoresearch").is_dir() else ()
    if not known or (asked["tag"] is not None and asked["tag"] not in known):
        return start(**asked)
    campaign = open_campaign(root, asked["tag"])
    if asked["config"] is not None or asked["overrides"]:
        wanted = settings_of(root, asked["config"], asked["overrides"], asked["environ"])
        if wanted.config != campaign.config:
            click.echo(
                f"campaign {campaign.tag} keeps the settings it was started with; "
                "start another one with autoresearch init --tag to use other settings",
                err=True,
            )
    return campaign
