"""The evaluation command: judges what a run left, from files that no change can touch."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from attrs import evolve

from autoresearch import events
from autoresearch.cycle.kit import Kit, fill
from autoresearch.cycle.tail import Tail
from autoresearch.durable import digest_files
from autoresearch.errors import BlockedError, PluginError
from autoresearch.launchers.folder import RunFolder
from autoresearch.model import RunOutput, RunRequest, RunStatus, Workspace
from autoresearch.policies.pattern_metrics import numbers_in
from autoresearch.text import one_line


def evaluate(
    kit: Kit, request: RunRequest, output: RunOutput
) -> tuple[RunOutput, dict[str, float]]:
    """Run the evaluation commands on a completed run; return its output and what they measured.

    The hidden one is recorded, and returned to no one. A run that left nothing to judge crashed;
    any other failure is not the idea's: it raises BlockedError, and only the evaluation is made
    again.
    """
    commands = kit.config.evaluation
    if not commands.command or output.status is not RunStatus.COMPLETED:
        return output, {}
    detail, numbers = _judge(kit, request, commands.command, hidden=False)
    if commands.hidden_command:
        _judge(kit, request, commands.hidden_command, hidden=True)
    if kit.config.metric.name in numbers:
        return output, {**numbers}
    why = f"the run left nothing to evaluate: {detail}"
    return evolve(output, status=RunStatus.CRASHED, detail=why), {}


def _judge(
    kit: Kit, request: RunRequest, command: tuple[str, ...], *, hidden: bool
) -> tuple[str, Mapping[str, float]]:
    """Record how an evaluation ended; return that in words, and the numbers that it printed."""
    asked = _request(kit, request, command, events.EVALUATIONS[hidden])
    handle = kit.plugins.launch_run(asked, _pristine(kit, asked))
    ended = kit.wait(asked, handle)
    tail = Tail(ended.log_path)
    tail.finish()
    metric = kit.config.metric
    numbers, last = {}, tail.error or tail.last_line or "it printed nothing"
    try:
        if ended.status is RunStatus.COMPLETED:
            numbers = numbers_in(ended.log_path, metric.name, metric.size)
    except PluginError as error:
        last = str(error)
    score = numbers.get(metric.name, math.nan)
    detail = "" if math.isfinite(score) else one_line(f"{ended.detail or 'no score'}; {last}", 400)
    if detail and not hidden and any(path.is_file() for path in request.folder.rglob("*")):
        RunFolder.of(asked.folder).remove()  # it is made again under its name
        raise BlockedError(f"the evaluation of {request.name} failed: {detail}")
    exists = ended.log_path.exists()
    kit.recorder.record(
        events.Evaluated(
            run=request.name,
            experiment=request.experiment,
            name=f"hidden/{metric.name}" if hidden else metric.name,
            value=score if math.isfinite(score) else None,
            hidden=hidden,
            status=ended.status.value,
            seconds=round(ended.seconds, 3),
            log_bytes=ended.log_path.stat().st_size if exists else 0,
            log_digest=digest_files(ended.log_path) if exists else "",
            detail=detail,
        ),
        event_id=f"{asked.name}/evaluated",
    )
    return detail, numbers


def _request(kit: Kit, run: RunRequest, command: tuple[str, ...], kind: str) -> RunRequest:
    place = kit.lab.pristine_workspace
    names = {
        "python": sys.executable,
        "script": str(place.script_path),
        "project": str(kit.lab.project),
        "run": str(run.folder),
    }
    return evolve(
        run,
        name=f"{run.name}{kind}",
        command=tuple(fill(word, names) for word in command),
        # What an idea asks for in its environment reaches its run, not its judge.
        env={key: fill(text, names) for key, text in kit.config.env.items()},
        launcher="local",
        timeout_seconds=kit.config.evaluation.timeout_seconds,
        script_digest="",
        folder=run.folder.with_name(f"{run.folder.name}{kind}"),
        cwd=place.path,
        reads=(run.folder,),
    )


def _pristine(kit: Kit, asked: RunRequest) -> Workspace:
    """Return a checkout of the commit that the campaign started from, new for every evaluation."""
    assert kit.history.started is not None
    if asked.folder.exists():  # it began before the loop was interrupted
        return kit.lab.pristine_workspace
    made = kit.lab.pristine_worktree(kit.history.started.base_commit)
    kit.lab.lend(made, kit.config.data)
    return made
