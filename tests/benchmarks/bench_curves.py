"""How often `curves` stops a run that would have won, and what it saves, on real training logs.

    python tests/benchmarks/bench_curves.py FOLDER... [--metric val_bpb]

Every log that has the metric at three steps or more after the first is a finished run; the last
value is its score. Each ordered pair is a run against a best, and the others are what is known. The
scripts differ in everything, so this is harder than a campaign whose experiments change a line.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from autoresearch import History, Run
from autoresearch.numbers import Tail
from autoresearch.policies.curves import Settings, caught_up, loses


def run_of(path: Path, metric: str) -> Run | None:
    """Return a log as a run, None where it has too few points."""
    tail = Tail(path, metric)
    tail.finish()
    seen = {point.step: point.value for point in tail.take() if point.name == metric}
    seen.pop(0, None)
    if len(seen) < 3:
        return None
    score = {metric: tail.numbers[metric]}
    return Run(index=0, name=str(path), seed=0, observed=seen, metrics=score)


def stopped_at(run: Run, best: Run, known: Sequence[Run], past: History, sure: float) -> int | None:
    """Return the step at which a run would have been stopped, None where it ran to its end."""
    for step in sorted(run.observed.keys() & best.observed.keys()):
        caught = caught_up(step, best, known, past)
        lost = past.gain(best.observed[step], run.observed[step])
        if len(caught) >= Settings().curves and loses(lost, caught) >= sure:
            return step
    return None


def main() -> None:
    """Print a row for each confidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--metric", default="val_bpb")
    given = parser.parse_args()
    past = History(metric=given.metric)
    paths = sorted(path for folder in given.folders for path in folder.rglob("*.*"))
    logs = (run_of(path, given.metric) for path in paths if path.suffix in (".log", ".txt"))
    runs = [run for run in logs if run is not None]
    pairs = [(run, best, past.better(run.metrics[past.metric], best.metrics[past.metric]))
             for run, best in permutations(runs, 2)]  # fmt: skip
    won = sum(wins for _, _, wins in pairs)
    print(f"{len(runs)} curves, {len(pairs)} pairs; in {won} of them the run beats the best\n")
    print("| confidence | winners stopped | losers stopped | steps of losers saved |")
    print("|---|---|---|---|")
    for sure in (0.9, 0.95, 0.99, 0.995):
        wrong = right = saved = steps = 0
        for run, best, wins in pairs:
            known = [item for item in runs if item is not run]
            at, last = stopped_at(run, best, known, past, sure), max(run.observed)
            wrong += wins and at is not None
            right += not wins and at is not None
            steps += 0 if wins else last
            saved += 0 if wins or at is None else last - at
        print(f"| {sure:g} | {wrong} of {won} | {right} of {len(pairs) - won} | "
              f"{saved / steps:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
