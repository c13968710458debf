"""What a stage sets of a launcher's own table holds for its runs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from autoresearch.config import Config
from autoresearch.errors import ConfigError
from autoresearch.launchers import RunFolder, cluster, modal, ssh
from autoresearch.testing import run_request, workspace


@pytest.mark.parametrize(
    ("plugin", "table", "options", "gpus", "usd_per_hour"),
    [
        (modal.Plugin(), {"usd_per_gpu_second": 0.001}, {"gpu": "H100:1"}, (8, 1), (28.8, 3.6)),
        (
            cluster.Plugin(),
            {"gpus": 8, "nodes": 2, "usd_per_gpu_hour": 2.0},
            {"gpus": 1, "nodes": 1},
            (16, 1),
            (32.0, 2.0),
        ),
        (ssh.Plugin(), {"usd_per_hour": 16.0}, {"usd_per_hour": 2.0}, (0, 0), (16.0, 2.0)),
    ],
    ids=["modal", "slurm", "ssh"],
)
def test_options_of_a_stage_change_what_a_run_may_take(
    tmp_path: Path, plugin: Any, table: dict[str, Any], options: dict[str, Any],
    gpus: tuple[int, int], usd_per_hour: tuple[float, float],
) -> None:  # fmt: skip
    """A run in another stage is priced by the table, and a wrong name is refused."""
    plugin.configure(Config(plugins={plugin.name: table}))
    asked = run_request(tmp_path, launcher=plugin.name)
    quotes = [plugin.quote_run(evolve(asked, options=chosen)) for chosen in ({}, options)]
    assert tuple(quote.gpus for quote in quotes) == gpus
    assert [quote.usd_per_hour for quote in quotes] == pytest.approx(list(usd_per_hour))
    with pytest.raises(ConfigError, match=r"unknown setting options\.nothing"):
        plugin.quote_run(evolve(asked, options={"nothing": 1}))
    assert plugin.quote_run(evolve(asked, launcher="local")) is None


def test_options_of_a_stage_reach_the_order_of_a_run(tmp_path: Path) -> None:
    """The run goes to the host of its stage, and to no other that the table has."""
    plugin = ssh.Plugin()
    plugin.configure(Config(plugins={"ssh": {"hosts": ["one.invalid"]}}))
    asked = run_request(tmp_path, launcher="ssh", options={"hosts": ["other.invalid"]})
    assert plugin.launch_run(asked, workspace(tmp_path / "work")) is not None
    order = RunFolder.of(asked.folder).read("ssh_order.json")
    assert order is not None
    assert order["host"] == "other.invalid"
