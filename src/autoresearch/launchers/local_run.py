"""A run on this machine: how its supervisor is started, and what is known of it afterwards.

Also what the far end of `ssh` loads for every question: no settings, no hooks and no log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import evolve, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.launchers.environment import clean_environment, visible_gpus
from autoresearch.launchers.folder import InFolder, Outcome, RunFolder
from autoresearch.launchers.supervisor import kill_marked
from autoresearch.model import RunOutput, RunRequest, RunStatus, Workspace

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_OVERDUE_SECONDS = 60.0  # what a supervisor may need to kill a run and write its outcome


@frozen
class LocalRun(InFolder):
    """A run on this machine; everything it knows stands in the run's control folder.

    `problem` is why the run could not even be handed to a supervisor; it is empty otherwise.
    """

    name: str
    folder: RunFolder
    problem: str = ""

    @property
    def reference(self) -> str:
        """The process id of the supervisor."""
        found = self.folder.read("supervisor.json")
        return f"pid {found['pid']}" if found else ""

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None.

        An outcome counts once the supervisor is gone: what stands there before was written by
        someone else. A run whose supervisor is gone without an outcome is `infra_failed`, and
        what is left of its processes is killed.
        """
        outcome = self._look()
        return self.folder.output(self.name, outcome) if outcome else None

    def stop(self, reason: str) -> None:
        """End the run with all its children and wait until they are gone; no harm done twice."""
        if self.poll() is not None:
            return
        self.folder.ask_to_stop(reason)
        end = time.monotonic() + _STOP_SECONDS
        while self.poll() is None:
            if time.monotonic() >= end:
                self._take_over(RunStatus.STOPPED_EARLY, f"{reason}; its supervisor did not answer")
                return
            time.sleep(_POLL_SECONDS)

    def _look(self) -> Outcome | None:
        if self.problem:
            return Outcome(status=RunStatus.INFRA_FAILED, detail=self.problem)
        try:
            with self.folder.lock() as alone:
                if alone:
                    return self.folder.read_outcome() or self._give_up(
                        RunStatus.INFRA_FAILED, "the supervisor of the run died"
                    )
            return self._end_overdue()
        except (OSError, ValueError, TypeError, KeyError) as error:
            detail = f"the folder of the run cannot be used: {error}; repair it and run again"
            return Outcome(status=RunStatus.INFRA_FAILED, detail=detail)

    def _end_overdue(self) -> Outcome | None:
        """Keep the deadline for a supervisor that does not, because the run stopped it."""
        spec, owner = self.folder.read_spec(), self.folder.read("supervisor.json")
        if spec is None or owner is None or "began" not in owner:
            return None
        limit = spec.timeout_seconds
        if time.monotonic() < owner["began"] + limit + _OVERDUE_SECONDS:
            return None
        detail = f"killed after its deadline of {limit:g} seconds; its supervisor did not answer"
        return self._take_over(RunStatus.TIMED_OUT, detail)

    def _take_over(self, status: RunStatus, detail: str) -> Outcome | None:
        """End a supervisor that does not answer, and the run with it."""
        owner = self.folder.read("supervisor.json") or {"pid": 0, "created": 0.0}
        with suppress(psutil.Error):
            process = psutil.Process(owner["pid"])
            if abs(process.create_time() - owner["created"]) < 1.0:  # else the pid is used again
                process.kill()
                process.wait(5.0)
        with self.folder.lock() as alone:
            return (self.folder.read_outcome() or self._give_up(status, detail)) if alone else None

    def _give_up(self, status: RunStatus, detail: str) -> Outcome:
        killed = kill_marked(self.folder.path)
        detail += f"; processes left and killed: {killed}{_last_words(self.folder.supervisor_log)}"
        seconds, gpu_seconds = self._spent()
        outcome = Outcome(status=status, detail=detail, seconds=seconds, gpu_seconds=gpu_seconds)
        try:
            self.folder.write_outcome(outcome)
        except OSError as error:
            return evolve(outcome, detail=f"{detail}; cannot record that: {error}")
        return outcome

    def _spent(self) -> tuple[float, float]:
        """Return the seconds since the start, at most to the deadline, and those of its GPUs."""
        spec, owner = self.folder.read_spec(), self.folder.read("supervisor.json")
        if spec is None or owner is None:
            return 0.0, 0.0
        seconds = min(max(time.time() - owner["created"], 0.0), spec.timeout_seconds)
        return round(seconds, 3), round(seconds * (spec.gpus or visible_gpus(spec.env)), 3)


def environ_with_this_python_first() -> dict[str, str]:
    """So that `torchrun` is the one beside the Python that runs the loop, activated or not."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


def command_of(request: RunRequest, workspace: Workspace) -> tuple[str, ...]:
    """Return the words of the command, with the path of the script in the place of its name.

    Raises AutoresearchError where there are none.
    """
    if not request.command:
        raise AutoresearchError("the command is empty; set command to a program and its arguments")
    script = {workspace.script: str(workspace.script_path.absolute())}
    return tuple(script.get(word, word) for word in request.command)


def start_supervisor(folder: RunFolder) -> None:
    """Return once a supervisor is in charge, unless there was one already.

    One that cannot be is found by the next poll.
    """
    if folder.read_outcome() is not None or folder.read("supervisor.json") is not None:
        return
    package = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "autoresearch.launchers.supervisor"]
    with folder.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            [*command, str(folder.path), str(folder.control)],
            cwd=folder.control,
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
    if lines and lines[-1].startswith("Traceback "):  # its disk was full before the error's name
        return "; its error could not be written"
    return f"; it said: {lines[-1]}" if lines else ""
