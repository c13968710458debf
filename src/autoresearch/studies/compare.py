"""Holds strategies against each other over many worlds: true gain for GPU hours, with intervals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean

from attrs import field, frozen

from autoresearch import report
from autoresearch.errors import AutoresearchError
from autoresearch.studies.simulate import Outcome, campaign
from autoresearch.studies.worlds import Assumptions, Noise

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
    noise: Noise = Noise(),
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
    run = partial(_one, gpu_hours=gpu_hours, noise=noise, assumptions=assumptions)
    found: dict[str, list[Outcome]] = {name: [] for name in strategies}
    for done, outcome in enumerate(_all(run, work, jobs), 1):
        found[outcome.strategy].append(outcome)
        tick(f"{done} of {len(work)} campaigns")
    return Comparison(
        outcomes={name: tuple(many) for name, many in found.items()}, gpu_hours=gpu_hours
    )


def _one(
    asked: tuple[str, int], gpu_hours: float, noise: Noise, assumptions: Assumptions
) -> Outcome:
    name, seed = asked
    return campaign(name, seed, gpu_hours=gpu_hours, noise=noise, assumptions=assumptions)[0]


def _all(
    run: Callable[[tuple[str, int]], Outcome], work: Sequence[tuple[str, int]], jobs: int
) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, work)
        return
    with ProcessPoolExecutor(max_workers=min(jobs, os.cpu_count() or 1)) as pool:
        yield from pool.map(run, work)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean."""
    middle, count = mean(values), len(values)
    spread = math.sqrt(sum((v - middle) ** 2 for v in values) / max(count - 1, 1) / count)
    return middle - 1.96 * spread, middle + 1.96 * spread


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
