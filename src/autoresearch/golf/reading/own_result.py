"""The values that our own script states in its last line, `autoresearch_result {json}`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from autoresearch.errors import AutoresearchError
from autoresearch.text import one_line

MARK = "autoresearch_result"
SCHEMA = 1


@frozen(kw_only=True)
class OwnResult:
    """What our own script measured: losses in nats per token, scores in bits per byte, times in ms.

    `reload_val_bpb` is None where the script was told not to score its artifact again.
    """

    val_bpb: float
    val_loss: float
    val_tokens: int
    val_bytes: int
    artifact_bytes: int
    code_bytes: int
    model_bytes: int
    model_params: int
    steps: int
    train_time_ms: float
    eval_time_ms: float
    seed: int
    world_size: int
    val_digest: str
    tokenizer_digest: str
    code_digest: str
    artifact_digest: str
    script_stage: str
    hardware: str
    dtype: str
    versions: Mapping[str, str]
    reload_val_bpb: float | None
    data_dir: str
    train_shards: int
    schema: int = SCHEMA

    def metrics(self) -> dict[str, float]:
        """Return the measured numbers by name; a number that was not measured is left out."""
        values = attrs.asdict(self, recurse=False)
        names = {"schema", "seed", "world_size"}
        return {
            name: value
            for name, value in values.items()
            if type(value) in (int, float) and name not in names
        }


def parse_result(text: str) -> OwnResult:
    """Return the result that the JSON after the mark states.

    Raises AutoresearchError for broken JSON, another schema, a missing or mistyped value, a
    number that is not finite, or a key that is there twice.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise AutoresearchError(f"the result line is not valid JSON: {error}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise AutoresearchError(f"the result line has another schema than {SCHEMA}")
    fields = {name: _typed(name, values) for name in _TYPES}
    return OwnResult(**fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


_COUNTS = (
    "val_tokens", "val_bytes", "artifact_bytes", "code_bytes", "model_bytes", "model_params",
    "steps", "seed", "world_size", "train_shards", "schema",
)  # fmt: skip
_NUMBERS = ("val_bpb", "val_loss", "train_time_ms", "eval_time_ms")
_TEXTS = (
    "val_digest", "tokenizer_digest", "code_digest", "artifact_digest", "script_stage",
    "hardware", "dtype", "data_dir",
)  # fmt: skip
_TYPES = (*_COUNTS, *_NUMBERS, *_TEXTS, "versions", "reload_val_bpb")


def _typed(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise AutoresearchError(f"the result line has no {name}")
    value = values[name]
    if name in _COUNTS:
        good = type(value) is int and 0 <= value < 2**63
    elif name in _NUMBERS:
        good = _finite(value) and value >= 0 and not (name.startswith("val_") and value == 0)
    elif name in _TEXTS:
        good = isinstance(value, str)
    elif name == "versions":
        good = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    else:
        good = value is None or (_finite(value) and value > 0)
    if not good:
        raise AutoresearchError(
            f"the result line has {name} {str(value)[:60]!r}, not a valid value"
        )
    return one_line(value, 200) if name in _TEXTS else value


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]
