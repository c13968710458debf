"""The verbs that show: show, diff, log, checkout, export; and watch, where single keys steer."""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from autoresearch.campaign import Campaign, which_there_are
from autoresearch.cli.reading import hidden_scores, loop_in_words, loop_of, print_experiments
from autoresearch.cli.shared import Amount, json_option, print_json, with_campaign, with_history
from autoresearch.cycle.budget import Line, ledger
from autoresearch.errors import AutoresearchError, WorkspaceError
from autoresearch.git import SERVED, Git
from autoresearch.history import History, imported_from, is_open
from autoresearch.launchers import log_in
from autoresearch.log import export_parquet
from autoresearch.model import Experiment, Run
from autoresearch.projections.files import analysis_block, reasoning_block, shown_status
from autoresearch.text import because, block, counted, one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

DIFF_LINES = 60
_BARS = "▁▂▃▄▅▆▇█"
_number = click.argument("experiment", type=click.IntRange(min=0))
_folder = click.argument("folder", type=click.Path(path_type=Path))


def experiment_of(history: History, number: int) -> Experiment:
    """Return an experiment; WorkspaceError says which there are."""
    if number < len(history.experiments):
        return history.experiments[number]
    has = which_there_are(history, "it")
    raise WorkspaceError(f"{history.campaign} has no experiment {number}; {has}")


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve as one line of at most ``width`` bars, the lowest value as the lowest bar."""
    step = max(1, -(-len(values) // width))
    shown = [*values[:-1:step], values[-1]] if values else []
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in shown)


@click.command()
@click.argument("experiment", type=click.IntRange(min=0), required=False)
@with_history
@click.option("--prompt", is_flag=True, help="Show what minds were asked and answered for it.")
@json_option
def show(
    campaign: Campaign, history: History, experiment: int | None, prompt: bool, as_json: bool
) -> None:
    """Show one EXPERIMENT whole, or list them all.

    Reasoning, change, runs with their curves, analysis, decision, cost, and where all of it is.
    """
    if prompt:
        _show_talk(campaign, history, experiment, as_json)
        return
    if experiment is None:
        if as_json:
            print_json([_as_json(item) for item in history.experiments])
        else:
            print_experiments(history)
        return
    found = experiment_of(history, experiment)
    hidden = hidden_scores(campaign).get(experiment)
    if as_json:
        costs = _costs(campaign, found)
        told = {"costs": costs, "diff": diff_of(campaign, found), "hidden": hidden}
        print_json({**_as_json(found), **told})
        return
    click.echo(block("\n".join(_as_text(campaign, history, found))))
    if hidden is not None:
        click.echo(f"hidden score {hidden:.6g}, for you alone: no plugin and no mind sees it")


_TALK = """
    SELECT position, strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ'), 'asked', model, author, prompt
    FROM mind_asked WHERE campaign = $tag AND experiment = $number
    UNION ALL
    SELECT position, strftime(recorded_at, '%Y-%m-%dT%H:%M:%S.%fZ'), 'answered', model, author,
        [answer] FROM mind_answered WHERE campaign = $tag AND experiment = $number
    ORDER BY 1
