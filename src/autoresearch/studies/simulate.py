"""Runs whole campaigns in a world through the real loop, and holds strategies against each other.

Without git, disk and waiting. Everything is what a campaign is: hooks, protocol, events, History,
projections, policies. Only the hands are light: commits are digests in memory, a run is a draw from
the world, an hour is a number.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean, stdev

from attrs import field, frozen

from autoresearch import report
from autoresearch.config import (
    BoundaryConfig,
    Config,
    LimitsConfig,
    MetricConfig,
    StageConfig,
)
from autoresearch.cycle import Kit, beginning
from autoresearch.cycle.loop import Loop
from autoresearch.cycle.recorder import Patience, Recorder
from autoresearch.durable import digest
from autoresearch.errors import AutoresearchError
from autoresearch.folding import empty
from autoresearch.history import History
from autoresearch.ideas.catalogue import known
from autoresearch.log import MemoryLog, SourceStore
from autoresearch.model import Change, Experiment, Verdict, Workspace
from autoresearch.plugins import Plugins
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.studies import worlds
from autoresearch.studies.worlds import (
    GPUS,
    METRIC,
    Assumptions,
    Noise,
    RandomIdeas,
    SimulatedClock,
    SimulatedRuns,
    World,
)
from autoresearch.workspace import Lab

SCRIPT = "train.py"
SD = 0.00064  # what a campaign is told of the noise: the median of the seeds of public records
SHORT = 0.2  # of a run, is a run in the stage ``short``
_GENERATORS = ("script_ideas", "catalogue", "search", "openai")


@frozen(kw_only=True)
class LightLab(Lab):
    """A lab without git: a worktree is a folder with the script, a commit a digest in memory."""

    base: str
    commits: dict[str, str] = field(factory=dict)  # commit: text of the script
    stands: dict[Path, str] = field(factory=dict)  # worktree: commit

    runs_code = False

    def files_at(self, commit: str) -> Mapping[str, str]:
        return {self.script: self.commits[commit]}

    def worktree(self, number: int, commit: str) -> Workspace:
        made = self.workspace(number)
        made.path.mkdir(parents=True, exist_ok=True)
        made.script_path.write_text(self.commits[commit], encoding="utf-8")
        self.stands[made.path] = commit
        return made

    def changed_files(self, workspace: Workspace, since: str = "") -> Mapping[str, str | None]:
        now = workspace.script_path.read_text(encoding="utf-8")
        before = self.commits[since or self.stands[workspace.path]]
        return {} if now == before else {self.script: now}

    def commit(self, ref: str, workspace: Workspace, change: Change, message: str) -> str:
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
        shutil.rmtree(self.workspace(number).path, ignore_errors=True)

    def lend(self, workspace: Workspace, paths: Sequence[str]) -> None:
        """Do nothing: there is no data."""

    def written_in(self, workspace: Workspace) -> tuple[str, ...]:
        """Return nothing: a draw writes nothing."""
        return ()

    def take_planted(self) -> tuple[str, ...]:
        """Return nothing: no code runs."""
        return ()


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
            source = lab.commits[lab.base]
            writer.append(beginning(tag, config, lab.base, source, plugins.active))
            history = empty(tag)
            recorder = Recorder(log, writer, plugins, history, patience=Patience(clock, _silent))
            recorder.refresh()
            kit = Kit(
                config=config, plugins=plugins, recorder=recorder, lab=lab,
                sources=SourceStore(lab.folder), clock=clock, projections=(ResultsTsv(), NotesMd()),
                tell=_silent, tick=_silent,
            )  # fmt: skip
            Loop(kit=kit, target=experiments, wait=False).run()
            return kit.history
    finally:
        plugins.close()


def _silent(_: str) -> None:
    pass


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


# --- strategies against each other: true gain for GPU hours, with intervals ----------------------

_RESAMPLES = 400
_POINTS = 60  # of a curve over the budget


@frozen(kw_only=True)
class Row:
    """What one strategy comes to; every pair is a 95 % interval over the worlds.

    ``gain`` is the true gain of head at the end of the budget, ``hours`` the GPU hours after which
    the mean true gain reaches that of the reference at its end (None: not within the budget).
    ``false_keeps`` is the share of keeps that were truly no better, ``wasted`` that of all runs.
    ``inflation`` is by how much the best score flatters the truth.
    """

    strategy: str
    worlds: int
    experiments: float
    gain: float
    gain_interval: tuple[float, float]
    hours: float | None
    hours_interval: tuple[float, float]
    keeps: float
    false_keeps: float
    false_interval: tuple[float, float]
    wasted: float
    inflation: float


@frozen(kw_only=True)
class Comparison:
    """All campaigns of a comparison; the first strategy is the reference."""

    outcomes: Mapping[str, tuple[Outcome, ...]] = field(repr=False)
    gpu_hours: float

    def rows(self) -> Iterator[Row]:
        """Yield a row for each strategy."""
        reference = next(iter(self.outcomes.values()))
        for name, many in self.outcomes.items():
            yield self._row(name, many, reference)

    def curve(self, many: Sequence[Outcome]) -> list[tuple[float, float]]:
        """Return (GPU hours, mean true gain) over the budget."""
        grid = [self.gpu_hours * n / _POINTS for n in range(_POINTS + 1)]
        return [(hours, mean(one.at(hours) for one in many)) for hours in grid]

    def _row(self, name: str, many: Sequence[Outcome], reference: Sequence[Outcome]) -> Row:
        rng = Random("intervals")
        ends = [one.at(self.gpu_hours) for one in many]
        table = {id(one): [gain for _, gain in self.curve([one])] for one in (*many, *reference)}
        order = range(len(many))
        hours = []
        for _ in range(_RESAMPLES):  # worlds are drawn for both alike: they met the same ones
            drawn = [rng.choice(order) for _ in order]
            hours.append(
                self._hours([table[id(many[i])] for i in drawn],
                            [table[id(reference[i])] for i in drawn])
            )  # fmt: skip
        keeps, false = sum(o.keeps for o in many), sum(o.false_keeps for o in many)
        runs = sum(one.runs for one in many)
        return Row(
            strategy=name, worlds=len(many), experiments=mean(o.experiments for o in many),
            gain=mean(ends), gain_interval=_interval(ends),
            hours=self._hours([table[id(o)] for o in many], [table[id(o)] for o in reference]),
            hours_interval=_middle([math.inf if h is None else h for h in hours]),
            keeps=keeps / len(many), false_keeps=false / max(keeps, 1),
            false_interval=wilson(false, keeps), wasted=sum(o.wasted for o in many) / max(runs, 1),
            inflation=mean(o.truths[-1] - o.best_shown for o in many),
        )  # fmt: skip

    def _hours(
        self, curves: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]
    ) -> float | None:
        target = mean(curve[-1] for curve in reference)
        for index in range(_POINTS + 1):
            if mean(curve[index] for curve in curves) >= target:
                return self.gpu_hours * index / _POINTS
        return None


def compare(
    strategies: Sequence[str],
    seeds: int,
    *,
    gpu_hours: float = 100.0,
    assumptions: Assumptions = Assumptions(),
    jobs: int = 1,
    tick: Callable[[str], None] = lambda _: None,
    first: int = 0,
) -> Comparison:
    """Run every strategy in the same worlds and return all that came out.

    ``first`` is the first world, ``jobs`` processes share the work. Raises AutoresearchError for a
    strategy that cannot run.
    """
    if len(set(strategies)) < len(strategies) or not strategies:
        raise AutoresearchError("name each strategy once, the reference first")
    work = [(name, seed) for seed in range(first, first + seeds) for name in strategies]
    run = partial(_one, gpu_hours=gpu_hours, assumptions=assumptions)
    found: dict[str, list[Outcome]] = {name: [] for name in strategies}
    for done, outcome in enumerate(_all(run, work, jobs), 1):
        found[outcome.strategy].append(outcome)
        tick(f"{done} of {len(work)} campaigns")
    return Comparison(outcomes={k: tuple(many) for k, many in found.items()}, gpu_hours=gpu_hours)


def _one(asked: tuple[str, int], gpu_hours: float, assumptions: Assumptions) -> Outcome:
    return campaign(*asked, gpu_hours=gpu_hours, assumptions=assumptions)[0]


def _all(
    run: Callable[[tuple[str, int]], Outcome], work: Sequence[tuple[str, int]], jobs: int
) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, work)
    else:
        with ProcessPoolExecutor(max_workers=min(jobs, os.cpu_count() or 1)) as pool:
            yield from pool.map(run, work)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean."""
    half = 1.96 * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return mean(values) - half, mean(values) + half


def _middle(values: Iterable[float]) -> tuple[float, float]:
    """Return what 95 % of resampled values lie between."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    share, z2 = hits / count, 1.96**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / 4 / count**2)
    return max(0.0, middle - half), min(1.0, middle + half)


def draw(made: Comparison, path: Path) -> None:
    """Write a PNG of the true gain over the GPU hours; needs the extra ``report``."""
    figure, axes = report.empty_figure()
    for name, many in made.outcomes.items():
        curve = made.curve(many)
        hours = [spent for spent, _ in curve]
        (line,) = axes.plot(hours, [gain for _, gain in curve], label=name)
        bands = [_interval([one.at(spent) for one in many]) for spent in hours]
        low, high = zip(*bands, strict=True)
        axes.fill_between(hours, low, high, color=line.get_color(), alpha=0.15)
    axes.set_xlabel("GPU hours")
    axes.set_ylabel("true gain of head, mean and 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    report.draw(figure, path)
