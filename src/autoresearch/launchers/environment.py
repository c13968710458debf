"""What of this machine a run gets: an allow-list of variables, what a person adds, and its GPUs."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:  # a supervisor reads no settings, and loads nothing that it does not need
    from autoresearch.config import RunsConfig

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
    return settings.devices or named_gpus(environ, folder)


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
