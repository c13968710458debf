"""Response surfaces with a hidden truth, from the effects that a knowledge file lists, and runs.

A world is a script of constants and the true score of every setting of them. Published effects are
the winners of many tries on other stacks, so each world draws how much of each holds in it. What is
measured and what is assumed stands in docs/strategies.md, constant by constant.

What stands in for runs and ideas in a world is here too: its launcher, which draws scores, and
chance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from attrs import define, evolve, frozen

from autoresearch.cycle.recorder import Clock
from autoresearch.durable import digest
from autoresearch.history import History, script_of
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas import Hyperparameter, families, hyperparameters
from autoresearch.ideas.catalogue import Known, known
from autoresearch.ideas.script import changed, new_texts
from autoresearch.model import (
    Idea,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Workspace,
)
from autoresearch.presets import presets

KNOWLEDGE = next(str(p.settings["knowledge"]) for p in presets().values() if p.settings)
LIMIT_BYTES = 16_000_000
RUN_SECONDS, GPUS = 600.0, 8

# Where the constants of a script stand that a knowledge file changes but does not state; any other
# begins at half of the value that it is changed to.
_STARTS: Mapping[str, float | int] = {
    "MATRIX_LR": 0.04, "SCALAR_LR": 0.04, "TIED_EMBED_LR": 0.05, "TIED_EMBED_INIT_STD": 0.005,
    "MUON_MOMENTUM": 0.95, "MUON_MOMENTUM_WARMUP_START": 0.85, "MUON_MOMENTUM_WARMUP_STEPS": 500,
    "BETA2": 0.95, "WARMDOWN_ITERS": 1200, "QK_GAIN_INIT": 1.5, "TRAIN_SEQ_LEN": 1024,
    "TRAIN_BATCH_TOKENS": 524_288, "GRAD_CLIP_NORM": 0.0, "MUON_BACKEND_STEPS": 5,
    "LOGIT_SOFTCAP": 30.0,
}  # fmt: skip
# Share of a published effect that holds on another stack: mean and spread (assumed).
_TRANSFER = {"isolated": (0.55, 0.3), "bundle": (0.3, 0.3), "claimed": (0.2, 0.3)}
_UNKNOWN_SD = 0.0015  # of an effect that nobody measured; honest steps were 0.0005 to 0.003
_EARLY_SHARE = (0.6, 0.6)  # of a gain that shows at the beginning of a run (assumed)
# The slope at the end, 0.035 for each ln of the steps, was measured; that it is a power is assumed.
_DESCENT, _DESCENT_POWER = 0.1, 0.35
_LEAST_LOSS = 0.004  # of what is known to fail, where no number is known


@frozen(kw_only=True)
class Noise:
    """Standard deviations of a score: of the seed, of the machine, of the drift between runs.

    Measured on public logs of 8 H100: seeds 0.0006 (median of 353 groups), the same code on other
    nodes 0.0004 beyond that. The drift, slow and shared by neighbouring runs, is assumed.
    """

    seed: float = 0.0006
    machine: float = 0.0004
    drift: float = 0.0002

    @property
    def sd(self) -> float:
        """The standard deviation of one run."""
        return math.hypot(self.seed, self.machine, self.drift)


@frozen(kw_only=True)
class Assumptions:
    """What may be otherwise: factors on noise and effects, interactions, where returns end."""

    noise: float = 1.0
    effects: float = 1.0
    interactions: float = 1.0
    most: float = 0.12
    crash: float = 0.06


@frozen(kw_only=True)
class Part:
    """One constant: its true gain at its optimum, positive is better, and what it weighs.

    A switch (``best`` is None) gains when it is on. Of a number the gain falls off with the square
    of the distance to ``best`` on the scale of its family; ``start`` stands for no gain.
    """

    name: str
    area: str
    start: float | int | bool
    gain: float
    best: float | None = None
    weight: int = 0
    crashes: bool = False


@frozen(kw_only=True)
class World:
    """A surface: constants, interactions, where returns diminish; lower scores are better."""

    seed: int
    parts: Mapping[str, Part]
    pairs: Mapping[tuple[str, str], float]
    assumptions: Assumptions
    base: float = 1.2244
    bytes: int = 15_400_000

    @property
    def script(self) -> str:
        """The script of the baseline: one constant a line."""
        lines = [f"{part.name} = {part.start!r}\n" for part in self.parts.values()]
        return '"""A script whose score a simulated launcher knows."""\n\n' + "".join(lines)

    def gains(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the gain of each constant that differs from its start, alone."""
        found = {}
        for name, part in self.parts.items():
            value = values.get(name, part.start)
            if value != part.start:
                found[name] = part.gain if part.best is None else _bowl(part, float(value))
        return found

    def truth(self, values: Mapping[str, float]) -> float:
        """Return the true score: the mean over all seeds, machines and days."""
        gains = self.gains(values)
        total = sum(gains.values())
        for (one, other), share in self.pairs.items():
            if gains.get(one, 0) > 0 and gains.get(other, 0) > 0:
                total -= self.assumptions.interactions * share * min(gains[one], gains[other])
        most = self.assumptions.most
        return self.base - (most * math.tanh(total / most) if total > 0 else total)

    def seen(self, values: Mapping[str, float], done: float) -> float:
        """Return the mean score after a share of a run: less trained, and biased for each change.

        At its beginning a run shows of each gain a share of its own, which may be none, or a loss.
        """
        final = self.truth(values)
        if done >= 1:
            return final
        gains = self.gains(values)
        hidden = sum(gain * (1 - Random(f"{self.seed}/early/{name}").gauss(*_EARLY_SHARE))
                     for name, gain in gains.items())  # fmt: skip
        total = sum(gains.values())
        held = (self.base - final) / total if total > 0 else 1.0  # where returns diminish
        ahead = _DESCENT * (float(done**-_DESCENT_POWER) - 1)
        return final + (1 - done) * held * hidden + ahead

    def size(self, values: Mapping[str, float]) -> int:
        """Return the bytes of the artifact."""
        on = [part for name, part in self.parts.items() if values.get(name, part.start)]
        grown = sum(part.weight for part in on if part.best is None)
        return self.bytes + grown

    def crashes(self, values: Mapping[str, float]) -> bool:
        """Whether a run of this setting fails."""
        return any(self.parts[name].crashes for name in self.gains(values))


