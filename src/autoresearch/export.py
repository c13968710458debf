"""A campaign and its experiments written for others: an HTML page, a timeline, a record.

The page is the template ``report.html`` with the facts in it, which its own script draws.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Any

from autoresearch.campaign import Campaign
from autoresearch.errors import WorkspaceError, telling
from autoresearch.git import Git
from autoresearch.history import History, imported_from
from autoresearch.launchers import log_in
from autoresearch.model import Experiment, RunStatus, Verdict
from autoresearch.projections.files import analysis_block, reasoning_block, shown_status
from autoresearch.projections.memory import noise_in_words
from autoresearch.report import best_so_far
from autoresearch.text import because, block, counted, one_line

DIFF_LINES, TEXT = 60, 400  # of one experiment, so that 2,000 of them stay a file that opens
Rows = list[dict[str, Any]]

_EXPERIMENTS = """
    SELECT e.experiment AS n, l.parent, coalesce(l.depth, 0) AS depth, e.status, e.metric,
        e.direction, e.description, e.author, e.hypothesis, e.predicted, e.confidence, e.seconds,
        epoch(e.started_at) AS started, epoch(e.ended_at) AS ended, e.commit, e.reason, e.lesson,
        b.best, b.gpu_hours, b.run_hours, g.gain, g.on_best, g.expected, c.usd
    FROM experiments e
    LEFT JOIN lineage l USING (campaign, experiment)
    LEFT JOIN best_so_far b USING (campaign, experiment)
    LEFT JOIN gain g USING (campaign, experiment)
    LEFT JOIN (SELECT campaign, experiment, sum(usd) AS usd FROM costs GROUP BY ALL) c
        USING (campaign, experiment)
    WHERE e.campaign = $tag ORDER BY e.experiment
"""
_RUNS = """
    SELECT experiment AS n, run, status, epoch(requested_at) AS started,
        coalesce(epoch(finished_at), epoch(requested_at) + coalesce(seconds, 0)) AS ended, detail
    FROM runs WHERE campaign = $tag ORDER BY position
"""
_DIRECTIONS = """
    SELECT e.direction, count(*) AS tried, count(*) FILTER (e.status = 'keep') AS kept,
        count(*) FILTER (e.status = 'crash') AS crashed, max(g.on_best) AS best_gain,
        avg(g.gain) AS mean_gain, stddev_samp(g.gain) AS spread,
        any_value(d.reason) AS dead, arg_max(e.lesson, e.experiment) AS lesson
    FROM experiments e LEFT JOIN gain g USING (campaign, experiment)
    LEFT JOIN dead_ends d ON d.campaign = e.campaign AND d.direction = e.direction
    WHERE e.campaign = $tag AND e.direction <> 'baseline'
    GROUP BY e.direction ORDER BY tried DESC, e.direction
"""
_COSTS = """
    SELECT kind, source, count(*) AS times, sum(seconds) / 3600 AS hours,
        sum(gpu_seconds) / 3600 AS gpu_hours, sum(tokens_in) AS tokens_in,
        sum(tokens_out) AS tokens_out, sum(usd) AS usd
    FROM costs WHERE campaign = $tag GROUP BY kind, source ORDER BY usd DESC, gpu_hours DESC
