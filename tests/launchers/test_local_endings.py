"""Every way in which a run on this machine can end, each with its status and its one line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autoresearch.config import Config
from autoresearch.errors import AutoresearchError
from autoresearch.launchers.local import Plugin
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

Start = Callable[..., RunHandle]
Finish = Callable[[RunHandle], RunOutput]
Alive = Callable[[int], bool]

# Three sleepers, two of them orphans in sessions of their own; their pids go to `pids`.
SLEEPERS = """
setsid sh -c 'echo $$ >> pids; exec sleep 60' &
(setsid sh -c 'echo $$ >> pids; exec sleep 60' &)
sh -c 'echo $$ >> pids; exec sleep 60' &
while [ "$(wc -l < pids)" != 3 ]; do sleep 0.02; done
"""


def working_folder(handle: RunHandle) -> Path:
    return Path(str(handle.log_path.parent).removesuffix(".control"))


def pids(handle: RunHandle) -> list[int]:
    return [int(line) for line in (working_folder(handle) / "pids").read_text().split()]


def wait_for_sleepers(handle: RunHandle) -> list[int]:
    end = time.monotonic() + 20
    file = working_folder(handle) / "pids"
    while not file.exists() or len(file.read_text().split()) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    return pids(handle)


def test_a_run_that_ends_well(start: Start, finish: Finish) -> None:
    """Exit code 0 is completed, and both output streams are in run.log in their order."""
    handle = start("sh", "-c", "echo one; echo two >&2; echo three")
    output = finish(handle)
    assert (output.status, output.exit_code, output.detail) == (RunStatus.COMPLETED, 0, "")
    assert output.log_path.read_text() == "one\ntwo\nthree\n"
    assert 0 < output.seconds < 30


def test_a_run_that_fails(start: Start, finish: Finish) -> None:
    """Another exit code is crashed, and the line says which."""
    output = finish(start("sh", "-c", "echo no luck; exit 3"))
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, 3)
    assert output.detail == "exit code 3"
    assert output.log_path.read_text() == "no luck\n"


def test_a_run_that_a_signal_ends(start: Start, finish: Finish) -> None:
    """A fatal signal is crashed with a negative exit code, and is named."""
    output = finish(start("sh", "-c", "kill -SEGV $$"))
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, -11)
    assert output.detail == "killed by SIGSEGV"


def test_a_command_that_does_not_exist(start: Start, finish: Finish) -> None:
    """A missing program is nobody's bad idea: infra_failed, with what to do."""
    output = finish(start("no-such-program"))
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail == (
        "cannot start 'no-such-program': No such file or directory; "
        "set command to a program that is installed"
    )


def test_an_empty_command_is_refused(start: Start) -> None:
    """A request without a command is a mistake in the configuration."""
    with pytest.raises(AutoresearchError, match="the command is empty; set command"):
        start()


def test_a_run_that_hangs(start: Start, finish: Finish, alive: Alive) -> None:
    """At its deadline a run is killed with all its children, orphans in own sessions too."""
    handle = start("sh", "-c", SLEEPERS + "sleep 60", timeout_seconds=1.5)
    sleepers = wait_for_sleepers(handle)
    output = finish(handle)
    assert output.status is RunStatus.TIMED_OUT
    assert output.detail == "killed at its deadline of 1.5 seconds"
    assert output.seconds == pytest.approx(1.5, abs=1.5)
    assert [pid for pid in sleepers if alive(pid)] == []


def test_what_a_run_leaves_behind_is_killed(start: Start, finish: Finish, alive: Alive) -> None:
    """A run is over when its command is over; forgotten children do not outlive it."""
    handle = start("sh", "-c", SLEEPERS)
    output = finish(handle)
    assert output.status is RunStatus.COMPLETED
    assert [pid for pid in pids(handle) if alive(pid)] == []


def test_a_run_that_closes_its_output_goes_on(start: Start, finish: Finish) -> None:
    """The end of the output is not the end of the run."""
    output = finish(start("sh", "-c", "exec >/dev/null 2>&1; sleep 0.4; exit 5"))
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, 5)
    assert output.seconds >= 0.4


def test_a_run_that_writes_megabytes(start: Start, finish: Finish) -> None:
    """Whoever prints more than the limit is killed, and run.log holds the limit exactly."""
    output = finish(start("sh", "-c", "sleep 60 & yes", max_log_bytes=3_000_000))
    assert output.status is RunStatus.CRASHED
    assert output.detail.startswith("printed more than 3000000 bytes and was killed")
    assert output.log_path.stat().st_size == 3_000_000


