"""Real runs in a folder of their own, stopped at the end of each test whatever happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoresearch.launchers.local import Plugin
from autoresearch.model import RunHandle, RunOutput, RunRequest, Workspace

Start = Callable[..., RunHandle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Launch a command as the run `name` in `tmp_path / name`."""
    handles: list[RunHandle] = []
    plugin = Plugin()

    def launch(*command: str, name: str = "night-0001", **options: Any) -> RunHandle:
        options.setdefault("folder", tmp_path / name)
        request = RunRequest(
            name=name, campaign="night", experiment=1, index=0, command=command, **options
        )
        workspace = Workspace(path=tmp_path / "worktree", script="train.py", project=tmp_path)
        handle = plugin.launch_run(request, workspace)
        assert handle is not None
        handles.append(handle)
        return handle

    yield launch
    for handle in handles:
        handle.stop("the test is over")


@pytest.fixture
def finish() -> Callable[[RunHandle], RunOutput]:
    """Wait for a run as the loop does: by polling."""

    def wait(handle: RunHandle, seconds: float = 30.0) -> RunOutput:
        end = time.monotonic() + seconds
        while (output := handle.poll()) is None:
            assert time.monotonic() < end, f"{handle.reference} did not end in {seconds} s"
            time.sleep(0.02)
        return output

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Say whether a process still runs; a dead one that nobody collected yet does not."""

    def look(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return look
