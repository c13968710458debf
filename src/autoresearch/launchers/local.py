"""The launchers ``local`` and ``torchrun``: a command on this machine, under its own supervisor."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import evolve, frozen

from autoresearch.config import LOCAL, RUN_FOLDER, BoundaryConfig, Config, RunsConfig, with_options
from autoresearch.errors import AutoresearchError
from autoresearch.frozen import alike
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.environment import (
    Boundary,
    clean_environment,
    devices,
    share,
    unheld,
    visible_gpus,
)
from autoresearch.launchers.folder import InFolder, Outcome, RunFolder, Spec
from autoresearch.launchers.supervisor import RUN_MARKER, hide_memory, kill_marked
from autoresearch.model import Quote, RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_TORCHRUN = "torch.distributed.run"
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_LONGEST_WORD = 128 << 10  # bytes of one argument or variable with its end: MAX_ARG_STRLEN
_OTHER_TMP = ("TMPDIR", "TMP", "TEMP")  # a run that is held has a /tmp of its own
_PYTHON = re.compile(r"python[\d.]*$")
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


def program(config: Config, project: Path) -> tuple[str, str | None]:
    """Return the program of a run's command as it is written, and its path where there is one."""
    word = config.command[0].replace("{python}", sys.executable)
    word = word.replace("{project}", str(project))
    if word in ("{script}", config.script):
        word = str(project / config.script)
    folder = "" if config.cwd == RUN_FOLDER else config.cwd
    place = str(project / folder / word) if "/" in word else word
    return place, _found(place)


def _found(word: str) -> str | None:
    return shutil.which(word, path=environ_with_this_python_first()["PATH"])


def interpreter(config: Config, project: Path) -> str | None:
    """Return the Python that runs a script on this machine; None where nothing here can tell."""
    if config.launcher == "torchrun":
        return sys.executable
    found = program(config, project)[1] if config.launcher == "local" else None
    if found and not _PYTHON.match(Path(found).name):  # a script such as torchrun names its own
        with Path(found).open("rb") as file:
            first = file.readline(300).decode("utf-8", "replace")
        named = first[2:].split() if first.startswith("#!") else []
        found = _found(named[-1]) if named else None
    return found if found and _PYTHON.match(Path(found).name) else None


def _missing(config: Config, project: Path) -> tuple[str, ...]:
    """Say what a run on this machine would not find."""
    place, found = program(config, project)
    if found is not None:
        return ()
    what = "cannot be executed" if Path(place).is_file() else "is not installed"
    word = place if "{" in config.command[0] else config.command[0]
    return (f"the program {word!r} {what}; install it, or set command to one that is there",)


def _too_long(config: Config) -> tuple[str, ...]:
    """Say what no program can be started with, however often it is tried."""
    commands = (config.command, config.evaluation.command, config.evaluation.hidden_command)
    words = [word for command in commands for word in command]
    words += [f"{name}={value}" for name, value in config.env.items()]
    longest = max(words, key=lambda word: len(word.encode()))
    if (size := len(longest.encode())) < _LONGEST_WORD:
        return ()
    shown = f"{longest[:40]!r}... has {size} bytes"
    return (f"a word of command or env, {shown}, and no program takes over {_LONGEST_WORD - 1}; "
            "put it into a file",)  # fmt: skip


