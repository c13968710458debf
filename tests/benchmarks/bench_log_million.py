"""What a long log costs: opening it, syncing one event, rebuilding, asking; time and memory.

    python tests/benchmarks/bench_log_million.py [--events 1000000] [--folder DIR]

Every step runs in a process of its own. The table has its time, the time that its processor cores
spent on it (which other work on the machine lengthens less), and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autoresearch import events
from autoresearch.log import FileLog
from autoresearch.projections import remembered_history
from autoresearch.projections.tables import open_store

TAG = "long"
QUESTIONS = (
    "SELECT experiment, status, val_bpb FROM experiments ORDER BY experiment",
    "SELECT direction, count(*) AS tried, count(*) FILTER (status = 'keep') AS kept "
    "FROM experiments GROUP BY direction ORDER BY kept DESC, tried DESC",
    "SELECT campaign, sum(usd) AS usd, sum(gpu_seconds) / 3600 AS gpu_hours FROM costs GROUP BY 1",
)


def experiment(n: int) -> Iterator[events.Event]:
    """Yield the sixteen facts of one experiment."""
    run = f"{TAG}-{n}-0"
    score = 1.3 - n / 1e6
    yield events.MemoryReviewed(
        experiment=n, read_to=16 * n, results_digest="a" * 64, notes_digest="b" * 64
    )
    yield events.IdeaProposed(
        experiment=n,
        idea=f"{n:012x}",
        direction=f"direction {n % 40}",
        description=f"set the learning rate to {n}",
        hypothesis="a sentence or two that say what is expected and why it may help",
        author="catalogue",
        predicted=score,
    )
    yield events.ReasoningRecorded(
        experiment=n, hypothesis="h" * 60, evidence="e" * 60, risk="none known"
    )
    yield events.ChangeApplied(
        experiment=n, source_digest=f"{n:064x}", parent_digest=f"{n + 1:064x}", added_lines=1
    )
    yield events.AuditPassed(experiment=n)
    yield events.CommitMade(experiment=n, commit=f"{n:040x}", parent=f"{n + 1:040x}", ref="r")
    yield events.RunRequested(
        experiment=n,
        run=run,
        index=0,
        seed=1337,
        launcher="local",
        command=("python", "train.py"),
        timeout_seconds=900,
    )
    yield events.RunStarted(experiment=n, run=run, reference="pid 1")
    for step in range(3):
        yield events.MetricObserved(
            experiment=n, run=run, name="train_loss", value=3 - step / 10, step=100 * step
        )
    yield events.RunFinished(experiment=n, run=run, status="completed", seconds=600.5)
    yield events.MetricsExtracted(
        experiment=n, run=run, metrics={"val_bpb": score, "artifact_bytes": 15e6 + n}
    )
    yield events.CostIncurred(kind="run", source="local", experiment=n, gpu_seconds=4800, usd=2.5)
    yield events.AnalysisRecorded(
        experiment=n, result="r" * 40, versus_expected="same", why="w" * 60, lesson="l" * 60
    )
    yield events.Decided(
        experiment=n,
        verdict="discard" if n % 9 else "keep",
        reason="what the policy found",
        author="evidence",
        metric=score,
    )


def write(log: FileLog, count: int) -> int:
    """Append the events of a campaign in batches of an experiment hundred."""
    started = events.CampaignStarted(
        tag=TAG,
        branch=f"autoresearch/{TAG}",
        base_commit="0" * 40,
        script="train.py",
        script_digest="0" * 64,
        metric="val_bpb",
        better="lower",
        config={"metric": {"size": "artifact_bytes"}},
        plugins={},
        environment={},
    )
    with log.writer(TAG) as writer:
        writer.append(started)
        for first in range(0, count // 16, 100):
            batch = range(first, min(first + 100, count // 16))
            writer.append_many(event for n in batch for event in experiment(n))
    return count


def syncs(log: FileLog, _: int) -> list[list[float]]:
    """Append one event and sync it, twenty times."""
    times = []
    with log.writer(TAG, "notes") as writer:
        for n in range(20):
            writer.append(events.NoteAdded(text=str(n), author="bench"))
            times.append(timed(log.sync))
    return [list(map(statistics.median, zip(*times, strict=True)))]


def questions(log: FileLog, _: int) -> list[list[float]]:
    """Ask each documented question five times on one connection."""
    medians = []
    with log.connect() as connection:
        for question in QUESTIONS:
            times = [timed(lambda q=question: connection.execute(q).fetchall()) for _ in range(5)]
            medians.append(list(map(statistics.median, zip(*times, strict=True))))
    return medians


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds and the processor seconds that something takes."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


STEPS: dict[str, Callable[[FileLog, int], object]] = {
    "append in batches": write,
    "order for the first time": lambda log, _: log.tip().position,
    "rebuild with verification": lambda log, _: log.rebuild().events,
    "History, first time": lambda log, _: remembered_history(log, TAG).position,
    "History, with a snapshot": lambda log, _: remembered_history(log, TAG).position,
    "sync one event": syncs,
    "connect": lambda log, _: log.connect().close(),
    "three questions": questions,
    "read all": lambda log, _: sum(1 for _ in log.read()),
    "verify": lambda log, _: log.verify().ok,
}

PER_EVENT = {*STEPS} - {"History, with a snapshot", "connect"}


def row(name: str, times: list[float], answer: object, megabytes: float, count: int) -> str:
    """Return one line of the table."""
    seconds, busy = times
    if isinstance(answer, list):
        cells = [" · ".join(f"{1000 * pair[k]:,.0f} ms" for pair in answer) for k in (0, 1)]
    elif name in PER_EVENT:
        cells = [f"{value:,.1f} s ({count / value:,.0f} events/s)" for value in (seconds, busy)]
    else:
        cells = [f"{seconds:.2f} s", f"{busy:.2f} s"]
    return f"| {name} | {cells[0]} | {cells[1]} | {megabytes:,.0f} MB |"


def main() -> None:
    """Run every step in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--step")
    options = parser.parse_args()
    if options.step:
        answers: list[object] = []
        log = open_store(options.folder)
        times = timed(lambda: answers.append(STEPS[options.step](log, options.events)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([times, answers[0], peak]))
        return
    with tempfile.TemporaryDirectory(prefix="bench-log-", dir=options.folder) as folder:
        print("| step | time | processor time | peak memory |\n|---|---:|---:|---:|", flush=True)
        for name in STEPS:
            command = [sys.executable, __file__, "--step", name, "--folder", folder]
            command += ["--events", str(options.events)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(row(name, *json.loads(done.stdout), options.events), flush=True)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.stat().st_size > 1_000_000:
                print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
