"""Asks a script, started by itself, for the probability that its evaluation gives each token.

That is the model-test protocol. The script is started with ``MODEL_TEST=request.json``. The request
holds ``schema`` (1), ``artifact`` (a path, or null for untrained weights), ``tokens`` (a shard),
``distribution_at`` (indexes among the scored targets) and ``output`` (an ``.npz``). The answer
holds ``log_probs`` (float64, natural logarithm, in order of scoring), ``positions`` (int64, index
of each scored target in the shard), ``distributions`` (float32, a row of log-probabilities for each
index asked for), ``distribution_positions``, and the scalars ``val_loss``, ``val_bpb``,
``val_tokens`` and ``val_bytes``. The script ends with status 0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from attrs import asdict, frozen
from numpy.typing import NDArray

from autoresearch.errors import AutoresearchError
from autoresearch.golf.measurement import Files, join_shards
from autoresearch.golf.model_job import request_in, run_whole

_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")
# A port that no one listens on: a client that honours proxies fails at once instead of waiting.
_NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    "no_proxy": "",
    "NO_PROXY": "",
}


def run_script(
    script: Path, *, env: Mapping[str, str], folder: Path, python: str, timeout_s: float
) -> tuple[str, str]:
    """Run ``python script`` in ``folder`` with ``env`` over a bare environment.

    The network is taken away by a namespace of its own where the system allows that, and made
    useless through the proxy variables everywhere. At the deadline the whole process group dies.
    Returns why it did not end well, empty where it did, and its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return run_whole(
        [*network_off(), python, str(script.resolve())],
        env=bare_environment(os.environ, folder, env),
        cwd=folder,
        logs=folder,
        seconds=timeout_s,
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
    return {**kept, **OFFLINE, "HOME": str(folder), "PYTHONUNBUFFERED": "1", **extra}


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


_ARRAYS = {"log_probs": 1, "positions": 1, "distributions": 2, "distribution_positions": 1}
_SCALARS = ("val_loss", "val_bpb", "val_tokens", "val_bytes")


class NoAnswerError(AutoresearchError):
    """A script did not answer a model test, or answered something that is no answer."""


@frozen(eq=False, kw_only=True)
class Scalars:
    """What an evaluation says of a whole shard: nats a token, bits a byte, and two counts."""

    val_loss: float
    val_bpb: float
    val_tokens: int
    val_bytes: int


@frozen(eq=False, kw_only=True)
class Answer(Scalars):
    """What the script's own evaluation says of one shard; arrays as the protocol describes them."""

    tokens: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    positions: NDArray[np.int64]
    distributions: NDArray[np.float64]
    distribution_positions: NDArray[np.int64]


def _scalars(values: Mapping[str, NDArray[np.generic]]) -> Scalars:
    loss, bpb, tokens, count = (float(_numbers(name, values[name])) for name in _SCALARS)
    return Scalars(val_loss=loss, val_bpb=bpb, val_tokens=round(tokens), val_bytes=round(count))


def _load(path: Path | IO[bytes], names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NoAnswerError(f"what it wrote is not an answer: {error}") from None


def read_answer(path: Path | IO[bytes], tokens: NDArray[np.int64], asked: int) -> Answer:
    """Read and check an answer; pickled values are refused, because they could run code."""
    values = _load(path, (*_ARRAYS, *_SCALARS))
    for name, dimensions in _ARRAYS.items():
        if values[name].ndim != dimensions or not np.isfinite(_numbers(name, values[name])).all():
            raise NoAnswerError(f"the answer's {name} is not {dimensions}-dimensional numbers")
    counts = len(values["log_probs"]), len(values["positions"])
    if counts[0] != counts[1] or len(values["distributions"]) != asked:
        raise NoAnswerError(f"the answer has {counts[0]} log_probs for {counts[1]} positions")
    return Answer(
        **asdict(_scalars(values)),
        tokens=tokens,
        log_probs=values["log_probs"].astype(np.float64),
        positions=values["positions"].astype(np.int64),
        distributions=values["distributions"].astype(np.float64),
        distribution_positions=values["distribution_positions"].astype(np.int64),
    )


def _numbers(name: str, values: NDArray[np.generic]) -> NDArray[np.float64]:
    if not np.issubdtype(values.dtype, np.number) or (name in _SCALARS and values.size != 1):
        raise NoAnswerError(f"the answer's {name} is no number")
    flat = values.reshape(()) if name in _SCALARS else values
    # Minus infinity is an honest log-probability of an impossible token.
    numbers = flat.astype(np.float64)
    return np.where(np.isneginf(numbers), -1e9, numbers)


def reload_score(
    files: Files,
    *,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout_s: float = 900.0,
) -> Scalars:
    """D7: score an artifact in a new process that has a copy of the script and nothing else.

    ``env`` are the overrides of the run that wrote the artifact. The script is asked through the
    model-test protocol; it finds no training data, because ``DATA_PATH`` names an empty folder.
    Raises ``NoAnswerError`` where it does not answer, ``DataError`` where a file is missing.
    """
    shards = files.shards("the artifact cannot be scored")
    with tempfile.TemporaryDirectory(prefix="reload-") as name:
        folder = Path(name)
        alone = folder / files.script.name
        alone.write_bytes(files.script.read_bytes())
        (folder / "nothing").mkdir()
        tokenizer = str(files.tokenizer.resolve())
        place = {"DATA_PATH": str(folder / "nothing"), "TOKENIZER_PATH": tokenizer}
        text = shards[0] if len(shards) == 1 else join_shards(shards, folder / "validation.bin")
        here = folder / "reload"
        here.mkdir()
        asking = request_in(here, text.resolve(), str(files.artifact.resolve()))
        reason, _ = run_script(
            alone,
            env={**(env or {}), **place, **asking},
            folder=here,
            python=python,
            timeout_s=timeout_s,
        )
        if reason:
            raise NoAnswerError(f"the script did not answer a model test: {reason}")
        return _scalars(_load(here / "answer.npz", _SCALARS))