class Plugin:
    """Answers requests for the launchers ``local`` and ``torchrun``."""

    def __init__(self) -> None:
        self._passed: tuple[str, ...] = ()
        self._runs = RunsConfig()
        self._boundary = Boundary(settings=BoundaryConfig(kind="none"))

    @hookimpl
    def check_launcher(self, config: Config, project: Path) -> Sequence[str] | None:
        """Look for the program of the command, or torch, and the boundary; measure the words."""
        if config.launcher not in LOCAL:
            return None
        found = _no_torchrun(config) if config.launcher == "torchrun" else _missing(config, project)
        return (*found, *_too_long(config), *unheld(config.boundary))

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read which variables a run sees beyond the usual ones, and what else it can reach."""
        self._passed, self._runs = config.pass_env, config.runs
        self._boundary = Boundary(settings=config.boundary, data=config.data, env=config.env)

    @hookimpl
    def quote_run(self, request: RunRequest) -> Quote | None:
        """Return the deadline, and the GPUs that a run would get; this machine costs nothing."""
        if request.launcher not in LOCAL:
            return None
        runs = with_options(self._runs, request.options, "options")
        count = share(runs, devices(runs, {**os.environ, **request.env}))
        return Quote(seconds=request.timeout_seconds, gpus=count)

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Start a run on this machine, or find it: its control folder is where both is decided.

        `request.folder` is the working directory, so that what a script writes stays with its run;
        a word of the command that is the script's name therefore means the one in the worktree.
        """
        if request.launcher not in LOCAL:
            return None
        hide_memory()
        folder = RunFolder.of(request.folder)
        try:
            return self._launch(request, workspace, folder)
        except OSError as error:
            problem = f"cannot start a run in {folder.path}: {error.strerror}; free or repair it"
            return LocalRun(request.name, folder, problem)

    def _launch(self, request: RunRequest, workspace: Workspace, folder: RunFolder) -> LocalRun:
        folder.make()
        known = folder.read_spec()
        if known is None:
            runs = with_options(self._runs, request.options, "options")
            if request.beside:
                runs = evolve(runs, gpus=1)
            spec = _spec(request, workspace, folder, self._passed, runs)
            folder.write_spec(self._held(spec, workspace, folder, request.reads))
        elif known.name != request.name:
            raise AutoresearchError(
                f"the run folder {folder.path} belongs to {known.name!r}, not to "
                f"{request.name!r}; give every run a folder of its own"
            )
        else:
            folder.check_digest(request.name, known.script_digest, request.script_digest)
        start_supervisor(folder)
        return LocalRun(request.name, folder)

    def _held(
        self, spec: Spec, workspace: Workspace, folder: RunFolder, reads: Sequence[Path]
    ) -> Spec:
        """Put the boundary around a command, unless there is no such program: that is told."""
        if not self._boundary.on or not shutil.which(spec.command[0], path=spec.env["PATH"]):
            return spec
        env = {key: value for key, value in spec.env.items() if key not in _OTHER_TMP}
        # As the person has it: what an idea puts into its environment opens no folder.
        own = clean_environment(environ_with_this_python_first(), self._boundary.env, self._passed)
        words = self._boundary.around(workspace, folder.path, own)
        for path in map(str, reads):
            words += ["--ro-bind", path, path]
        words += ["--chdir", spec.cwd or str(folder.path), "--", *spec.command]
        return evolve(spec, command=words, env=env, held=True)


def _spec(
    request: RunRequest, workspace: Workspace, folder: RunFolder, passed: tuple[str, ...],
    runs: RunsConfig,
) -> Spec:  # fmt: skip
    words = command_of(request, workspace)
    # Git looks for a repository upwards from where it is, but not into these folders: the user's
    # repository, around the run's folder, is out of sight for `git push`.
    ceilings = os.pathsep.join([str(folder.path.parent), str(workspace.project.absolute())])
    extra = {"PYTHONUNBUFFERED": "1", "GIT_CEILING_DIRECTORIES": ceilings, **request.env}
    extra |= {"SEED": str(request.seed), "RUN_ID": request.name, RUN_MARKER: str(folder.path)}
    found = devices(runs, {**os.environ, **request.env})
    count = share(runs, found)
    return alike(
        Spec,
        request,
        command=tuple(_started(words, request.launcher, count)),
        devices=found,
        gpus=count,
        env=clean_environment(environ_with_this_python_first(), extra, passed),
        cwd=str(request.cwd.absolute()) if request.cwd else "",
    )


def command_of(request: RunRequest, workspace: Workspace) -> tuple[str, ...]:
    """Return the words of the command, with the path of the script in the place of its name.

    Raises AutoresearchError where there are none.
    """
    if not request.command:
        raise AutoresearchError("the command is empty; set command to a program and its arguments")
    script = {workspace.script: str(workspace.script_path.absolute())}
    return tuple(script.get(word, word) for word in request.command)


def _started(words: Sequence[str], launcher: str, gpus: int) -> Iterator[str]:
    """Yield the words of the command: torchrun's in front where it is asked for, {gpus} filled."""
    count = str(max(gpus, 1))
    if launcher == "torchrun":
        words = words[1:] if words[0] == sys.executable else words
        yield from (sys.executable, "-m", _TORCHRUN, "--standalone", f"--nproc_per_node={count}")
    yield from (word.replace("{gpus}", count) for word in words)


def _no_torchrun(config: Config) -> tuple[str, ...]:
    """Say what torchrun would not find, or would start twice."""
    if "torchrun" in config.command[0]:
        return (
            "the command starts torchrun itself, as does the launcher 'torchrun'; "
            "set command to the script, or launcher to local",
        )
    if importlib.util.find_spec("torch") is None:
        return ("the launcher 'torchrun' needs torch; install it beside autoresearch",)
    return ()


def environ_with_this_python_first() -> dict[str, str]:
    """So that `torchrun` is the one beside the Python that runs the loop, activated or not."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


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