def _bowl(part: Part, value: float) -> float:
    assert part.best is not None
    place = families.family(_parameter(part.name, part.start)).place
    start, best, here = place(float(part.start)), place(part.best), place(value)
    width = abs(best - start) or 1.0
    lost = min(((here - best) / width) ** 2, 6.0)
    # With a gain of 0 or less the start is the optimum and every move away costs.
    if part.gain <= 0:
        return -abs(part.gain) * min(((here - start) / width) ** 2, 6.0)
    return part.gain * (1 - lost)


def _parameter(name: str, start: float | int | bool) -> Hyperparameter:
    return hyperparameters(f"{name} = {start!r}\n")[0]


def world(seed: int, assumptions: Assumptions = Assumptions(), knowledge: str = KNOWLEDGE) -> World:
    """Draw a world; equal seeds draw equal ones."""
    rng = Random(f"world/{seed}")
    parts: dict[str, Part] = {}
    for row in known(knowledge):
        if row.verdict != "illegal":
            for part in _parts(row, rng, assumptions):
                parts.setdefault(part.name, part)
    names = list(parts)
    pairs = {
        (one, other): rng.uniform(0.2, 0.8)
        for index, one in enumerate(names)
        for other in names[index + 1 :]
        if parts[one].area == parts[other].area and rng.random() < 0.5
    }
    for _ in range(8):  # some things help each other
        one, other = sorted(rng.sample(range(len(names)), 2))
        pairs[names[one], names[other]] = -rng.uniform(0.2, 0.6)
    return World(seed=seed, parts=parts, pairs=pairs, assumptions=assumptions)


def _parts(row: Known, rng: Random, told: Assumptions) -> Iterator[Part]:
    gain = told.effects * _true_gain(row, rng)
    crashes = rng.random() < told.crash
    if not row.settings:
        weight = rng.choice((-300_000, 0, 0, 40_000, 150_000))
        yield Part(
            name=_constant(row.key), area=row.area, start=False, gain=gain, weight=weight,
            crashes=crashes,
        )  # fmt: skip
        return
    shares = [rng.uniform(0.5, 1.5) for _ in row.settings]
    for item, share in zip(row.settings, shares, strict=True):
        start = _STARTS.get(item.name, (item.value or 1.0) / 2)
        moved = item.applied(float(start)) or 1.0
        yield Part(
            name=item.name, area=row.area, start=start, gain=gain * share / sum(shares),
            best=_beyond(item.name, start, moved, rng),
        )  # fmt: skip


