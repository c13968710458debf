"""What launchers share whose runs are on other machines, what clusters share, and ``slurm``.

A cluster's nodes see this machine's folders, and the job owns its run: it is the supervisor, on
whichever node it is.
"""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from attrs import define, evolve, field, frozen

from autoresearch.config import Config, RunsConfig, setting, with_options
from autoresearch.durable import digest
from autoresearch.errors import needs
from autoresearch.hookspecs import S, WithTable, hookimpl
from autoresearch.launchers import InFolder, Outcome, RunFolder
from autoresearch.launchers.far import order_for, spec_here
from autoresearch.launchers.supervisor import supervise
from autoresearch.model import Quote, RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_STOP_SECONDS = 30.0
_OVER = (
    *("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "PREEMPTED", "STOPPED", "SUCCEEDED"),
)
# The names that the first of these launchers gave; what it started is still found.
_ORDER, _JOB = "slurm_order.json", "slurm_job.json"


class Elsewhere(WithTable[S]):
    """What launchers have in common whose runs are on other machines: a table, and its prices."""

    @hookimpl
    def quote_run(self, request: RunRequest) -> Quote | None:
        """Return the longest time that a run may take, at the price of the settings."""
        chosen = self.chosen(request)
        return None if chosen is None else self.quote(request, chosen)

    def chosen(self, request: RunRequest) -> S | None:
        """Return the settings that hold for a request; None where it is another launcher's."""
        if request.launcher != self.name:
            return None
        return with_options(self._settings, request.options, "options")

    def quote(self, request: RunRequest, chosen: Any) -> Quote:
        """Return the deadline at the price of so many GPUs."""
        return Quote(
            seconds=request.timeout_seconds,
            gpus=chosen.all_gpus,
            usd_per_hour=chosen.usd_per_hour,
            prices=chosen.prices,
        )


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
            if self.state().startswith(_OVER):
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


# --- the launcher slurm, with the package submitit -----------------------------------------------

_SPARE_SECONDS = 300.0  # for the cluster's own limit: Python, the checkout, the outcome


@frozen(kw_only=True)
class Settings(ClusterSettings):
    """The table ``[tool.autoresearch.plugins.slurm]``."""

    cluster: str = setting("slurm", "slurm, or local: a process of this machine, to try it")
    nodes: int = setting(1, "nodes of a job; the command starts itself on them, with srun")
    parameters: Mapping[str, Any] = setting(
        {}, "further parameters of submitit, such as slurm_partition or mem_gb"
    )

    @property
    def all_gpus(self) -> int:
        """How many GPUs a job has on its nodes together."""
        return self.gpus * self.nodes


@define
class SlurmRun(ClusterRun):
    """A job of Slurm, or of submitit's local executor."""

    def hand_in(self, order: Mapping[str, Any]) -> str:
        """Submit the function that owns the run."""
        executor = _submitit().AutoExecutor(
            folder=self.folder.control / "slurm", cluster=self.settings.cluster
        )
        executor.update_parameters(
            name=self.name,
            nodes=self.settings.nodes,
            gpus_per_node=self.settings.gpus,
            timeout_min=math.ceil((order["timeout_seconds"] + _SPARE_SECONDS) / 60),
            **self.settings.parameters,
        )
        job = executor.submit(work, str(self.folder.path), str(self.folder.control))
        self.known[self.name] = job
        return str(job.job_id)

    def let_go(self) -> bool:
        """Collect a process of the local executor."""
        job = self.known.get(self.name)
        return self.settings.cluster != "local" or job is None or bool(job.done())

    def state(self) -> str:
        """Return the cluster's word for it."""
        found = self.job()
        if found is None:
            return "UNKNOWN"
        if self.settings.cluster == "local":
            return _process_state(int(found["job"]), found["at"])
        job = self._found(found)
        return str(job.watcher.get_state(job.job_id, mode="standard"))

    def _found(self, found: Mapping[str, Any]) -> Any:
        known = self.known.get(self.name)
        return known or _submitit().SlurmJob(self.folder.control / "slurm", str(found["job"]))

    def cancel(self) -> None:
        """Cancel it; a process of the local executor is killed with its children."""
        found = self.job()
        if found is None:
            return
        if self.settings.cluster == "local":
            with suppress(psutil.Error):
                process = psutil.Process(int(found["job"]))
                for member in (*process.children(recursive=True), process):
                    member.kill()
            return
        self._found(found).cancel()


class Plugin(ClusterLauncher[Settings]):
    """The launcher ``slurm``: runs are jobs of a cluster whose nodes see this machine's folders."""

    name, Settings, run = "slurm", Settings, SlurmRun

    def alone(self, chosen: Any) -> Any:
        """Return the settings of a job beside a run: for one GPU of one node."""
        return evolve(super().alone(chosen), nodes=1)

    @hookimpl
    def check_launcher(self, config: Config) -> Sequence[str] | None:
        """Look for submitit and for the cluster; nothing is submitted."""
        if config.launcher != "slurm":
            return None
        submitit = _submitit()
        chosen = config.settings("slurm", Settings)
        if chosen.cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
            return ("no srun is here, so this is no Slurm cluster; set plugins.slurm.cluster",)
        return ()


def _process_state(pid: int, submitted: float) -> str:
    """Return the state of a local job, whose id is the process that owns it."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        mine = abs(process.create_time() - submitted) < 60.0
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            return "RUNNING"
    return "COMPLETED"


def _submitit() -> Any:
    with needs("submitit"):
        import submitit
    return submitit


if __name__ == "__main__":
    work(*sys.argv[1:])
