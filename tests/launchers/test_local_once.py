"""A run is started once, found again by its name, and never lost, whoever is killed and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autoresearch.errors import AutoresearchError
from autoresearch.model import RunHandle, RunOutput, RunStatus

Start = Callable[..., RunHandle]
Finish = Callable[[RunHandle], RunOutput]

CALLER = """
import sys
from pathlib import Path
from autoresearch.launchers.local import Plugin
from autoresearch.model import RunRequest, Workspace
folder, *command = sys.argv[1:]
request = RunRequest(name="night-0001", campaign="night", experiment=1, index=0,
                     command=command, folder=Path(folder))
print("ready", flush=True)
sys.stdin.readline()
handle = Plugin().launch_run(request, Workspace(path=Path("."), script="s", project=Path(".")))
print(handle.reference, flush=True)
sys.stdin.readline()
"""


def caller(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Another process that launches the same run, on a line of input, and then stays."""
    process = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(folder), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.6])
def test_kill_the_caller_at_any_instant(
    start: Start, finish: Finish, tmp_path: Path, delay: float
) -> None:
    """However far the killed caller came, launching again ends in one run that was started once."""
    command = ("sh", "-c", "echo started >> count; sleep 0.3; echo val_bpb:1.5")
    process = caller(tmp_path / "night-0001", *command)
    go(process)
    time.sleep(delay)
    end(process)
    output = finish(start(*command))
    assert output.status is RunStatus.COMPLETED
    assert output.log_path.read_text() == "val_bpb:1.5\n"
    assert (output.folder / "count").read_text() == "started\n"


def test_a_run_that_finished_while_nobody_looked(
    start: Start, alive: Callable[[int], bool], tmp_path: Path
) -> None:
    """A finished run is read, not repeated, also a long time after the caller's death."""
    command = ("sh", "-c", "echo started >> count; sleep 0.3; exit 4")
    process = caller(tmp_path / "night-0001", *command)
    go(process)
    assert process.stdout is not None
    supervisor = int(process.stdout.readline().removeprefix("pid "))
    end(process)
    deadline = time.monotonic() + 20
    while alive(supervisor):  # its outcome counts once it is gone
        assert time.monotonic() < deadline
        time.sleep(0.02)
    output = start(*command).poll()
    assert output is not None
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, 4)
    assert (output.folder / "count").read_text() == "started\n"


def test_two_callers_at_once_start_one_run(start: Start, finish: Finish, tmp_path: Path) -> None:
    """Two processes that launch one name at one moment get handles to one run."""
    command = ("sh", "-c", "echo started >> count; sleep 1")
    processes = [caller(tmp_path / "night-0001", *command) for _ in range(3)]
    for process in processes:
        go(process)
    references = {process.stdout.readline() for process in processes if process.stdout}
    handle = start(*command)
    assert references == {handle.reference + "\n"}
    output = finish(handle)
    for process in processes:
        end(process)
    assert output.status is RunStatus.COMPLETED
    assert (output.folder / "count").read_text() == "started\n"


def test_the_deadline_holds_without_the_loop(start: Start, tmp_path: Path) -> None:
    """The run of a killed caller still ends at its deadline: its supervisor lives elsewhere."""
    handle = start("sleep", "60", timeout_seconds=0.5)
    supervisor = psutil.Process(int(handle.reference.removeprefix("pid ")))
    assert os.getsid(supervisor.pid) == supervisor.pid != os.getsid(0)
    assert supervisor.ppid() != os.getpid()
    _, alive = psutil.wait_procs([supervisor], timeout=20)
    assert alive == []
    output = handle.poll()
    assert output is not None
    assert output.status is RunStatus.TIMED_OUT


def test_the_death_of_the_supervisor_is_noticed(
    start: Start, finish: Finish, alive: Callable[[int], bool], tmp_path: Path
) -> None:
    """kill -9 of the supervisor is infra_failed, its processes go, and the run stays over."""
    script = "(setsid sh -c 'echo $$ > orphan; exec sleep 60' &); echo $$ > child; sleep 60"
    handle = start("sh", "-c", script)
    folder = tmp_path / "night-0001"
    deadline = time.monotonic() + 20
    while not ((folder / "orphan").exists() and (folder / "child").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int(handle.reference.removeprefix("pid ")), signal.SIGKILL)
    output = finish(handle)
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail.startswith("the supervisor of the run died; ")
    left = [int((folder / name).read_text()) for name in ("orphan", "child")]
    assert [pid for pid in left if alive(pid)] == []
    assert start("sh", "-c", script).poll() == output


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("no memory", "it said: no memory"),
        ("Traceback (most recent call last):", "its error could not be written"),
    ],
)
def test_a_supervisor_that_cannot_start_is_reported(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, told: str
) -> None:
    """Where no supervisor comes up the run is infra_failed with its last words, not a hang.

    A full disk may have cut them before the name of the error.
    """
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\necho '{written}' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    output = start("true").poll()
    assert output is not None
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail.endswith(f"; {told}")


def test_a_folder_belongs_to_one_name(start: Start, finish: Finish, tmp_path: Path) -> None:
    """Another name in the same folder is refused: its output would be taken for this run's."""
    finish(start("true"))
    with pytest.raises(AutoresearchError, match="belongs to 'night-0001', not to 'night-0002'"):
        start("true", name="night-0002", folder=tmp_path / "night-0001")
