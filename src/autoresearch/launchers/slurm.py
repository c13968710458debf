"""The launcher ``slurm``: runs are jobs of a cluster whose nodes see this machine's folders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil
from attrs import define, evolve, frozen

from autoresearch.config import Config, setting
from autoresearch.errors import needs
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.cluster import ClusterLauncher, ClusterRun, ClusterSettings, work

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
    """Answers requests for the launcher ``slurm``."""

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
    with needs("submitit", "slurm"):
        import submitit
    return submitit
