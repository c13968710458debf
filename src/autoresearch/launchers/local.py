"""The launcher ``local``: the command runs on this machine, under a supervisor of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from attrs import frozen

from autoresearch.errors import AutoresearchError
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.environment import clean_environment
from autoresearch.launchers.folder import Outcome, RunFolder, Spec
from autoresearch.launchers.processes import RUN_MARKER, kill_marked
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02


@frozen
class LocalRun:
    """A run on this machine; everything it knows stands in the run's folder.

    `problem` is why the run could not even be handed to a supervisor; it is empty otherwise.
    """

    name: str
    folder: RunFolder
    problem: str = ""

    @property
    def reference(self) -> str:
        """The process id of the supervisor."""
        found = self.folder.read_supervisor()
        return f"pid {found['pid']}" if found else ""

    @property
    def log_path(self) -> Path:
        """Where the run's output goes while it goes on."""
        return self.folder.log

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None.

        A run whose supervisor is gone without an outcome is `infra_failed`, and what is left of
        its processes is killed.
        """
        outcome = self.folder.read_outcome() or self._abandoned()
        return self.folder.output(self.name, outcome) if outcome else None

    def stop(self, reason: str) -> None:
        """End the run with all its children and wait until they are gone; no harm done twice."""
        if self.poll() is not None:
            return
        self.folder.ask_to_stop(reason)
        end = time.monotonic() + _STOP_SECONDS
        while self.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def _abandoned(self) -> Outcome | None:
        if self.problem:
            return Outcome(status=RunStatus.INFRA_FAILED, detail=self.problem)
        try:
            with self.folder.lock() as alone:
                if not alone:
                    return None
                return self.folder.read_outcome() or self._give_up()
        except OSError as error:
            detail = f"the folder of the run cannot be used: {error}; mend it and run again"
            return Outcome(status=RunStatus.INFRA_FAILED, detail=detail)

    def _give_up(self) -> Outcome:
        killed = kill_marked(self.folder.path)
        outcome = Outcome(
            status=RunStatus.INFRA_FAILED,
            detail=f"the supervisor of the run died; processes left and killed: {killed}"
            + _last_words(self.folder.supervisor_log),
        )
        try:
            self.folder.write_outcome(outcome)
        except OSError as error:
            return Outcome(
                status=outcome.status, detail=f"{outcome.detail}; cannot record that: {error}"
            )
        return outcome


@hookimpl
def launch_run(request: RunRequest, workspace: Workspace) -> RunHandle | None:
    """Start a run on this machine, or find it: `request.folder` is where both is decided.

    The folder is also the working directory, so that what a script writes stays with its run; a
    word of the command that is the script's name therefore means the script in the worktree.
    """
    if request.launcher != "local":
        return None
    folder = RunFolder(request.folder.absolute())
    try:
        return _launch(request, workspace, folder)
    except OSError as error:
        problem = f"cannot start a run in {folder.path}: {error.strerror}; free or mend the disk"
        return LocalRun(request.name, folder, problem)


def _launch(request: RunRequest, workspace: Workspace, folder: RunFolder) -> LocalRun:
    folder.path.mkdir(parents=True, exist_ok=True)
    known = folder.read_spec()
    if known is None:
        folder.write_spec(_spec(request, workspace, folder))
    elif known.name != request.name:
        raise AutoresearchError(
            f"the run folder {folder.path} belongs to {known.name!r}, not to {request.name!r}; "
            "give every run a folder of its own"
        )
    if folder.read_outcome() is None and folder.read_supervisor() is None:
        _start_supervisor(folder)
    return LocalRun(request.name, folder)


def _spec(request: RunRequest, workspace: Workspace, folder: RunFolder) -> Spec:
    if not request.command:
        raise AutoresearchError("the command is empty; set command to a program and its arguments")
    script = {workspace.script: str(workspace.script_path.absolute())}
    extra = {"PYTHONUNBUFFERED": "1", **request.env}
    extra |= {"SEED": str(request.seed), "RUN_ID": request.name, RUN_MARKER: str(folder.path)}
    return Spec(
        name=request.name,
        command=tuple(script.get(word, word) for word in request.command),
        env=clean_environment(_environ_with_this_python_first(), extra),
        timeout_seconds=request.timeout_seconds,
        max_log_bytes=request.max_log_bytes,
    )


def _environ_with_this_python_first() -> dict[str, str]:
    """So that `torchrun` is the one beside the Python that runs the loop, activated or not."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


def _start_supervisor(folder: RunFolder) -> None:
    """Return once a supervisor is in charge; one that cannot be is found by the next poll."""
    package = str(Path(__file__).parents[2])
    with folder.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoresearch.launchers.supervisor", str(folder.path)],
            cwd=folder.path,
            env=clean_environment(os.environ, {"PYTHONPATH": package}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"; it said: {lines[-1]}" if lines else ""
