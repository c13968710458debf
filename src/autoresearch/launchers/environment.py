"""What of this machine a run gets: an allow-list of variables, its GPUs, and what it can reach.

With bubblewrap those are its own folders and little else. Everything is there to read, as the user
has it, but for the places where secrets, sockets and other people's files are: home folders, /tmp,
/run, the project's `.git` and `.autoresearch`. A run has a home and a /tmp of its campaign, and
sees no process but its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, frozen

from autoresearch.errors import ConfigError
from autoresearch.model import Workspace
from autoresearch.text import one_line

if TYPE_CHECKING:  # a supervisor reads no settings, and loads nothing that it does not need
    from autoresearch.config import BoundaryConfig, Config, RunsConfig

# A run sees only what is named here, each name in full: an exported MATRIX_LR or NCCL_AUTH in
# someone's shell must neither change a score nor be within reach of generated code.
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_PROXIES |= {name.lower() for name in _PROXIES}
_KEPT_BY_PREFIX = {
    "": "PATH HOME USER LOGNAME SHELL TERM TZ TMPDIR TMP TEMP LANG LANGUAGE XDG_CACHE_HOME CC CXX "
    "VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV LD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR "
    "REQUESTS_CA_BUNDLE HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES ROCM_PATH NUMEXPR_MAX_THREADS "
    "HSA_OVERRIDE_GFX_VERSION GOMP_CPU_AFFINITY CUBLAS_WORKSPACE_CONFIG",
    "LC_": "ALL ADDRESS COLLATE CTYPE IDENTIFICATION MEASUREMENT MESSAGES MONETARY NAME NUMERIC "
    "PAPER TELEPHONE TIME",
    "HF_": "HOME HUB_CACHE HUB_OFFLINE DATASETS_CACHE",
    "CUDA_": "VISIBLE_DEVICES DEVICE_ORDER HOME PATH CACHE_PATH CACHE_MAXSIZE CACHE_DISABLE "
    "LAUNCH_BLOCKING MODULE_LOADING DEVICE_MAX_CONNECTIONS MPS_PIPE_DIRECTORY MPS_LOG_DIRECTORY",
    "NVIDIA_": "VISIBLE_DEVICES DRIVER_CAPABILITIES TF32_OVERRIDE",
    "NCCL_": "DEBUG DEBUG_SUBSYS DEBUG_FILE SOCKET_IFNAME SOCKET_FAMILY SOCKET_NTHREADS NTHREADS "
    "NSOCKS_PERTHREAD IB_DISABLE IB_HCA IB_GID_INDEX IB_TIMEOUT IB_RETRY_CNT P2P_DISABLE P2P_LEVEL "
    "SHM_DISABLE NET NET_PLUGIN NET_GDR_LEVEL ALGO PROTO BUFFSIZE MIN_NCHANNELS MAX_NCHANNELS "
    "TOPO_FILE CROSS_NIC NVLS_ENABLE CUMEM_ENABLE",
    "OMP_": "NUM_THREADS PROC_BIND PLACES DYNAMIC SCHEDULE STACKSIZE WAIT_POLICY",
    "KMP_": "AFFINITY BLOCKTIME",
    "MKL_": "NUM_THREADS DYNAMIC THREADING_LAYER SERVICE_FORCE_INTEL CBWR",
    "OPENBLAS_": "NUM_THREADS CORETYPE",
    "TORCH_": "HOME EXTENSIONS_DIR CUDA_ARCH_LIST LOGS SHOW_CPP_STACKTRACES "
    "NCCL_ASYNC_ERROR_HANDLING NCCL_BLOCKING_WAIT NCCL_HEARTBEAT_TIMEOUT_SEC",
    "TORCHINDUCTOR_": "CACHE_DIR FX_GRAPH_CACHE COMPILE_THREADS",
    "PYTORCH_": "ALLOC_CONF CUDA_ALLOC_CONF HIP_ALLOC_CONF KERNEL_CACHE_PATH",
    "TRITON_": "CACHE_DIR HOME PTXAS_PATH",
}
_KEPT = _PROXIES.union(
    *({prefix + name for name in names.split()} for prefix, names in _KEPT_BY_PREFIX.items())
)
# Anywhere in a name; PAT, a personal access token, as a word of its own, for PATH has none.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CRED|PRIVATE|COOKIE|PWD|(?:^|_)PATS?(?:_|$)")
_USER_AND_PASSWORD = re.compile(r"://\S*@")


def clean_environment(
    environ: Mapping[str, str], extra: Mapping[str, str], passed: Iterable[str] = ()
) -> dict[str, str]:
    """Return what a started process may see of `environ`, with `extra` laid over it.

    Kept are the well-known settings of the machine, the language, CUDA, OpenMP and torch, unless
    the value is an address with a user in it. `passed` is what a person adds (`pass_env`): a name
    is taken as it is; a pattern such as ``PREFIX_*`` never takes a name that sounds like a secret.
    """
    exact = {name for name in passed if "*" not in name}
    patterns = [name for name in passed if "*" in name]
    kept = {
        name: value
        for name, value in environ.items()
        if name in exact or (_harmless(name, value) and _listed(name, patterns))
    }
    return {**kept, **extra}


def is_of_machine(name: str) -> bool:
    """Return whether a variable is a well-known one of the machine, CUDA, OpenMP or torch."""
    return name in _KEPT


def named_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that a process with this environment is told to use, by name.

    `CUDA_VISIBLE_DEVICES` decides where it is set; otherwise the device files do, which asks no
    driver and cannot hang.
    """
    present, chosen = _device_files(devices), environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not present:
        return tuple(map(str, present))
    named = (part.strip() for part in chosen.split(","))
    return tuple(part for part in named if part and part != "-1")


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """Count the NVIDIA GPUs that a process with this environment would use: no more than exist."""
    return min(len(_device_files(devices)), len(named_gpus(environ, devices)))


