"""The verbs that read a campaign: status, project, plot, report; and the table `run` ends with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from autoresearch import events
from autoresearch.campaign import Campaign
from autoresearch.cli.shared import (
    json_option,
    print_facts,
    print_json,
    print_table,
    with_campaign,
    with_history,
)
from autoresearch.cycle.budget import shown as shown_budgets
from autoresearch.errors import ConfigError, WorkspaceError
from autoresearch.folding import in_stage
from autoresearch.history import PROVEN, History, Spent, imported_from
from autoresearch.launchers.environment import boundary_in_force
from autoresearch.launchers.supervisor import run_around
from autoresearch.model import Experiment, Verdict
from autoresearch.plugins import Plugins
from autoresearch.projections import Projection
from autoresearch.projections.files import NotesMd, ResultsTsv, controls
from autoresearch.projections.memory import noise_in_words
from autoresearch.setup import check_free
from autoresearch.text import because, counted, one_line


@click.command()
@with_history
@json_option
def status(campaign: Campaign, history: History, as_json: bool) -> None:
    """Say where a campaign stands: alive or not, waiting for what, best, running, spent."""
    newest = campaign.history
    loop = loop_of(campaign, newest)
    facts = {**_facts(campaign.lab.branch, history), "loop": loop}
    facts["settings"] = campaign.unread or None
    known = not (campaign.unread or loop["imported_from"])
    facts["budgets"] = shown_budgets(history, campaign.config) if known else {}
    facts["boundary"] = boundary_in_force(campaign.config) if known else None
    facts["hidden"] = _hidden_score(campaign, history)
    if history.position == newest.position:
        # The hash over everything up to here, as verify and the commits have it.
        facts["tip"] = str(campaign.log.tip())
    if as_json:
        print_json(facts)
        return
    failures = ", ".join(f"{name} {count}" for name, count in history.failures.items())
    silent = "; ".join(f"{name} {why}" for name, why in facts["minds"].items())
    budgets = "; ".join(
        f"{name} {row['spent']:g} spent, {row['reserved']:g} reserved, {row['left']:g} left"
        for name, row in facts["budgets"].items()
    )
    shown = {**facts, "loop": loop_in_words(loop), "failures": failures or None}
    shown["metric"] += f", {'lower' if history.lower_is_better else 'higher'} is better"
    best = shown.pop("best_experiment")
    score = "no score" if facts["best"] is None else f"{facts['best']:.6g}"
    shown["best"] = None if best is None else f"{score} of experiment {best}"
    shown["stopped"] = history.stopped and because(history.stopped)
    print_facts({**shown, "minds": silent or None, "budgets": budgets or None})


def _hidden_score(campaign: Campaign, history: History) -> str | None:
    """Return the hidden score of the best, and whether the two disagree; for people alone."""
    best = history.best
    if best is None or not campaign.config.evaluation.hidden_command:
        return None
    scores = hidden_scores(campaign)
    if best.number not in scores:
        return f"experiment {best.number} has no hidden score"
    told = f"{scores[best.number]:.6g}"
    for item in history.kept:
        other = scores.get(item.number)
        if other is not None and history.better(other, scores[best.number]):
            told += (
                f"; visible and hidden scores disagree: experiment {item.number} has {other:.6g}, "
                "so the best may only fit its evaluation"
            )
            break
    return told


def hidden_scores(campaign: Campaign) -> dict[int, float]:
    """Return the hidden score of each experiment that has one; empty inside a run."""
    if not campaign.config.evaluation.hidden_command or run_around():
        return {}
    query = (
        "SELECT experiment, avg(value) FROM evaluated "
        "WHERE hidden AND value IS NOT NULL AND campaign = ? GROUP BY experiment"
    )
    with campaign.connect() as sql:
        return dict(sql.execute(query, [campaign.tag]).fetchall())


def _facts(branch: str, history: History) -> dict[str, Any]:
    best, current = history.best, history.current
    return {
        "campaign": history.campaign,
        "branch": branch,
        "metric": history.metric,
        "experiments": len(history.decided),
        "kept": len(history.kept),
        "noise": noise_in_words(history) if history.experiments else None,
        "best": history.best_metric,
        "best_experiment": best.number if best else None,
        "best_commit": best.commit or None if best else None,
        "best_change": best.idea.description if best else None,
        "running": current.idea.description if current else None,
        "control": "; ".join(controls(history)) or None,
        "stages": "; ".join(_stages(history)) or None,
        "stopped": history.stopped,
        "dead_ends": ", ".join(sorted(history.dead_ends)) or None,
        "queue": len(history.queue),
        "run_hours": round(history.spent.seconds / 3600, 3),
        "gpu_hours": round(history.spent.gpu_seconds / 3600, 3),
        "usd": round(history.spent.usd, 2),
        "failures": dict(history.failures),
        "minds": {name: _silence(item) for name, item in history.suspended.items()},
        "tip": f"{history.position}:{history.tip_hash}",
    }


def _stages(history: History) -> Iterator[str]:
    """Say of each stage what the best scored there, and how many experiments came no further."""
    for stage in history.stages:
        best, ended = history.best, [item for item in history.decided if item.stage == stage]
        shown = in_stage(history, stage)
        score = None if best is None else shown.score(best)
        spent = history.spent_in.get(stage, Spent())
        told = "no score yet" if score is None else f"best {score:.6g}"
        count = sum(item.stage == stage for item in history.in_flight)
        flying = f", {count} under way" if count else ""
        hours = f"{spent.seconds / 3600:.2f} run hours"
        yield f"{stage}: {told}, {len(ended)} ended here{flying}, {hours}"


def _silence(item: events.MindSuspended) -> str:
    """Return in words why a mind is not asked, and until when."""
    until = "is suspended until autoresearch resume" if item.permanent else "rests"
    times = f", {item.times} times in a row" if item.times > 1 else ""
    return f"{until}{times}: {one_line(item.reason, 200)}"


def loop_of(campaign: Campaign, history: History) -> dict[str, Any]:
    """Return what is known of the process that runs the loop, and what it waits for."""
    holder, paused = campaign.holder, history.paused
    alive = holder is not None and holder.alive
    died = holder is not None and not alive
    return {
        "alive": alive,
        "pid": holder.pid if holder else None,
        "host": holder.host if holder else None,
        "since": holder.since if holder else None,
        "died_at": history.last_at if died else None,
        "last_step": history.last_step or None,
        "last_at": history.last_at or None,
        "waiting_for": paused.reason if paused else None,
        "waiting_since": history.paused_at if paused else None,
        "paused_by": (paused.by or None) if paused else None,
        "driven_by": history.lease.by if history.lease else None,
        "driven_since": history.lease.since if history.lease else None,
        "imported_from": imported_from(history),
    }


def loop_in_words(loop: Mapping[str, Any]) -> str:
    """Say what `loop_of` returned in one line."""
    if loop["imported_from"]:
        return f"none: imported from {loop['imported_from']}, to read and to replay"
    loop = {name: _to_the_second(value) for name, value in loop.items()}
    process = f"process {loop['pid']} on {loop['host']}, since {loop['since']}"
    if loop["died_at"]:
        said = f"died at {loop['died_at']} ({process}); go on with autoresearch run"
    elif loop["driven_by"]:
        said = f"driven by {loop['driven_by']} since {loop['driven_since']}, not by the loop"
    elif not loop["alive"]:
        since = f"paused by {loop['paused_by']} since {loop['waiting_since']}"
        what = f", {since}: {loop['waiting_for']}; go on with autoresearch resume"
        return f"not running{what if loop['paused_by'] else ''}"
    elif loop["waiting_for"]:
        by = f"paused by {loop['paused_by']}" if loop["paused_by"] else "waiting"
        said = f"{by} since {loop['waiting_since']}: {loop['waiting_for']} ({process})"
    else:
        said = f"alive ({process})"
    return f"{said}; last step {loop['last_step']} at {loop['last_at']}"


def _to_the_second(value: Any) -> Any:
    return re.sub(r"(T[\d:]{8})\.\d+", r"\1", value) if isinstance(value, str) else value


def print_experiments(history: History, newest: int = 0) -> None:
    """Print a table of all experiments, or of so many of the newest."""
    columns: dict[str, Callable[[Experiment], Any]] = {
        "experiment": lambda item: item.number,
        "commit": lambda item: item.commit[:7],
        history.metric: history.score,
        "artifact_mb": lambda item: _megabytes(item.metrics.get(history.size)),
        "verdict": _shown,
        "description": lambda item: item.idea.description,
    }
    if not any(history.size in item.metrics for item in history.experiments):
        del columns["artifact_mb"]
    items = history.experiments[-newest:]
    print_table(list(columns), [[told(item) for told in columns.values()] for item in items])
    if older := len(history.experiments) - len(items):
        click.echo(f"{counted(older, 'older one')}: autoresearch show")


def _megabytes(size: float | None) -> float | None:
    return None if size is None else round(size / 1e6, 3)


def _shown(experiment: Experiment) -> str:
    """Return the verdict; of a keep whose gain may be luck, that it is unproven."""
    decision = experiment.decision
    if decision is None:
        return "running"
    sure = 1.0 if decision.confidence is None else decision.confidence
    doubt = " (unproven)" if decision.verdict is Verdict.KEEP and sure < PROVEN else ""
    return f"{decision.verdict.value}{doubt}"


def print_summary(campaign: Campaign) -> None:
    """Print every experiment, the files that were written, and how to look at more."""
    history = campaign.history
    print_experiments(history, newest=20)
    if failed := sum(history.failures.values()):
        names = ", ".join(f"{name} {count}" for name, count in history.failures.items())
        click.echo(
            f"plugins failed {counted(failed, 'time')} ({names}): select * from plugin_failed"
        )
    if history.best is not None and not history.noise.sd:
        click.echo(f"noise: {noise_in_words(history)}")
    click.echo(f"memory: results.tsv, notes.md; branch: git log {campaign.lab.branch}")
    best = 0 if history.best is None else history.best.number
    click.echo(f"look: autoresearch show {best}, autoresearch report; ask: autoresearch sql")


@click.command("project")
@click.argument("file_name")
@with_history
def project_file(campaign: Campaign, history: History, file_name: str) -> None:
    """Print results.tsv, notes.md or a plugin's file.

    As the log gives it, which is what the file on disk should say.
    """
    if campaign.unread:
        raise ConfigError(campaign.unread)
    active = Plugins.load(campaign.config, campaign.project)
    known: tuple[Projection, ...] = (ResultsTsv(), NotesMd(), *active.projections(campaign.config))
    found = {item.file_name: item for item in known}
    if file_name not in found:
        raise WorkspaceError(f"no projection is called {file_name}; known: {', '.join(found)}")
    click.echo(found[file_name].render(history), nl=False)


@click.command()
@with_campaign
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("progress.png"), help="File to write."
)
@click.option("--overwrite", is_flag=True, help="Replace a file of your own.")
@click.option("--against", default="experiments", help="experiments, hours, gpu_hours or usd.")
def plot(campaign: Campaign, out: Path, overwrite: bool, against: str) -> None:
    """Draw every score and the best so far into a PNG file."""
    from autoresearch.report import draw

    if out.suffix.lower() != ".png":
        raise WorkspaceError(f"--out {out} is not a PNG file; name one like progress.png")
    if not overwrite:
        check_free(out)
    draw(campaign.plot(against), out)
    click.echo(f"wrote {out}")


@click.command()
@with_history
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report.html"), help="File to write."
)
@click.option("--trace", type=click.Path(path_type=Path), help="Also a timeline for Perfetto.")
@click.option("--overwrite", is_flag=True, help="Replace a file of your own.")
def report(
    campaign: Campaign, history: History, out: Path, trace: Path | None, overwrite: bool
) -> None:
    """Write the campaign as one HTML file, to read offline or to print.

    The night in ten lines, scores, every experiment with its change, lineage, timeline, directions,
    predictions, cost, dead ends, and what authors were told and refused.
    """
    from autoresearch.export import write_report, write_trace

    if not overwrite:
        check_free(out)
    write_report(campaign, history, out)
    click.echo(f"wrote {out}")
    if trace is not None:
        write_trace(campaign, trace)
        click.echo(f"wrote {trace}; open it in ui.perfetto.dev or chrome://tracing")