"""
# What was told to those who propose, and what was refused: type, who, which text.
_TOLD = {
    "idea_dropped": ("''", "reason"),
    "idea_objected": ("author", "reason"),
    "change_rejected": ("''", "reason"),
    "audit_failed": ("rule", "detail"),
    "plugin_failed": ("plugin", "error"),
    "proposal_refused": ("author", "reason"),
    "mind_suspended": ("author", "reason"),
    "note_added": ("author", "text"),
    "steering_given": ("author", "text"),
}
_MOST_TOLD = 500


def write_report(campaign: Campaign, history: History, path: Path) -> None:
    """Write the page; raises WorkspaceError where the file cannot be written."""
    facts = collect(campaign, history)
    page = resources.files("autoresearch").joinpath("templates", "report.html").read_text("utf-8")
    told = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    lines = "\n".join(f"<li>{escape(line)}</li>" for line in facts["lines"])
    for mark, text in (("@TITLE@", escape(facts["title"])), ("@LINES@", lines)):
        page = page.replace(mark, text)
    head, _, tail = page.partition("@FACTS@")  # last: facts may hold a mark
    _write(path, head + told + tail)


def write_trace(campaign: Campaign, path: Path) -> None:
    """Write the runs and decisions in the format that Perfetto and Chrome's tracing read."""
    with campaign.connect() as connection:
        runs = _ask(connection, _RUNS, campaign.tag)
        query = (
            "SELECT experiment AS n, verdict, reason, epoch(decided_at) AS at FROM decisions "
            "WHERE campaign = $tag ORDER BY position"
        )
        decisions = _ask(connection, query, campaign.tag)
    spans = [
        {
            "name": f"experiment {run['n']}", "cat": run["status"], "ph": "X", "pid": 1,
            "tid": lane + 1, "ts": run["started"] * 1e6,
            "dur": max(run["ended"] - run["started"], 0) * 1e6, "args": run,
        }
        for run, lane in zip(runs, lanes(runs), strict=True)
    ]  # fmt: skip
    marks = [
        {
            "name": f"{item['verdict']} {item['n']}", "cat": "decision", "ph": "i", "s": "p",
            "pid": 1, "tid": 0, "ts": item["at"] * 1e6, "args": item,
        }
        for item in decisions
    ]  # fmt: skip
    _write(path, json.dumps({"traceEvents": [*spans, *marks], "displayTimeUnit": "ms"}))


def _write(path: Path, text: str) -> None:
    with telling(f"cannot write {path}", "choose another file"):
        path.write_text(text, encoding="utf-8")


def collect(campaign: Campaign, history: History) -> dict[str, Any]:
    """Return all facts of the page as JSON values."""
    until = history.position or None
    with campaign.connect(at=until) as connection:
        # The views below ask for experiments again and again; once is enough.
        for view in ("experiments", "lineage", "gain"):
            connection.execute(f"CREATE TEMP TABLE {view} AS SELECT * FROM {view}")
        experiments = _ask(connection, _EXPERIMENTS, campaign.tag)
        runs = _ask(connection, _RUNS, campaign.tag)
        directions = _ask(connection, _DIRECTIONS, campaign.tag)
        costs = _ask(connection, _COSTS, campaign.tag)
        told = _told(connection, campaign.tag)
    diffs = _diffs(campaign, [row["commit"] for row in experiments if row["parent"] is not None])
    for row in experiments:
        row["diff"] = diffs.get(row["commit"] or "", "")
    for run, lane in zip(runs, lanes(runs), strict=True):
        run["lane"] = lane
    return {
        "title": f"campaign {campaign.tag}",
        "metric": history.metric,
        "lower": history.lower_is_better,
        "sd": history.noise.sd,
        "lines": list(the_night(history)),
        "experiments": experiments,
        "runs": runs,
        "directions": directions,
        "costs": costs,
        "told": told,
        "dead": [
            {"direction": item.direction, "reason": item.reason, "proof": list(item.experiments)}
            for item in history.dead_ends.values()
        ],
        "backtracks": [
            {"after": item.after_experiment, "to": item.to_experiment, "reason": item.reason}
            for item in history.backtracks
        ],
        "queue": [
            {"description": item.description, "gain": item.expected_gain, "author": item.author}
            for item in history.ranked_queue[:50]
        ],
    }


def _ask(connection: Any, query: str, tag: str) -> Rows:
    cursor = connection.execute(query, {"tag": tag})
    names = [item[0] for item in cursor.description]
    return [
        {name: _plain(value) for name, value in zip(names, row, strict=True)}
        for row in cursor.fetchall()
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value, TEXT)
    if isinstance(value, float):
        return value if abs(value) < 1e300 else None
    return value if isinstance(value, int | None) else float(value)


def _told(connection: Any, tag: str) -> Rows:
    parts = [
        f"SELECT position, '{name}' AS type, {who} AS author, {text} AS text FROM {name} "
        "WHERE campaign = $tag"
        for name, (who, text) in _TOLD.items()
    ]
    query = " UNION ALL ".join(parts) + f" ORDER BY position DESC LIMIT {_MOST_TOLD}"
    return _ask(connection, query, tag)


