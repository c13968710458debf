"""Durable actions per second, side by side: the limit of the disk, this log, and what people use.

    python -m pip install -e '.[bench]'
    python tests/benchmarks/bench_log.py [--trials 500] [--slice 20] [--folder DIR]

One trial is five durable actions: start, two parameters, one metric, finish. Every store runs with
its own default settings (sqlite3 in WAL mode with synchronous=FULL) on the same disk. The stores
take turns, a slice of trials each, so that whatever else the machine does hits all of them alike;
the table shows the medians over the slices. Tools that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

Action = Callable[[int], None]
ACTIONS = 5


def raw(folder: Path, worker: int) -> Action:
    """The limit: the same bytes as this log writes, one write and one fdatasync each."""
    lines = [line for line in _lines() if line]
    handle = os.open(folder / f"raw-{worker}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def trial(_: int) -> None:
        for line in lines:
            os.write(handle, line)
            os.fdatasync(handle)

    return trial


def autoresearch(folder: Path, worker: int) -> Action:
    """This log, one stream for each worker."""
    from autoresearch.log import open_log

    writer = open_log(folder / "store").writer("bench", f"worker-{worker}")

    def trial(number: int) -> None:
        for event in _events(number, worker):
            writer.append(event)

    return trial


def sqlite(folder: Path, worker: int) -> Action:
    """sqlite3 of the standard library, one row and one commit for each action."""
    connection = sqlite3.connect(folder / "events.sqlite", timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, stream TEXT, payload TEXT)"
    )
    from autoresearch.codec import encode

    def trial(number: int) -> None:
        for event in _events(number, worker):
            row = (f"worker-{worker}", encode(event))
            connection.execute("INSERT INTO events (stream, payload) VALUES (?, ?)", row)

    return trial


def eventsourcing(folder: Path, worker: int) -> Action:
    """The eventsourcing library with its SQLite recorder, one save for each action."""
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Trial(Aggregate):
        @event("Started")
        def __init__(self, number: int) -> None:
            self.number = number

        @event("ParameterSet")
        def parameter(self, name: str, value: float) -> None: ...

        @event("MetricObserved")
        def metric(self, name: str, value: float) -> None: ...

        @event("Finished")
        def finish(self, status: str) -> None: ...

    application: Application = Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(folder / "eventsourcing.sqlite"),
            "SQLITE_LOCK_TIMEOUT": "60",
        }
    )

    def trial(number: int) -> None:
        one = Trial(number)
        application.save(one)
        one.parameter("width", 512.0)
        application.save(one)
        one.parameter("rate", 0.04)
        application.save(one)
        one.metric("val_bpb", 1.25 + number / 1000)
        application.save(one)
        one.finish("completed")
        application.save(one)

    return trial


def mlflow(folder: Path, worker: int) -> Action:
    """MLflow's client with its SQLite store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.sqlite")
    known = client.get_experiment_by_name("bench")
    experiment = known.experiment_id if known else client.create_experiment("bench")

    def trial(number: int) -> None:
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "width", 512.0)
        client.log_param(run, "rate", 0.04)
        client.log_metric(run, "val_bpb", 1.25 + number / 1000)
        client.set_terminated(run)

    return trial


def optuna_journal(folder: Path, worker: int) -> Action:
    """Optuna's journal storage."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return _optuna(JournalStorage(JournalFileBackend(str(folder / "optuna.log"))))


def optuna_rdb(folder: Path, worker: int) -> Action:
    """Optuna's relational storage with SQLite."""
    from optuna.storages import RDBStorage

    return _optuna(RDBStorage(f"sqlite:///{folder}/optuna.sqlite"))


def _optuna(storage: object) -> Action:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name="bench",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),
    )

    def trial(number: int) -> None:
        one = study.ask()
        one.suggest_float("width", 256, 1024)
        one.suggest_float("rate", 0, 1)
        one.report(1.25 + number / 1000, 0)
        study.tell(one, 1.25 + number / 1000)

    return trial


STORES = {
    "raw write + fdatasync": (raw, None),
    "autoresearch": (autoresearch, None),
    "sqlite3 (WAL, FULL)": (sqlite, None),
    "eventsourcing, SQLite": (eventsourcing, "eventsourcing"),
    "Optuna, journal": (optuna_journal, "optuna"),
    "Optuna, SQLite": (optuna_rdb, "optuna"),
    "MLflow, SQLite": (mlflow, "mlflow"),
}


