"""What is measured from the files of a finished run, and compared with what its script says.

A script can print anything. Sizes, digests and token counts are therefore taken from the files by
whoever judges the run; a disagreement is a violation and not a rounding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from autoresearch.durable import digest_files
from autoresearch.errors import DataError
from autoresearch.golf import plausibility
from autoresearch.golf.audits.settings import read_settings
from autoresearch.golf.audits.tree import parse_script
from autoresearch.golf.plausibility import ARTIFACT_LIMIT, Findings, broken, doubt
from autoresearch.golf.reading.own_result import OwnResult
from autoresearch.golf.shards import shard_tokens, validation_shards

# Importing, compiling, the warm-up that is rolled back, packing and the second scoring are in
# neither of the script's clocks; the longest honest packing on record took 118 s.
UNTIMED_SECONDS = 600.0
LONGEST_SEQUENCE = 65_536  # tokens; where a script does not say how long its sequences are


@frozen(kw_only=True)
class Measured:
    """Facts taken from files: bytes, sha256 digests, and the tokens that the headers promise."""

    code_bytes: int
    model_bytes: int
    val_tokens: int
    val_digest: str
    tokenizer_digest: str
    code_digest: str
    artifact_digest: str
    sequence: int

    @property
    def artifact_bytes(self) -> int:
        """Bytes of the exact script that ran and of the compressed model."""
        return self.code_bytes + self.model_bytes


def measure_run(
    *,
    script: Path,
    artifact: Path,
    data_dir: Path,
    tokenizer: Path,
    env: Mapping[str, str] | None = None,
) -> Measured:
    """Measure a finished run; ``env`` are the overrides that it ran with.

    Raises ``DataError`` where a file is missing or a shard is not what its header says.
    """
    for path in (script, artifact, tokenizer):
        if not path.is_file():
            raise DataError(f"{path} is not a file: the run cannot be measured without it")
    shards = validation_shards(data_dir)
    if not shards:
        raise DataError(f"{data_dir} has no fineweb_val_*.bin: get the data again")
    return Measured(
        code_bytes=script.stat().st_size,
        model_bytes=artifact.stat().st_size,
        val_tokens=sum(shard_tokens(shard) for shard in shards),
        val_digest=digest_files(*shards),
        tokenizer_digest=digest_files(tokenizer),
        code_digest=digest_files(script),
        artifact_digest=digest_files(artifact),
        sequence=longest_sequence(script.read_text("utf-8", "replace"), env or {}),
    )


def longest_sequence(source: str, env: Mapping[str, str]) -> int:
    """The longest sequence that a script evaluates: less than that may be left out at the end."""
    try:
        settings = read_settings(parse_script(source))
    except (SyntaxError, ValueError):
        return LONGEST_SEQUENCE
    lengths = [
        int(env[name]) if env.get(name, "").isdigit() else int(setting.number or 0)
        for name, setting in settings.items()
        if re.search(r"SEQ_?LEN", name)
    ]
    return max(lengths, default=LONGEST_SEQUENCE) or LONGEST_SEQUENCE


def compare_run(measured: Measured, result: OwnResult, *, limit: int = ARTIFACT_LIMIT) -> Findings:
    """Compare the files with what the result line says of them: D6 for sizes, D8 for the data."""
    found = plausibility.artifact(
        measured.artifact_bytes, logged=result.artifact_bytes, limit=limit
    )
    for name in ("code_bytes", "model_bytes"):
        stated, real = getattr(result, name), getattr(measured, name)
        if stated != real:
            found += broken("D6", f"the script says {name} {stated:,}, the file has {real:,}")
    names = ("val_digest", "tokenizer_digest", "code_digest", "artifact_digest")
    stated_digests = {name.removesuffix("_digest"): getattr(result, name) for name in names}
    real_digests = {name.removesuffix("_digest"): getattr(measured, name) for name in names}
    return (
        found + plausibility.same_digests(stated_digests, real_digests) + _tokens(measured, result)
    )


def _tokens(measured: Measured, result: OwnResult) -> Findings:
    left_out = measured.val_tokens - 1 - result.val_tokens
    if 0 <= left_out < measured.sequence:
        return ()
    return broken(
        "D8",
        f"{result.val_tokens:,} tokens scored of {measured.val_tokens - 1:,} in the shards, "
        f"expected all but a tail shorter than {measured.sequence:,}",
    )


def compare_clocks(result: OwnResult, seconds: float) -> Findings:
    """D3 and D5: the script's clocks against the launcher's ``seconds`` for the whole run."""
    stated = (result.train_time_ms + result.eval_time_ms) / 1000.0
    found = plausibility.training_clock(
        result.train_time_ms, step_ms=result.train_time_ms / max(result.steps, 1)
    )
    found += plausibility.evaluation_clock(result.eval_time_ms)
    if stated > seconds + 1.0:
        found += broken("D3", f"the script claims {stated:.0f} s of work, it ran for {seconds:.0f}")
    elif seconds - stated > UNTIMED_SECONDS:
        found += doubt("D3", f"{seconds - stated:.0f} s are in neither of the script's clocks")
    return found
