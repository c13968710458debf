"""Wrong launchers; the first is right, though too simple to survive its own process."""

# ruff: noqa: ARG002 - the signatures are those of the right plugins

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from attrs import define, evolve

from autoresearch.hookspecs import hookimpl
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus


@define
class Process:
    """A child of this process."""

    request: RunRequest
    child: subprocess.Popen[bytes]
    deadline: float
    ended: RunStatus | None = None
    output: RunOutput | None = None

    @property
    def reference(self) -> str:
        """The process id."""
        return f"pid {self.child.pid}"

    @property
    def log_path(self) -> Path:
        """The file with what it printed."""
        return self.request.folder / "run.log"

    def poll(self) -> RunOutput | None:
        """Return the output once it is over."""
        if self.output is None and self.child.poll() is None and time.monotonic() > self.deadline:
            self.end(RunStatus.TIMED_OUT)
        if self.output is None and self.child.poll() is not None:
            self.output = self.describe()
        return self.output

    def describe(self) -> RunOutput:
        """Say how it ended."""
        code = self.child.returncode
        status = RunStatus.CRASHED if code else RunStatus.COMPLETED
        return RunOutput(
            name=self.request.name,
            status=self.ended or status,
            log_path=self.log_path,
            folder=self.request.folder,
            exit_code=code,
        )

    def stop(self, reason: str) -> None:
        """End it."""
        self.end(RunStatus.STOPPED_EARLY)

    def end(self, status: RunStatus) -> None:
        """Kill it."""
        self.ended = status
        self.child.kill()
        self.child.wait()


class Launcher:
    """A right launcher, as long as this process lives."""

    name = "launcher"
    process: type[Process] = Process

    def __init__(self) -> None:
        self.runs: dict[str, Process] = {}

    def mine(self, request: RunRequest) -> bool:
        """Return whether a request is for this launcher."""
        return request.launcher != "somebody else's"

    def environment(self, request: RunRequest) -> dict[str, str]:
        """Return what the script sees."""
        return {"PATH": os.defpath, "SEED": str(request.seed), **request.env}

    def start(self, request: RunRequest) -> Process:
        """Start the command."""
        with (request.folder / "run.log").open("wb") as log:
            child = subprocess.Popen(
                request.command,
                cwd=request.folder,
                env=self.environment(request),
                stdout=log,
                stderr=self.errors(),
            )
        return self.process(request, child, time.monotonic() + request.timeout_seconds)

    def errors(self) -> int:
        """Return where stderr goes."""
        return subprocess.STDOUT

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        """Start a run, or find it."""
        if not self.mine(request):
            return None
        if request.name not in self.runs:
            self.runs[request.name] = self.start(request)
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
    """Forgets what it started."""

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        """Start a run."""
        return self.start(request) if self.mine(request) else None


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
