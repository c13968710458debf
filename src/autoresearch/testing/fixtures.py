"""The fixtures that ``pytest_plugins = ["autoresearch.testing"]`` brings, and their project.

The project is a git repository whose training script takes 50 ms.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from autoresearch.log import MemoryLog
from autoresearch.testing.openai_server import LoopbackOpenAI

SCRIPT = '''"""A bowl with its lowest point at WIDTH = 7 and RATE = 0.3, where the score is 1."""

import os

WIDTH = 4
RATE = 0.5

seed = int(os.environ.get("SEED", "1337"))
noise = (seed % 7 - 3) * 1e-5
score = 1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3) + noise
print(f"step: 1 loss: {score + 1:.6f}")
print(f"score: {score:.6f}")
'''

SETTINGS = """preset = "plain"
script = "train.py"

[metric]
name = "score"
better = "lower"
sd = 0.00002

[limits]
timeout_seconds = 30.0
"""


def make_project(
    folder: Path, script: str = SCRIPT, settings: str = SETTINGS, files: Mapping[str, str] = {}
) -> Path:
    """Write and commit a project into ``folder`` and return it; ``files`` are further ones."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"train.py": script, "autoresearch.toml": settings, **files}
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "A Researcher")
    git(folder, "config", "user.email", "researcher@example.org")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git in a test project, free of the machine's own configuration, and return its output."""
    apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **apart},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A temporary git project whose training script prints a score within 50 ms."""
    return make_project(tmp_path / "project")


@pytest.fixture
def memory_log() -> MemoryLog:
    """An empty event log in memory."""
    return MemoryLog()


@pytest.fixture
def openai_server() -> Iterator[LoopbackOpenAI]:
    """A running loopback server of chat completions; append to its ``answers``."""
    with LoopbackOpenAI([]) as server:
        yield server
