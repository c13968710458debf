"""What a run on this machine can reach: with bubblewrap, its own folders and little else.

Everything is there to read, as the user has it, but for the places where secrets, sockets and other
people's files are: home folders, /tmp, /run, the project's `.git` and `.autoresearch`. A run has a
home and a /tmp of its campaign, and sees no process but its own.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from attrs import frozen

from autoresearch.config import BoundaryConfig, Config, expanded
from autoresearch.errors import ConfigError
from autoresearch.model import Workspace
from autoresearch.text import one_line

# /dev as it is: GPUs, /dev/shm. Root keeps no capability, else it could undo every line of this.
_BASE = (
    *("--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc"),
    *("--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop", "ALL"),
)
_OF_RUN = (  # names of hosts, GPU daemons and NixOS; the rest of /run is sockets
    *("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf"),
    *("/run/nvidia-persistenced", "/run/opengl-driver", "/run/current-system"),
)
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
_CACHES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME", "TORCH_EXTENSIONS_DIR"),
    *("TORCHINDUCTOR_CACHE_DIR", "PYTORCH_KERNEL_CACHE_PATH", "TRITON_CACHE_DIR"),
    *("CUDA_CACHE_PATH", "CUDA_MPS_PIPE_DIRECTORY"),
)
_HOME_CACHES = ("huggingface", "torch")
_TOKENS = ("token", "stored_tokens")


@cache
def problem() -> str:
    """Return why bubblewrap cannot be used on this machine, found by trying; empty: it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed"
    try:
        done = subprocess.run(
            [program, *_BASE, "true"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap does not work here: {one_line(str(error))}"
    said = done.stderr.strip().splitlines() or ["no message"]
    return f"bwrap does not work here: {one_line(said[-1])}" if done.returncode else ""


def boundary_in_force(config: Config) -> str:
    """Return in a few words what holds a run of this campaign, and why it is no more than that."""
    if config.launcher != "local":
        return f"that of the launcher {config.launcher}"
    if config.boundary.kind == "none":
        return "none (boundary.kind)"
    if why := problem():
        return f"none ({why})"
    return "bubblewrap" if config.boundary.network else "bubblewrap, without network"


def unheld(settings: BoundaryConfig) -> tuple[str, ...]:
    """Say why runs cannot be held, where the settings want them to be in any case."""
    if settings.kind != "bubblewrap" or not (why := problem()):
        return ()
    return (f"boundary.kind is bubblewrap, but {why}; install bubblewrap, or set auto or none",)


@frozen(kw_only=True)
class Boundary:
    """The view of the machine that the runs of one campaign have."""

    settings: BoundaryConfig
    data: tuple[str, ...] = ()
    env: Mapping[str, str] = {}

    @property
    def on(self) -> bool:
        """Whether runs are held; raises ConfigError where they have to be and cannot."""
        if self.settings.kind == "none":
            return False
        for why in unheld(self.settings):
            raise ConfigError(why)
        return not problem()

    def around(self, workspace: Workspace, folder: Path, environ: Mapping[str, str]) -> list[str]:
        """Return the words that come before a command which writes in its checkout and `folder`.

        `environ` is what the person wants in its environment, without what an idea wants.
        """
        project = workspace.project.absolute()
        environ = {key: text.replace("{project}", str(project)) for key, text in environ.items()}
        own = {"/tmp": folder.parent / ".tmp", "/var/tmp": folder.parent / ".tmp"}
        homes = {os.environ.get("HOME", "/root"), str(Path("~").expanduser())}
        own |= dict.fromkeys(homes, folder.parent / ".home")
        for made in own.values():
            made.mkdir(mode=0o700, exist_ok=True)
        words = [shutil.which("bwrap") or "bwrap", *_BASE]
        words += [] if self.settings.network else ["--unshare-net"]
        for place in _folders(("/run", "/home", "/root")):
            words += ["--tmpfs", place]
        for place in _folders(own):
            words += ["--bind", str(own.get(place, folder.parent / ".home")), place]
        hidden = [*_folders(("/run", "/home", "/root")), *_folders(own)]
        for path in _ways(self._read(project, environ)):
            if _is_hidden(path, hidden):
                words += ["--ro-bind", path, path]
        words += _covered(project)
        words += ["--tmpfs", str(folder.with_name(f"{folder.name}.control"))]
        caches = list(_caches(environ))
        for path in _ways([*caches, *map(expanded, self.settings.writes), folder, workspace.path]):
            words += ["--bind", path, path]
        kept_out = [f"{cache}/{name}" for cache in caches for name in _TOKENS]
        for file in filter(os.path.isfile, kept_out):
            words += ["--ro-bind", os.devnull, file]
        # To read, so that a script can ask git which commit it is; by its place, and not by what
        # the checkout's own file says, which an earlier run may have written.
        link = workspace.path.absolute() / ".git"
        lab = link.parents[2] / "lab" / ".git"
        for path in (str(lab), str(link)):
            words += ["--ro-bind", path, path] if os.path.exists(path) else []
        for shown in _folders(own):
            _unlink(shown, own.get(shown, folder.parent / ".home"), words)
        return words

    def _read(self, project: Path, environ: Mapping[str, str]) -> Iterator[str | Path]:
        yield from _OF_RUN
        yield project
        yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, site.getuserbase() + "/lib")
        yield from (entry for entry in sys.path if entry and entry != os.getcwd())
        for name in _SEARCHED:
            yield from environ.get(name, "").split(os.pathsep)
        yield from (project / name for name in self.data)
        yield from (value.replace("{project}", str(project)) for value in self.env.values())
        yield from map(expanded, self.settings.reads)


def _folders(paths: Iterable[str]) -> list[str]:
    """Return the folders among paths as they really are, outer ones first, each once."""
    return sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)} - {"/"})


