"""Runs a script by itself: no credentials, no network where that can be had, one deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from attrs import frozen

_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")
# A port that nobody listens on: a client that honours proxies fails at once instead of waiting.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    "no_proxy": "",
    "NO_PROXY": "",
}


@frozen(kw_only=True)
class Finished:
    """How a script ended; ``exit_code`` is None where the deadline ended it."""

    exit_code: int | None
    output: str
    errors: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the script ended by itself with status 0."""
        return self.exit_code == 0

    @property
    def reason(self) -> str:
        """One line that says why it did not end well; empty where it did."""
        if self.ok:
            return ""
        if self.exit_code is None:
            return f"not finished after {self.seconds:.0f} s"
        last = (self.errors.strip() or self.output.strip() or "no output").splitlines()[-1]
        return f"exit status {self.exit_code}: {last[:300]}"


def run_script(
    script: Path, *, env: Mapping[str, str], folder: Path, python: str, timeout_s: float
) -> Finished:
    """Run ``python script`` in ``folder`` with ``env`` over a bare environment.

    The network is taken away by a namespace of its own where the system allows that, and made
    useless through the proxy variables everywhere. At the deadline the whole process group dies.
    """
    command = [*network_off(), python, str(script.resolve())]
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=bare_environment(os.environ, folder, env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            exit_code: int | None = process.wait(timeout=max(timeout_s, 0.1))
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Finished(
        exit_code=exit_code,
        output=(folder / "stdout.txt").read_text("utf-8", "replace"),
        errors=(folder / "stderr.txt").read_text("utf-8", "replace"),
        seconds=time.monotonic() - started,
    )


def bare_environment(
    environ: Mapping[str, str], folder: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """What a judged script may see: paths, language, threads; its home is its own folder."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, **_OFFLINE, "HOME": str(folder), "PYTHONUNBUFFERED": "1", **extra}


@lru_cache(maxsize=1)
def network_off() -> tuple[str, ...]:
    """The command in front that takes the network away; empty where the system refuses."""
    tool = shutil.which("unshare")
    for flags in (("-n",), ("-rn",)):
        if tool is not None and _works([tool, *flags, "true"]):
            return (tool, *flags)
    return ()


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
