"""The model-test protocol: ask a script for the probability that its evaluation gives each token.

The script is started with ``MODEL_TEST=request.json``. The request holds ``schema`` (1),
``artifact`` (a path, or null for untrained weights), ``tokens`` (a shard), ``distribution_at``
(indexes among the scored targets) and ``output`` (an ``.npz``). The answer holds ``log_probs``
(float64, natural logarithm, in order of scoring), ``positions`` (int64, index of each scored target
in the shard), ``distributions`` (float32, a row of log-probabilities for each index asked for),
``distribution_positions``, and the scalars ``val_loss``, ``val_bpb``, ``val_tokens`` and
``val_bytes``. The script ends with status 0.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from autoresearch.errors import AutoresearchError
from autoresearch.golf.shards import write_shard
from autoresearch.golf.trials.process import run_script

_ARRAYS = {"log_probs": 1, "positions": 1, "distributions": 2, "distribution_positions": 1}
_SCALARS = ("val_loss", "val_bpb", "val_tokens", "val_bytes")


class NoAnswerError(AutoresearchError):
    """A script did not answer a model test, or answered something that is no answer."""


@frozen(eq=False, kw_only=True)
class Answer:
    """What the script's own evaluation says of one shard; arrays as the protocol describes them."""

    tokens: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    positions: NDArray[np.int64]
    distributions: NDArray[np.float64]
    distribution_positions: NDArray[np.int64]
    val_loss: float
    val_bpb: float
    val_tokens: int
    val_bytes: int


@frozen(kw_only=True)
class Asker:
    """Everything about a script under test that stays the same from question to question."""

    script: Path
    env: Mapping[str, str]
    folder: Path
    python: str

    def ask(
        self,
        name: str,
        tokens: NDArray[np.int64],
        distribution_at: Sequence[int] = (),
        *,
        artifact: Path | None = None,
        timeout_s: float,
    ) -> Answer:
        """Ask about one text; ``name`` names the folder that the script runs in.

        Without an ``artifact`` the script's untrained weights answer.
        Raises ``NoAnswerError`` with one line that says what went wrong.
        """
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        text = self.folder / name / "tokens.bin"
        write_shard(text, tokens.tolist())
        answer = self.ask_file(name, text, distribution_at, artifact=artifact, timeout_s=timeout_s)
        return read_answer(answer, tokens, len(distribution_at))

    def ask_file(
        self,
        name: str,
        text: Path,
        distribution_at: Sequence[int] = (),
        *,
        artifact: Path | None = None,
        timeout_s: float,
    ) -> Path:
        """Ask about a shard that lies somewhere already, and return the file of the answer."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        request = folder / "request.json"
        output = folder / "answer.npz"
        asked = _request(text, output, artifact, distribution_at)
        request.write_text(json.dumps(asked), encoding="utf-8")
        done = run_script(
            self.script,
            env={**self.env, "MODEL_TEST": str(request)},
            folder=folder,
            python=self.python,
            timeout_s=timeout_s,
        )
        if not done.ok:
            raise NoAnswerError(f"the script did not answer a model test: {done.reason}")
        return output


def _request(
    text: Path, output: Path, artifact: Path | None, distribution_at: Sequence[int]
) -> dict[str, object]:
    return {
        "schema": 1,
        "artifact": None if artifact is None else str(artifact.resolve()),
        "tokens": str(text.resolve()),
        "distribution_at": [int(index) for index in distribution_at],
        "output": str(output),
    }


def read_scalars(path: Path) -> tuple[float, float, float, float]:
    """Loss, score, tokens and bytes of an answer, without reading what was said of each token."""
    values = _load(path, _SCALARS)
    loss, bpb, tokens, count = (float(_numbers(name, values[name])) for name in _SCALARS)
    return loss, bpb, tokens, count


def _load(path: Path, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NoAnswerError(f"{path.name} is not an answer: {error}") from None


def read_answer(path: Path, tokens: NDArray[np.int64], asked: int) -> Answer:
    """Read and check an answer; pickled values are refused, because they could run code."""
    values = _load(path, (*_ARRAYS, *_SCALARS))
    for name, dimensions in _ARRAYS.items():
        if values[name].ndim != dimensions or not np.isfinite(_numbers(name, values[name])).all():
            raise NoAnswerError(f"the answer's {name} is not {dimensions}-dimensional numbers")
    counts = len(values["log_probs"]), len(values["positions"])
    if counts[0] != counts[1] or len(values["distributions"]) != asked:
        raise NoAnswerError(f"the answer has {counts[0]} log_probs for {counts[1]} positions")
    scalars = {name: float(_numbers(name, values[name])) for name in _SCALARS}
    return Answer(
        tokens=tokens,
        log_probs=values["log_probs"].astype(np.float64),
        positions=values["positions"].astype(np.int64),
        distributions=values["distributions"].astype(np.float64),
        distribution_positions=values["distribution_positions"].astype(np.int64),
        val_loss=scalars["val_loss"],
        val_bpb=scalars["val_bpb"],
        val_tokens=round(scalars["val_tokens"]),
        val_bytes=round(scalars["val_bytes"]),
    )


def _numbers(name: str, values: NDArray[np.generic]) -> NDArray[np.float64]:
    if not np.issubdtype(values.dtype, np.number) or (name in _SCALARS and values.size != 1):
        raise NoAnswerError(f"the answer's {name} is no number")
    flat = values.reshape(()) if name in _SCALARS else values
    # Minus infinity is an honest log-probability of an impossible token.
    numbers = flat.astype(np.float64)
    return np.where(np.isneginf(numbers), -1e9, numbers)
