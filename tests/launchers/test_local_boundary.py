"""What a run must not be able to do: end itself, outlive its deadline, read its launcher, push."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.config import Config
from autoresearch.errors import AutoresearchError
from autoresearch.launchers import RunFolder, far, local, log_in
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

Start = Callable[..., RunHandle]
Finish = Callable[[RunHandle], RunOutput]

FORGED = '{"status": "completed", "exit_code": 0, "seconds": 1, "cost_usd": -5}'


def control_of(handle: RunHandle) -> Path:
    return handle.log_path.parent


def wait_for(path: Path) -> str:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return path.read_text()


@pytest.mark.parametrize("place", [".", "../night-0001.control"])
def test_a_run_cannot_write_its_own_outcome(
    start: Start, finish: Finish, tmp_path: Path, place: str
) -> None:
    """An outcome that appears while the supervisor lives is not believed, wherever it is put."""
    script = f"echo '{FORGED}' > {place}/outcome.json; touch done"
    script += "; while [ ! -e go ]; do sleep 0.05; done; exit 3"
    handle = start("sh", "-c", script)
    wait_for(tmp_path / "night-0001" / "done")
    assert handle.poll() is None
    (tmp_path / "night-0001" / "go").touch()
    output = finish(handle)
    assert (output.status, output.exit_code, output.cost_usd) == (RunStatus.CRASHED, 3, 0.0)


def test_control_files_are_not_in_the_folder_of_the_run(start: Start, finish: Finish) -> None:
    """The run finds its own files alone around it; a run.log or stop.json of its own is nothing."""
    script = "ls -A; echo {} > supervisor.json; echo x > run.log; echo {} > stop.json"
    output = finish(start("sh", "-c", script))
    assert output.status is RunStatus.COMPLETED
    assert output.log_path.read_text() == ""
    assert output.log_path.parent == output.folder.with_name("night-0001.control")
    assert output.log_path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cost_usd": -5.0}, "cost_usd is -5.0, but must be 0 or more"),
        ({"seconds": float("nan")}, "seconds is nan, but must be 0 or more"),
        ({"gpu_seconds": float("inf")}, "gpu_seconds is inf, but must be 0 or more"),
        ({"status": "splendid"}, "'splendid' is not a valid RunStatus"),
        ({"bonus": 1}, "unexpected keyword argument 'bonus'"),
    ],
)
def test_an_impossible_outcome_is_refused(
    start: Start, finish: Finish, change: dict[str, object], why: str
) -> None:
    """A price below nothing, a time that is not finite, an unknown word: the machine failed."""
    handle = start("true")
    finish(handle)
    file = control_of(handle) / "outcome.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    output = handle.poll()
    assert output is not None
    assert output.status is RunStatus.INFRA_FAILED
    assert why in output.detail
    assert output.cost_usd == 0.0


def test_a_supervisor_that_was_stopped_keeps_the_deadline(start: Start, finish: Finish) -> None:
    """A run that stops its supervisor past the deadline has not completed."""
    script = "kill -STOP $PPID; sleep 1.5; kill -CONT $PPID; exit 0"
    output = finish(start("sh", "-c", script, timeout_seconds=1.0))
    assert output.status is RunStatus.TIMED_OUT
    assert output.detail == "killed at its deadline of 1 seconds"


def test_a_supervisor_that_stays_stopped_is_replaced(
    start: Start,
    finish: Finish,
    alive: Callable[[int], bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The launcher's own clock ends the run, and accounts the time up to its deadline."""
    monkeypatch.setattr(far, "_OVERDUE_SECONDS", 0.5)
    script = "echo $$ > pid.new; mv pid.new pid; kill -STOP $PPID; sleep 60"
    handle = start("sh", "-c", script, timeout_seconds=1.0)
    pid = int(wait_for(tmp_path / "night-0001" / "pid"))
    output = finish(handle)
    assert output.status is RunStatus.TIMED_OUT
    assert output.detail.startswith("killed after its deadline of 1 seconds; its supervisor did")
    assert output.seconds == 1.0
    assert not alive(pid)
    assert handle.poll() == output


