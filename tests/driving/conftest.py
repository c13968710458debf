"""A project in which an experiment takes a second, and a driver that is new for every step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from two_numbers import SCRIPT

import autoresearch
from autoresearch.driving import Driver, Stand
from autoresearch.testing import make_project

WORDS = {
    "direction": "width",
    "hypothesis": "a wider model scores better, as the lesson of experiment 0 hints",
    "evidence": ("experiment 0 is narrow",),
    "risk": "none: it is small",
    "cites": (0,),
}
Step = Callable[..., Stand]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A temporary git project whose training script prints a score at once."""
    return make_project(tmp_path / "project", script=SCRIPT)


def taker(project: Path) -> Step:
    """Take a step as a process of its own would: ``take("review")``; options are the driver's."""

    def step(name: str, *words: Any, by: str = "codex", plugins: Any = (), **given: Any) -> Stand:
        campaign = autoresearch.open_campaign(project)
        driver = Driver(campaign, by, plugins=plugins)
        stand: Stand = getattr(driver, name)(*words, **given)
        return stand

    return step


@pytest.fixture
def take(project: Path) -> Step:
    """Take a step in the project."""
    return taker(project)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a campaign whose baseline a driver brought to its verdict."""
    project = make_project(tmp_path_factory.mktemp("measured") / "project", script=SCRIPT)
    autoresearch.start(project, tag="t1")
    take = taker(project)
    take("review")
    take("run")
    take("analyze", "it is as it was", "the baseline scores 1.29")
    take("decide")
    return project


@pytest.fixture
def begun(measured: Path, project: Path, take: Step) -> Step:
    """Take a step in the project, which is a copy of that one."""
    shutil.rmtree(project)
    shutil.copytree(measured, project, symlinks=True)
    return take


def wider(take: Step, width: int = 5, **given: Any) -> Stand:
    """Reason and edit: set WIDTH in the experiment's folder."""
    stand = take("reason", f"width {width}", **{**WORDS, **given})
    script = Path(stand.facts["folder"], "train.py")
    script.write_text(script.read_text().replace("WIDTH = 4", f"WIDTH = {width}"))
    return take("edit")
