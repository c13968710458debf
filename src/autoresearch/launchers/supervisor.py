"""The process that owns one run: ``python -m autoresearch.launchers.supervisor FOLDER``.

It outlives the loop: it starts the command, keeps its output, its deadline and its limits, ends the
whole tree of processes and writes `outcome.json`, whoever else is alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil

from autoresearch.launchers.environment import visible_gpus
from autoresearch.launchers.folder import Outcome, RunFolder, Spec
from autoresearch.launchers.processes import adopt_orphans, dies_with, kill_descendants
from autoresearch.launchers.watching import CutShortError, RunLog, Watch
from autoresearch.model import RunStatus

_LOCK_SECONDS = 2.0


def supervise(folder: RunFolder, spec: Spec, started: Callable[[], None]) -> None:
    """Run `spec` in `folder` unless somebody did already; calls `started` once that is settled."""
    end = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < end:
        with folder.lock() as alone:
            if alone:
                if folder.read_supervisor() is None and folder.read_outcome() is None:
                    _own(folder, spec, started)
                return
        if folder.read_supervisor() is not None:
            return  # another supervisor was quicker
        time.sleep(0.05)  # a handle may hold the lock for an instant


def _own(folder: RunFolder, spec: Spec, started: Callable[[], None]) -> None:
    signals: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    folder.reserve()
    me = psutil.Process()
    folder.write_supervisor({"pid": me.pid, "created": me.create_time()})
    started()
    adopt_orphans()
    began = time.monotonic()
    status, detail, code = _run(folder, spec, signals)
    seconds = time.monotonic() - began
    folder.write_outcome(
        Outcome(
            status=status,
            detail=detail,
            exit_code=code,
            seconds=round(seconds, 3),
            gpu_seconds=round(seconds * visible_gpus(spec.env), 3),
        )
    )


def _run(folder: RunFolder, spec: Spec, signals: list[int]) -> tuple[RunStatus, str, int | None]:
    try:
        with folder.log.open("wb", buffering=0) as file:
            log = RunLog(file, spec.max_log_bytes)
            ended = _run_command(folder, spec, signals, log)
            os.fsync(file.fileno())
            return ended
    except CutShortError as end:
        return end.status, _with_survivors(str(end)), None
    except OSError as error:
        return RunStatus.INFRA_FAILED, _with_survivors(f"cannot keep run.log: {error}"), None


def _run_command(
    folder: RunFolder, spec: Spec, signals: list[int], log: RunLog
) -> tuple[RunStatus, str, int | None]:
    deadline = time.monotonic() + spec.timeout_seconds
    process = _start(folder, spec)
    watch = Watch(process, spec, folder, log, deadline, signals)
    try:
        code = watch.until_exit()
        survivors = _with_survivors("")
        watch.drain()
    finally:
        process.returncode = 0  # reaped by pid, together with every orphan
        watch.close()
    return *_judge(code, survivors), code


def _start(folder: RunFolder, spec: Spec) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            spec.command,
            cwd=folder.path,
            env=dict(spec.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            preexec_fn=dies_with(os.getpid()),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CutShortError(
            RunStatus.INFRA_FAILED,
            f"cannot start {spec.command[0]!r}: {reason}; "
            "set command to a program that is installed",
        ) from error


def _judge(code: int, survivors: str) -> tuple[RunStatus, str]:
    if code == 0:
        return RunStatus.COMPLETED, survivors
    if code > 0:
        return RunStatus.CRASHED, f"exit code {code}{survivors}"
    return RunStatus.CRASHED, f"killed by {_signal_name(-code)}{survivors}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _with_survivors(detail: str) -> str:
    return detail if kill_descendants() else f"{detail}; some of its processes could not be killed"


def _detach(folder: RunFolder, spec: Spec) -> int:
    """Fork, and return once the child is in charge of the run or has found that it must not be."""
    settled, settling = os.pipe()
    if os.fork():
        os.close(settling)
        os.read(settled, 1)  # ends when the child closes its side, or dies
        return 0
    os.close(settled)
    os.setsid()
    supervise(folder, spec, started=lambda: os.close(settling))
    return 0


def main(arguments: list[str]) -> int:
    """Own the run in the folder named by the only argument; returns the exit code."""
    folder = RunFolder(Path(arguments[0]))
    spec = folder.read_spec()
    if spec is None:
        print(f"no request.json in {folder.path}; start runs through a launcher", file=sys.stderr)
        return 1
    return _detach(folder, spec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
