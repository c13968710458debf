"""What a score rests on: the evaluation command, and what it was measured with.

The command judges what a run left, from files that no change can touch. Only scores that were
measured with the same things are compared, or the difference is said.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from attrs import evolve

from autoresearch import events
from autoresearch.cycle.kit import Kit, fill
from autoresearch.durable import digest_files
from autoresearch.errors import BlockedError, PluginError
from autoresearch.history import History
from autoresearch.launchers.folder import RunFolder
from autoresearch.model import (
    Experiment,
    IdeaKind,
    RunOutput,
    RunRequest,
    RunStatus,
    Violation,
    Workspace,
)
from autoresearch.numbers import Tail
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


# --- what scores are compared --------------------------------------------------------------------

HARDWARE = "hardware"
LINE = "score"  # the name of the line that the score is read from


def other_measurement(experiment: Experiment, history: History) -> tuple[Violation, ...]:
    """Return a violation for each part of the measurement that the best experiment's differs in.

    The hardware is not among them.

    An experiment that is typed as an evaluation change differs on purpose: it is only warned of.
    """
    severity = "warning" if experiment.idea.kind is IdeaKind.EVALUATION else "violation"
    return tuple(
        Violation(
            rule="measurement",
            detail=f"measured with another {name} than experiment {history.best_number}: "
            f"{new[:12] or 'none'} instead of {old[:12] or 'none'}",
            severity=severity,
        )
        for name, old, new in _differences(experiment, history)
        if name != HARDWARE
    )


def other_hardware(experiment: Experiment, history: History) -> str:
    """Return words for the decision when the best score is of other hardware, else nothing."""
    for name, old, new in _differences(experiment, history):
        if name == HARDWARE:
            return f" (on other hardware than experiment {history.best_number}: {new}, not {old})"
    return ""


def _differences(experiment: Experiment, history: History) -> list[tuple[str, str, str]]:
    best = history.best
    if best is None or best.number == experiment.number or not experiment.measurement:
        return []
    before, now = best.measurement, experiment.measurement
    names = sorted(before.keys() | now.keys()) if before else []
    pairs = [(name, before.get(name, ""), now.get(name, "")) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]