def _ways(paths: Iterable[str | Path]) -> Iterator[str]:
    """Yield the paths that exist, each as it is written and as it really is."""
    seen: set[str] = set()
    for path in map(str, paths):
        if path.startswith("/") and os.path.exists(path):
            for way in (os.path.normpath(path), os.path.realpath(path)):
                if way not in seen:
                    seen.add(way)
                    yield way


def _unlink(shown: str, place: Path, words: Iterable[str]) -> None:
    """Remove what an earlier run left in `place` where a folder is about to be mounted.

    Bubblewrap would follow a link out of the folder that is seen as `shown`.
    """
    for word in words:
        if Path(word).is_relative_to(shown):
            step = place
            for part in Path(word).relative_to(shown).parts:
                step /= part
                if step.is_symlink() or step.is_file():
                    step.unlink()
                    break


def _is_hidden(path: str, hidden: Iterable[str]) -> bool:
    """Whether a path lies inside a hidden folder, without being or holding one."""
    place = Path(path)
    inside = any(place.is_relative_to(folder) and path != folder for folder in hidden)
    return inside and not any(Path(folder).is_relative_to(place) for folder in hidden)


def _caches(environ: Mapping[str, str]) -> Iterator[str]:
    base = environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for path in (
        *(environ.get(name, "") for name in _CACHES),
        *(f"{base}/{n}" for n in _HOME_CACHES),
    ):
        if os.path.isdir(path):
            yield path


def repository_of(project: Path) -> Path:
    """Return the folder of the repository of a checkout, also of one that is a worktree."""
    git = project / ".git"
    if not git.is_file():
        return git
    told = git.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
    real = (project / told).resolve()
    return real.parent.parent if real.parent.name == "worktrees" else real


def _covered(project: Path) -> list[str]:
    """Return the words that hide the repository, the store and files of secrets in a project."""
    words = []
    found = [project / ".git", repository_of(project), project / ".autoresearch"]
    found += [*project.glob(".env*"), project / ".netrc"]
    for path in found:
        if path.is_dir():
            words += ["--tmpfs", str(path)]
        elif path.exists():
            words += ["--ro-bind", os.devnull, str(path)]
    return words
