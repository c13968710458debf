"""The verbs with which people and agents take part: ideas, notes, the loop, verdicts; the steps."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs
import click

from autoresearch.campaign import Campaign, silent
from autoresearch.cli import Verbs
from autoresearch.cli.shared import (
    Amount,
    Teller,
    environment,
    json_option,
    plugin_option,
    print_json,
    print_rows,
    print_table,
    project_option,
    root_of,
    tag_option,
    text_of,
    warn,
    with_campaign,
)
from autoresearch.driving import Driver, Stand, agents
from autoresearch.driving.agents import PLACES, Observation, Observed
from autoresearch.errors import telling
from autoresearch.model import Idea, Verdict
from autoresearch.opening import open_campaign
from autoresearch.text import block


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
@click.option("--patch", type=click.Path(path_type=Path), help="Unified diff against head.")
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
    with telling(f"cannot read {patch}", "name a unified diff"), patch.open("rb") as file:
        return text_of(file)


@idea.command("list")
@with_campaign
@json_option
def list_ideas(campaign: Campaign, as_json: bool) -> None:
    """List the queue, best first."""
    queue = campaign.history.ranked_queue
    if as_json:
        print_json([attrs.asdict(item) for item in queue])
        return
    shown = attrgetter("id", "expected_gain", "direction", "description", "author")
    print_table(("id", "expected_gain", "direction", "description", "by"), map(shown, queue))


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
def believe(campaign: Campaign, experiment: int, why: str) -> None:
    """Believe the result of EXPERIMENT: it may become best, and the loop may go back to it."""
    campaign.resolve_quarantine(experiment, release=True, reason=why)
    click.echo(f"experiment {experiment} of {campaign.tag}: released")


@quarantine.command("confirm")
@click.argument("experiment", type=click.IntRange(min=0))
@with_campaign
@click.option("--why", required=True, help="Why the result must not be believed; recorded.")
def confirm(campaign: Campaign, experiment: int, why: str) -> None:
    """Keep the result of EXPERIMENT out for good."""
    campaign.resolve_quarantine(experiment, release=False, reason=why)
    click.echo(f"experiment {experiment} of {campaign.tag}: confirmed")


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


# --- the research by hand, one step of the protocol after the other ------------------------------

_DRIVER = "AUTORESEARCH_DRIVER"
_as_option = click.option(
    "--as", "by", envvar=_DRIVER, default="", metavar="NAME",
    help=f"Who drives or logs; {_DRIVER} by default, else your user name.",
)  # fmt: skip


@click.group(cls=Verbs)
def step() -> None:
    """Do the research yourself, one step of the protocol after the other.

    The steps are review, reason, edit, run, analyze, decide; each says what comes next and none
    can be skipped. While you drive, the loop does not act.
    """


def _a_step(verb: Callable[..., Stand]) -> click.Command:
    """Make a command of a function that takes a step with a ``driver`` and returns the stand."""

    @functools.wraps(verb)
    def call(
        campaign: Campaign, by: str, plugins: tuple[str, ...], as_json: bool, **given: Any
    ) -> None:
        with Teller() as teller:
            tick = silent if as_json else teller.tick
            stand = verb(Driver(campaign, by, plugins=plugins, tick=tick), **given)
        _print(stand, as_json)

    name = verb.__name__.removesuffix("_step")
    return step.command(name)(with_campaign(_as_option(plugin_option(json_option(call)))))


def _print(stand: Stand, as_json: bool) -> None:
    if as_json:
        print_json(attrs.asdict(stand))
        return
    for name in ("results_tsv", "notes_md", "log_tail"):
        if text := stand.facts.get(name):
            click.echo(f"--- {name.replace('_', '.')}\n{block(text)}")
    for text in stand.facts.get("steering", ()):
        click.echo(f"steering: {block(text)}")
    for item in stand.facts.get("queue", ()):
        click.echo(f"queued: {item['id']} {item['description']} (by {item['author']})")
    for reason in stand.facts.get("refused", ()):
        click.echo(f"refused before: {reason}")
    for line in stand.told:
        click.echo(block(line))
    click.echo(f"next: {stand.next} (experiment {stand.experiment}): {stand.how}")


@_a_step
def review(driver: Driver) -> Stand:
    """Read results.tsv, notes.md, the queue and what was refused, before every experiment."""
    return driver.review()


@_a_step
@click.argument("description", default="")
@click.option("--direction", default="", help="Family of the change.")
@click.option("--hypothesis", default="", help="What you expect to happen and why.")
@click.option("--evidence", multiple=True, help="What supports it; may be repeated.")
@click.option("--risk", default="", help="What could go wrong.")
@click.option("--cites", multiple=True, type=int, help="Experiment it rests on; may be repeated.")
@click.option("--predicted", type=float, help="Metric that you expect.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment override.")
@click.option("--idea", "queued", default="", metavar="ID", help="Take this idea of the queue.")
def reason(driver: Driver, description: str, env: tuple[str, ...], **said: Any) -> Stand:
    """Write the REASONING block: DESCRIPTION says in a few words what you change."""
    return driver.reason(description, env=environment(env), **said)


@_a_step
@click.option("--patch", type=click.File("rb"), help="Unified diff against head; - reads it.")
def edit(driver: Driver, patch: Any) -> Stand:
    """Audit and commit what you changed in the experiment's folder, or a patch.

    After a crash, commits your fix of it.
    """
    return driver.edit(patch=text_of(patch) if patch is not None else "")


@_a_step
@click.option(
    "--seconds", type=Amount(min=0),
    help="Watch for so long at the most; the run goes on, and this verb goes on watching.",
)  # fmt: skip
def run(driver: Driver, seconds: float | None) -> Stand:
    """Run the experiment under way and read its score."""
    return driver.run(math.inf if seconds is None else seconds)


@_a_step
@click.option("--why", default="", help="Your best explanation of the result.")
@click.option("--lesson", default="", help="What it tells about future experiments.")
@click.option("--versus-expected", default="", help="Better, worse or same as predicted.")
def analyze(driver: Driver, **said: str) -> Stand:
    """Write the ANALYSIS block; its first line is what was measured."""
    return driver.analyze(**said)


@_a_step
def decide(driver: Driver) -> Stand:
    """Have the verdict: keep, discard, crash, rerun or quarantine."""
    return driver.decide()


@_a_step
def next_step(driver: Driver) -> Stand:
    """Say which step is next, without taking one."""
    return driver.look()


@step.command()
@with_campaign
def release(campaign: Campaign) -> None:
    """Let the loop act again although the experiment is not decided."""
    click.echo(f"{campaign.release()} no longer drives campaign {campaign.tag}")


@click.command()
@with_campaign
@click.option("--as", "by", default="agent", metavar="NAME", help="What the agent calls itself.")
@click.option(
    "--write", "place", type=click.Choice([*PLACES]), help="Write it there, not to the terminal."
)
@click.option("--force", is_flag=True, help="Replace a file of your own.")
def program(campaign: Campaign, by: str, place: str | None, force: bool) -> None:
    """Print the instructions for an agent that does research here, made from this campaign.

    AGENTS.md and a skill are where coding agents look for such instructions.
    """
    if place is None:
        click.echo(agents.program(campaign, by), nl=False)
    else:
        click.echo(f"wrote {agents.write(campaign, place, by=by, force=force)}")


@click.command()
@project_option
@tag_option
@plugin_option
@_as_option
def mcp(project: Path, tag: str | None, plugins: tuple[str, ...], by: str) -> None:
    """Serve the steps as tools, and the memory as resources, to an MCP client on stdin and stdout.

    Needs the extra mcp.
    """
    agents.server(root_of(project), tag, by, plugins).run("stdio")


@click.command()
@with_campaign
@click.argument("description")
@click.option("--metric", type=float, help="The score; left out for a crash.")
@click.option("--status", default="", metavar="keep|discard|crash", help="Without, it is decided.")
@click.option("--direction", default="observed", help="Family of the change.")
@click.option("--hypothesis", default="", help="What was expected and why.")
@click.option("--why", default="", help="Explanation of the result.")
@click.option("--lesson", default="", help="What it tells about future experiments.")
@click.option("--source", type=click.File("rb"), help="The script as it was run.")
@click.option("--patch", type=click.File("rb"), help="The change as a unified diff.")
@click.option("--log", type=click.File("rb"), help="The run's output.")
@click.option("--seconds", type=float, default=0.0, help="Wall clock of the run.")
@_as_option
@plugin_option
@json_option
def observe(
    campaign: Campaign, by: str, plugins: tuple[str, ...], as_json: bool, **said: Any
) -> None:
    """Log an experiment that another loop made: DESCRIPTION, or - for lines of JSON on stdin.

    For a campaign with launcher = observed. The first is the baseline. A line has the options of
    this verb as keys, and further ones: docs, Agents.
    """
    if said["description"] == "-":
        for number, line in enumerate(sys.stdin, 1):
            if line.strip():
                told = agents.read(line, f"line {number}")
                _observed(agents.observe(campaign, told, by, plugins), as_json)
        return
    files = {name: said.pop(name) for name in ("source", "patch", "log")}
    texts: dict[str, Any] = {
        name: text_of(file, any_bytes=name == "log") for name, file in files.items() if file
    }
    told = Observation(**said, **texts)
    _observed(agents.observe(campaign, told, by, plugins), as_json)


def _observed(became: Observed, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(attrs.asdict(became), ensure_ascii=False))
    else:
        click.echo(f"experiment {became.experiment}: {became.verdict}, {became.reason}")