"""


def _show_talk(campaign: Campaign, history: History, number: int | None, as_json: bool) -> None:
    """Print every question to a mind for an experiment, to the letter, and every answer."""
    if number is None:
        raise WorkspaceError("--prompt is of one experiment; name it, as in show 7 --prompt")
    with campaign.connect(at=history.position) as sql:
        rows = sql.execute(_TALK, {"tag": campaign.tag, "number": number}).fetchall()
    texts = campaign.log.sources
    told = [
        {"at": at, word: model, "by": by, "texts": [texts.get(name) for name in names if name]}
        for _, at, word, model, by, names in rows
    ]
    if as_json:
        print_json(told)
        return
    for item in told or [{}]:
        word = "asked" if "asked" in item else "answered"
        title = f"{item['at']} {item['by']} {word} {item[word]}" if item else "no mind was asked"
        click.echo(f"=== {title}")
        for text in item.get("texts", []):
            click.echo(f"{block(text, 1_000_000)}\n---")


def _as_json(experiment: Experiment) -> dict[str, Any]:
    plain = attrs.asdict(
        experiment, value_serializer=lambda _, __, v: dict(v) if isinstance(v, Mapping) else v
    )
    plain["verdict"] = experiment.verdict
    return plain


def _as_text(campaign: Campaign, history: History, experiment: Experiment) -> Iterator[str]:
    idea, number = experiment.idea, experiment.number
    yield f"experiment {number}: {one_line(idea.description, 300)}"
    named = f"commit {experiment.commit}" if experiment.commit else "no commit"
    yield f"{named}, by {one_line(idea.author)}, {idea.direction}"
    if experiment.reasoning:
        yield reasoning_block(experiment.reasoning)
    diff = diff_of(campaign, experiment).splitlines()
    if diff:
        yield from ("", *diff[:DIFF_LINES])
        if len(diff) > DIFF_LINES:
            yield f"... {len(diff) - DIFF_LINES} more lines: autoresearch diff {number}"
        yield ""
    for run in experiment.runs:
        yield from _run(history, run)
    if experiment.analysis:
        yield analysis_block(experiment.analysis, shown_status(experiment))
    if experiment.decision:
        decision = experiment.decision
        yield f"{decision.verdict} by {decision.author}: {decision.reason}"
    if cost := _costs(campaign, experiment):
        yield "cost: " + ", ".join(f"{value:g} {name}" for name, value in cost.items() if value)
    yield from _provenance(campaign, experiment)


def _run(history: History, run: Run) -> Iterator[str]:
    numbers = " ".join(f"{name}={value:g}" for name, value in sorted(run.metrics.items()))
    stage = f"stage {run.stage}" if run.stage else ""
    parts = (
        "control" if run.control else "",
        stage,
        f"seed {run.seed}",
        run.status or "running",
        run.detail,
        numbers,
    )
    yield f"run {run.name}: {', '.join(part for part in parts if part)}"
    seen = [value for _, value in sorted(run.observed.items())]
    if len(seen) > 1:
        yield f"  {history.metric} {seen[0]:g} {sparkline(seen)} {seen[-1]:g}"


def _costs(campaign: Campaign, experiment: Experiment) -> dict[str, float]:
    query = (
        "SELECT coalesce(sum(seconds), 0) AS seconds, coalesce(sum(gpu_seconds), 0) AS gpu_seconds,"
        " coalesce(sum(tokens_in + tokens_out), 0) AS tokens, coalesce(sum(usd), 0) AS usd"
        " FROM costs WHERE campaign = ? AND experiment = ?"
    )
    with campaign.connect() as connection:
        cursor = connection.execute(query, [campaign.tag, experiment.number])
        names = ("seconds", "gpu_seconds", "tokens", "usd")
        row: Sequence[float] = cursor.fetchone() or (0, 0, 0, 0)
    costs = dict(zip(names, map(float, row), strict=True))
    return costs if any(costs.values()) else {}


def _provenance(campaign: Campaign, experiment: Experiment) -> Iterator[str]:
    ref = campaign.lab.ref(experiment.number)
    if Git(campaign.project).commit_of(ref) is not None:
        yield f"kept as {ref}"
    for path, name in experiment.sources.items():
        yield f"source {path} {name}"
    for name, value in experiment.measurement.items():
        yield f"measured with {name} {one_line(str(value), 80)}"
    logs = [log_in(campaign.lab.run_folder(run.name)) for run in experiment.runs]
    yield from (f"output {path}" for path in logs if path.exists())


def diff_of(campaign: Campaign, experiment: Experiment, other: Experiment | None = None) -> str:
    """Return what an experiment changed, or how it differs from another; empty for the baseline."""
    before = other.commit if other is not None else experiment.parent_commit
    if not (before.isalnum() and experiment.commit.isalnum()):  # what no git ever named
        return ""
    done = Git(campaign.project).attempt(
        "diff", "--no-color", "--no-ext-diff", f"{before}..{experiment.commit}", "--"
    )
    return done.stdout if done.returncode == 0 else ""


@click.command()
@_number
@click.argument("other", type=click.IntRange(min=0), required=False)
@with_history
def diff(campaign: Campaign, history: History, experiment: int, other: int | None) -> None:
    """Show what EXPERIMENT changed, or how OTHER differs from it."""
    first = experiment_of(history, experiment)
    second = None if other is None else experiment_of(history, other)
    if imported_from(history):  # a difference that cannot be seen is none that is not there
        for item in (first, second or first):
            _with_commit(campaign, history, item.number)
    text = diff_of(campaign, first) if second is None else diff_of(campaign, second, first)
    click.echo(block(text, 1_000_000) if text else "no difference in any file")


@click.command("log")
@_number
@with_history
@click.option("--run", "run", type=click.IntRange(min=0), help="Which run: 0 is the first.")
@click.option("--tail", type=click.IntRange(min=1), help="Only the last lines, so many.")
def log_of(
    campaign: Campaign, history: History, experiment: int, run: int | None, tail: int | None
) -> None:
    """Print what a run of EXPERIMENT printed, the newest run by default."""
    runs = experiment_of(history, experiment).runs
    if not runs or (run is not None and run >= len(runs)):
        known = f"runs 0 to {len(runs) - 1}" if runs else "none"
        raise WorkspaceError(f"experiment {experiment} has no run {run or 0}; it has {known}")
    path = log_in(campaign.lab.run_folder(runs[-1 if run is None else run].name))
    if not path.is_file():
        more = _foreign(history) or "; autoresearch verify says what else is missing"
        raise WorkspaceError(f"{path} is not there{more}")
    text = block(path.read_text(encoding="utf-8", errors="replace"), 64_000_000)
    click.echo("\n".join(text.splitlines()[-tail:]) if tail else text)


def _with_commit(campaign: Campaign, history: History, number: int) -> Experiment:
    """Return an experiment; WorkspaceError where this repository lacks its commit."""
    found = experiment_of(history, number)
    if Git(campaign.project).commit_of(found.commit or "none") is None:
        named = f"commit {found.commit[:7]}" if found.commit else "a commit"
        raise WorkspaceError(
            f"{named} of experiment {number} is not in this repository{_foreign(history)}"
        )
    return found


def _foreign(history: History) -> str:
    """Say that a history was taken over as it was told, which explains what is not here."""
    told = imported_from(history)
    return f"; the campaign was imported from {told}, without files and outputs" if told else ""


@click.command()
@_number
@_folder
@with_history
def checkout(campaign: Campaign, history: History, experiment: int, folder: Path) -> None:
    """Write the files of EXPERIMENT into a new FOLDER, as a clone that stands at its commit."""
    found = _with_commit(campaign, history, experiment)
    if folder.exists():
        raise WorkspaceError(f"{folder} exists already; name a new folder")
    git = Git(campaign.project)
    place = str(folder.absolute())
    git.run("clone", "--quiet", "--no-checkout", SERVED, str(campaign.project), place)
    there = Git(folder)
    if there.commit_of(found.commit) is None:  # a clone of what is no plain clone itself
        there.run("fetch", "--quiet", SERVED, "origin", campaign.lab.ref(experiment))
    there.run("checkout", "--quiet", "--detach", found.commit)
    click.echo(f"{folder} stands at {found.commit[:7]}, experiment {experiment}")


@click.command()
@click.argument("experiment", type=click.IntRange(min=0), required=False)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@with_campaign
@click.option("--parquet", type=click.Path(path_type=Path), help="New folder for all tables.")
@click.option("--author", help="Who submits it; git's user.name by default.")
@click.option("--github-id", default="", help="Their account.")
@click.option("--name", default="", help="Name of the submission.")
def export(
    campaign: Campaign,
    experiment: int | None,
    folder: Path | None,
    parquet: Path | None,
    **who: Any,
) -> None:
    """Write EXPERIMENT into FOLDER as a record of the challenge, or everything as Parquet.

    A record has README.md, submission.json, the script, and a log for each run. The Parquet files
    have the events, partitioned by campaign, and all tables.
    """
    if (parquet is None) == (experiment is None or folder is None):
        raise WorkspaceError("say what to write: an EXPERIMENT and a FOLDER, or --parquet FOLDER")
    if parquet is not None:
        export_parquet(campaign.log, parquet, campaign.log.schema)
        click.echo(f"wrote {parquet}")
        return
    assert experiment is not None
    assert folder is not None
    from autoresearch.export import write_record

    _with_commit(campaign, campaign.history, experiment)
    named = Git(campaign.project, as_user=True).attempt("config", "user.name").stdout.strip()
    who["author"] = who["author"] or named
    for path in write_record(campaign, experiment, folder, who):
        click.echo(f"wrote {path}")


WIDTH = 80  # at least; wider terminals get longer lines
DECISIONS, QUEUED, CURVE = 8, 3, 30
COLOURS = {"keep": "green", "crash": "yellow", "quarantine": "red"}
QUIT = "[q]uit watching"
KEYS = f"[n]ote  [p]ause  [r]esume  [s]top after this one  {QUIT}"


def screen(campaign: Campaign, width: int = WIDTH, told: str = "") -> Group:
    """Return one screen about a campaign: where it stands, what runs, what was decided.

    ``told`` is the answer to the last key.
    """
    # Imported here, as in all that draws: the other verbs must not wait for it.
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    history = campaign.history
    loop = loop_of(campaign, history)
    rows = Table.grid(padding=(0, 1))
    rows.add_column(style="bold", no_wrap=True, min_width=7)
    rows.add_column(overflow="ellipsis", no_wrap=True)
    for name, text in _facts(campaign, history):
        rows.add_row(name, Text(one_line(text, width - 12)))
    ended = not loop["alive"] and history.stopped
    words = loop_in_words(loop) + (f"; stopped: {because(ended)}" if ended else "")
    rows.add_row("loop", Text(one_line(words, 3 * width), overflow="fold"))
    decided = counted(len(history.decided), "experiment")
    return Group(
        Text(f"campaign {campaign.tag}: {history.metric}, {decided}"),
        rows,
        _decisions(history, width),
        Text(told or (KEYS if loop["imported_from"] is None else QUIT), style="dim"),
    )


def _facts(campaign: Campaign, history: History) -> Iterator[tuple[str, str]]:
    head = None if history.head is None else history.experiments[history.head]
    for name, item in (("head", head), ("best", history.best)):
        if item is not None:
            yield name, f"{_score(history, item)} experiment {item.number}: {item.idea.description}"
    for item in history.experiments[-64:]:
        if is_open(item):
            yield "running", f"experiment {item.number}: {item.idea.description}"
            for run in item.runs:
                if run.status is None:
                    yield from _curves(history, run, head)
    if not history.noise.sd and history.best is not None:
        yield "noise", "unknown; autoresearch status says why, and what helps"
    queue = history.ranked_queue
    if queue:
        waits = [f"{idea.description} (waits for {idea.waits_for})" if idea.waits_for
                 else idea.description for idea in queue[:QUEUED]]  # fmt: skip
        yield f"queue {len(queue)}", "; ".join(waits)
    spent = history.spent
    yield (
        "spent",
        f"{spent.seconds / 3600:.2f} h of runs, {spent.gpu_seconds / 3600:.2f} GPU-hours, "
        f"{spent.tokens:,} tokens, ${spent.usd:.2f}",
    )
    if imported_from(history) is None:
        yield "ends", estimated_end(campaign, history, datetime.now(UTC))


def _curves(history: History, run: Run, head: Experiment | None) -> Iterator[tuple[str, str]]:
    for name, one in (("  now", run), ("  head", head.runs[0] if head and head.runs else None)):
        seen = sorted(one.observed.items()) if one else []
        if seen:
            values = [value for _, value in seen]
            last = f"{values[-1]:.6g} at step {seen[-1][0]}"
            yield name, f"{sparkline(values, CURVE)} {history.metric} {last}"


def _score(history: History, experiment: Experiment) -> str:
    score = history.score(experiment)
    return "no score" if score is None else f"{score:.6g}"


def _decisions(history: History, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for item in history.decided[-DECISIONS:]:
        verdict = str(item.verdict)
        why = item.decision.reason if item.decision else ""
        why = why.removeprefix(f"{history.metric} {history.score(item) or 0:.4f} is ")
        words = one_line(f"{item.idea.description}: {why}", max(width - 30, 20))
        number = Text(str(item.number), justify="right")
        shown = Text(verdict, style=COLOURS.get(verdict, ""))
        table.add_row(number, shown, Text(_score(history, item)), Text(words, no_wrap=True))
    return table


def estimated_end(campaign: Campaign, history: History, now: datetime) -> str:
    """Say when the first limit will be reached, at the pace so far; or what would stop it."""
    decided = history.decided
    began = datetime.fromisoformat(decided[0].started_at) if decided else now
    elapsed = (now - began).total_seconds()
    lines = [line for line in ledger(history, campaign.config) if line.limit > 0]
    if not lines:
        return "never by itself: no limit is set"

    def left(line: Line) -> float:
        return max(line.limit - line.spent, 0) / line.spent * elapsed if line.spent else math.inf

    first = min(lines, key=lambda line: (left(line), line.name))
    about = "not known yet" if left(first) == math.inf else f"in about {_span(left(first))}"
    return f"{about}, by limits.{first.name} ({first.spent:.4g} of {first.limit:g})"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@click.command()
@with_campaign
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--every", type=Amount(min=0.1), default=1.0, help="Seconds in between.")
def watch(campaign: Campaign, once: bool, every: float) -> None:
    """Watch a campaign: head, best, what runs, the queue, decisions, spending, and the likely end.

    Keys write notes, pause, resume and stop the loop; NO_COLOR turns colours off.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(screen(campaign, console.width, told=" "))
        return
    told = ""
    with Live(console=console, auto_refresh=False, screen=True) as live, _keys() as pressed:
        while True:
            live.update(screen(campaign, console.width, told), refresh=True)
            key = pressed(every)
            if key in ("q", "\x03", "\x04"):
                return
            if key == "n":
                live.stop()
                told = _do(campaign, key)
                live.start()
            elif key:
                told = _do(campaign, key)


def _do(campaign: Campaign, key: str) -> str:
    """Do what a key stands for, and say what was done."""
    try:
        if key == "n":
            campaign.add_note(click.prompt("note for every author"))
            return "noted"
        if key == "p":
            campaign.pause("by a key of watch")
            return "it pauses before its next step; r goes on"
        if key == "r":
            campaign.resume()
            return "it goes on"
        if key == "s":
            return campaign.stop()
        return f"{key!r} does nothing; {KEYS}"
    except (AutoresearchError, click.Abort) as error:
        return one_line(str(error)) or "nothing was noted"


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for a key, at most so many seconds; empty when none came."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield _no_key
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([file], [], [], seconds)
        return os.read(file, 1).decode("utf-8", "replace") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
