"""What autoresearch itself costs, for each experiment and each verb, as a campaign grows.

    python tests/benchmarks/bench_cost.py [--sizes 10 100 1000] [--measured 40] [--folder DIR]
    python tests/benchmarks/bench_cost.py --simulated evidence+search --sizes 100 1000 10000

A campaign of each size is written into a fresh project (facts, sources and commits as the loop
leaves them), and the real loop goes on from there with a launcher whose runs are over at once, so
that everything measured is our own. Experiments are means, since not all of them sync the tables,
and verbs are medians; CPU is less disturbed by other work on the machine than time is. "Own" is
this process, "git" the git processes that it starts.

With ``--simulated`` one simulated campaign of that strategy grows through all sizes instead: what
loop, fold, files and strategy cost without disk and git, over the last experiments before each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autoresearch
from autoresearch import events
from autoresearch.hookspecs import hookimpl
from autoresearch.studies.simulate import campaign
from autoresearch.testing import FakeLauncher, make_project

TAG = "cost"
NAMES = [f"{part}_{kind}" for part in ["EMBED", "HEAD", "MATRIX", "SCALAR", "GATE"]
         for kind in ["LR", "BETA", "WIDTH", "DEPTH", "DECAY", "INIT"]]  # fmt: skip
SETTINGS = """preset = "plain"
script = "train.py"
launcher = "fake"
[metric]
name = "score"
better = "lower"
sd = 0.001
"""
VERBS = {
    "status": ("status",),
    "show": ("show", "5"),
    "sql": ("sql", "select status, count(*) from experiments group by 1"),
    "watch": ("watch", "--once"),
    "report": ("report", "--out", "{folder}/report.html"),
}


def script(values: dict[str, float]) -> str:
    """Return a training script that has these constants."""
    return "".join(f"{name} = {value!r}\n" for name, value in values.items()) + "print(1)\n"


class Meter:
    """Reads all counters at every decision."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, ...]] = []
        self.processes, self.decided = 0, 0.0
        self.waits: list[float] = []  # from each decision to the next launch
        sys.addaudithook(self._started)

    def _started(self, name: str, _: Any) -> None:
        self.processes += name == "subprocess.Popen"

    @hookimpl
    def event_recorded(self, event: autoresearch.Recorded) -> None:
        """Take a reading between two experiments."""
        if event.type == "run_started" and self.decided:
            self.waits.append(time.perf_counter() - self.decided)
        if event.type == "decided":
            spent = os.times()
            own, git = spent.user + spent.system, spent.children_user + spent.children_system
            told = Path("/proc/self/io").read_text().split()
            written = float(told[told.index("wchar:") + 1])
            self.decided = time.perf_counter()
            self.readings.append((time.perf_counter(), own, git, self.processes, written))

    def means(self) -> list[float]:
        """Return what an experiment took: seconds, own CPU, git CPU, processes, bytes."""
        _, first, *_, last = self.readings
        return [(b - a) / (len(self.readings) - 2) for a, b in zip(first, last, strict=True)]


def facts(
    n: int, parent: str, commit: str, change: str, sources: list[str]
) -> Iterator[events.Event]:
    """Yield what the loop records of an experiment, in its order."""
    words = change.split()
    run, name = f"{TAG}-{n}-0", words[0].lower()
    said = f"{change} scored better before, and what is near it may do so again; " * 2
    yield events.MemoryReviewed(
        experiment=n, read_to=0, results_digest="a" * 64, notes_digest="b" * 64
    )
    yield events.IdeaProposed(
        experiment=n, idea=f"{n:012x}", direction=name, description=change, hypothesis=said,
        author="script_ideas", cites=(0,), source_digest=sources[1],
        sources={"train.py": sources[1]}, changes=({"name": words[0], "old": float(words[1]),
        "new": float(words[3]), "file": ""},),
    )  # fmt: skip
    yield events.ReasoningRecorded(
        experiment=n, hypothesis=said, evidence=said, risk="none known", cites=(0,)
    )
    yield events.ChangeApplied(
        experiment=n, source_digest=sources[1], parent_digest=sources[0], files=("train.py",),
        added_lines=1, removed_lines=1, sources={"train.py": sources[1]},
    )  # fmt: skip
    yield events.AuditPassed(experiment=n)
    yield events.CommitMade(experiment=n, commit=commit, parent=parent, ref=ref(n))
    yield events.RunRequested(
        experiment=n, run=run, index=0, seed=1337, launcher="fake", command=("python", "train.py"),
        timeout_seconds=900.0, script_digest=sources[1],
    )  # fmt: skip
    yield events.RunStarted(experiment=n, run=run, reference="fake")
    yield events.CostIncurred(kind="run", source="fake", experiment=n, seconds=1.0)
    yield events.RunFinished(experiment=n, run=run, status="completed", exit_code=0, seconds=1.0)
    score = 1.0 - n / 1e5 if n % 10 == 0 else 1.1 + n / 1e5
    yield events.MetricsExtracted(experiment=n, run=run, metrics={"score": score})
    yield events.AnalysisRecorded(
        experiment=n, result=f"score={score:.4f}", versus_expected=said, why=said, lesson=said
    )
    yield events.LessonLearned(experiment=n, direction=name, lesson=said)
    yield events.Decided(
        experiment=n, verdict="discard" if n % 10 else "keep", reason=said, author="evidence",
        metric=score, delta=0.1 if n % 10 else -0.0001,
    )  # fmt: skip


def ref(n: int) -> str:
    """Return the name of an experiment's ref."""
    return f"refs/autoresearch/{TAG}/{n}"


