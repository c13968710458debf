"""The command line called as a person would, but inside this process, for speed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from two_numbers import SCRIPT

from autoresearch.cli import main
from autoresearch.testing import make_project


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A temporary git project whose training script prints a score at once."""
    return make_project(tmp_path / "project", script=SCRIPT)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in a folder: ``at(folder, "init")``."""

    def call(folder: Path, *words: str) -> Said:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["autoresearch", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def say(project: Path, at: Callable[..., Said]) -> Callable[..., Said]:
    """Run the command line in the project: ``say("status", "--json")``."""
    return partial(at, project)
