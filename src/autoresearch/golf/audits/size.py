"""S2: the script compiles, and its artifact can stay under the limit of the challenge."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache

from autoresearch.golf.audits.settings import Setting, read_settings
from autoresearch.golf.audits.tree import Script
from autoresearch.golf.plausibility import ARTIFACT_LIMIT
from autoresearch.model import Violation

__all__ = ["ARTIFACT_LIMIT", "audit_compiles", "audit_size", "estimated_payload", "same_packing"]

RESERVE = 20_000  # what two seeds of one script differ by, with room
MAX_SOURCE_BYTES = 1_000_000  # source is counted as it is; a sixteenth of the limit is no script
# Compressed over stored bytes of int8 artifacts: 0.92 after a full run on 8xH100 (15,815,847 of
# 17,178,912), 0.74 to 0.86 after ten minutes on one GPU. Less training compresses better.
FULL_RATIO, SHORT_RATIO = 0.92, 0.74
_SHAPE = ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT")


def audit_compiles(source: str) -> Iterator[Violation]:
    """Yield why Python refuses the source; nothing else can be audited then."""
    try:
        compile(source, "train_gpt.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        detail = f"does not compile: {error.msg}"
        yield Violation(rule="S2", detail=detail, line=error.lineno or 1)
    except (ValueError, RecursionError, MemoryError) as error:
        yield Violation(rule="S2", detail=f"does not compile: {error}", line=1)


def audit_size(
    script: Script, pristine: Script | None, env: Mapping[str, str], limit: int
) -> Iterator[Violation]:
    """Yield a source that is too long, or an artifact that is over the limit beyond doubt.

    The artifact is estimated only where the shape of the network follows from settings that both
    scripts have and the code that packs and builds it is the pristine one; elsewhere nobody can
    know before the run, and nothing is said. Between the two ratios it is a warning.
    """
    size = len(script.source.encode("utf-8", "replace"))
    if size > MAX_SOURCE_BYTES:
        yield Violation(rule="S2", detail=f"the source has {size} bytes, over {MAX_SOURCE_BYTES}")
    payload = estimated_payload(script, env)
    if pristine is None or payload is None or not same_packing(script, pristine):
        return
    low = size + round(SHORT_RATIO * payload)
    high = size + round(FULL_RATIO * payload)
    if low > limit - RESERVE:
        yield _too_large(f"at least {low}", limit, "violation")
    elif high > limit - RESERVE:
        yield _too_large(f"{low} to {high}", limit, "warning")


def _too_large(estimate: str, limit: int, severity: str) -> Violation:
    detail = (
        f"the artifact will have {estimate} bytes, the limit is {limit} with {RESERVE} to spare"
    )
    return Violation(rule="S2", detail=detail, line=1, severity=severity)


def estimated_payload(script: Script, env: Mapping[str, str]) -> int | None:
    """Bytes of int8 weights and fp16 row scales of the starter's network, before compression.

    ``env`` overrides the defaults of the script. None where a setting of the shape is missing.
    """
    settings = read_settings(script)
    shape = [_integer(name, settings, env) for name in _SHAPE]
    if any(value is None for value in shape):
        return None
    vocab, layers, dim, heads, kv_heads, mult = (value or 0 for value in shape)
    if 0 in (vocab, dim, heads):
        return None
    kv = dim // heads * kv_heads
    rows = 2 * dim + 2 * kv + (mult + 1) * dim
    block = dim * (2 * dim + 2 * kv + 2 * mult * dim) + 2 * rows + 4 * (4 * dim + heads)
    tables = 1 if _tied(settings, env) else 2
    return layers * block + tables * vocab * (dim + 2)


def _integer(name: str, settings: Mapping[str, Setting], env: Mapping[str, str]) -> int | None:
    try:
        if name in env:
            return int(env[name])
        number = settings[name].number if name in settings else None
        return None if number is None else int(number)
    except (ValueError, OverflowError):
        return None


def _tied(settings: Mapping[str, Setting], env: Mapping[str, str]) -> bool:
    setting = settings.get("TIE_EMBEDDINGS")
    return (env.get("TIE_EMBEDDINGS") or (setting.value if setting else "1")) not in ("0", "False")


def same_packing(script: Script, pristine: Script) -> bool:
    """Whether network and quantiser are the pristine ones, so that settings alone give the size."""
    return _building(script) == _building(pristine)


@lru_cache(maxsize=8)
def _building(script: Script) -> dict[str, str]:
    return {
        node.name: ast.unparse(node)
        for node in script.tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and ("nn." in ast.unparse(node) or "quantize" in node.name or "artifact" in node.name)
    }
