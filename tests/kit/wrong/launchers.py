"""Wrong launchers; the first is right: what it knows of a run stands in the run's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from attrs import define, evolve

from autoresearch.hookspecs import hookimpl
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus

# The shell outlives the launcher and writes down how the command ended.
_SHELL = '"$@"; code=$?; echo $code > code.new; mv code.new code'


@define
class Process:
    """A process group with its deadline; ``child`` is None after a restart."""

    request: RunRequest
    pid: int
    deadline: float
    child: subprocess.Popen[bytes] | None = None

    @property
    def reference(self) -> str:
        """The process id."""
        return f"pid {self.pid}"

    @property
    def log_path(self) -> Path:
        """The file with what it printed."""
        return self.request.folder / "run.log"

    def poll(self) -> RunOutput | None:
        """Return the output once it is over."""
        if not self.kept("code") and not self.kept("ended") and time.monotonic() > self.deadline:
            self.end(RunStatus.TIMED_OUT)
        if not self.kept("code") and not self.kept("ended"):
            return None
        if self.child is not None:
            self.child.poll()
        return self.describe()

    def kept(self, name: str) -> str:
        """Return what stands in a file of the run's folder, "" when it is not there."""
        path = self.request.folder / name
        return path.read_text().strip() if path.exists() else ""

    def describe(self) -> RunOutput:
        """Say how it ended."""
        code = int(self.kept("code") or -signal.SIGKILL)
        status = RunStatus.CRASHED if code else RunStatus.COMPLETED
        return RunOutput(
            name=self.request.name,
            status=self.kept("ended") or status,
            log_path=self.log_path,
            folder=self.request.folder,
            exit_code=code,
        )

    def stop(self, reason: str) -> None:
        """End it."""
        self.end(RunStatus.STOPPED_EARLY)

    def end(self, status: RunStatus) -> None:
        """Kill it."""
        (self.request.folder / "ended").write_text(status.value)
        os.killpg(self.pid, signal.SIGKILL)
        if self.child is not None:
            self.child.wait()


class Launcher:
    """A right launcher: a name is started once, whoever asks."""

    process: type[Process] = Process

    def mine(self, request: RunRequest) -> bool:
        """Return whether a request is for this launcher."""
        return request.launcher != "somebody else's"

    def environment(self, request: RunRequest) -> dict[str, str]:
        """Return what the script sees."""
        return {"PATH": os.defpath, "SEED": str(request.seed), **request.env}

    def errors(self) -> int:
        """Return where stderr goes."""
        return subprocess.STDOUT

    def start(self, request: RunRequest) -> Process:
        """Start the command and write down its process id."""
        with (request.folder / "run.log").open("wb") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _SHELL, "sh", *request.command],
                cwd=request.folder,
                env=self.environment(request),
                stdout=log,
                stderr=self.errors(),
                start_new_session=True,
            )
        (request.folder / "pid").write_text(str(child.pid))
        return self.process(request, child.pid, time.monotonic() + request.timeout_seconds, child)

    def find(self, request: RunRequest) -> Process | None:
        """Return the run of this name if there is one."""
        path = request.folder / "pid"
        if not path.exists():
            return None
        return self.process(request, int(path.read_text()), float("inf"))

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        """Start a run, or find it."""
        if not self.mine(request):
            return None
        return self.find(request) or self.start(request)


class Forgets(Launcher):
    """Knows only the runs that it started itself."""

    def __init__(self) -> None:
        self.runs: dict[str, Process] = {}

    def find(self, request: RunRequest) -> Process | None:
        """Return the run of this name if this instance started it."""
        return self.runs.get(request.name)

    def start(self, request: RunRequest) -> Process:
        """Put away what is there, start the command and remember it."""
        if (request.folder / "pid").exists():
            os.killpg(int((request.folder / "pid").read_text()), signal.SIGKILL)
        for name in ("code", "ended"):
            (request.folder / name).unlink(missing_ok=True)
        self.runs[request.name] = super().start(request)
        return self.runs[request.name]


class TakesAll(Launcher):
    """Takes what is meant for another."""

    def mine(self, request: RunRequest) -> bool:
        """Take it."""
        return True


class HidesErrors(Launcher):
    """Throws stderr away."""

    def errors(self) -> int:
        """Throw away."""
        return subprocess.DEVNULL


class CallsCrashesTimeouts(Launcher):
    """Takes a crash for a timeout."""

    class process(Process):  # noqa: N801 - an attribute, not a name
        """Says it wrong."""

        def describe(self) -> RunOutput:
            """Say how it ended."""
            said = super().describe()
            crashed = said.status is RunStatus.CRASHED
            return evolve(said, status=RunStatus.TIMED_OUT) if crashed else said


class ForgetsTheSeed(Launcher):
    """Gives every run the same seed."""

    def environment(self, request: RunRequest) -> dict[str, str]:
        """Return what the script sees."""
        return {**super().environment(request), "SEED": "1337"}


class Leaks(Launcher):
    """Gives its whole environment away."""

    def environment(self, request: RunRequest) -> dict[str, str]:
        """Return what the script sees."""
        return {**os.environ, **super().environment(request)}


class StartsTwice(Launcher):
    """Starts a run again when it is asked for one that came to its end."""

    def find(self, request: RunRequest) -> Process | None:
        """Return the run of this name unless it has an exit code."""
        if not (request.folder / "code").exists():
            return super().find(request)
        (request.folder / "code").unlink()
        return None


class PollsSlowly(Launcher):
    """Waits before it says that a run goes on."""

    class process(Process):  # noqa: N801 - an attribute, not a name
        """Waits."""

        def poll(self) -> RunOutput | None:
            """Return the output once it is over."""
            output = super().poll()
            if output is None:
                time.sleep(0.6)
            return output


class CallsStopsCrashes(Launcher):
    """Takes a stopped run for a crashed one."""

    class process(Process):  # noqa: N801 - an attribute, not a name
        """Says it wrong."""

        def stop(self, reason: str) -> None:
            """End it."""
            self.end(RunStatus.CRASHED)


class IgnoresDeadlines(Launcher):
    """Lets a run go on for ever."""

    def start(self, request: RunRequest) -> Process:
        """Start the command."""
        return super().start(evolve(request, timeout_seconds=3600.0))