def test_much_output_within_the_limit_is_kept_whole(start: Start, finish: Finish) -> None:
    """Not one byte of the output is lost when the command ends at once after it."""
    script = "import sys; sys.stdout.write('x' * 5_000_000)"
    output = finish(start(sys.executable, "-c", script, max_log_bytes=5_000_000))
    assert output.status is RunStatus.COMPLETED
    assert output.log_path.stat().st_size == 5_000_000


def test_a_run_that_is_stopped(start: Start, alive: Alive) -> None:
    """After stop() the next poll says stopped_early with the reason, and no process is left."""
    handle = start("sh", "-c", SLEEPERS + "echo going; sleep 60")
    sleepers = wait_for_sleepers(handle)
    assert handle.poll() is None
    handle.stop("val_bpb 9.1 is hopeless")
    output = handle.poll()
    assert output is not None
    assert (output.status, output.detail) == (RunStatus.STOPPED_EARLY, "val_bpb 9.1 is hopeless")
    assert [pid for pid in sleepers if alive(pid)] == []


def test_stop_after_the_end_changes_nothing(start: Start, finish: Finish) -> None:
    """A finished run keeps its outcome."""
    handle = start("true")
    first = finish(handle)
    handle.stop("too late")
    assert handle.poll() == first


def test_the_output_can_be_read_while_the_run_goes_on(start: Start) -> None:
    """run.log grows as the script prints, so that a doomed run can be seen."""
    handle = start(sys.executable, "-c", "import time; print('step:1'); time.sleep(60)")
    end = time.monotonic() + 20
    while handle.log_path.read_bytes() != b"step:1\n":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert handle.poll() is None


@pytest.mark.parametrize("absolute", [True, False])
def test_files_of_the_script_land_in_the_run_folder(
    start: Start, finish: Finish, tmp_path: Path, absolute: bool
) -> None:
    """The run's folder is the working directory, and modules beside the script can be imported."""
    worktree = tmp_path / "worktree"
    worktree.mkdir()
    (worktree / "helper.py").write_text("NAME = 'final_model.int8.ptz'\n")
    script = worktree / "train.py"
    script.write_text("import helper\nopen(helper.NAME, 'w').write('model')\n")
    output = finish(start(sys.executable, str(script) if absolute else "train.py"))
    assert output.status is RunStatus.COMPLETED, output.log_path.read_text()
    assert (output.folder / "final_model.int8.ptz").read_text() == "model"
    assert {file.name for file in worktree.iterdir()} <= {"helper.py", "train.py", "__pycache__"}


def test_the_environment_of_a_run(
    start: Start, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run sees its seed, its name and the campaign's variables, and no credential."""
    monkeypatch.setenv("GITHUB_TOKEN", "hunter2")
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    monkeypatch.setenv("MATRIX_LR", "0.9")
    output = finish(start("env", seed=7, env={"ITERATIONS": "30"}))
    text = output.log_path.read_text()
    lines = text.splitlines()
    assert {"SEED=7", "RUN_ID=night-0001", "ITERATIONS=30", "PYTHONUNBUFFERED=1"} <= set(lines)
    assert "hunter2" not in text
    assert "MATRIX_LR" not in text
    assert f"PATH={Path(sys.executable).parent}{os.pathsep}" in text


def test_a_supervisor_told_to_end_takes_its_run_along(
    start: Start, finish: Finish, alive: Alive
) -> None:
    """SIGTERM to the supervisor, as at a shutdown, is infra_failed and leaves nothing running."""
    handle = start("sh", "-c", SLEEPERS + "sleep 60")
    sleepers = wait_for_sleepers(handle)
    psutil.Process(int(handle.reference.removeprefix("pid "))).terminate()
    output = finish(handle)
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail == "the supervisor of the run was ended by SIGTERM"
    assert [pid for pid in sleepers if alive(pid)] == []


def test_other_launchers_requests_are_passed_on(tmp_path: Path) -> None:
    """A request for another launcher is answered with None, and nothing is written."""
    request = RunRequest(
        name="n", campaign="c", experiment=0, index=0, command=("true",), launcher="elsewhere",
        folder=tmp_path / "run",
    )  # fmt: skip
    space = Workspace(path=tmp_path, script="train.py", project=tmp_path)
    assert Plugin().launch_run(request, space) is None
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_no_program_can_be_given_is_refused(tmp_path: Path) -> None:
    """It would be tried for ever: nothing about it passes."""
    script = tmp_path / "train.py"
    script.touch()
    for wanted in (
        Config(preset="plain", command=("{python}", "-c", "x" * (128 << 10))),
        Config(preset="plain", env={"DATA": "x" * (128 << 10)}),
    ):
        said = Plugin().check_launcher(wanted, tmp_path)
        assert said is not None
        assert "no program takes over 131071; put it into a file" in said[0]
    assert not Plugin().check_launcher(Config(preset="plain"), tmp_path)
