"""Runs whole campaigns in a world through the real loop, without git, disk and waiting.

Everything is what a campaign is: hooks, protocol, events, History, projections, policies. Only the
hands are light: commits are digests in memory, a run is a draw from the world, an hour is a number.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from attrs import define, evolve, field, frozen

from autoresearch import events
from autoresearch.config import (
    BoundaryConfig,
    Config,
    LimitsConfig,
    MetricConfig,
    StageConfig,
    unstructure,
)
from autoresearch.cycle.kit import Kit
from autoresearch.cycle.loop import Loop
from autoresearch.cycle.recorder import Clock, Patience, Recorder
from autoresearch.durable import digest
from autoresearch.folding import empty
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas.hyperparameters import hyperparameters, with_values
from autoresearch.ideas.known import known
from autoresearch.log import MemoryLog, SourceStore
from autoresearch.model import (
    Change,
    Experiment,
    Idea,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    ValueChange,
    Verdict,
    Workspace,
)
from autoresearch.plugins import Plugins
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.studies import worlds
from autoresearch.studies.worlds import GPUS, RUN_SECONDS, Assumptions, Noise, World
from autoresearch.workspace import Lab

SCRIPT = "train.py"
METRIC = "score"
SD = 0.00064  # what a campaign is told of the noise: the median of the seeds of public records
SHORT = 0.2  # of a run, is a run in the stage ``short``
STEPS, _EVALUATIONS = 20_000, 20  # of a run with a curve
_PACE = 100.0  # simulated seconds in one that somebody waits
_GENERATORS = ("script_ideas", "catalogue", "search", "openai")


class SimulatedClock(Clock):
    """Time that passes when somebody waits, faster than he thinks."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass at once, so much that a run is over after 30 looks."""
        self._now += _PACE * seconds


