"""The fixtures that ``pytest_plugins = ["autoresearch.testing"]`` brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.log import MemoryLog
from autoresearch.testing.openai_server import LoopbackOpenAI
from autoresearch.testing.projects import make_project


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
