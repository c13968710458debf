"""The launcher slurm, with submitit's local executor: jobs are processes of this machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from five_experiments import finish_with_a_kill

from autoresearch.config import Config
from autoresearch.launchers import RunFolder
from autoresearch.launchers.cluster import Plugin, Settings, SlurmRun
from autoresearch.model import RunStatus
from autoresearch.testing import LauncherContract

pytest.importorskip("submitit")
SETTINGS = Config(plugins={"slurm": {"cluster": "local", "gpus": 0, "poll_seconds": 0.1}})


class TestSlurm(LauncherContract):
    """The conformance tests of the kit, with a local cluster."""

    @pytest.fixture
    def plugin(self) -> Plugin:
        """The launcher under test."""
        return Plugin()

    @pytest.fixture
    def config(self) -> Config:
        """A cluster of one machine."""
        return SETTINGS

    @pytest.fixture
    def launcher(self) -> str:
        """Its name in the configuration."""
        return "slurm"


def test_job_that_left_no_outcome_costs_what_it_held(tmp_path: Path) -> None:
    """The first answer has the price of its GPUs, as every later one."""
    folder = RunFolder.of(tmp_path / "t1-0-0")
    folder.make()
    nobody = 1 << 23  # over the highest process id
    folder.write("slurm_job.json", {"job": str(nobody), "at": time.time()})
    folder.write("supervisor.json", {"pid": nobody, "created": time.time() - 10.0})
    run = SlurmRun("t1-0-0", folder, Settings(cluster="local", gpus=2, usd_per_gpu_hour=3600.0))
    output = run.poll()
    assert output is not None
    assert output.status is RunStatus.INFRA_FAILED
    assert 20.0 <= output.gpu_seconds < 80.0
    assert output.cost_usd == pytest.approx(output.gpu_seconds, abs=0.001)
    assert run.poll() == output


def test_campaign_with_a_kill_in_the_middle(tmp_path: Path) -> None:
    """Every run is started once, decided, and has its artifact."""
    finish_with_a_kill(tmp_path, "slurm", 'cluster = "local"\ngpus = 0\npoll_seconds = 0.1')
