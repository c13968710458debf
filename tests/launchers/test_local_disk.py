"""A full disk ends a run with a reason; it never hangs one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoresearch.model import RunHandle, RunOutput, RunStatus

Start = Callable[..., RunHandle]
Finish = Callable[[RunHandle], RunOutput]

LIMITED = """
import json, resource, sys, time
from pathlib import Path
from autoresearch.launchers.local import Plugin
from autoresearch.model import RunRequest, Workspace
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
request = RunRequest(name="n", campaign="c", experiment=0, index=0,
                     command=("sh", "-c", "yes"), folder=Path(sys.argv[1]))
handle = Plugin().launch_run(request, Workspace(path=Path("."), script="s", project=Path(".")))
while (output := handle.poll()) is None:
    time.sleep(0.02)
print(json.dumps([output.status, output.detail]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_log_that_cannot_grow(tmp_path: Path) -> None:
    """A limit on file sizes stops run.log: infra_failed, and the reason of the system is told."""
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "run")],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    status, detail = json.loads(answer.stdout)
    assert status == RunStatus.INFRA_FAILED
    assert detail == "cannot write run.log: File too large; free some space and run again"
    assert (tmp_path / "run.control" / "run.log").stat().st_size == 20_000


def test_a_run_that_prints_the_disk_full(start: Start, finish: Finish, small_disk: Path) -> None:
    """When run.log has no room the run is killed, infra_failed, and its outcome is on disk."""
    output = finish(start("yes", folder=small_disk / "run"))
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail.startswith("cannot write run.log: No space left on device")
    assert (output.log_path.parent / "outcome.json").exists()


def test_a_run_that_fills_the_disk_itself(start: Start, finish: Finish, small_disk: Path) -> None:
    """The outcome of a run that wrote the disk full is kept in the room set aside for it."""
    fill = "dd if=/dev/zero of=model bs=4k 2>/dev/null; exit 7"
    output = finish(start("sh", "-c", fill, folder=small_disk / "run"))
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, 7)
    assert (output.log_path.parent / "outcome.json").exists()


def test_no_room_to_start(start: Start, small_disk: Path) -> None:
    """Where not even the request can be written nothing is started, and the reason is told."""
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(b"\0" * 300_000)
    output = start("true", folder=small_disk / "run").poll()
    assert output is not None
    assert output.status is RunStatus.INFRA_FAILED
    assert "No space left on device" in output.detail
