"""The launcher ray, against a cluster of this machine; where Ray is not installed it is skipped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from five_experiments import finish_with_a_kill

from autoresearch.config import Config
from autoresearch.testing import LauncherContract

# Ray reads them when it is imported; a cluster on a busy machine is slow to come up.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789" * 5}
os.environ |= {"RAY_raylet_start_wait_time_s": "120"}
pytest.importorskip("ray.job_submission", reason="pip install 'autoresearch[ray]' tries it")
SOURCE = Path(__file__).parents[2] / "plugins" / "ray.py"
CLUSTER = """import ray
found = ray.init(num_cpus=8, include_dashboard=True, dashboard_port=0, configure_logging=False)
print("address", found.address_info["webui_url"], flush=True)
input()
"""


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, Any]]:
    """Start a cluster of our own, and return the plugin's table for it."""
    command = [sys.executable, "-W", "ignore", "-c", CLUSTER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cluster:
        assert cluster.stdout is not None
        said = next(line for line in cluster.stdout if line.startswith("address "))
        yield {
            "address": f"http://{said.split()[1]}",
            "python": sys.executable,
            "gpus": 0,
            "poll_seconds": 0.2,
        }
        cluster.communicate("\n")


@pytest.mark.filterwarnings("ignore")  # Ray's own
class TestRay(LauncherContract):
    """The conformance tests of the kit."""

    @pytest.fixture
    def plugin(self) -> Any:
        """The launcher under test, under a name that is not that of the package."""
        spec = importlib.util.spec_from_file_location("launcher_ray", SOURCE)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["launcher_ray"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Plugin()

    @pytest.fixture
    def config(self, table: dict[str, Any]) -> Config:
        """One node."""
        return Config(plugins={"ray": table})

    @pytest.fixture
    def launcher(self) -> str:
        """Its name in the configuration."""
        return "ray"

    @pytest.fixture
    def patience(self) -> float:
        """A job starts an actor and a Python before its run."""
        return 90.0


@pytest.mark.timeout(600)
def test_campaign_with_a_kill_in_the_middle(tmp_path: Path, table: dict[str, Any]) -> None:
    """Every run is started once, decided, and has its artifact."""
    text = "\n".join(f"{name} = {value!r}" for name, value in table.items()).replace("'", '"')
    finish_with_a_kill(tmp_path, "ray", text, files={"plugins/ray.py": SOURCE.read_text()})
