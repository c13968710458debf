"""The verb that makes a campaign go."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from autoresearch.campaign import Campaign
from autoresearch.cli.output import Teller, warn
from autoresearch.cli.project import root_of, with_asked
from autoresearch.cli.reading import print_summary
from autoresearch.errors import ConfigError, WorkspaceError
from autoresearch.git import Git
from autoresearch.model import Verdict
from autoresearch.opening import (
    changes_since_start,
    existing_store,
    given_by_hand,
    open_campaign,
    settings_of,
    start,
    tags,
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
    "--parallel",
    type=click.IntRange(min=1),
    help="Have this many experiments under way at once; without it runs.parallel.",
)
@click.option(
    "--accept-plugin-changes",
    is_flag=True,
    help="Go on although the active plugins are not those the campaign started with.",
)
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Wait for whatever is lacking, or end instead and say what it is. Without either, waits "
    "for all that may come by itself; with a number of experiments not for ideas that nothing here "
    "can have.",
)
def run(
    asked: Mapping[str, Any],
    experiments: int | None,
    until: int | None,
    batch: int | None,
    parallel: int | None,
    accept_plugin_changes: bool,
    wait: bool | None,
) -> None:
    """Run experiments until a person, a budget or an option stops it.

    Ctrl-C stops it, and a run under way goes on by itself: autoresearch stop --now ends it too.
    Continues the campaign TAG (by default the last active one), also after a crash
    or kill -9, and starts it when there is none. A campaign keeps the settings it was started with.
    """
    campaign = _open_or_start(asked)
    if batch is not None:
        until = (len(campaign.history.decided) // batch + 1) * batch
    teller = Teller()
    try:
        with _signals_interrupt():
            reason = campaign.run(
                experiments,
                until=until,
                plugins=asked["plugins"],
                accept_plugin_changes=accept_plugin_changes,
                wait=wait,
                parallel=parallel,
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
            f"{reason}; correct the script or the settings, commit, and run again: the campaign "
            "starts again under its tag"
        )


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the loop as Ctrl-C does, unless they are to be ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")


def _open_or_start(asked: Mapping[str, Any]) -> Campaign:
    root = root_of(asked["project"])
    known = tags(existing_store(root)) if (root / ".autoresearch").is_dir() else ()
    if not known or (asked["tag"] is not None and asked["tag"] not in known):
        return start(**asked, tell=warn)
    campaign = open_campaign(root, asked["tag"])
    campaign.check_own()
    changes = _changes(campaign, asked)
    history = campaign.history
    crashed = history.baseline is not None and history.baseline.verdict is Verdict.CRASH
    if history.may_start_again and (changes or crashed):
        for line in changes:
            click.echo(line, err=True)
        click.echo(f"campaign {campaign.tag} has no score yet: starting it again", err=True)
        return start(**{**asked, "project": root, "tag": campaign.tag}, tell=warn)
    if changes:
        for line in changes:
            click.echo(line, err=True)
        click.echo(
            f"campaign {campaign.tag} keeps the settings it was started with; "
            "start another one with autoresearch init --tag to use other settings",
            err=True,
        )
    return campaign


def _changes(campaign: Campaign, asked: Mapping[str, Any]) -> list[str]:
    """Say what differs from a start: the settings and, where there is no score, the commit."""
    root = campaign.project
    try:
        given = {**given_by_hand(campaign), **asked["overrides"]}
        wanted = settings_of(root, asked["config"], given, asked["environ"])
    except ConfigError as error:
        if asked["config"] is not None or asked["overrides"] or campaign.history.may_start_again:
            raise
        return [f"the settings of now cannot be used: {error}"]
    found = changes_since_start(campaign, wanted.config)
    started, now = campaign.history.started, Git(root).commit_of("HEAD")
    if campaign.history.may_start_again and started and now and now != started.base_commit:
        found.append(f"the last commit is {now[:7]} now, and was {started.base_commit[:7]}")
    return found
