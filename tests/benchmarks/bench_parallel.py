"""How many experiments an hour come of runs side by side, and what our own part costs.

    python tests/benchmarks/bench_parallel.py [--parallel 1 2 4 8 16] [--rounds 3]

Runs are simulated: each takes ten minutes of a clock that skips what the loop would wait and counts
what it works, so that our own time is in the figures and an hour of runs takes a minute. The loop,
git and the log are real.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from attrs import define, field

import autoresearch
from autoresearch import History, Idea, hookimpl
from autoresearch.testing import make_project

sys.path.insert(0, str(Path(__file__).parents[1] / "kit"))
from simulated import Fast, Simulated

NAMES = [f"{part}_{kind}" for part in "ABCDEF" for kind in ("LR", "BETA", "WIDTH", "DECAY")]
SCRIPT = "".join(f"{name} = 1\n" for name in NAMES) + "print(1)\n"
SETTINGS = 'preset = "plain"\nlauncher = "simulated"\n[metric]\nname = "score"\nsd = 0.001\n'


class Endless:
    """Always has another idea: a value that no experiment has yet."""

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea:
        """Set one of the constants."""
        number = history.next_number
        name = NAMES[number % len(NAMES)]
        lines = [
            f"{name} = {number + 1}" if line.startswith(f"{name} =") else line
            for line in source.splitlines()
        ]
        said = f"{name} to {number + 1}"
        text = "\n".join(lines) + "\n"
        return Idea(direction=name.lower(), description=said, hypothesis=said, source=text)


@define
class Launches:
    """Measures the time from each decision to the next launch."""

    decided: float = 0.0
    taken: list[float] = field(factory=list)

    @hookimpl
    def event_recorded(self, event: autoresearch.Recorded) -> None:
        """Look at the real clock, which skips nothing."""
        if event.type == "decided":
            self.decided = time.perf_counter()
        elif event.type == "run_started" and self.decided:
            self.taken.append(time.perf_counter() - self.decided)
            self.decided = 0.0


def rate(parallel: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Return experiments an hour, and the median of our own seconds from a decision to a launch."""
    project = make_project(folder / f"p{parallel}", script=SCRIPT, settings=SETTINGS)
    clock, launches = Fast(), Launches()
    # Nothing is kept, so that no run has to be made again on a head that moved.
    launcher = Simulated(clock, lambda asked, _: 1.0 + bool(asked.experiment), lambda _: 600.0)
    plugins = (launcher, Endless(), launches, "no:script_ideas", "no:plateau", "no:dead_end")
    campaign = autoresearch.start(project, tag="bench", plugins=plugins)
    campaign.run(1, plugins=plugins, clock=clock)
    began = clock.now()
    campaign.run(parallel * rounds, plugins=plugins, clock=clock, parallel=parallel)
    hours = (clock.now() - began) / 3600
    runs = sum(len(item.runs) for item in campaign.history.experiments) - 1
    return runs / hours, statistics.median(launches.taken)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| in flight | runs an hour | times one | decision to next launch |\n|--:|--:|--:|--:|")
    first = None
    with tempfile.TemporaryDirectory(prefix="bench-parallel-") as folder:
        for count in options.parallel:
            found, own = rate(count, options.rounds, Path(folder))
            first = first or found / count
            print(f"| {count} | {found:.2f} | {found / first:.2f} | {own * 1000:.0f} ms |")


if __name__ == "__main__":
    main()
