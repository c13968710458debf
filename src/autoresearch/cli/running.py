"""The verbs that make a campaign go: init and run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from autoresearch.campaign import Campaign
from autoresearch.cli.output import Teller
from autoresearch.cli.project import (
    config_options,
    overrides,
    plugin_option,
    project_option,
    root_of,
    settings_at,
    tag_option,
)
from autoresearch.cli.summary import print_summary
from autoresearch.errors import WorkspaceError
from autoresearch.model import Verdict
from autoresearch.opening import open_campaign, start, tags


@click.command()
@project_option
@click.option("--tag", help="Run tag; today's date, like mar18, by default.")
@config_options
@plugin_option
def init(
    project: Path,
    tag: str | None,
    config: Path | None,
    sets: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Check everything and start a campaign, without running anything.

    Creates the branch autoresearch/TAG, results.tsv with its header, and notes.md. Your checkout,
    index and settings stay as they are.
    """
    campaign = _start(project, tag, config, sets, plugins)
    click.echo(
        f"campaign {campaign.tag} is ready on branch {campaign.lab.branch}; "
        f"go on with autoresearch run"
    )


@click.command()
@project_option
@tag_option
@config_options
@plugin_option
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
    project: Path,
    tag: str | None,
    config: Path | None,
    sets: tuple[str, ...],
    plugins: tuple[str, ...],
    experiments: int | None,
    until: int | None,
    batch: int | None,
    accept_plugin_changes: bool,
    wait: bool,
) -> None:
    """Run experiments until a person (Ctrl-C), a budget or an option stops it.

    Continues the campaign TAG (by default the last active one), also after a crash or kill -9, and
    starts it when there is none. A campaign keeps the settings it was started with.
    """
    campaign = _open_or_start(project, tag, config, sets, plugins)
    if batch is not None:
        done = len(campaign.history.decided)
        until = (done // batch + 1) * batch
    teller = Teller()
    try:
        reason = campaign.run(
            experiments,
            until=until,
            plugins=plugins,
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
        raise WorkspaceError(f"{reason}; mend {campaign.config.script}, commit, and init anew")


def _open_or_start(
    project: Path,
    tag: str | None,
    config: Path | None,
    sets: Sequence[str],
    plugins: Sequence[str],
) -> Campaign:
    root = root_of(project)
    exists = (root / ".autoresearch").is_dir()
    known: tuple[str, ...] = ()
    if exists:
        from autoresearch.opening import store_of

        known = tags(store_of(root))
    if (tag is None and known) or tag in known:
        campaign = open_campaign(root, tag)
        _tell_of_kept_settings(campaign, project, config, sets)
        return campaign
    return _start(project, tag, config, sets, plugins)


def _tell_of_kept_settings(
    campaign: Campaign, project: Path, config: Path | None, sets: Sequence[str]
) -> None:
    asked = settings_at(project, config, sets).config
    if (config is not None or sets) and asked != campaign.config:
        click.echo(
            f"campaign {campaign.tag} keeps the settings it was started with; "
            "start another one with autoresearch init --tag to use other settings",
            err=True,
        )


def _start(
    project: Path,
    tag: str | None,
    config: Path | None,
    sets: Sequence[str],
    plugins: Sequence[str],
) -> Campaign:
    return start(
        project,
        tag=tag,
        config=config,
        overrides=overrides(sets),
        environ=os.environ,
        plugins=plugins,
    )


COMMANDS = (init, run)
