"""The verb that watches a campaign in a terminal, and lets a person steer it with single keys."""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoresearch.campaign import Campaign
from autoresearch.cli.reading import loop_in_words, loop_of
from autoresearch.cli.shared import with_campaign
from autoresearch.cli.showing import sparkline
from autoresearch.cycle.budget import Line, ledger
from autoresearch.errors import AutoresearchError
from autoresearch.history import History, is_open
from autoresearch.model import Experiment, Run
from autoresearch.text import counted, one_line

WIDTH = 80  # at least; wider terminals get longer lines
DECISIONS, QUEUED, CURVE = 8, 3, 30
COLOURS = {"keep": "green", "crash": "yellow", "quarantine": "red"}
KEYS = "[n]ote  [p]ause  [r]esume  [s]top after this one  [q]uit watching"


def screen(campaign: Campaign, width: int = WIDTH, told: str = "") -> Group:
    """Return one screen about a campaign: where it stands, what runs, what was decided.

    ``told`` is the answer to the last key.
    """
    history = campaign.history
    loop = loop_of(campaign, history)
    rows = Table.grid(padding=(0, 1))
    rows.add_column(style="bold", no_wrap=True, min_width=7)
    rows.add_column(overflow="ellipsis", no_wrap=True)
    for name, text in _facts(campaign, history):
        rows.add_row(name, Text(one_line(text, width - 12)))
    rows.add_row("loop", Text(one_line(loop_in_words(loop), 3 * width), overflow="fold"))
    decided = counted(len(history.decided), "experiment")
    return Group(
        Text(f"campaign {campaign.tag}: {history.metric}, {decided}"),
        rows,
        _decisions(history, width),
        Text(told or KEYS, style="dim"),
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
    table = Table.grid(padding=(0, 1))
    for item in history.decided[-DECISIONS:]:
        verdict = str(item.verdict)
        why = item.decision.reason if item.decision else ""
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
@click.option("--every", type=click.FloatRange(min=0.1), default=1.0, help="Seconds in between.")
def watch(campaign: Campaign, once: bool, every: float) -> None:
    """Watch a campaign: head, best, what runs, the queue, decisions, spending, and the likely end.

    Keys write notes, pause, resume and stop the loop; NO_COLOR turns colours off.
    """
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
