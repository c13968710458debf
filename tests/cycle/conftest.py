"""A project in which a campaign takes a second, and one call that runs some of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign
from autoresearch.testing import make_project

SHOUTING = """import os
RATE = 0.5
WIDTH = 4
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A temporary git project whose training script prints a score at once."""
    return make_project(tmp_path / "project", script=SHOUTING)


@pytest.fixture
def campaign(project: Path) -> Callable[..., Campaign]:
    """Start a campaign and run some experiments of it: ``campaign(3, plugins=[...])``."""

    def go(experiments: int = 1, plugins: tuple[object, ...] = (), **options: object) -> Campaign:
        plugins = (*plugins, "no:script_ideas")
        made = autoresearch.start(project, tag="t1", plugins=plugins, **options)  # type: ignore[arg-type]
        made.run(experiments, plugins=plugins, wait=False)
        return made

    return go
