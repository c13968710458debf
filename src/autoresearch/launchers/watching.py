"""One started command: its output, and the reasons to end it before it ends by itself."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import IO

from attrs import define, field

from autoresearch.launchers.folder import RunFolder, Spec
from autoresearch.launchers.processes import reap
from autoresearch.model import RunStatus

_TICK_SECONDS = 0.1
_CHUNK_BYTES = 1 << 16


class CutShortError(Exception):
    """The supervisor itself ends the run, with this status and for this reason."""

    def __init__(self, status: RunStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@define
class RunLog:
    """`run.log` with its limit; what is over the limit, or has no room, ends the run."""

    file: IO[bytes]
    limit: int
    size: int = 0

    def write(self, data: bytes) -> None:
        room = self.limit - self.size
        try:
            self.file.write(data[:room])
        except OSError as error:
            raise CutShortError(
                RunStatus.INFRA_FAILED,
                f"cannot write run.log: {error.strerror}; free some space and run again",
            ) from error
        self.size += min(len(data), room)
        if len(data) > room:
            raise CutShortError(
                RunStatus.CRASHED,
                f"printed more than {self.limit} bytes and was killed; "
                "print less or raise limits.max_log_bytes",
            )


@define
class Watch:
    """A started command and what may end it."""

    process: subprocess.Popen[bytes]
    spec: Spec
    folder: RunFolder
    log: RunLog
    deadline: float
    signals: list[int]
    open: bool = field(default=True)

    def until_exit(self) -> int:
        """Return the command's exit code; raises CutShortError where it has to be killed."""
        while True:
            self._copy(_TICK_SECONDS)
            code = (reap() or {}).get(self.process.pid)
            if code is not None:
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
        if self.signals:
            name = signal.Signals(self.signals[0]).name
            raise CutShortError(
                RunStatus.INFRA_FAILED, f"the supervisor of the run was ended by {name}"
            )
        reason = self.folder.stop_reason()
        if reason is not None:
            raise CutShortError(RunStatus.STOPPED_EARLY, reason)
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
        self.log.write(data)
        return self.open
