"""The verbs with which a person takes part: ideas, notes, the loop, and verdicts of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click

from autoresearch.campaign import Campaign
from autoresearch.cli import Verbs
from autoresearch.cli.shared import (
    Teller,
    environment,
    json_option,
    print_json,
    print_rows,
    print_table,
    project_option,
    tag_option,
    text_of,
    warn,
    with_campaign,
)
from autoresearch.errors import WorkspaceError, why
from autoresearch.model import Idea, Verdict
from autoresearch.opening import open_campaign


@click.group(cls=Verbs)
def idea() -> None:
    """Queue what you would try next, list the queue, rank it, drop from it.

    The loop takes the best idea first.
    """


@idea.command("add")
@click.argument("description")
@with_campaign
@click.option("--direction", default="by hand", help="Family of the change.")
@click.option("--why", "hypothesis", help="What you expect and why.")
@click.option(
    "--gain",
    "expected_gain",
    type=float,
    help="Expected improvement in the metric; ranks the queue.",
)
@click.option("--patch", type=click.Path(path_type=Path), help="Unified diff against the script.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment override.")
@click.option("--anyway", is_flag=True, help="Queue it although nothing here reads the variable.")
def add(
    campaign: Campaign,
    anyway: bool,
    hypothesis: str | None,
    patch: Path | None,
    env: tuple[str, ...],
    **said: Any,
) -> None:
    """Queue an idea: a patch or an environment runs as it is, words wait for a plugin.

    Works while the loop runs.
    """
    queued = Idea(
        hypothesis=hypothesis or f"a person expects this to help: {said['description']}",
        patch=_read(patch),
        env=environment(env),
        **said,
    )
    click.echo(
        f"queued idea {campaign.add_idea(queued, anyway=anyway)} for campaign {campaign.tag}"
    )
    for text in campaign.doubts(queued):
        warn(text)


def _read(patch: Path | None) -> str | None:
    if patch is None:
        return None
    try:
        with patch.open("rb") as file:
            return text_of(file)
    except OSError as error:
        raise WorkspaceError(f"cannot read {patch}: {why(error)}; name a unified diff") from None


@idea.command("list")
@with_campaign
@json_option
def list_ideas(campaign: Campaign, as_json: bool) -> None:
    """List the queue, best first."""
    queue = campaign.history.ranked_queue
    if as_json:
        print_json([attrs.asdict(item) for item in queue])
        return
    columns = ("id", "expected_gain", "direction", "description", "by")
    rows = [
        (item.id, item.expected_gain, item.direction, item.description, item.author)
        for item in queue
    ]
    print_table(columns, rows)


@idea.command("drop")
@click.argument("idea_id")
@with_campaign
@click.option("--why", default="dropped by a person", help="Reason, which is recorded.")
def drop(campaign: Campaign, idea_id: str, why: str) -> None:
    """Take the idea IDEA_ID out of the queue."""
    campaign.drop_idea(idea_id, why)
    click.echo(f"dropped idea {idea_id}")


@idea.command("rank")
@click.argument("idea_id")
@click.argument("gain", type=float)
@with_campaign
def rank(campaign: Campaign, idea_id: str, gain: float) -> None:
    """Expect GAIN of the idea IDEA_ID, in the metric's units; the best is tried first."""
    campaign.rank_idea(idea_id, gain)
    place = [item.id for item in campaign.history.ranked_queue].index(idea_id) + 1
    click.echo(f"idea {idea_id} is number {place} of {len(campaign.history.queue)} now")


@click.command()
@click.argument("text", required=False)
@with_campaign
@click.option(
    "--for", "experiments", type=click.IntRange(min=1), help="Hold it for so many experiments."
)
@click.option("--withdraw", type=click.IntRange(min=1), help="Take back the one of this number.")
@json_option
def steer(
    campaign: Campaign,
    text: str | None,
    experiments: int | None,
    withdraw: int | None,
    as_json: bool,
) -> None:
    """Say where the research should go: TEXT stands in every prompt and in notes.md.

    Until it is withdrawn, or for some experiments. Without TEXT, lists what stands. Works while the
    loop runs.
    """
    if withdraw is not None:
        campaign.withdraw(withdraw)
        click.echo(f"steering {withdraw} is withdrawn")
    elif text is not None:
        number = campaign.steer(text, experiments or 0)
        click.echo(
            f"steering {number} stands; autoresearch steer --withdraw {number} takes it back"
        )
    else:
        columns = ("number", "until_experiment", "text", "by")
        items = campaign.history.steered
        rows = [(item.number, item.until, item.text, item.author) for item in items]
        print_rows(columns, rows, as_json)


