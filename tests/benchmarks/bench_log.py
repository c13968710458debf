"""Durable actions per second, side by side: the limit of the disk, this log, and what people use.

    python -m pip install -e '.[bench]'
    python tests/benchmarks/bench_log.py [--trials 500] [--rounds 3] [--folder DIR]

One trial is five durable actions: start, two parameters, one metric, finish. Every store runs with
its own default settings (SQLite in WAL mode with synchronous=FULL), in alternating rounds on the
same disk; the table shows medians over the rounds. Tools that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
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


def work(store: str, folder: Path, worker: int, trials: int) -> None:
    """Run as one process of a round: get ready, wait for the start, print the seconds."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    trial = STORES[store][0](folder, worker)
    trial(10**6 + worker)  # the first trial opens connections and makes tables
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for number in range(trials):
        trial(number + worker * trials)
    print(time.perf_counter() - start, flush=True)


def measure(store: str, workers: int, trials: int, folder: Path) -> float:
    """Return the actions per second of some workers together."""
    processes: list[subprocess.Popen[str]] = []
    for worker in range(workers):
        program = [sys.executable, __file__, "--work", store, str(folder), str(worker)]
        process = subprocess.Popen(
            [*program, str(trials // workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        _expect(process, "ready")  # one after the other: the first makes the tables
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = [process.wait(timeout=1200) for process in processes]
    seconds = time.perf_counter() - start
    if any(codes):
        raise SystemExit(f"{store} failed with {workers} writers")
    return trials // workers * workers * ACTIONS / seconds


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) != f"{word}\n":
        if not line:
            raise SystemExit(f"a worker ended before it was {word}")


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    results: dict[tuple[str, int], list[float]] = {}
    for number in range(options.rounds):
        for writers in options.writers:
            for store, (_, module) in STORES.items():
                if module and importlib.util.find_spec(module) is None:
                    continue
                folder = Path(tempfile.mkdtemp(prefix="bench-log-", dir=options.folder))
                try:
                    rate = measure(store, writers, options.trials, folder)
                finally:
                    shutil.rmtree(folder)
                results.setdefault((store, writers), []).append(rate)
                done = f"round {number + 1}, {writers} writers, {store}: {rate:,.0f} actions/s"
                print(done, file=sys.stderr, flush=True)
    print(table(results, options.writers))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