def _device_files(devices: Path) -> list[int]:
    return sorted(int(f.name[6:]) for f in devices.glob("nvidia*") if f.name[6:].isdigit())


def _listed(name: str, patterns: Iterable[str]) -> bool:
    if name in _KEPT:
        return True
    matches = any(fnmatchcase(name, pattern) for pattern in patterns)
    return matches and not _SECRET.search(name.upper())


def _harmless(name: str, value: str) -> bool:
    if name in _PROXIES:  # a proxy needs no scheme before its user
        return "@" not in value
    return not _USER_AND_PASSWORD.search(value)


# --- leases of GPUs ---------------------------------------------------------------------------

FOLDER = Path("/tmp/autoresearch-gpus")


def devices(
    settings: RunsConfig, environ: Mapping[str, str], folder: Path = Path("/dev")
) -> tuple[str, ...]:
    """Return the GPUs that runs may have: as set, as the environment says, or all there are."""
    # One that is named twice would be waited for by the run that has it.
    return tuple(dict.fromkeys(settings.devices or named_gpus(environ, folder)))


def share(settings: RunsConfig, found: Sequence[str]) -> int:
    """Return how many of the devices one run gets."""
    return min(settings.gpus or max(1, len(found) // settings.parallel), len(found))


@define
class Lease:
    """Some GPUs, for as long as one of the open files is open in some process.

    One run has a GPU at a time, whichever campaign or loop it is of: a lease is a lock of the
    kernel on a file, one for each GPU, in a folder that all users share. The process that owns the
    run holds it and lets go of it however it ends.
    """

    names: tuple[str, ...]
    files: tuple[int, ...]

    def let_go(self) -> None:
        """Close the files here; a process that inherited them goes on holding the lease."""
        for file in self.files:
            os.close(file)


def lease(found: Iterable[str], count: int, folder: Path = FOLDER) -> Lease | None:
    """Take ``count`` of the GPUs that nobody holds now, or none at all and return None."""
    names: list[str] = []
    files: list[int] = []
    for name in found:
        if len(names) < count and (file := _locked(folder, name)) is not None:
            names.append(name)
            files.append(file)
    taken = Lease(tuple(names), tuple(files))
    if len(names) == count:
        return taken
    taken.let_go()
    return None


def _locked(folder: Path, name: str) -> int | None:
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    path = folder / re.sub(r"[^\w-]", "_", name)
    # Reading is enough to lock; a file of another user is not opened for writing.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644))
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


# --- the boundary --------------------------------------------------------------------------------

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
def no_bubblewrap() -> str:
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
    if why := no_bubblewrap():
        return f"none ({why})"
    return "bubblewrap" if config.boundary.network else "bubblewrap, without network"


def unheld(settings: BoundaryConfig) -> tuple[str, ...]:
    """Say why runs cannot be held, where the settings want them to be in any case."""
    if settings.kind != "bubblewrap" or not (why := no_bubblewrap()):
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
        return not no_bubblewrap()

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
        words += ["--tmpfs", os.path.realpath(folder.with_name(f"{folder.name}.control"))]
        caches = list(_caches(environ))
        # Bubblewrap mounts nothing behind a link that is seen, such as a store on another disk.
        own_places = [os.path.realpath(path) for path in (folder, workspace.path)]
        for path in (*_ways([*caches, *map(expanded, self.settings.writes)]), *own_places):
            if path == os.path.realpath(path) or _is_hidden(path, hidden):
                words += ["--bind", path, path]
        kept_out = [f"{cache}/{name}" for cache in caches for name in _TOKENS]
        for file in filter(os.path.isfile, kept_out):
            words += ["--ro-bind", os.devnull, file]
        # To read, so that a script can ask git which commit it is; by its place, and not by what
        # the checkout's own file says, which an earlier run may have written.
        link = Path(own_places[1], ".git")
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


def expanded(path: str) -> str:
    """Return a path of the settings with ``~`` and ``$NAME`` as a shell would have them."""
    return os.path.expandvars(os.path.expanduser(path))


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
    for path in map(os.path.realpath, found):
        if os.path.isdir(path):
            words += ["--tmpfs", path]
        elif os.path.exists(path):
            words += ["--ro-bind", os.devnull, path]
    return words
