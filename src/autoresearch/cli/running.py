"""The verbs with which people begin and go on: init, the doctor of a project; demo; run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from autoresearch.campaign import Campaign
from autoresearch.cli.reading import print_summary
from autoresearch.cli.shared import Amount, Teller, print_facts, root_of, warn, with_asked
from autoresearch.config import Config
from autoresearch.doctor import TRY_SECONDS, Proposal, examine, try_once
from autoresearch.errors import ConfigError, WorkspaceError
from autoresearch.git import Git
from autoresearch.model import Verdict
from autoresearch.opening import (
    changes_since_start,
    existing_store,
    given_by_hand,
    open_campaign,
    start,
    tags,
)
from autoresearch.presets import DEFAULT
from autoresearch.scaffold import lay_template, templates
from autoresearch.settings import FILE_NAME, load
from autoresearch.setup import FILES, check_files
from autoresearch.text import because

# --- run -------------------------------------------------------------------------------------

_count = partial(click.option, type=click.IntRange(min=1))


@click.command()
@with_asked
@_count("--experiments", help="Stop after this many more experiments.")
@_count("--until", help="Stop with this many experiments in all.")
@_count(
    "--batch", help="Work in batches of this size: finish the batch under way, else do another."
)
@_count("--parallel", help="Have this many experiments under way at once; else runs.parallel.")
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
def run(asked: Mapping[str, Any], until: int | None, batch: int | None, **how: Any) -> None:
    """Run experiments until a person, a budget or an option stops it.

    Ctrl-C stops it, and a run under way goes on by itself: autoresearch stop --now ends it too.
    Continues the campaign TAG (by default the last active one), also after a crash
    or kill -9, and starts it when there is none. A campaign keeps the settings it was started with.
    """
    campaign = _open_or_start(asked)
    if batch is not None:
        whole = (len(campaign.history.decided) // batch + 1) * batch
        until = min(whole, until or whole)
    with Teller() as teller, _signals_interrupt():
        how |= {"plugins": asked["plugins"], "tell": teller.tell, "tick": teller.tick}
        reason = campaign.run(until=until, **how)
    teller.tell(f"stopped: {because(reason)}")
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
        if _lacks_settings(asked):
            _say_what_would_help(examine(root))
        return start(**asked, tell=warn)
    campaign = open_campaign(root, asked["tag"])
    campaign.check_own()
    changes = _changes(campaign, asked)
    history = campaign.history
    crashed = history.baseline is not None and history.baseline.verdict is Verdict.CRASH
    for line in changes:
        click.echo(line, err=True)
    if history.may_start_again and (changes or crashed):
        click.echo(f"campaign {campaign.tag} has no score yet: starting it again", err=True)
        return start(**{**asked, "project": root, "tag": campaign.tag}, tell=warn)
    if changes:
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
        wanted = load(root, file=asked["config"], environ=asked["environ"], overrides=given)
    except ConfigError as error:
        if asked["config"] is not None or asked["overrides"] or campaign.history.may_start_again:
            raise
        return [f"the settings of now cannot be used: {error}"]
    found = changes_since_start(campaign, wanted.config)
    started, now = campaign.history.started, Git(root).commit_of("HEAD")
    if campaign.history.may_start_again and started and now and now != started.base_commit:
        found.append(f"the last commit is {now[:7]} now, and was {started.base_commit[:7]}")
    return found


# --- init and demo ---------------------------------------------------------------------------


@click.command()
@with_asked
@click.option("--template", type=click.Choice(list(templates())), help="Lay these files first.")
@click.option("--try/--no-try", "try_it", default=None, help="Run the script once, or never.")
@click.option(
    "--seconds", type=Amount(min=0.1), default=TRY_SECONDS, show_default=True,
    help="Stop that one run after this time.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Try the script and commit a template without asking.")
def init(
    asked: Mapping[str, Any], template: str | None, try_it: bool | None, seconds: float, yes: bool
) -> None:
    """Check everything and start a campaign, without running it.

    Creates the branch autoresearch/TAG, results.tsv with its header, and notes.md. Your checkout,
    index and settings stay as they are.

    In a project without settings it looks for the script, runs it once if you allow that (--try),
    and writes what it found into autoresearch.toml: metric, direction, command, values to change.
    """
    if template is not None:
        _lay(asked["project"], template, yes)
    elif _lacks_settings(asked):
        _propose(root_of(asked["project"]), yes if try_it is None else try_it, try_it, seconds)
    campaign = start(**asked, tell=warn)
    click.echo(
        f"campaign {campaign.tag} is ready on branch {campaign.lab.branch}; "
        f"go on with autoresearch {'observe' if campaign.config.launcher == 'observed' else 'run'}"
    )
    if advice := advised(campaign.config, campaign.history.plugins):
        click.echo(advice)


def advised(config: Config, active: Collection[str]) -> str:
    """Recommend the policy that knows luck, where the noise is known and another one decides."""
    known = config.metric.sd > 0 or config.noise.runs > 1
    if not known or "evidence" in active or "no:evidence" in config.active:
        return ""
    return (
        'one run decides here, luck included; active = ["evidence"] repeats what is unclear: in '
        "simulated campaigns 1 to 2 % of its keeps were false, and 6 to 17 % under greedy "
        "(docs/strategies.md)"
    )


def _lay(folder: Path, template: str, yes: bool) -> None:
    # A folder that is no repository holds nothing that a commit could take by surprise.
    outside = Git(folder).attempt("rev-parse", "--show-toplevel").returncode != 0
    written = lay_template(template, folder, commit=outside or yes)
    for path in written:
        click.echo(f"wrote {path}")
    names = [str(path.relative_to(folder)) for path in written if path.name != FILE_NAME]
    if names and not (outside or yes):
        raise WorkspaceError(
            f"commit {', '.join(names)} first, or let init do that with --yes; experiments start "
            "from a commit"
        )


def _lacks_settings(asked: Mapping[str, Any]) -> bool:
    """Whether nothing says what the script and the metric are."""
    sources = {"environ": asked["environ"], "overrides": asked["overrides"]}
    loaded = load(root_of(asked["project"]), file=asked["config"], **sources)
    return loaded.file is None and loaded.config.preset == DEFAULT and not loaded.by_hand


def _propose(root: Path, try_it: bool, said: bool | None, seconds: float) -> None:
    found = examine(root)
    if not try_it and said is None and sys.stdin.isatty():
        question = f"no {FILE_NAME} yet: run {found.script} once, at most {seconds:g} s, to see"
        try_it = click.confirm(f"{question} what it prints?", default=True)
    if not try_it:
        _say_what_would_help(found)
        return
    check_files(root, FILES)
    found = try_once(root, found, seconds)
    print_facts(dict(found.told()))
    for problem in found.problems:
        warn(problem)
    if found.trial is not None and found.trial.exit_code:
        raise WorkspaceError(
            f"{found.script} does not run as it is: {found.trial.detail}; correct it, commit, and "
            "try again"
        )
    (root / FILE_NAME).write_text(found.toml(), encoding="utf-8")
    click.echo(f"wrote {root / FILE_NAME}; change it as you like, the next campaign takes it")
    if found.problems:
        raise WorkspaceError(
            f"nothing was started: correct metric in {FILE_NAME}, or let the script print its "
            f"score as {found.metric}: 0.5, and try again"
        )


def _say_what_would_help(found: Proposal) -> None:
    if (found.script, found.metric) != ("train.py", "score"):
        prints = "looks like the script" if found.problems else f"seems to print {found.metric}"
        raise WorkspaceError(
            f"no {FILE_NAME} says what to run and to make better; {found.script} {prints}: "
            "let autoresearch init --try run it once and write the settings"
        )
    for problem in found.problems:
        warn(f"{problem}; autoresearch init --try runs it once to see")


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("autoresearch-demo"),
    show_default=True,
    help="Folder to make.",
)
def demo(folder: Path) -> None:
    """Show in ten seconds what a campaign does, in a folder of its own.

    Five experiments on a script of forty lines: a gain that is kept, a loss that is not, a script
    that hangs and is killed, and a score too good to believe. Needs no key, no GPU, no network.
    """
    from autoresearch.cli.reading import print_experiments
    from autoresearch.scaffold import run_demo

    campaign = run_demo(folder, Teller().tell)
    click.echo()
    print_experiments(campaign.history)
    click.echo(f"\nlook around: cd {folder}; autoresearch show 3; autoresearch quarantine")
    click.echo("begin with a script of your own: autoresearch init")
