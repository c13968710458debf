"""A run on the machine on which this is loaded, and how its supervisor is started.

The local launcher uses it as it is. Launchers that reach another machine ask for it there, through
``python -m autoresearch.launchers.far``, which loads no settings, no hooks and no log: a run has
one folder there, with what the local launcher has: `run`, `run.control`, and `work`, the checkout.
Each verb answers with one line of JSON, and with bytes after it where there are some.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from attrs import asdict, evolve, fields, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.launchers import InFolder, Outcome, RunFolder, Spec
from autoresearch.launchers.environment import clean_environment, devices, share, visible_gpus
from autoresearch.launchers.supervisor import RUN_MARKER, kill_marked
from autoresearch.model import RunOutput, RunRequest, RunStatus, Workspace

if TYPE_CHECKING:
    from autoresearch.config import RunsConfig


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


MARK = "{here}"
"""What stands in a word of an order for the folder of the run on the machine where it runs."""


def order_for(
    request: RunRequest, workspace: Workspace, passed: Sequence[str], runs: RunsConfig,
    places: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what is to be run, for :func:`spec_here` on whichever machine runs it.

    ``places`` are folders of this machine, as over there.
    """
    if places is None:
        places = {
            str(workspace.path.absolute()): f"{MARK}/work",
            str(request.folder.absolute()): f"{MARK}/run",
            sys.executable: "{python}",
        }
    # Git looks for a repository upwards from where it is, but not into these folders: the user's
    # repository, around the run's folder, is out of sight for `git push`.
    around = request.folder.absolute().parent, workspace.project.absolute()
    ceilings = os.pathsep.join(map(str, around))
    env = {"PYTHONUNBUFFERED": "1", "GIT_CEILING_DIRECTORIES": ceilings, **request.env}
    env |= {"SEED": str(request.seed), "RUN_ID": request.name}
    return {
        "name": request.name,
        "script_digest": request.script_digest,
        "command": [_filled(word, places) for word in command_of(request, workspace)],
        "env": {name: _filled(text, places) for name, text in env.items()},
        "pass_env": list(passed),
        "cwd": _filled(str(request.cwd.absolute()), places) if request.cwd else "",
        "timeout_seconds": request.timeout_seconds,
        "max_log_bytes": request.max_log_bytes,
        "runs": asdict(runs),
    }


def spec_here(order: Mapping[str, Any], folder: RunFolder) -> Spec:
    """Return what is to be run, with the environment, the GPUs and the folder of this machine."""
    from autoresearch.config import RunsConfig  # which a question to a run does without

    here = str(folder.path.parent)
    runs = RunsConfig(**order["runs"])
    extra = {name: text.replace(MARK, here) for name, text in order["env"].items()}
    extra[RUN_MARKER] = str(folder.path)
    env = clean_environment(environ_with_this_python_first(), extra, order["pass_env"])
    found = devices(runs, env)
    count = share(runs, found)
    fill = {MARK: here, "{gpus}": str(max(count, 1)), "{python}": sys.executable}
    return Spec(
        name=order["name"],
        command=tuple(_filled(word, fill) for word in order["command"]),
        env=env,
        timeout_seconds=order["timeout_seconds"],
        max_log_bytes=order["max_log_bytes"],
        script_digest=order["script_digest"],
        cwd=order["cwd"].replace(MARK, here),
        devices=found,
        gpus=count,
    )


def _filled(word: str, names: Mapping[str, str]) -> str:
    """Return a word with each of the names replaced by what it stands for."""
    for name, text in names.items():
        word = word.replace(name, text)
    return word


def start(folder: RunFolder) -> dict[str, Any]:
    """Unpack the order and the checkout from standard input and start the run, once."""
    folder.make()
    place = folder.path.parent
    known = folder.read_spec()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if member.name == "order.json":
                file = archive.extractfile(member)
                assert file is not None
                order = json.load(file)
                if known is not None:
                    folder.check_digest(order["name"], known.script_digest, order["script_digest"])
            elif known is None:
                archive.extract(member, place, filter="data")
    if known is None:
        folder.write_spec(spec_here(order, folder))
    start_supervisor(folder)
    return {"reference": LocalRun(order["name"], folder).reference}


def look(folder: RunFolder, offset: int) -> tuple[dict[str, Any], bytes]:
    """Return how the run ended, None while it goes on, and its output from a byte on."""
    found = LocalRun(folder.path.name, folder).poll()
    data = b""
    if folder.log.exists():
        with folder.log.open("rb") as file:
            file.seek(offset)
            data = file.read(4 << 20)
    outcome = None
    if found is not None:
        outcome = {item.name: getattr(found, item.name) for item in fields(Outcome)}
    size = folder.log.stat().st_size if folder.log.exists() else 0
    return {"outcome": outcome, "log_bytes": size}, data


def main(arguments: list[str]) -> int:
    """Carry out one verb; an error is one line of JSON too."""
    verb, place, *rest = arguments
    path = Path(os.path.expanduser(place), "run").absolute()
    folder = RunFolder(path, path.with_name("run.control"))
    data = b""
    try:
        if verb == "start":
            told = start(folder)
        elif verb == "look":
            told, data = look(folder, int(rest[0]))
        elif verb == "stop":
            LocalRun(folder.path.name, folder).stop(rest[0])
            told = {}
        else:  # fetch
            told = {}
    except (AutoresearchError, OSError, ValueError) as error:
        told = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n" + data)
    sys.stdout.buffer.flush()
    if verb == "fetch" and folder.path.is_dir():
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            archive.add(folder.path, arcname=".")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
