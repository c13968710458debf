"""The environment of a run: what the machine needs, what the campaign says, and no credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# A run sees only what is named here: an exported MATRIX_LR or GITHUB_TOKEN in somebody's shell
# must neither change a score nor be within reach of generated code.
_KEPT = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ"),
        *("TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "HF_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "CXX"),
    }
)
_KEPT_PREFIXES = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
    *("TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_"),
)
_SECRET_ENDINGS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")
_USER_AND_PASSWORD = re.compile(r"://[^/\s@]+@")


def clean_environment(environ: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return what a started process may see of `environ`, with `extra` laid over it.

    Kept are the paths, the language, and the settings of CUDA, OpenMP and torch. A variable whose
    name looks like a credential, or whose value is an address with a user in it, is left out even
    then. `extra` is what a person wrote into the configuration and is taken as it is.
    """
    kept = {name: value for name, value in environ.items() if _may_pass(name, value)}
    return {**kept, **extra}


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """Count the NVIDIA GPUs that a process with this environment would use.

    `CUDA_VISIBLE_DEVICES` decides where it is set; otherwise the device files do, which asks no
    driver and cannot hang.
    """
    present = len([file for file in devices.glob("nvidia*") if file.name[6:].isdigit()])
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not present:
        return present
    named = [part.strip() for part in chosen.split(",")]
    return min(present, len([part for part in named if part and part != "-1"]))


def _may_pass(name: str, value: str) -> bool:
    if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
        return False
    words = name.upper().split("_")
    return not any(word.endswith(_SECRET_ENDINGS) for word in words) and not (
        _USER_AND_PASSWORD.search(value)
    )