@click.command()
@click.argument("text")
@with_campaign
def note(campaign: Campaign, text: str) -> None:
    """Write TEXT into notes.md, where every generator reads it.

    Works while the loop runs.
    """
    campaign.add_note(text)
    click.echo(f"noted in campaign {campaign.tag}")


@click.command()
@with_campaign
@click.option("--now", is_flag=True, help="Stop the run under way too, also without a loop.")
def stop(campaign: Campaign, now: bool) -> None:
    """Let the loop end: after the experiment under way, or at once with --now.

    An experiment whose run was stopped has no verdict; autoresearch run tries it again.
    """
    teller = Teller()
    click.echo(f"campaign {campaign.tag}: {campaign.stop(now=now, tell=teller.tell)}")


@click.command()
@with_campaign
@click.option("--why", default="", help="Reason, which is recorded and shown by status.")
def pause(campaign: Campaign, why: str) -> None:
    """Let the loop wait before its next step; a run under way comes to its end."""
    campaign.pause(why)
    click.echo(f"campaign {campaign.tag} pauses; go on with autoresearch resume")


@click.command()
@with_campaign
def resume(campaign: Campaign) -> None:
    """Let a paused or waiting loop go on at once.

    Minds that are suspended are asked again.
    """
    campaign.resume()
    click.echo(f"campaign {campaign.tag} goes on")


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
@project_option
@tag_option
@json_option
def quarantine(context: click.Context, project: Path, tag: str | None, as_json: bool) -> None:
    """List and judge results too good to believe.

    Without a command, lists them; a person who knows better releases or confirms each.
    """
    if context.invoked_subcommand is not None:
        return
    history = open_campaign(project, tag).history
    held = [item for item in history.experiments if item.verdict is Verdict.QUARANTINE]
    rows = [
        (
            item.number,
            item.commit[:7],
            history.score(item),
            item.idea.description,
            item.decision.reason if item.decision else "",
        )
        for item in held
    ]
    print_rows(("experiment", "commit", history.metric, "description", "reason"), rows, as_json)


@quarantine.command("release")
@click.argument("experiment", type=click.IntRange(min=0))
@with_campaign
@click.option("--why", required=True, help="Why the result can be believed; recorded.")
def release(campaign: Campaign, experiment: int, why: str) -> None:
    """Believe the result of EXPERIMENT: it may become best, and the loop may go back to it."""
    _resolve(campaign, experiment, why, release=True)


@quarantine.command("confirm")
@click.argument("experiment", type=click.IntRange(min=0))
@with_campaign
@click.option("--why", required=True, help="Why the result must not be believed; recorded.")
def confirm(campaign: Campaign, experiment: int, why: str) -> None:
    """Keep the result of EXPERIMENT out for good."""
    _resolve(campaign, experiment, why, release=False)


def _resolve(campaign: Campaign, experiment: int, why: str, *, release: bool) -> None:
    campaign.resolve_quarantine(experiment, release=release, reason=why)
    word = "released" if release else "confirmed"
    click.echo(f"experiment {experiment} of {campaign.tag}: {word}")


_reason = click.option(
    "--why", "--reason", "reason", required=True, help="Why; recorded with your name."
)


@click.command()
@click.argument("experiment", type=click.IntRange(min=0))
@with_campaign
@_reason
def accept(campaign: Campaign, experiment: int, reason: str) -> None:
    """Keep the result of EXPERIMENT, which was quarantined or discarded.

    It may become the best, and the loop may go back to it.
    """
    campaign.overrule(experiment, Verdict.KEEP, reason)
    _say_where_it_stands(campaign, f"experiment {experiment} is accepted")


@click.command()
@click.argument("experiment", type=click.IntRange(min=0))
@with_campaign
@_reason
def overrule(campaign: Campaign, experiment: int, reason: str) -> None:
    """Discard the result of EXPERIMENT, which was kept or quarantined.

    The loop builds on the kept one below it; what was built on it before stays as it is.
    """
    campaign.overrule(experiment, Verdict.DISCARD, reason)
    _say_where_it_stands(campaign, f"experiment {experiment} is discarded")


def _say_where_it_stands(campaign: Campaign, what: str) -> None:
    head, best = campaign.history.head, campaign.history.best_number
    click.echo(f"{what}; campaign {campaign.tag} has head {head} and best {best}")