def _events(number: int, worker: int) -> list[object]:
    from autoresearch import events

    run = f"bench-{worker}-{number}"
    both = {"run": run, "experiment": number}
    return [
        events.RunStarted(**both, reference=f"pid {worker}"),
        events.MetricObserved(**both, name="width", value=512.0),
        events.MetricObserved(**both, name="rate", value=0.04),
        events.MetricObserved(**both, name="val_bpb", value=1.25 + number / 1000, step=1000),
        events.RunFinished(**both, status="completed", exit_code=0, seconds=600.5),
    ]


def _lines() -> list[bytes]:
    from autoresearch.log import open_log

    with tempfile.TemporaryDirectory() as folder:
        with open_log(Path(folder)).writer("bench", "worker-0") as writer:
            writer.append_many(_events(100, 0))
        (path,) = (Path(folder) / "journal").iterdir()
        return path.read_bytes().splitlines(keepends=True)


def work(store: str, folder: Path, worker: int) -> None:
    """Run as one writer: do as many trials as each line of the input says, and answer."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    trial = STORES[store][0](folder, worker)
    trial(worker)  # the first trial opens connections and makes tables
    print("done", flush=True)
    number = worker + 1_000_000 * (worker + 1)
    for line in sys.stdin:
        for _ in range(int(line)):
            number += 1
            trial(number)
        print("done", flush=True)


class Writers:
    """The writers of one store, waiting for their turn."""

    def __init__(self, store: str, count: int, parent: Path) -> None:
        self.count = count
        folder = Path(tempfile.mkdtemp(dir=parent))
        self.processes: list[subprocess.Popen[str]] = []
        for worker in range(count):
            program = [sys.executable, __file__, "--work", store, str(folder), str(worker)]
            process = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self.processes.append(process)
            _expect_done(process)  # one after the other: the first makes the tables

    def rate(self, trials: int) -> float:
        """Do a slice of trials, shared among the writers, and return actions per second."""
        start = time.perf_counter()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{trials // self.count}\n")
            process.stdin.flush()
        for process in self.processes:
            _expect_done(process)
        return trials // self.count * self.count * ACTIONS / (time.perf_counter() - start)

    def close(self) -> None:
        """End the writers."""
        for process in self.processes:
            process.communicate(timeout=60)


def _expect_done(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "done\n":
        if not line:
            raise SystemExit(f"a writer failed: {process.args}")


def measure(count: int, trials: int, piece: int, folder: Path) -> dict[str, list[float]]:
    """Return the rates of all slices of every store that is installed."""
    found = {name: Writers(name, count, folder) for name in STORES if _is_here(name)}
    rates: dict[str, list[float]] = {name: [] for name in found}
    for number in range(trials // piece):
        for name, writers in found.items():
            rates[name].append(writers.rate(piece))
        print(f"{count} writers, slice {number + 1}", end="\r", file=sys.stderr, flush=True)
    for writers in found.values():
        writers.close()
    return rates


def _is_here(store: str) -> bool:
    module = STORES[store][1]
    return module is None or importlib.util.find_spec(module) is not None


def table(results: dict[tuple[str, int], list[float]], counts: list[int]) -> str:
    """Return the table in Markdown, with ratios to the limit and to MLflow."""
    medians = {key: statistics.median(values) for key, values in results.items()}
    heads = [f"{n} writer{'s' * (n > 1)}, actions/s | of the limit | × MLflow" for n in counts]
    lines = [f"| store | {' | '.join(heads)} |", "|---|" + "---:|---:|---:|" * len(counts)]
    for store in dict.fromkeys(store for store, _ in results):
        cells = []
        for count in counts:
            rate, limit = medians[store, count], medians[next(iter(STORES)), count]
            slow = medians.get(("MLflow, SQLite", count))
            cells.append(f"{rate:,.0f} | {rate / limit:.2f} | {rate / slow:.1f}" if slow else
                         f"{rate:,.0f} | {rate / limit:.2f} | ")  # fmt: skip
        lines.append(f"| {store} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every store that is installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--slice", type=int, default=20)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    results: dict[tuple[str, int], list[float]] = {}
    for count in options.writers:
        with tempfile.TemporaryDirectory(prefix="bench-log-", dir=options.folder) as folder:
            found = measure(count, options.trials, options.slice, Path(folder))
        results.update({(store, count): rates for store, rates in found.items()})
    print(table(results, options.writers))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
