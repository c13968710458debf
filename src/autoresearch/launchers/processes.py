"""Linux process trees: hold on to every descendant, and end all of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

RUN_MARKER = "AUTORESEARCH_RUN"
"""Variable in the environment of every process of a run; its value is the run's folder."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies, setsid or not."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def dies_with(parent: int) -> Callable[[], None]:
    """Return what a new child calls so that the kernel kills it when process `parent` dies."""

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the request was made
            os._exit(1)

    return bind


def reap() -> dict[int, int] | None:
    """Collect dead children as pid to exit code, negative for a signal; None if no child is left.

    After `adopt_orphans` None means that no descendant lives at all: the kernel says so.
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


def kill_descendants(seconds: float = 10.0) -> bool:
    """Kill every descendant of this process and say whether all were gone within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            _kill(process)
        if reap() is None:
            return True
        time.sleep(0.01)
    return False


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
        try:
            if process.environ().get(RUN_MARKER) == str(folder):
                yield process
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's


def _kill(process: psutil.Process) -> None:
    """Kill with its group at once, which a process that forks on and on cannot outrun."""
    try:
        group = os.getpgid(process.pid)
        process.kill()
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
    except (psutil.Error, OSError):
        return  # gone meanwhile, or it changed its user: the caller looks again