def fill(campaign: autoresearch.Campaign, count: int) -> None:
    """Write experiments up to ``count`` behind the baseline: commits, sources and facts."""
    values = {name: 1.0 + index for index, name in enumerate(NAMES)}
    base = campaign.history.experiments[0].commit
    head, text = base, script(values)
    made: list[tuple[str, str, list[str]]] = []
    wanted: list[str] = []
    for n in range(1, count + 1):
        name = NAMES[n % len(NAMES)]
        old, new = values[name], values[name] + round(n / 1e4, 4)
        changed = script({**values, name: new})
        parent = f":{head}" if isinstance(head, int) else head
        wanted.append(
            f"commit {ref(n)}\nmark :{n}\ncommitter a <a@b> 1700000000 +0000\ndata 1\n{n % 10}\n"
            f"from {parent}\nM 100644 inline train.py\ndata {len(changed)}\n{changed}\n"
        )
        sources = [campaign.log.sources.put(item) for item in (text, changed)]
        made.append((parent, f"{name} {old} -> {new}", sources))
        if n % 10 == 0:
            values, text, head = {**values, name: new}, changed, n
    lab = campaign.lab.folder / "lab"
    marks = lab / "marks"
    git = ("git", "-C", str(lab), "fast-import", "--quiet", f"--export-marks={marks}")
    subprocess.run(git, input="".join(wanted), text=True, check=True)
    commits = dict(line.split() for line in marks.read_text().splitlines())
    commits[base] = base
    with campaign.log.writer(TAG) as writer:
        for n, (parent, change, sources) in enumerate(made, 1):
            told = facts(n, commits[parent], commits[f":{n}"], change, sources)
            for fact in told:
                writer.append(fact)
                campaign.log.tip()  # as the loop does: every event gets its place at once
    campaign.lab.publish()


def measure(count: int, measured: int, folder: Path) -> dict[str, list[float]]:
    """Return what an experiment costs after ``count`` of them, and what the verbs cost then."""
    values = {name: 1.0 + index for index, name in enumerate(NAMES)}
    project = make_project(folder / "project", script=script(values), settings=SETTINGS)
    meter = Meter()
    plugins = (FakeLauncher([1.2]), meter)
    campaign = autoresearch.start(project, tag=TAG, plugins=plugins)
    campaign.run(1, plugins=plugins)
    fill(campaign, count)
    meter.readings.clear()
    meter.waits.clear()
    campaign.run(measured + 2, plugins=plugins, wait=False)
    found = {"experiment": meter.means(), "launch": [statistics.median(meter.waits)]}
    for verb, words in VERBS.items():
        command = [sys.executable, "-m", "autoresearch", *words, "--project", str(project)]
        command = [word.format(folder=folder) for word in command]
        found[verb] = list(map(statistics.median, zip(*map(timed, [command] * 5), strict=True)))
    found["notes.md"] = [(campaign.lab.folder / "notes.md").stat().st_size]
    found["report.html"] = [(folder / "report.html").stat().st_size]
    return found


def simulated(strategy: str, sizes: list[int], measured: int) -> Iterator[str]:
    """Yield a table of what an experiment costs as one simulated campaign grows."""
    meter = Meter()
    most, hours = max(sizes) + 1, 10.0 * max(sizes)
    _, history = campaign(strategy, 0, experiments=most, gpu_hours=hours, observers=[meter])
    told = len(history.decided)
    yield "| experiments | own CPU per experiment | kept so far |"
    yield "|---:|---:|---:|"
    decided = meter.readings
    for size in (size for size in sizes if size < told):
        spent = decided[size][1] - decided[size - measured][1]
        kept = sum(item.number <= size for item in history.kept)
        yield f"| {size:,} | {spent / measured:.3f} s | {kept} |"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield f"{told:,} experiments in {decided[-1][1]:.0f} s of CPU; peak memory {peak:.0f} MB"


def timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a process."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    busy = after.children_user + after.children_system
    return time.perf_counter() - start, busy - before.children_user - before.children_system


def table(found: dict[int, dict[str, list[float]]]) -> Iterator[str]:
    """Yield the lines of the table, one column for each size."""
    yield "| what | " + " | ".join(f"{size:,} experiments" for size in found) + " |"
    yield "|---|" + "---:|" * len(found)
    rows = {
        "time per experiment": ("experiment", 0, "{:.3f} s"),
        "from a decision to the next launch": ("launch", 0, "{:.3f} s"),
        "own CPU per experiment": ("experiment", 1, "{:.3f} s"),
        "CPU of git per experiment": ("experiment", 2, "{:.3f} s"),
        "processes per experiment": ("experiment", 3, "{:.0f}"),
        "bytes written per experiment": ("experiment", 4, "{:,.0f}"),
        **{f"`{verb}`, CPU": (verb, 1, "{:.2f} s") for verb in VERBS},
        "size of notes.md": ("notes.md", 0, "{:,.0f} B"),
        "size of report.html": ("report.html", 0, "{:,.0f} B"),
    }
    for title, (part, index, shape) in rows.items():
        cells = (shape.format(found[size][part][index]) for size in found)
        yield f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure every size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1_000])
    parser.add_argument("--measured", type=int, default=40, help="experiments run at each size")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--simulated", help="strategy of one simulated campaign of all sizes")
    parser.add_argument("--step", type=int)
    options = parser.parse_args()
    if options.simulated:
        print("\n".join(simulated(options.simulated, options.sizes, options.measured)))
        return
    if options.step is not None:
        print(json.dumps(measure(options.step, options.measured, options.folder)))
        return
    found = {}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="bench-cost-", dir=options.folder) as folder:
            command = [sys.executable, __file__, "--step", str(size), "--folder", folder]
            command += ["--measured", str(options.measured)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[size] = json.loads(done.stdout.splitlines()[-1])
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
