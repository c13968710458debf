"""The launchers ``local`` and ``torchrun``: a command on this machine, under its own supervisor."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from autoresearch.config import LOCAL, RUN_FOLDER, BoundaryConfig, Config, RunsConfig, with_options
from autoresearch.errors import AutoresearchError
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers import RunFolder, Spec
from autoresearch.launchers.environment import Boundary, clean_environment, devices, share, unheld
from autoresearch.launchers.far import (
    LocalRun,
    environ_with_this_python_first,
    order_for,
    spec_here,
    start_supervisor,
)
from autoresearch.launchers.supervisor import hide_memory
from autoresearch.model import Quote, RunHandle, RunRequest, Workspace

_TORCHRUN = "torch.distributed.run"
_LONGEST_WORD = 128 << 10  # bytes of one argument or variable with its end: MAX_ARG_STRLEN
_OTHER_TMP = ("TMPDIR", "TMP", "TEMP")  # a run that is held has a /tmp of its own
_PYTHON = re.compile(r"python[\d.]*$")


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


def missing_program(config: Config, project: Path) -> tuple[str, ...]:
    """Say what a run on this machine would not find."""
    place, found = program(config, project)
    if found is not None:
        return ()
    what = "cannot be executed" if Path(place).is_file() else "is not installed"
    word = place if "{" in config.command[0] else config.command[0]
    return (f"the program {word!r} {what}; install it, or set command to one that is there",)


def _impossible(config: Config) -> tuple[str, ...]:
    """Say what no program can be started with, however often it is tried."""
    commands = (config.command, config.evaluation.command, config.evaluation.hidden_command)
    words = [word for command in commands for word in command]
    words += [f"{name}={value}" for name, value in config.env.items()]
    odd = [word for word in words if "\0" in word]
    odd += [name for name in config.env if not name or "=" in name]
    if odd:
        return (f"command or env holds {odd[0][:40]!r}, which no program can be given; correct it",)
    longest = max(words, key=lambda word: len(os.fsencode(word)))
    if (size := len(os.fsencode(longest))) < _LONGEST_WORD:
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
        found = (
            _no_torchrun(config)
            if config.launcher == "torchrun"
            else missing_program(config, project)
        )
        return (*found, *_impossible(config), *unheld(config.boundary))

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
            order = order_for(request, workspace, self._passed, runs, {})
            spec = _started(spec_here(order, folder), request.launcher)
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


def _started(spec: Spec, launcher: str) -> Spec:
    """Put torchrun's words in front of a command where that starts it."""
    if launcher != "torchrun":
        return spec
    words = spec.command[1:] if spec.command[0] == sys.executable else spec.command
    processes = f"--nproc_per_node={max(spec.gpus, 1)}"
    own = (sys.executable, "-m", _TORCHRUN, "--standalone", processes)
    return evolve(spec, command=(*own, *words))


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