def test_stop_does_not_need_the_supervisor(
    start: Start, alive: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run whose supervisor does not answer is ended by whoever stops it."""
    monkeypatch.setattr(far, "_STOP_SECONDS", 0.3)
    script = "echo $$ > pid.new; mv pid.new pid; kill -STOP $PPID; sleep 60"
    handle = start("sh", "-c", script)
    pid = int(wait_for(tmp_path / "night-0001" / "pid"))
    time.sleep(0.2)
    handle.stop("hopeless")
    output = handle.poll()
    assert output is not None
    assert output.status is RunStatus.STOPPED_EARLY
    assert output.detail.startswith("hopeless; its supervisor did not answer")
    assert not alive(pid)


def test_the_time_of_a_lost_run_is_accounted(start: Start, finish: Finish) -> None:
    """A run whose supervisor was killed has used its machine until then."""
    handle = start("sh", "-c", "sleep 0.4; kill -KILL $PPID; sleep 60")
    output = finish(handle)
    assert output.status is RunStatus.INFRA_FAILED
    assert output.seconds >= 0.4


def test_a_name_belongs_to_one_script(start: Start, finish: Finish) -> None:
    """The name of a run that another script had is refused: its score would count here."""
    finish(start("true", script_digest="a" * 64))
    finish(start("true", script_digest="a" * 64))
    with pytest.raises(AutoresearchError, match="started with script aaaaaaaaaaaa, not with bbbb"):
        start("true", script_digest="b" * 64)


def test_git_does_not_climb_out_of_a_run(start: Start, finish: Finish, tmp_path: Path) -> None:
    """The repository around the run's folder is not found from inside it."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    output = finish(start("git", "rev-parse", "--show-toplevel"))
    assert output.status is RunStatus.CRASHED
    assert "not a git repository" in output.log_path.read_text()


LAUNCHER = """
import ctypes, sys
from pathlib import Path
from autoresearch.launchers.local import Plugin
from autoresearch.model import RunRequest, Workspace
request = RunRequest(name="n", campaign="c", experiment=0, index=0,
                     command=("true",), folder=Path(sys.argv[1]))
handle = Plugin().launch_run(request, Workspace(path=Path("."), script="s", project=Path(".")))
while handle.poll() is None:
    pass
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""


def test_the_launcher_cannot_be_read(tmp_path: Path) -> None:
    """The process that starts runs is not dumpable, so that its environment is root's alone."""
    said = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "run")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout == "0\n"


def test_a_person_passes_variables_on(
    tmp_path: Path, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting pass_env reaches the environment of a run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    plugin = local.Plugin()
    plugin.configure(Config(pass_env=("WANDB_*",)))
    request = RunRequest(
        name="n", campaign="c", experiment=0, index=0, command=("env",), folder=tmp_path / "run"
    )
    space = Workspace(path=tmp_path, script="train.py", project=tmp_path)
    handle = plugin.launch_run(request, space)
    assert handle is not None
    text = finish(handle).log_path.read_text()
    assert "WANDB_MODE=offline" in text
    assert "hunter2" not in text


def old_folder(path: Path) -> None:
    """Make the folder of a run as an earlier version left it: everything in one place."""
    path.mkdir()
    spec = {"name": "night-0001", "command": ["true"], "env": {}, "timeout_seconds": 900.0}
    (path / "request.json").write_text(json.dumps({**spec, "max_log_bytes": 1000}))
    (path / "supervisor.json").write_text(json.dumps({"pid": 2**22 + 1, "created": 1.0}))
    (path / "run.log").write_text("val_bpb:1.5\n")
    (path / "supervisor.log").touch()
    (path / "supervisor.lock").touch()


def test_a_finished_run_of_an_earlier_version_is_read(start: Start, tmp_path: Path) -> None:
    """Its outcome beside its log is found, and it is not run again."""
    path = tmp_path / "night-0001"
    old_folder(path)
    kept = {"status": "crashed", "detail": "exit code 4", "exit_code": 4, "seconds": 2.0}
    (path / "outcome.json").write_text(json.dumps(kept))
    output = start("true", script_digest="a" * 64).poll()
    assert output is not None
    assert (output.status, output.exit_code, output.seconds) == (RunStatus.CRASHED, 4, 2.0)
    assert output.log_path == path / "run.log" == log_in(path)
    assert not (tmp_path / "night-0001.control").exists()


def test_a_going_run_of_an_earlier_version_is_found(start: Start, tmp_path: Path) -> None:
    """Its supervisor holds the lock in the old place: attached to, then read."""
    path = tmp_path / "night-0001"
    old_folder(path)
    with RunFolder.of(path).lock() as alone:
        assert alone
        handle = start("true")
        assert handle.poll() is None
        (path / "outcome.json").write_text('{"status": "completed", "exit_code": 0}')
        assert handle.poll() is None
    output = handle.poll()
    assert output is not None
    assert output.status is RunStatus.COMPLETED
