"""The verbs with which a person takes part: idea, note, quarantine."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from autoresearch.cli.output import print_json, print_table
from autoresearch.cli.project import campaign_at, json_option, project_option, tag_option
from autoresearch.errors import WorkspaceError
from autoresearch.model import Idea, Verdict


@click.group()
def idea() -> None:
    """The ideas queue: what you would try next; the loop takes the best first."""


@idea.command("add")
@click.argument("description")
@project_option
@tag_option
@click.option("--direction", default="by hand", help="Family of the change.")
@click.option("--why", "hypothesis", help="What you expect and why.")
@click.option("--gain", type=float, help="Expected improvement in the metric; ranks the queue.")
@click.option("--patch", type=click.Path(path_type=Path), help="Unified diff against the script.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment override.")
def add(
    description: str,
    project: Path,
    tag: str | None,
    direction: str,
    hypothesis: str | None,
    gain: float | None,
    patch: Path | None,
    env: tuple[str, ...],
) -> None:
    """Queue an idea: with --patch or --env it runs as it is, in words only a plugin implements it.

    Works while the loop runs.
    """
    campaign = campaign_at(project, tag)
    queued = Idea(
        direction=direction,
        description=description,
        hypothesis=hypothesis or f"a person expects this to help: {description}",
        expected_gain=gain,
        patch=_read(patch),
        env=dict(pair(word) for word in env),
    )
    click.echo(f"queued idea {campaign.add_idea(queued)} for campaign {campaign.tag}")


def _read(patch: Path | None) -> str | None:
    if patch is None:
        return None
    try:
        return patch.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"cannot read {patch}: {error}; name a unified diff") from None


def pair(word: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise WorkspaceError(f"--env {word!r} is not NAME=VALUE; write it like MATRIX_LR=0.02")
    return name, value


@idea.command("list")
@project_option
@tag_option
@json_option
def list_ideas(project: Path, tag: str | None, as_json: bool) -> None:
    """List the queue, best first."""
    queue = campaign_at(project, tag).history.ranked_queue
    if as_json:
        print_json([attrs.asdict(item) for item in queue])
        return
    columns = ("id", "expected_gain", "direction", "description", "by")
    rows = [
        (item.id, item.expected_gain, item.direction, item.description, item.generator)
        for item in queue
    ]
    print_table(columns, rows)


@idea.command("drop")
@click.argument("idea_id")
@project_option
@tag_option
@click.option("--why", default="dropped by a person", help="Reason, which is recorded.")
def drop(idea_id: str, project: Path, tag: str | None, why: str) -> None:
    """Take the idea IDEA_ID out of the queue."""
    campaign = campaign_at(project, tag)
    campaign.drop_idea(idea_id, why)
    click.echo(f"dropped idea {idea_id}")


@click.command()
@click.argument("text")
@project_option
@tag_option
def note(text: str, project: Path, tag: str | None) -> None:
    """Write TEXT into notes.md, where every generator reads it; works while the loop runs."""
    campaign = campaign_at(project, tag)
    campaign.add_note(text)
    click.echo(f"noted in campaign {campaign.tag}")


@click.group(invoke_without_command=True)
@click.pass_context
@project_option
@tag_option
@json_option
def quarantine(context: click.Context, project: Path, tag: str | None, as_json: bool) -> None:
    """Results too good or too odd to believe: list them, release or confirm them."""
    if context.invoked_subcommand is not None:
        return
    history = campaign_at(project, tag).history
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
    columns = ("experiment", "commit", history.metric, "description", "reason")
    if as_json:
        print_json([dict(zip(columns, values, strict=True)) for values in rows])
    else:
        print_table(columns, rows)


def _resolve(experiment: int, project: Path, tag: str | None, why: str, *, release: bool) -> None:
    campaign = campaign_at(project, tag)
    campaign.resolve_quarantine(experiment, release=release, reason=why)
    word = "released" if release else "confirmed"
    click.echo(f"experiment {experiment} of {campaign.tag}: {word}")


@quarantine.command("release")
@click.argument("experiment", type=click.IntRange(min=0))
@project_option
@tag_option
@click.option("--why", required=True, help="Why the result can be believed; recorded.")
def release(experiment: int, project: Path, tag: str | None, why: str) -> None:
    """Believe the result of EXPERIMENT: it may become best, and the loop may go back to it."""
    _resolve(experiment, project, tag, why, release=True)


@quarantine.command("confirm")
@click.argument("experiment", type=click.IntRange(min=0))
@project_option
@tag_option
@click.option("--why", required=True, help="Why the result must not be believed; recorded.")
def confirm(experiment: int, project: Path, tag: str | None, why: str) -> None:
    """Keep the result of EXPERIMENT out for good."""
    _resolve(experiment, project, tag, why, release=False)


COMMANDS = (idea, note, quarantine)
