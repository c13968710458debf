"""Writes one experiment as a folder in the layout of the challenge's records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

from autoresearch.campaign import Campaign
from autoresearch.errors import WorkspaceError
from autoresearch.history import History
from autoresearch.launchers.folder import log_in
from autoresearch.model import Experiment, Run, RunStatus
from autoresearch.projections.blocks import analysis_block, reasoning_block, shown_status


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
    logs = {
        _log_name(run, len(done)): log_in(campaign.lab.folder / "runs" / run.name) for run in done
    }
    if missing := [str(path) for path in logs.values() if not path.is_file()]:
        raise WorkspaceError(f"{missing[0]} is missing; autoresearch verify says what else is")
    for name, data in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name, path in logs.items():
        shutil.copyfile(path, folder / name)
    return tuple(folder / name for name in (*written, *logs))


def _log_name(run: Run, runs: int) -> str:
    return "train.log" if runs == 1 else f"train_seed{run.seed}.log"


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