class MemorySources(SourceStore):
    """Texts by digest, in memory."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def put(self, text: str) -> str:
        """Keep a text and return its digest."""
        name = digest(text)
        self._texts[name] = text
        return name

    def get(self, name: str) -> str:
        """Return a text."""
        return self._texts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._texts


@frozen(kw_only=True)
class LightLab(Lab):
    """A lab without git: a worktree is a folder with the script, a commit a digest in memory."""

    base: str
    commits: dict[str, str] = field(factory=dict)  # commit: text of the script
    stands: dict[Path, str] = field(factory=dict)  # worktree: commit

    runs_code = False

    def files_at(self, commit: str) -> Mapping[str, str]:
        """Return the script of a commit."""
        return {self.script: self.commits[commit]}

    def worktree(self, number: int, commit: str) -> Workspace:
        """Let a folder have the script of a commit."""
        made = self.workspace(number)
        made.path.mkdir(parents=True, exist_ok=True)
        made.script_path.write_text(self.commits[commit], encoding="utf-8")
        self.stands[made.path] = commit
        return made

    def changed_files(self, workspace: Workspace, since: str = "") -> Mapping[str, str | None]:
        """Return the script if it differs."""
        now = workspace.script_path.read_text(encoding="utf-8")
        before = self.commits[since or self.stands[workspace.path]]
        return {} if now == before else {self.script: now}

    def commit(self, ref: str, workspace: Workspace, change: Change, message: str) -> str:
        """Keep the script under a new commit."""
        text = workspace.script_path.read_text(encoding="utf-8")
        name = digest(f"{ref}\n{message}\n{text}")[:40]
        self.commits[name] = text
        self.stands[workspace.path] = name
        return name

    def keep(self, number: int, commit: str) -> None:
        """Do nothing: nothing is ever collected."""

    def publish(self) -> None:
        """Do nothing: there is no repository of a user."""

    def move_branch(self, commit: str, known: Callable[[str], bool]) -> str:
        """Do nothing: the head of the history is the branch."""
        return ""

    def drop_worktree(self, number: int) -> None:
        """Remove the folder of a decided experiment."""
        shutil.rmtree(self.workspace(number).path, ignore_errors=True)

    def lend(self, workspace: Workspace, paths: Sequence[str]) -> None:
        """Do nothing: there is no data."""

    def written_in(self, workspace: Workspace) -> tuple[str, ...]:
        """Return nothing: a draw writes nothing."""
        return ()

    def take_planted(self) -> tuple[str, ...]:
        """Return nothing: no code runs."""
        return ()


@define
class _Drawn:
    """A run whose score is drawn; with a curve it takes its time and can be ended."""

    output: RunOutput
    numbers: Mapping[str, float]
    curve: list[tuple[float, int, float]]  # when a score is printed, at which step
    clock: SimulatedClock
    reference: str = "simulated"

    @property
    def log_path(self) -> Path:
        return self.output.log_path

    def poll(self) -> RunOutput | None:
        now = self.clock.now()
        while self.curve and self.curve[0][0] <= now:
            _, step, score = self.curve.pop(0)
            with self.log_path.open("a", encoding="utf-8") as log:
                log.write(f"step:{step} {METRIC}:{score:.6f}\n")
        return None if self.curve else self.output

    def stop(self, reason: str) -> None:
        if self.curve:
            seconds = self.output.seconds - (self.curve[-1][0] - self.clock.now())
            self.curve.clear()
            self.numbers = {}  # what it would have scored, nobody has seen
            self.output = evolve(
                self.output, status=RunStatus.STOPPED_EARLY, seconds=seconds,
                gpu_seconds=seconds * GPUS, detail=reason,
            )  # fmt: skip


class SimulatedRuns:
    """The launcher and the reader of scores of one world; what it knows of the truth it keeps."""

    def __init__(self, world: World, noise: Noise, clock: SimulatedClock, curves: bool) -> None:
        self.world, self.noise, self._clock, self._curves = world, noise, clock, curves
        self._drawn: dict[str, _Drawn] = {}

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Draw the score of a run, once for every name."""
        if request.launcher != "simulated":
            return None
        if request.name not in self._drawn:
            text = workspace.script_path.read_text(encoding="utf-8")
            self._drawn[request.name] = self._draw(request, worlds.values_in(text))
        return self._drawn[request.name]

    def _draw(self, request: RunRequest, values: Mapping[str, float]) -> _Drawn:
        crashed, count = self.world.crashes(values), len(self._drawn)
        share = float(request.env.get("SHARE", 1.0))
        seconds = RUN_SECONDS * share / (5 if crashed else 1)

        def score(done: float) -> float:
            mean = self.world.seen(values, done)
            return worlds.measured(self.world, self.noise, mean, request.name, count, done)

        curve = []
        if self._curves and not crashed:
            request.folder.mkdir(parents=True, exist_ok=True)
            begun = self._clock.now()
            points = [step / _EVALUATIONS for step in range(1, round(share * _EVALUATIONS) + 1)]
            curve = [(begun + d * RUN_SECONDS, round(d * STEPS), score(d)) for d in points]
        output = RunOutput(
            name=request.name,
            status=RunStatus.CRASHED if crashed else RunStatus.COMPLETED,
            log_path=request.folder / "run.log",
            folder=request.folder,
            seconds=seconds,
            gpu_seconds=seconds * GPUS,
        )
        numbers = {METRIC: score(share), "artifact_bytes": float(self.world.size(values))}
        return _Drawn(output, {} if crashed else numbers, curve, self._clock)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return what the run showed."""
        return self._drawn[output.name].numbers or None


class RandomIdeas:
    """Changes one constant at random: what every search has to beat, asked behind any other."""

    @hookimpl(trylast=True)
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        """Return a change that was not tried."""
        found = [item for item in hyperparameters(source) if item.type != "str"]
        for digits in [3] * 10 + [6] * 40:  # finer where the coarse values were tried
            item = rng.choice(found)
            old = item.value
            if isinstance(old, bool):
                new: bool | int | float = not old
            elif not old:
                new = round(10 ** rng.uniform(-2, 0.5), digits)
            else:
                new = float(f"{float(old) * 2 ** rng.gauss(0, 1):.{digits}g}")
                new = max(1, round(new)) if isinstance(old, int) else new
            changed = with_values(source, {item.name: new})
            if new == old or digest(changed) in history.tried_sources:
                continue
            return Idea(
                direction=item.name.lower(),
                description=f"{item.name} {old} -> {new}",
                hypothesis="chance chose it",
                changes=(ValueChange(name=item.name, old=old, new=new),),
                source=changed,
            )
        return None


@frozen(kw_only=True)
class Outcome:
    """One campaign: after each decision the GPU hours spent and the true score of head.

    ``false_keeps`` are those whose true score was no better than that of the head before;
    ``wasted`` are runs of experiments that were not kept beyond the first of each, and of crashes.
    """

    strategy: str
    seed: int
    hours: tuple[float, ...]
    truths: tuple[float, ...]
    experiments: int
    runs: int
    keeps: int
    false_keeps: int
    wasted: int
    best_shown: float

    def at(self, hours: float) -> float:
        """Return the true gain of head over the baseline once so much was spent."""
        before = [t for h, t in zip(self.hours, self.truths, strict=True) if h <= hours]
        return self.truths[0] - (before[-1] if before else self.truths[0])


def campaign(
    strategy: str,
    seed: int,
    *,
    gpu_hours: float = 200.0,
    experiments: int | None = None,
    noise: Noise = Noise(),
    assumptions: Assumptions = Assumptions(),
    knowledge: str = worlds.KNOWLEDGE,
    observers: Sequence[object] = (),
) -> tuple[Outcome, History]:
    """Run one campaign of a strategy in the world of a seed, until its GPU hours are spent.

    A strategy is plugins joined by ``+``: names of built-ins, files, ``random`` for chance, and
    ``stages`` for a short run before each whole one.
    ``observers`` are further plugins that watch.
    Raises AutoresearchError for one that has no policy or no generator.
    """
    world = worlds.world(seed, assumptions, knowledge)
    shared = Path("/dev/shm")  # files there cost no disk
    place = shared if shared.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="autoresearch-", dir=place) as folder:
        root = Path(folder)
        config = _config(strategy, world, noise, gpu_hours, knowledge, root)
        base = digest(world.script)[:40]
        lab = LightLab(project=root, tag="simulated", script=SCRIPT, base=base)
        lab.commits[base] = world.script
        (lab.folder / "runs").mkdir(parents=True)
        clock = SimulatedClock()
        runs = SimulatedRuns(world, noise, clock, "curves" in strategy.split("+"))
        history = _run(config, lab, clock, [runs, *observers], strategy, experiments)
        return _outcome(strategy, seed, world, history, lab), history


def _config(
    strategy: str, world: World, noise: Noise, gpu_hours: float, knowledge: str, root: Path
) -> Config:
    words = strategy.split("+")
    told = noise.sd * world.assumptions.noise > 0
    files = [word for word in words if word.endswith(".py")]
    names = [word for word in words if word not in ("random", "stages", *files)]
    sd = SD if told else 0.0
    short = StageConfig(name="short", sd=sd * worlds.early_noise(SHORT), env={"SHARE": repr(SHORT)})
    blocked = [f"no:{name}" for name in _GENERATORS if name not in names]
    if "evidence" not in names:
        blocked.append("no:evidence")
    return Config(
        preset="plain",
        script=SCRIPT,
        launcher="simulated",
        retention="all",
        strict=True,
        knowledge=str(worlds.knowledge_of(known(knowledge), root / "knowledge.csv")),
        metric=MetricConfig(name=METRIC, sd=sd, reader="simulated"),
        limits=LimitsConfig(artifact_bytes=worlds.LIMIT_BYTES, gpu_hours=gpu_hours),
        boundary=BoundaryConfig(kind="none"),
        stages=(short, StageConfig(name="full")) if "stages" in words else (),
        active=tuple(dict.fromkeys((*names, *blocked))),
        plugins={
            Path(file).stem: {"search": _ranges(world, knowledge)}
            for file in files
            if "optuna" in file
        },
    )


def _ranges(world: World, knowledge: str) -> dict[str, tuple[float, float]]:
    """Return ranges for a sampler: the five numbers of which the most is known to be had."""
    rows = sorted(known(knowledge), key=lambda row: -abs(row.effect or 0.0))
    names = list(dict.fromkeys(item.name for row in rows for item in row.settings))
    starts = {name: float(world.parts[name].start) for name in names if name in world.parts}
    chosen = [(name, start) for name, start in starts.items() if start > 0][:5]
    return {
        name: (start / 4, start * 4 if start >= 1 else min(start * 4, 0.999))
        for name, start in chosen
    }


def _run(
    config: Config, lab: LightLab, clock: SimulatedClock, given: list[object], strategy: str,
    experiments: int | None,
) -> History:  # fmt: skip
    given += [RandomIdeas()] if "random" in strategy.split("+") else []
    given += [str(Path(word).resolve()) for word in strategy.split("+") if word.endswith(".py")]
    plugins = Plugins.load(config, lab.project, given)
    log, tag = MemoryLog(), lab.tag
    try:
        with log.writer(tag) as writer:
            writer.append(_beginning(config, lab, plugins))
            history = empty(tag)
            recorder = Recorder(log, writer, plugins, history, patience=Patience(clock, _silent))
            recorder.refresh()
            kit = Kit(
                config=config, plugins=plugins, recorder=recorder, lab=lab,
                sources=MemorySources(), clock=clock, projections=(ResultsTsv(), NotesMd()),
                tell=_silent, tick=_silent,
            )  # fmt: skip
            Loop(kit=kit, target=experiments, wait=False).run()
            return kit.history
    finally:
        plugins.close()


def _silent(_: str) -> None:
    pass


def _beginning(config: Config, lab: LightLab, plugins: Plugins) -> events.CampaignStarted:
    return events.CampaignStarted(
        tag=lab.tag, branch=lab.branch, base_commit=lab.base, script=SCRIPT,
        script_digest=digest(lab.commits[lab.base]), metric=METRIC, better="lower",
        config=unstructure(config), plugins=dict(plugins.active), environment={},
    )  # fmt: skip


def _outcome(strategy: str, seed: int, world: World, history: History, lab: LightLab) -> Outcome:
    truths: dict[str, float] = {}

    def truth(item: Experiment) -> float:
        if item.commit not in truths:
            truths[item.commit] = world.truth(worlds.values_in(lab.commits[item.commit]))
        return truths[item.commit]

    hours, path, spent, false, wasted, runs = [], [], 0.0, 0, 0, 0
    head: Experiment | None = None
    for item in history.decided:
        spent += item.seconds * GPUS / 3600
        runs += len(item.runs)
        if item.verdict is Verdict.KEEP:
            false += head is not None and truth(item) >= truth(head)
            head = item
        else:
            wasted += len(item.runs) - (item.verdict is Verdict.DISCARD)
        hours.append(spent)
        path.append(truth(head) if head is not None else world.base)
    kept = len(history.kept) - 1
    return Outcome(
        strategy=strategy, seed=seed, hours=tuple(hours), truths=tuple(path),
        experiments=len(path), runs=runs, keeps=kept, false_keeps=int(false), wasted=wasted,
        best_shown=history.best_metric or 0.0,
    )  # fmt: skip
