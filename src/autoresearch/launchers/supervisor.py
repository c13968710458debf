"""The process that owns one run: ``python -m autoresearch.launchers.supervisor FOLDER CONTROL``.

It outlives the loop: it starts the command, keeps its output, its deadline and its limits, ends the
whole tree of processes and writes `outcome.json`, whoever else is alive.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

import psutil
from attrs import define, evolve

from autoresearch.durable import end_of
from autoresearch.launchers import Outcome, RunFolder, Spec
from autoresearch.launchers.environment import lease, visible_gpus
from autoresearch.model import RunStatus

RUN_MARKER = "AUTORESEARCH_RUN"
"""Variable in the environment of every process of a run; its value is the run's folder."""
_MISSED = re.compile(r"(No such file or directory|Read-only file system)\b.*?'(/[^'\n]+)'")
_MODULE = "autoresearch.launchers.supervisor"

_LOCK_SECONDS = 2.0
_TICK_SECONDS = 0.1
_LEASE_SECONDS = 0.3
_CHUNK_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class CutShortError(Exception):
    """The supervisor itself ends the run, with this status and for this reason."""

    def __init__(self, status: RunStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@define
class Watch:
    """A started command, its output in `run.log`, and what may end it before it ends by itself."""

    process: subprocess.Popen[bytes]
    spec: Spec
    folder: RunFolder
    file: IO[bytes]
    deadline: float
    signals: list[int]
    size: int = 0
    open: bool = True

    def until_exit(self) -> int:
        """Return the command's exit code; raises CutShortError where it has to be killed."""
        while True:
            self._copy(_TICK_SECONDS)
            code = (reap() or {}).get(self.process.pid)
            if code is not None:
                # Late here means that the run stopped this process, and went on in its shadow.
                self._check_deadline()
                return code
            self._check()

    def drain(self) -> None:
        """Copy what the command left in the pipe."""
        while self._copy(0):
            pass

    def close(self) -> None:
        """Let go of the pipe, so that whoever still writes into it is stopped by the kernel."""
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _check(self) -> None:
        cut_short(self.folder, self.signals)
        self._check_deadline()

    def _check_deadline(self) -> None:
        if time.monotonic() >= self.deadline:
            limit = self.spec.timeout_seconds
            raise CutShortError(RunStatus.TIMED_OUT, f"killed at its deadline of {limit:g} seconds")

    def _copy(self, seconds: float) -> bool:
        pipe = self.process.stdout
        if not self.open or pipe is None:
            time.sleep(seconds)
            return False
        if not select.select([pipe], [], [], seconds)[0]:
            return False
        data = os.read(pipe.fileno(), _CHUNK_BYTES)
        self.open = bool(data)
        self._keep(data)
        return self.open

    def _keep(self, data: bytes) -> None:
        """Write to `run.log`; what is over the limit, or does not fit on the disk, ends the run."""
        left = self.spec.max_log_bytes - self.size
        try:
            self.file.write(data[:left])
        except OSError as error:
            raise CutShortError(
                RunStatus.INFRA_FAILED,
                f"cannot write run.log: {error.strerror}; free some space and run again",
            ) from error
        self.size += min(len(data), left)
        if len(data) > left:
            raise CutShortError(
                RunStatus.CRASHED,
                f"printed more than {self.spec.max_log_bytes} bytes and was killed; "
                "print less or raise limits.max_log_bytes",
            )


def supervise(folder: RunFolder, spec: Spec, started: Callable[[], None]) -> None:
    """Run `spec` in `folder` unless that was done already; calls `started` once that is settled."""
    end = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < end:
        with folder.lock() as alone:
            if alone:
                if folder.read("supervisor.json") is None and folder.read_outcome() is None:
                    _own(folder, spec, started)
                return
        if folder.read("supervisor.json") is not None:
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
    owner = {"pid": me.pid, "created": me.create_time()}
    folder.write("supervisor.json", owner)  # from now on no one may start it again
    started()
    hide_memory()
    _adopt_orphans()
    try:
        spec = _with_gpus(folder, spec, signals)
    except CutShortError as end:
        folder.write_outcome(Outcome(status=end.status, detail=str(end)))
        return
    began = time.monotonic()  # the machine's clock, the same for every process
    folder.write("supervisor.json", {**owner, "began": began})
    status, detail, code = _run(folder, spec, signals)
    seconds = time.monotonic() - began
    folder.write_outcome(
        Outcome(
            status=status,
            detail=detail,
            exit_code=code,
            seconds=round(seconds, 3),
            gpu_seconds=round(seconds * (spec.gpus or visible_gpus(spec.env)), 3),
        )
    )


def _with_gpus(folder: RunFolder, spec: Spec, signals: list[int]) -> Spec:
    """Wait until there are GPUs for the run, which this process holds until it ends."""
    while (taken := lease(spec.devices, spec.gpus)) is None:
        cut_short(folder, signals)
        time.sleep(_LEASE_SECONDS)
    if not spec.gpus:
        return spec
    # Numbers are those of the device files; by default CUDA numbers by speed.
    order = spec.env.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    told = {"CUDA_DEVICE_ORDER": order, "CUDA_VISIBLE_DEVICES": ",".join(taken.names)}
    return evolve(spec, env={**spec.env, **told})


def cut_short(folder: RunFolder, signals: list[int]) -> None:
    """Raise CutShortError where this process was ended, or the run is to be."""
    if signals:
        name = signal.Signals(signals[0]).name
        raise CutShortError(
            RunStatus.INFRA_FAILED, f"the supervisor of the run was ended by {name}"
        )
    reason = folder.stop_reason()
    if reason is not None:
        raise CutShortError(RunStatus.STOPPED_EARLY, reason)


def _run(folder: RunFolder, spec: Spec, signals: list[int]) -> tuple[RunStatus, str, int | None]:
    try:
        with folder.log.open("wb", buffering=0) as file:
            ended = _run_command(folder, spec, signals, file)
            os.fsync(file.fileno())
            return ended
    except CutShortError as end:
        return end.status, _with_survivors(str(end)), None
    except OSError as error:
        return RunStatus.INFRA_FAILED, _with_survivors(f"cannot keep run.log: {error}"), None


def _run_command(
    folder: RunFolder, spec: Spec, signals: list[int], file: IO[bytes]
) -> tuple[RunStatus, str, int | None]:
    deadline = time.monotonic() + spec.timeout_seconds
    process = _start(folder, spec)
    watch = Watch(process, spec, folder, file, deadline, signals)
    try:
        code = watch.until_exit()
        survivors = _with_survivors("")
        watch.drain()
    finally:
        process.returncode = 0  # reaped by pid, together with every orphan
        watch.close()
    if spec.held and code > 128:  # how bubblewrap tells of a signal
        code = 128 - code
    if code == 0:
        return RunStatus.COMPLETED, survivors, code
    how = f"exit code {code}" if code > 0 else f"killed by {_signal_name(-code)}"
    said = end_of(folder.log, _CHUNK_BYTES) if spec.held else ""
    if code == 1 and said.startswith("bwrap: ") and said.count("\n") == 1:  # all there is
        detail = f"{said.strip()}; repair that, or set boundary.kind to none{survivors}"
        return RunStatus.INFRA_FAILED, detail, None
    hint = _kept_out(said)
    return RunStatus.CRASHED, how + hint + survivors, code


def _kept_out(said: str) -> str:
    """Return which path a held run missed in its last lines, though it is there; else nothing."""
    for what, path in reversed(_MISSED.findall(said)):
        if what.startswith("Read-only"):
            return f"; {path} can only be read in bubblewrap: name it in boundary.writes"
        if os.path.exists(path):
            return f"; {path} is hidden by bubblewrap: name it in data or boundary.reads"
    return ""


def _start(folder: RunFolder, spec: Spec) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            spec.command,
            cwd=spec.cwd or folder.path,
            env=dict(spec.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        reason = f"{why}; set command to a program that is installed"
        if spec.cwd and not Path(spec.cwd).is_dir():
            reason = f"its working directory {spec.cwd} does not exist"
        raise CutShortError(
            RunStatus.INFRA_FAILED, f"cannot start {spec.command[0]!r}: {reason}"
        ) from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _with_survivors(detail: str) -> str:
    return detail if _kill_descendants() else f"{detail}; some of its processes could not be killed"


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory and environment.

    /proc/PID/environ of a process that is not dumpable is root's alone. Root is not kept out, and
    where there is no prctl nothing is.
    """
    with suppress(AttributeError):
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def reap() -> dict[int, int] | None:
    """Collect dead children as pid to exit code, negative for a signal; None if no child is left.

    After `_adopt_orphans` None means that no descendant lives at all: the kernel says so.
    """
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended or None
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_marked(folder: Path, seconds: float = 5.0) -> int:
    """Kill what is left of the run in `folder` after its supervisor died; return how many."""
    end = time.monotonic() + seconds
    killed: set[int] = set()
    while time.monotonic() < end:
        left = list(_marked(folder))
        if not left:
            break
        for process in left:
            _kill(process)
            killed.add(process.pid)
        psutil.wait_procs(left, timeout=0.2)
    return len(killed)


def _marked(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or of another user
            if process.environ().get(RUN_MARKER) == str(folder):
                yield process


def run_around() -> str:
    """Return the folder of the run that this process belongs to; empty: to none.

    A run cannot leave its supervisor, which adopts every orphan, by emptying its environment.
    """
    if RUN_MARKER in os.environ:
        return os.environ[RUN_MARKER]
    for process in psutil.Process().parents():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or of another user
            words = process.cmdline()
            if _MODULE in words[1:-2]:
                return words[-2]
    return ""


def _adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies, setsid or not."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _dies_with(parent: int) -> Callable[[], None]:
    """Return what a new child calls so that the kernel kills it when process `parent` dies."""

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the request was made
            os._exit(1)

    return bind


def _kill_descendants(seconds: float = 10.0) -> bool:
    """Kill every descendant of this process and say whether all were gone within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            _kill(process)
        if reap() is None:
            return True
        time.sleep(0.01)
    return False


def _kill(process: psutil.Process) -> None:
    """Kill with its group at once, which a process that forks on and on cannot outrun."""
    with suppress(psutil.Error, OSError):  # gone, or it changed its user: the caller looks again
        group = os.getpgid(process.pid)
        process.kill()
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


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
    """Own the run of the two folders that are the arguments; returns the exit code."""
    folder = RunFolder(Path(arguments[0]), Path(arguments[1]))
    spec = folder.read_spec()
    if spec is None:
        print(
            f"no request.json in {folder.control}; start runs through a launcher", file=sys.stderr
        )
        return 1
    return _detach(folder, spec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
