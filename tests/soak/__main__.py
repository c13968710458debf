"""Runs a real campaign through one fault after another, and checks what must hold after each.

``python -m tests.soak --experiments 200 --faults all --seed 1``; faults by seam: ``kill,git``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Timer

from tests.soak.faults import FAULTS
from tests.soak.house import House

STUCK_SECONDS = 180.0
TOGETHER = 0.25  # the part of the faults during which the loop is killed as well
CALM = 5  # experiments at the end without any fault


def main(words: Sequence[str] | None = None) -> int:
    """Run the soak; the exit code is 1 when something that must hold did not."""
    # Started in the background by a shell, it would ignore Ctrl-C, and so would the loops.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = _parser()
    asked = parser.parse_args(words)
    seams = sorted({name.partition(":")[0] for name in FAULTS})
    if unknown := set(asked.faults.split(",")) - {*seams, "all"}:
        parser.error(f"there is no seam {sorted(unknown)[0]!r}; known: {', '.join(seams)}, all")
    names = [
        name
        for name in FAULTS
        if asked.faults == "all" or name.partition(":")[0] in asked.faults.split(",")
    ]
    with _place(asked.keep, 256 + asked.experiments // 5) as folder:
        house = House(folder / ("house" if asked.keep else "h"), parallel=asked.parallel)
        soak = Soak(house, asked, names)
        try:
            soak.run()
        except (KeyboardInterrupt, StuckError) as stopped:
            print(f"stopped: {stopped!r}")
        finally:
            soak.house.kill()
        return soak.report()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--experiments", type=int, default=50)
    parser.add_argument("--faults", default="all", help="seams, such as kill,git; or all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1, help="experiments under way at once")
    parser.add_argument("--check-every", type=int, default=5, help="faults between whole checks")
    parser.add_argument(
        "--lenient", action="store_true", help="a loop that ends with an error is started again"
    )
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    return parser


@contextmanager
def _place(keep: Path | None, megabytes: int) -> Iterator[Path]:
    """Give a small file system where one can be mounted, so that it can be full; else a folder."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name, "h")
        folder.mkdir()
        mounted = os.getuid() == 0 and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "soak", str(folder)],
            check=False,
            capture_output=True,
        ).returncode  # fmt: skip
        try:
            yield Path(name)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", str(folder)], check=False)


class StuckError(Exception):
    """The campaign does not go on."""


class Soak:
    """The schedule of faults, and the counts that the report is made of."""

    def __init__(self, house: House, asked: argparse.Namespace, names: list[str]) -> None:
        self.house, self.asked, self.names = house, asked, names
        self.chance = Random(asked.seed)
        self.done: Counter[str] = Counter()
        self.recovered: Counter[str] = Counter()
        self.began = time.monotonic()

    def run(self) -> None:
        """Let faults strike until all experiments but the calm ones are decided; then none."""
        house, until = self.house, self.asked.experiments
        self._reach(2, until)  # without a baseline there is nothing to lose
        turn: list[str] = []
        while house.decided() < until - CALM:
            if not turn:  # each kind as often as any other, in an order by chance
                turn = self.chance.sample(self.names, len(self.names))
            self._strike(turn.pop(), until)
        self._reach(until, until)
        house.check_end(until)

    def _strike(self, name: str, until: int) -> None:
        house, before = self.house, self.house.decided()
        house.go_on(until)
        time.sleep(self.chance.uniform(0.0, 2.5))
        house.measure()
        killed = not name.startswith("kill") and self.chance.random() < TOGETHER
        killer = Timer(self.chance.uniform(0.0, 1.5), house.strike_down)
        if killed:
            killer.start()
        FAULTS[name](house, self.chance)
        self.done[name] += 1
        if killed:
            killer.join()
            self.done["kill: SIGKILL within another fault"] += 1
        self._look(name, until)
        self._reach(min(before + 1, until), until, name)
        house.quick_check(name)
        if self.done.total() % self.asked.check_every == 0:
            house.check(name)
        print(
            f"{house.decided():5} decided, {len(house.violations)} violations: {name}", flush=True
        )

    def _look(self, name: str, until: int) -> None:
        """See whether the loop ended, count that, and start it again."""
        said = self.house.ended()
        if said is None:
            return
        if said:
            self.recovered[f"{name}: {said[:160]}"] += 1
            if not self.asked.lenient:
                self.house.add(name, f"the loop ended: {said}")
            time.sleep(0.3)
        if self.house.decided() < until:
            self.house.go_on(until)

    def _reach(self, number: int, until: int, name: str = "no fault") -> None:
        """Wait until so many experiments are decided."""
        house, deadline = self.house, time.monotonic() + STUCK_SECONDS
        house.go_on(until)
        while house.decided() < number or (number == until and house.child is not None):
            self._look(name, until)
            if time.monotonic() > deadline:
                said = house.said[-1000:]
                house.add(name, f"no verdict in {STUCK_SECONDS:g} s: {said}")
                raise StuckError(name)
            time.sleep(0.1)
            if int(time.monotonic()) % 5 == 0:
                house.measure()

    def report(self) -> int:
        """Print faults by kind, recoveries, violations, memory and open files."""
        house = self.house
        print(f"\n{house.decided()} experiments, {self.done.total()} faults, "
              f"seed {self.asked.seed}, {time.monotonic() - self.began:.0f} s")  # fmt: skip
        for title, counts in (
            ("faults", self.done),
            ("how the loop ended", house.endings),
            ("ended by an error of one line, and started again", self.recovered),
        ):
            print(f"\n{title}:")
            for name, count in sorted(counts.items()):
                print(f"{count:6}  {name}")
        if house.longest:
            first, last = house.longest[0], house.longest[-1]
            print(f"\nthe longest life of a loop, experiments {first[0]} to {last[0]}: "
                  f"memory {first[1]:.0f} to {last[1]:.0f} MB, "
                  f"open files {first[2]} to {last[2]}")  # fmt: skip
        print(f"\nviolations: {len(house.violations)}")
        for line in house.violations:
            print(f"  {line}")
        return 1 if house.violations else 0


if __name__ == "__main__":
    sys.exit(main())
