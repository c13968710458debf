"""The launcher slurm, with submitit's local executor: jobs are processes of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from five_experiments import finish_with_a_kill

from autoresearch.config import Config
from autoresearch.launchers.slurm import Plugin
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


def test_campaign_with_a_kill_in_the_middle(tmp_path: Path) -> None:
    """Every run is started once, decided, and has its artifact."""
    finish_with_a_kill(tmp_path, "slurm", 'cluster = "local"\ngpus = 0\npoll_seconds = 0.1')
