"""The launcher ``slurm``: runs are jobs of a cluster whose nodes see this machine's folders."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from attrs import define, evolve, field, frozen

from autoresearch.config import Config, RunsConfig, setting
from autoresearch.errors import needs
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.far import order_for, spec_here
from autoresearch.launchers.folder import Elsewhere, InFolder, Outcome, RunFolder
from autoresearch.launchers.supervisor import supervise
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_SPARE_SECONDS = 300.0  # for the cluster's own limit: Python, the checkout, the outcome
_STOP_SECONDS = 30.0
_OVER = "CANCELLED COMPLETED FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY BOOT_FAIL DEADLINE PREEMPTED"


@frozen(kw_only=True)
class Settings:
    """The table ``[tool.autoresearch.plugins.slurm]``."""

    cluster: str = setting("slurm", "slurm, or local: a process of this machine, to try it")
    gpus: int = setting(1, "GPUs of a job, on each node")
    nodes: int = setting(1, "nodes of a job; the command starts itself on them, with srun")
    parameters: Mapping[str, Any] = setting(
        {}, "further parameters of submitit, such as slurm_partition or mem_gb"
    )
    usd_per_gpu_hour: float = setting(0.0, "price of a GPU, USD an hour")
    prices: str = setting("", "where that price is from, and of when")
    poll_seconds: float = setting(2.0, "time between two looks")

    @property
    def all_gpus(self) -> int:
        """How many GPUs a job has on its nodes together."""
        return self.gpus * self.nodes

    @property
    def usd_per_hour(self) -> float:
        """The price of them all, US dollars an hour."""
        return self.all_gpus * self.usd_per_gpu_hour


class Plugin(Elsewhere[Settings]):
    """Answers requests for the launcher ``slurm``."""

    launcher, Settings = "slurm", Settings

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, Any] = {}  # of this process, which a local cluster's are children of

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

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Submit a job, or find the one that was submitted under the same name."""
        chosen = self.chosen(request)
        if chosen is None:
            return None
        if request.beside:
            chosen = evolve(chosen, nodes=1, gpus=min(1, chosen.gpus))
        folder = RunFolder.of(request.folder)
        runs = RunsConfig(gpus=chosen.gpus)
        folder.order(
            "slurm_order.json",
            request,
            lambda: order_for(request, workspace, self._config.pass_env, runs, {}),
        )
        run = SlurmRun(request.name, folder, chosen, self._jobs)
        run.submit()
        return run


def work(path: str, control: str) -> None:
    """Own the run on a node, as the job; a second job for one name finds that and ends."""
    folder = RunFolder(Path(path), Path(control))
    order = folder.read("slurm_order.json")
    assert order is not None
    spec = folder.read_spec()
    if spec is None:
        # The cluster has given this job its GPUs: none is to be waited for.
        spec = evolve(spec_here(order, folder), devices=(), gpus=0)
        folder.write_spec(spec)
    supervise(folder, spec, started=lambda: None)


@define
class SlurmRun(InFolder):
    """A job; what is known of it stands in the run's control folder, which the nodes see."""

    name: str
    folder: RunFolder
    settings: Settings
    jobs: dict[str, Any] = field(factory=dict)
    _next_look: float = field(default=0.0, init=False)

    @property
    def reference(self) -> str:
        """The job's id; a second job that was submitted for the name only ends."""
        found = self.folder.read("slurm_job.json")
        return f"job {found['job']}" if found else ""

    def submit(self) -> None:
        """Hand the job in, unless that was done."""
        if self.folder.read("slurm_job.json") is not None or self.folder.read_outcome():
            return
        order = self.folder.read("slurm_order.json")
        assert order is not None
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
        self.jobs[self.name] = job
        self.folder.write("slurm_job.json", {"job": job.job_id, "at": time.time()})

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None; asks the cluster now and then."""
        outcome = self._kept()
        if outcome is None and time.time() >= self._next_look:
            self._next_look = time.time() + self.settings.poll_seconds
            if self._is_over():
                outcome = self._kept() or self._lost()
        return self.folder.output(self.name, outcome) if outcome else None

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
        self._cancel()
        outcome = Outcome(status=RunStatus.STOPPED_EARLY, detail=reason, seconds=self._seconds())
        self.folder.write_outcome(outcome)

    def _kept(self) -> Outcome | None:
        """Return the outcome that the job left, once the job has let go of the run."""
        outcome = self.folder.read_outcome()
        if outcome is None or (self.settings.cluster == "local" and not self._child_ended()):
            return None
        with self.folder.lock() as alone:
            if not alone:
                return None
        return self._priced(outcome)

    def _priced(self, outcome: Outcome) -> Outcome:
        gpus = self.settings.all_gpus
        price = outcome.seconds / 3600 * self.settings.usd_per_hour
        return evolve(
            outcome, gpu_seconds=round(outcome.seconds * gpus, 3), cost_usd=round(price, 6)
        )

    def _child_ended(self) -> bool:
        job = self.jobs.get(self.name)
        return job is None or bool(job.done())

    def _lost(self) -> Outcome:
        job = self.reference
        detail = f"{job} ended as {self._state()} and left no outcome; run it again"
        outcome = Outcome(status=RunStatus.INFRA_FAILED, detail=detail, seconds=self._seconds())
        self.folder.write_outcome(outcome)
        return self._priced(outcome)

    def _seconds(self) -> float:
        owner = self.folder.read("supervisor.json")
        return max(0.0, time.time() - owner["created"]) if owner else 0.0

    def _is_over(self) -> bool:
        state = self._state()
        return any(state.startswith(word) for word in _OVER.split())

    def _state(self) -> str:
        found = self.folder.read("slurm_job.json")
        if found is None:
            return "UNKNOWN"
        if self.settings.cluster == "local":
            return _process_state(int(found["job"]), found["at"])
        job = self._found(found)
        return str(job.watcher.get_state(job.job_id, mode="standard"))

    def _found(self, found: Mapping[str, Any]) -> Any:
        known = self.jobs.get(self.name)
        return known or _submitit().SlurmJob(self.folder.control / "slurm", str(found["job"]))

    def _cancel(self) -> None:
        found = self.folder.read("slurm_job.json")
        if found is None:
            return
        if self.settings.cluster == "local":
            with suppress(psutil.Error):
                process = psutil.Process(int(found["job"]))
                for member in (*process.children(recursive=True), process):
                    member.kill()
            return
        self._found(found).cancel()


def _process_state(pid: int, submitted: float) -> str:
    """Return the state of a local job, whose id is the process that owns it."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        mine = abs(process.create_time() - submitted) < 60.0
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            return "RUNNING"
    return "COMPLETED"


def _submitit() -> Any:
    with needs("submitit", "slurm"):
        import submitit
    return submitit
