"""What launchers of clusters share whose nodes see this machine's folders: the job owns its run."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen

from autoresearch.config import RunsConfig, setting
from autoresearch.durable import digest
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.far import Elsewhere, order_for, spec_here
from autoresearch.launchers.folder import InFolder, Outcome, RunFolder
from autoresearch.launchers.supervisor import supervise
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_STOP_SECONDS = 30.0
_OVER = (
    *("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "PREEMPTED", "STOPPED", "SUCCEEDED"),
)
# The names that the first of these launchers gave; what it started is still found.
_ORDER, _JOB = "slurm_order.json", "slurm_job.json"


@frozen(kw_only=True)
class ClusterSettings:
    """What every cluster's table has: derive from it, and add what yours needs."""

    gpus: int = setting(1, "GPUs of a job, on each node")
    usd_per_gpu_hour: float = setting(0.0, "price of a GPU, USD an hour")
    prices: str = setting("", "where that price is from, and of when")
    poll_seconds: float = setting(2.0, "time between two looks")

    @property
    def all_gpus(self) -> int:
        """How many GPUs a job has on its nodes together."""
        return self.gpus

    @property
    def usd_per_hour(self) -> float:
        """The price of them all, US dollars an hour."""
        return self.all_gpus * self.usd_per_gpu_hour


C = TypeVar("C", bound=ClusterSettings)


class ClusterLauncher(Elsewhere[C]):
    """A launcher that hands in jobs; `name` is its own and `run` the class of its runs."""

    run: type[ClusterRun]

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, Any] = {}

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Hand a job in, or find the one that was handed in under the same name."""
        chosen = self.chosen(request)
        if chosen is None:
            return None
        if request.beside:
            chosen = self.alone(chosen)
        folder, runs = RunFolder.of(request.folder), RunsConfig(gpus=chosen.gpus)
        passed = self._config.pass_env
        folder.order(_ORDER, request, lambda: order_for(request, workspace, passed, runs, {}))
        run = self.run(request.name, folder, chosen, self._known)
        run.submit()
        return run

    def alone(self, chosen: Any) -> Any:
        """Return the settings of a job beside a run: for one GPU."""
        return evolve(chosen, gpus=min(1, chosen.gpus))


def work(path: str, control: str) -> None:
    """Own the run on a node, as the job; a second job for one name finds that and ends."""
    folder = RunFolder(Path(path), Path(control))
    order = folder.read(_ORDER)
    assert order is not None
    spec = folder.read_spec()
    if spec is None:
        # The cluster has given this job its GPUs: none is to be waited for.
        spec = evolve(spec_here(order, folder), devices=(), gpus=0)
        folder.write_spec(spec)
    supervise(folder, spec, started=lambda: None)


@define
class ClusterRun(InFolder, ABC):
    """A job of a cluster, which is the supervisor of its run and writes output and outcome.

    A launcher says how a job is handed in, in what state it is, and how it is taken back. `known`
    is what the launcher's process remembers, for all of its runs.
    """

    name: str
    folder: RunFolder
    settings: Any
    known: dict[str, Any] = field(factory=dict, repr=False)
    _next_look: float = field(default=0.0, init=False)

    @property
    def place(self) -> str:
        """A name for the job that no other run has, whoever else uses the cluster."""
        return f"{self.name}-{digest(str(self.folder.path))[:10]}"

    def words(self, python: str) -> list[str]:
        """Return the command that a node has to run, with a Python that has autoresearch."""
        module = "autoresearch.launchers.cluster"
        return [python, "-m", module, str(self.folder.path), str(self.folder.control)]

    @property
    def reference(self) -> str:
        """The job's id; a second job that was submitted for the name only ends."""
        found = self.job()
        return f"job {found['job']}" if found else ""

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None; asks the cluster now and then."""
        outcome = self._kept()
        if outcome is None and time.time() >= self._next_look:
            self._next_look = time.time() + self.settings.poll_seconds
            self.submit()
            if self._is_over():
                outcome = self._kept() or self._lost()
        return self.folder.output(self.name, outcome) if outcome else None

    def submit(self) -> None:
        """Hand the job in, unless that was done."""
        if self.job() is not None or self.folder.read_outcome() is not None:
            return
        order = self.folder.read(_ORDER)
        assert order is not None
        if job := self.hand_in(order):
            self.folder.write(_JOB, {"job": job, "at": time.time()})

    def stop(self, reason: str) -> None:
        """End the run with all its children; one that did not begin leaves the queue."""
        if self.poll() is not None:
            return
        self.folder.ask_to_stop(reason)
        end = time.monotonic() + _STOP_SECONDS
        while self.folder.read("supervisor.json") is not None and time.monotonic() < end:
            if self._kept() is not None:
                return
            time.sleep(0.05)
        self.cancel()
        outcome = Outcome(status=RunStatus.STOPPED_EARLY, detail=reason, seconds=self._seconds())
        self.folder.write_outcome(outcome)

    @abstractmethod
    def hand_in(self, order: Mapping[str, Any]) -> str:
        """Return the id of the job; empty where the cluster could not be asked."""

    @abstractmethod
    def state(self) -> str:
        """Return in what state the cluster says that the job is, in its words."""

    @abstractmethod
    def cancel(self) -> None:
        """Take the job from the cluster, if there is one."""

    def let_go(self) -> bool:
        """Say whether the job's own process is gone, where this one would have to collect it."""
        return True

    def job(self) -> dict[str, Any] | None:
        """Return the job's id as `job` and since when it is known; None until it was handed in."""
        return self.folder.read(_JOB)

    def _kept(self) -> Outcome | None:
        """Return the outcome that the job left, once the job has let go of the run."""
        outcome = self.folder.read_outcome()
        if outcome is None or not self.let_go():
            return None
        with self.folder.lock() as alone:
            return self._priced(outcome) if alone else None

    def _priced(self, outcome: Outcome) -> Outcome:
        gpu_seconds = round(outcome.seconds * self.settings.all_gpus, 3)
        price = outcome.seconds / 3600 * self.settings.usd_per_hour
        return evolve(outcome, gpu_seconds=gpu_seconds, cost_usd=round(price, 6))

    def _lost(self) -> Outcome:
        detail = f"{self.reference} ended as {self.state()} and left no outcome; run it again"
        outcome = Outcome(status=RunStatus.INFRA_FAILED, detail=detail, seconds=self._seconds())
        self.folder.write_outcome(outcome)
        return self._priced(outcome)

    def _seconds(self) -> float:
        owner = self.folder.read("supervisor.json")
        return max(0.0, time.time() - owner["created"]) if owner else 0.0

    def _is_over(self) -> bool:
        return self.state().startswith(_OVER)


if __name__ == "__main__":
    work(*sys.argv[1:])