def _beyond(name: str, start: float | int | bool, moved: float, rng: Random) -> float:
    """Return the optimum: about as far from the start as the published value, on its scale."""
    scale = families.family(_parameter(name, start))
    if scale.place is families.same or not start:
        return float(start) + (moved - float(start)) * rng.uniform(0.6, 1.6)
    distance = scale.place(moved) - scale.place(float(start))
    far = scale.place(float(start)) + distance * rng.uniform(0.6, 1.6)
    return 1 - math.exp(-far) if scale.place is families.distance_to_one else math.exp(far)


def _true_gain(row: Known, rng: Random) -> float:
    if row.verdict == "fails":
        return -max(abs(row.effect or 0.0), _LEAST_LOSS) * rng.uniform(0.5, 1.2)
    if row.effect is None or row.verdict in ("unknown", "neutral"):
        return rng.gauss(0.0, _UNKNOWN_SD)
    mean, spread = _TRANSFER.get(row.measured, (0.2, 0.3))
    return abs(row.effect) * rng.gauss(mean, spread)


def _constant(key: str) -> str:
    return f"USE_{key.upper()}"


def knowledge_of(rows: Sequence[Known], path: Path) -> Path:
    """Write the knowledge for a world's script: rows without settings get their switch."""
    lines = ["key,area,direction,verdict,effect,measured,changes,note,source"]
    for row in (row for row in rows if row.verdict != "illegal"):
        moves = (
            f"{item.name}*{item.factor!r}" if item.factor is not None else
            f"{item.name}={item.value!r}" for item in row.settings
        )  # fmt: skip
        changes = " ".join(moves) or f"{_constant(row.key)}=1"
        effect = "" if row.effect is None else repr(row.effect)
        cells = (row.key, row.area, row.direction, row.verdict, effect, row.measured, changes)
        lines.append(",".join(f'"{cell}"' for cell in (*cells, "as published", "knowledge")))
    path.write_text("\n".join((*lines, "")), encoding="utf-8")
    return path


_LINE = re.compile(r"^(\w+) = (.+)$", re.MULTILINE)


def values_in(script: str) -> dict[str, float]:
    """Return the constants of a script of :attr:`World.script`'s form."""
    found = {}
    for name, text in _LINE.findall(script):
        found[name] = float(text == "True") if text in ("True", "False") else float(text)
    return found


def early_noise(done: float) -> float:
    """Return how much more scores differ after a share of a run than at its end (assumed)."""
    return math.hypot(1, 1 - done)


def measured(
    made: World, noise: Noise, mean: float, run: str, index: int, done: float = 1.0
) -> float:
    """Return what one run shows: the mean, and the luck of its seed, its machine and its day.

    After a share of it that is ``done`` there is more luck, which the rest of the run makes up for.
    """
    rng = Random(digest(f"{made.seed}/{run}"))
    factor = made.assumptions.noise
    day = Random(f"{made.seed}/drift")
    phase, period = day.uniform(0, 2 * math.pi), day.uniform(25, 60)
    drift = noise.drift * math.sqrt(2) * math.sin(phase + 2 * math.pi * index / period)
    luck = rng.gauss(0, noise.seed) + rng.gauss(0, noise.machine) + drift
    luck += (1 - done) * Random(f"{made.seed}/{run}/{done:.3f}").gauss(0, noise.sd)
    return mean + factor * luck


# --- what stands in for runs and ideas in a world ---------------------------------------------

METRIC = "score"
STEPS, _EVALUATIONS = 20_000, 20  # of a run with a curve
_PACE = 100.0  # simulated seconds in one that somebody waits


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
        self.world: World = world
        self.noise: Noise = noise
        self._clock, self._curves = clock, curves
        self._drawn: dict[str, _Drawn] = {}

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Draw the score of a run, once for every name."""
        if request.launcher != "simulated":
            return None
        if request.name not in self._drawn:
            text = workspace.script_path.read_text(encoding="utf-8")
            self._drawn[request.name] = self._draw(request, values_in(text))
        return self._drawn[request.name]

    def _draw(self, request: RunRequest, values: Mapping[str, float]) -> _Drawn:
        crashed, count = self.world.crashes(values), len(self._drawn)
        share = float(request.env.get("SHARE", 1.0))
        seconds = RUN_SECONDS * share / (5 if crashed else 1)

        def score(done: float) -> float:
            mean = self.world.seen(values, done)
            return measured(self.world, self.noise, mean, request.name, count, done)

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
        script = script_of(history)
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
            change = changed(item, new)
            if texts := new_texts({script: source}, [change], history):
                return Idea(
                    direction=item.name.lower(),
                    description=str(change),
                    hypothesis="chance chose it",
                    changes=(change,),
                    source=texts[script],
                )
        return None
