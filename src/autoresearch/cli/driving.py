"""The verbs for whoever does the research themselves, a coding agent or a person: the steps."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

from autoresearch.campaign import Campaign, silent
from autoresearch.cli import Verbs
from autoresearch.cli.shared import (
    Teller,
    environment,
    json_option,
    plugin_option,
    print_json,
    project_option,
    root_of,
    tag_option,
    text_of,
    with_campaign,
)
from autoresearch.driving import agents, observing
from autoresearch.driving.agents import PLACES
from autoresearch.driving.observing import Observation, Observed
from autoresearch.driving.steps import Driver, Stand
from autoresearch.text import block

Verb = Callable[..., Any]
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
    "--seconds", type=click.FloatRange(min=0), default=math.inf, show_default=False,
    help="Watch for so long at the most; the run goes on, and this verb goes on watching.",
)  # fmt: skip
def run(driver: Driver, seconds: float) -> Stand:
    """Run the experiment under way and read its score."""
    return driver.run(seconds)


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
    from autoresearch.driving.agents import server

    server(root_of(project), tag, by, plugins).run("stdio")


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
                told = observing.read(line, f"line {number}")
                _observed(observing.observe(campaign, told, by, plugins), as_json)
        return
    files = {name: said.pop(name) for name in ("source", "patch", "log")}
    texts: dict[str, Any] = {
        name: text_of(file, any_bytes=name == "log") for name, file in files.items() if file
    }
    told = Observation(**said, **texts)
    _observed(observing.observe(campaign, told, by, plugins), as_json)


def _observed(became: Observed, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(attrs.asdict(became), ensure_ascii=False))
    else:
        click.echo(f"experiment {became.experiment}: {became.verdict}, {became.reason}")
