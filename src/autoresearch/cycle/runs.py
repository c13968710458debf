"""How a committed experiment is run: asked for first, launched once, watched, and read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from statistics import fmean

from attrs import define, evolve, field

from autoresearch import events
from autoresearch.config import RUN_FOLDER
from autoresearch.cycle import Kit, cost_of, fill, places, traces, write_text
from autoresearch.cycle.budget import reservation
from autoresearch.cycle.recorder import next_stage
from autoresearch.cycle.traces import LINE, collect, evaluate
from autoresearch.durable import digest, digest_files
from autoresearch.folding import in_stage
from autoresearch.frozen import alike
from autoresearch.git import Git
from autoresearch.history import History
from autoresearch.launchers import log_in
from autoresearch.model import (
    Experiment,
    Run,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Workspace,
)
from autoresearch.numbers import Tail, named
from autoresearch.text import one_line

# What Python says of a file or a module that is not there.
_MISSING = re.compile(
    r"No such file or directory: '(?P<file>[^']+)'|No module named '(?P<module>[\w.]+)'"
)
_NOTE = "the output of this run is in"
POLL_SECONDS = 0.2
WATCH_SECONDS = 2.0


@define
class Flight:
    """A run that this process watches; the run itself goes on without it.

    Every event has an id made from the run's name, so a repetition after a crash adds nothing.
    """

    kit: Kit
    request: RunRequest
    workspace: Workspace
    handle: RunHandle
    before: traces.Marks
    tail: Tail = field(init=False)
    output: RunOutput | None = None
    next_look: float = 0.0
    started: bool = False
    stopping: bool = False

    @tail.default
    def _log(self) -> Tail:
        return Tail(self.handle.log_path, self.kit.config.metric.name)

    @property
    def number(self) -> int:
        """The experiment that it belongs to."""
        return self.request.experiment

    def is_over(self, seconds: float = 0.0) -> bool:
        """Ask whether the run is over, for so many seconds; now and then look at its output."""
        clock = self.kit.clock
        until = clock.now() + seconds
        while self.output is None and (output := self.handle.poll()) is None:
            if clock.now() >= self.next_look:
                self.next_look = clock.now() + WATCH_SECONDS
                self.say_started()
                self._look()
            if clock.now() >= until:
                return False
            clock.sleep(POLL_SECONDS)
        self.output = self.output or output
        return True

    def land(self) -> RunOutput:
        """Record what came out of a run that is over, and return it with its score."""
        assert self.output is not None
        kit, request = self.kit, self.request
        self.say_started(over=True)
        self.tail.finish()
        _record_observed(kit, request, self.tail)
        output = evolve(self.output, script_path=self.workspace.script_path, env=request.env)
        traces.record(kit, request, self.before)
        collect(kit, self.workspace, request.folder)
        judged, scores = evaluate(kit, request, output)
        return _record_end(kit, request, judged, self.tail, scores)

    def leave(self) -> None:
        """Tell a person that the run goes on, and at what price."""
        price = getattr(self.handle, "usd_per_hour", 0.0)
        costs = f", at about {price:.2f} USD an hour" if price else ""
        self.kit.tell(
            f"run {self.request.name} goes on by itself{costs}; autoresearch stop --now ends it"
        )

    def say_started(self, *, over: bool = False) -> None:
        """Record how the run is found again; a launcher may know that only after a while."""
        reference = self.handle.reference
        if self.started or not (reference or over):
            return
        name = self.request.name
        fact = events.RunStarted(run=name, experiment=self.number, reference=reference)
        self.kit.recorder.record(fact, event_id=f"{name}/started")
        self.started = True

    def _look(self) -> None:
        """Look at the output once: record and show what is new, and stop what is doomed."""
        kit, request = self.kit, self.request
        observed = self.tail.read()
        if self.tail.last_line:
            kit.tick(f"experiment {self.number}: {one_line(self.tail.last_line, 120)}")
        _record_observed(kit, request, self.tail)
        order = kit.recorder.refresh().stop
        now = order is not None and order.now
        reason = (
            f"stopped by {order.by}"
            if order is not None and now
            else kit.plugins.should_stop_run(request, observed, _shown(kit, request))
        )
        if reason and not self.stopping:
            self.stopping = True
            kit.tell(f"experiment {self.number}: stopping the run, {one_line(reason)}")
            self.handle.stop(reason)


def request_run(kit: Kit, number: int, *, control: bool = False) -> None:
    """Record that a run is about to be launched, under a name nobody had before."""
    experiment = kit.history.experiments[number]
    index, stage = len(experiment.runs), next_stage(kit.history, number, control=control)
    run = Run(
        index=index,
        name=f"{kit.history.campaign}-{number}-{index}",
        seed=next_seed(kit, experiment, stage),
        script_digest=experiment.source_digest,
        stage=stage,
        control=control,
    )
    asked = _order(kit, number, run, experiment.env if control else kit.env_of(experiment))
    kit.recorder.record_together(asked, *reservation(kit, asked))


def next_seed(kit: Kit, experiment: Experiment, stage: str) -> int:
    """Return the seed of an experiment's next run in a stage: one that it has not run with.

    Those of a repeated baseline come first, the one whose score was nearest the mean ahead: where
    the seed decides much, as where it splits the data, a change is to be measured by neither the
    luckiest nor the unluckiest of them.
    """
    baseline, metric, first = kit.history.baseline, kit.history.metric, kit.config.seed
    others = baseline.runs if baseline is not None and experiment.number != baseline.number else ()
    known = [run for run in others if run.counts and run.stage == stage and metric in run.metrics]
    middle = fmean([run.metrics[metric] for run in known] or [0.0])
    usual = [run.seed for run in sorted(known, key=lambda run: abs(run.metrics[metric] - middle))]
    used = {run.seed for run in experiment.runs if run.counts and run.stage == stage}
    order: list[int] = [*usual, *range(first, first + len(used) + 1)]
    return next(seed for seed in order if seed not in used)


def _order(kit: Kit, number: int, run: Run, env: Mapping[str, str]) -> events.RunRequested:
    """Return what is asked of a launcher for a run, as its stage has it."""
    config = kit.config.in_stage(run.stage)
    source = run.script_digest or kit.history.experiments[number].source_digest
    return alike(
        events.RunRequested,
        run,
        experiment=number,
        run=run.name,
        launcher=config.launcher,
        command=config.command,
        timeout_seconds=config.limits.timeout_seconds,
        script_digest=source,
        env=dict(env),
    )


def launch(kit: Kit, asked: events.RunRequested) -> Flight:
    """Launch a requested run, or attach to it."""
    request, workspace = _request(kit, asked)
    before = traces.look(kit)
    handle = kit.plugins.launch_run(request, workspace)
    flight = Flight(kit, request, workspace, handle, before)
    flight.say_started()
    _link(kit, handle.log_path)
    return flight


def finish_run(kit: Kit, number: int, seconds: float = math.inf) -> RunOutput | None:
    """Launch the requested run of an experiment, or attach to it, and see it to its end.

    Returns None when it is not over after so many ``seconds``; it goes on by itself.
    """
    flight = launch(kit, kit.history.open_runs[number].request)
    try:
        return flight.land() if flight.is_over(seconds) else None
    except KeyboardInterrupt:
        flight.leave()
        raise


def output_of(kit: Kit, experiment: Experiment) -> RunOutput:
    """Return the output of an experiment's newest finished run again.

    What a crash of the loop kept from being recorded of it is recorded now.
    """
    run = experiment.runs[-1]
    if run.status is RunStatus.INFRA_FAILED:
        # Asked again, a launcher that could not start it would start it now, under a name that
        # the log says is over.
        folder = kit.lab.run_folder(run.name)
        return RunOutput(
            name=run.name,
            status=run.status,
            log_path=log_in(folder),
            folder=folder,
            seconds=run.seconds,
            detail="the machine failed before the loop was interrupted",
        )
    asked = _order(kit, experiment.number, run, experiment.env)
    request, workspace = _request(kit, asked)
    handle = kit.plugins.launch_run(request, workspace)
    flight = Flight(kit, request, workspace, handle, {})
    flight.is_over(math.inf)
    return flight.land()


def _request(kit: Kit, asked: events.RunRequested) -> tuple[RunRequest, Workspace]:
    workspace = _checkout(kit, asked)
    folder = kit.lab.run_folder(asked.run)
    names = {**places(workspace, folder), "seed": str(asked.seed)}
    config = kit.config.in_stage(asked.stage)
    env = {key: fill(text, names) for key, text in {**config.env, **asked.env}.items()}
    request = alike(
        RunRequest,
        asked,
        name=asked.run,
        campaign=kit.history.campaign,
        command=tuple(fill(word, names) for word in asked.command),
        env=env,
        max_log_bytes=kit.config.limits.max_log_bytes,
        folder=folder,
        campaign_id=kit.campaign_id,
        options=kit.config.stage_named(asked.stage).options,
        cwd=None if kit.config.cwd == RUN_FOLDER else workspace.path / kit.config.cwd,
    )
    return request, workspace


def _checkout(kit: Kit, asked: events.RunRequested) -> Workspace:
    """Return where a run works: as committed, with the data linked in, unless it began already."""
    experiment = kit.history.experiments[asked.experiment]
    workspace = kit.lab.workspace(asked.experiment)
    fresh = not kit.lab.run_folder(asked.run).exists()
    left_over = fresh and asked.index > 0  # by the run before
    if left_over or not workspace.script_path.exists():
        workspace = kit.lab.worktree(asked.experiment, experiment.commit or kit.head_commit())
    if fresh and kit.config.cwd != RUN_FOLDER:
        kit.lab.lend(workspace, kit.config.data)
    return workspace


def _link(kit: Kit, log_path: Path) -> None:
    shown = kit.lab.project / "run.log"
    if shown.exists() and not shown.is_symlink() and not _is_note(shown):
        kit.tell(f"run.log is a file of your own; the output of this run is in {log_path}")
        return
    temporary = shown.with_name(f".run.log.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(log_path)
        temporary.replace(shown)
    except OSError:
        write_text(shown, f"{_NOTE} {log_path}\n")


def _is_note(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[: len(_NOTE)] == _NOTE.encode()


def _record_observed(kit: Kit, request: RunRequest, tail: Tail) -> None:
    mine = kit.config.metric.name
    facts: dict[str, events.Event] = {}  # by id: a step that is told twice counts once
    for point in tail.take():
        name = "" if point.name == mine else f"{point.name}/"
        own = {"run": request.name, "experiment": request.experiment}
        fact = alike(events.MetricObserved, point, **own)
        facts.setdefault(f"{request.name}/observed/{name}{point.step}", fact)
    if facts:
        kit.recorder.record_many((fact, name) for name, fact in facts.items())


def _record_end(
    kit: Kit, request: RunRequest, output: RunOutput, tail: Tail, scores: Mapping[str, float]
) -> RunOutput:
    """Record what the run cost, how it ended and its numbers; return it with its evidence.

    ``scores`` is what the evaluation command measured.
    """
    size, log_digest = _measure(output.log_path)
    cost = cost_of(request, output)
    metrics = {**_metrics(kit, request, output, tail), **scores}
    output = evolve(output, detail=_evidence(kit, request, output, tail, metrics))
    if output.status is not RunStatus.COMPLETED:
        # What it had printed so far is no score; it stands in the detail and in what was observed.
        metrics = {k: v for k, v in metrics.items() if k not in _judged(kit)}
    finished = events.RunFinished(
        run=request.name,
        experiment=request.experiment,
        status=output.status.value,
        exit_code=output.exit_code,
        seconds=round(output.seconds, 3),
        log_bytes=size,
        log_digest=log_digest,
        detail=one_line(output.detail, 500),
    )
    extracted = events.MetricsExtracted(
        run=request.name,
        experiment=request.experiment,
        metrics=metrics,
    )
    facts: list[tuple[events.Event, str]] = [
        (cost, f"{request.name}/cost"),
        (finished, f"{request.name}/finished"),
        (extracted, f"{request.name}/metrics"),
    ]
    if output.status is RunStatus.COMPLETED:
        facts += _measured(kit, request, output)
    kit.recorder.record_many(facts)
    return output


def _measured(
    kit: Kit, request: RunRequest, output: RunOutput
) -> Iterator[tuple[events.Event, str]]:
    """Yield what the score of a completed run was measured with, if a plugin says so."""
    past = _shown(kit, request)
    if measurement := kit.plugins.measure_run(output, past):
        locked = events.RunLocked(
            run=request.name, experiment=request.experiment, measurement=dict(measurement)
        )
        # The id that older releases gave: a run that one of them recorded stays recorded once.
        yield locked, f"{request.name}/locks"
        if LINE in measurement and not any(item.measurement for item in past.experiments):
            kit.tell(
                f"the score is read from the line {measurement[LINE]!r}, here and in every later "
                "experiment"
            )


def _judged(kit: Kit) -> tuple[str, str]:
    return kit.config.metric.name, kit.config.metric.size


def _shown(kit: Kit, request: RunRequest) -> History:
    """Return the history as the stage of a run shows it."""
    runs = kit.history.experiments[request.experiment].runs
    stage = next((run.stage for run in runs if run.name == request.name), "")
    return in_stage(kit.history, stage, request.experiment)


def _metrics(kit: Kit, request: RunRequest, output: RunOutput, tail: Tail) -> dict[str, float]:
    """Return what the plugins read, and every other named number that was printed last."""
    read = dict(kit.plugins.extract_metrics(output, _shown(kit, request)))
    if kit.config.evaluation.command:
        read.pop(kit.config.metric.name, None)  # the judged does not judge itself
    if kit.config.metric.reader not in ("", "pattern_metrics"):
        return read
    # A score that the reader does not believe must not come in by this door.
    known = {name.lower() for name in (*read, *_judged(kit))}
    printed = tail.numbers.items()
    others = {k: v for k, v in printed if k.lower() not in known and math.isfinite(v)}
    return {**others, **read}


def _evidence(
    kit: Kit, request: RunRequest, output: RunOutput, tail: Tail, metrics: Mapping[str, float]
) -> str:
    """Return how a run ended in the words of its own output; empty where all is well."""
    name, told = kit.config.metric.name, [output.detail] if output.detail else []
    last = "" if not output.exit_code or named(tail.last_line).numbers else tail.last_line
    said = tail.error or one_line(last, 300)  # of sys.exit("no data") there is no traceback
    if output.status is RunStatus.CRASHED and said and said not in output.detail:
        told.append(f"{said}{_in_project(kit, request, said)}")
    if output.status is RunStatus.COMPLETED:
        newest = tail.numbers.get(name, 0.0)
        if name not in metrics and not math.isfinite(newest):
            since = "" if tail.diverged is None else f": diverged at step {tail.diverged}"
            told.append(f"the score is {newest}{since}")
        elif name not in metrics and (why := kit.plugins.explain_no_score(output, kit.history)):
            told += why
        elif name not in metrics:
            pattern = kit.config.metric.pattern
            sought = f"the pattern {pattern!r}" if pattern else f"{name!r} and a number behind it"
            near = ", ".join(f"{key} {value:g}" for key, value in list(tail.numbers.items())[-5:])
            told.append(f"looked for {sought}; numbers seen: {near or 'none'}")
    elif output.status is not RunStatus.INFRA_FAILED:
        seen = [] if name not in metrics else [f"{name} {metrics[name]:.6g} was printed before"]
        seen += [] if tail.step is None else [f"the last step seen was {tail.step}"]
        told += seen
    return "; ".join(told)


def _measure(path: Path) -> tuple[int, str]:
    if not path.exists():
        return 0, digest("")
    return path.stat().st_size, digest_files(path)


def _in_project(kit: Kit, request: RunRequest, error: str) -> str:
    """Say why a file that a run missed is in the project and not in its checkout, if that is so."""
    missed = _MISSING.search(error)
    if missed is None:
        return ""
    project, checkout = kit.lab.project, kit.lab.workspace(request.experiment).path
    module = (missed["module"] or "").replace(".", "/")
    beside = PurePosixPath(kit.config.script).parent / module
    names = [missed["file"]] if missed["file"] else [f"{beside}.py", f"{beside}"]
    cwd = "." if kit.config.cwd == RUN_FOLDER else kit.config.cwd
    for name in names:
        inside = Path(name).is_relative_to(checkout)
        place = str(Path(name).relative_to(checkout)) if inside else name
        for path in (project / cwd / place, project / place):
            if not path.is_relative_to(project) or not path.exists() or ".." in path.parts:
                continue
            shown = path.relative_to(project).as_posix()
            if (checkout / shown).exists():
                return f" ({shown} lies outside cwd, which is {kit.config.cwd!r}; change cwd)"
            asked = Git(project, as_user=True).attempt("check-ignore", "-q", "--", shown)
            why = "ignored by git" if asked.returncode == 0 else "not committed"
            return f" ({shown} is {why}; commit it, or name it in data)"
    return ""