def _diffs(campaign: Campaign, commits: Sequence[str]) -> Mapping[str, str]:
    """Return the change of each commit, from one process of git however many there are."""
    done = Git(campaign.project).attempt(
        "diff-tree", "--stdin", "-r", "-p", "-U1", "--no-color", "--no-ext-diff",
        stdin="".join(f"{commit}\n" for commit in commits if commit),
    )  # fmt: skip
    pieces = re.split(r"^([0-9a-f]{40}(?:[0-9a-f]{24})?)\n", done.stdout, flags=re.MULTILINE)
    found = {}
    for commit, text in zip(pieces[1::2], pieces[2::2], strict=True):
        lines = [line for line in text.splitlines() if not line.startswith(("index ", "diff "))]
        more = [f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
        found[commit] = block("\n".join([*lines[:DIFF_LINES], *more]), 6_000)
    return found


def lanes(runs: Rows) -> Iterator[int]:
    """Yield the first lane that is free when each run starts, so that no two overlap."""
    ends: list[float] = []
    for run in runs:
        free = next((lane for lane, end in enumerate(ends) if end <= run["started"]), len(ends))
        ends[free : free + 1] = [run["ended"]]
        yield free


def the_night(history: History) -> Iterator[str]:
    """Yield what a person wants to know first, in about ten lines."""
    decided, kept, best = history.decided, history.kept, history.best
    counts = {verdict: sum(item.verdict is verdict for item in decided) for verdict in Verdict}
    ends = (decided[0].started_at[:16], decided[-1].ended_at[:16]) if decided else ("", "")
    began, ended = (text.replace("T", " ") for text in ends)
    ended = ended[11:] if ended[:10] == began[:10] else ended
    span = f", {began} to {ended} UTC" if decided else ""
    yield (
        f"{counted(len(decided), 'experiment')}{span}: {counts[Verdict.KEEP]} kept, "
        f"{counts[Verdict.DISCARD]} discarded, {counts[Verdict.CRASH]} crashed, "
        f"{counts[Verdict.QUARANTINE]} quarantined"
    )
    if best is not None and history.best_metric is not None:
        first = history.score(kept[0])
        gain = history.gain(history.best_metric, first) if first is not None else 0.0
        more = f"{gain:+.6g} on the baseline" if gain else "as it was at first"
        yield (
            f"best: {history.metric} {history.best_metric:.6g} of experiment {best.number} "
            f"({one_line(best.idea.description, 100)}), {more}"
        )
    yield f"noise: {noise_in_words(history)}"
    gains = _gains(history)
    for experiment in sorted(kept[1:], key=lambda item: gains[item.number], reverse=True)[:3]:
        words = one_line(experiment.idea.description, 100)
        yield f"gained {gains[experiment.number]:+.6g} with experiment {experiment.number}: {words}"
    for direction, fact in list(history.dead_ends.items())[-2:]:
        yield f"dead end: {direction}, {one_line(fact.reason, 150)}"
    held = [item.number for item in history.experiments if item.verdict is Verdict.QUARANTINE]
    if held:
        yield f"waits for your word: experiments {', '.join(map(str, held[:10]))} (quarantined)"
    spent = history.spent
    yield (
        f"spent: {spent.seconds / 3600:.2f} hours of runs, {spent.gpu_seconds / 3600:.2f} "
        f"GPU-hours, {spent.tokens:,} tokens, ${spent.usd:.2f}"
    )
    if history.failures:
        yield "plugins failed: " + ", ".join(f"{k} {v}" for k, v in history.failures.items())
    if source := imported_from(history):
        yield f"imported from {source}, to read and to replay"
        return
    over = f"stopped: {because(history.stopped)}" if history.stopped else "going on"
    waits = f"waits: {history.paused.reason}" if history.paused else over
    yield f"now: {waits}; {counted(len(history.queue), 'idea')} queued"


def _gains(history: History) -> Mapping[int, float]:
    """How much better each kept experiment is than the best kept before it."""
    before = {after[0]: best for (_, best), after in pairwise(best_so_far(history))}
    scores = {item.number: history.score(item) for item in history.kept}
    return {
        number: 0.0 if score is None else history.gain(score, before.get(number, score))
        for number, score in scores.items()
    }


# --- an experiment as a folder in the layout of the challenge's records -----------------------


def write_record(
    campaign: Campaign, number: int, folder: Path, who: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write README.md, submission.json, the files that ran and a log for each run; return them.

    ``who`` has author, github_id and name of the submission, as far as they are known. Sizes are
    bytes. Raises WorkspaceError for an experiment without a score or commit, and for a folder that
    holds something.
    """
    history = campaign.history
    experiment = history.experiments[number]
    if history.score(experiment) is None or not experiment.commit:
        raise WorkspaceError(
            f"experiment {number} has no {history.metric}; export one that has a score"
        )
    if folder.exists() and any(folder.iterdir()):
        raise WorkspaceError(f"{folder} is not empty; name a new folder")
    texts = campaign.lab.files_at(experiment.commit)
    done = [run for run in experiment.runs if run.status is RunStatus.COMPLETED]
    written: dict[str, bytes] = {path: text.encode() for path, text in texts.items()}
    told = submission(history, experiment, sum(map(len, written.values())), who)
    written["submission.json"] = (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
    written["README.md"] = _readme(campaign, experiment, told).encode()
    names = [f"train_seed{run.seed}.log" for run in done] if len(done) > 1 else ["train.log"]
    places = (log_in(campaign.lab.run_folder(run.name)) for run in done)
    logs = dict(zip(names, places, strict=True))
    if missing := [str(path) for path in logs.values() if not path.is_file()]:
        raise WorkspaceError(f"{missing[0]} is missing; autoresearch verify says what else is")
    for name, data in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name, path in logs.items():
        shutil.copyfile(path, folder / name)
    return tuple(folder / name for name in (*written, *logs))


def submission(
    history: History, experiment: Experiment, code: int, who: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of submission.json; what the runs did not say is left out."""
    metrics = experiment.metrics
    done = [run for run in experiment.runs if run.status is RunStatus.COMPLETED]
    scores = history.scores(experiment)
    size = metrics.get(history.size)
    told: dict[str, Any] = {
        "author": who.get("author", ""),
        "github_id": who.get("github_id", ""),
        "name": who.get("name") or experiment.idea.description,
        "blurb": experiment.idea.hypothesis,
        "date": experiment.ended_at[:10],
        "val_loss": metrics.get("val_loss"),
        history.metric: history.score(experiment),
        "bytes_total": None if size is None else int(size),
        "bytes_code": code,
    }
    if len(scores) > 1:
        told[f"{history.metric}_std"] = stdev(scores)
        told["seeds"] = [run.seed for run in done]
        told["seed_results"] = {
            str(run.seed): {
                history.metric: run.metrics.get(history.metric),
                "artifact_bytes": int(run.metrics.get(history.size, 0)) or None,
            }
            for run in done
        }
    return {name: value for name, value in told.items() if value is not None}


def _readme(campaign: Campaign, experiment: Experiment, told: Mapping[str, Any]) -> str:
    history = campaign.history
    lines = [f"# {told['name']}", "", told["blurb"], "", "| seed | seconds | " + history.metric]
    lines[-1] += " | bytes |"
    lines.append("|---|---|---|---|")
    for run in experiment.runs:
        score, size = run.metrics.get(history.metric), run.metrics.get(history.size)
        shown = [f"{score:.6f}" if score is not None else "", f"{size:,.0f}" if size else ""]
        lines.append(f"| {run.seed} | {run.seconds:.1f} | {' | '.join(shown)} |")
    command = " ".join(campaign.config.command)
    lines += ["", f"Command: `{command}`", ""]
    if experiment.env:
        lines += ["Environment: " + " ".join(f"`{k}={v}`" for k, v in experiment.env.items()), ""]
    blocks = [reasoning_block(experiment.reasoning) if experiment.reasoning else ""]
    if experiment.analysis:
        blocks.append(analysis_block(experiment.analysis, shown_status(experiment)))
    lines += ["```text", *filter(None, blocks), "```", ""]
    place = f"Experiment {experiment.number} of campaign {history.campaign}"
    lines.append(f"{place}, commit {experiment.commit}.")
    return "\n".join([*lines, ""])
