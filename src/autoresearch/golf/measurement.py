"""What a score was measured with, and what the files of a finished run say of it.

A script can print anything. Sizes, digests and token counts are therefore taken from the files by
whoever judges the run; a disagreement is a violation and not a rounding. Token shards are read by
the standard library only: 1,024 bytes of header, then two bytes a token.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from autoresearch.durable import digest_files
from autoresearch.errors import DataError
from autoresearch.golf import plausibility
from autoresearch.golf.audits.region import evaluation_region
from autoresearch.golf.audits.script import try_parse
from autoresearch.golf.audits.settings import read_settings
from autoresearch.golf.plausibility import ARTIFACT_LIMIT, Findings, broken, doubt
from autoresearch.golf.reading.own import OwnResult

MAGIC, VERSION = 20240520, 1
HEADER_BYTES, TOKEN_BYTES = 1024, 2

# Importing, compiling, the warm-up that is rolled back, packing and the second scoring are in
# neither of the script's clocks; the longest honest packing on record took 118 s.
UNTIMED_SECONDS = 600.0
LONGEST_SEQUENCE = 65_536  # tokens; where a script does not say how long its sequences are


def evaluation_digest(source: str) -> str:
    """Digest of the evaluation code of a script, the same however it is laid out or commented.

    Empty where there is none, or where the source does not compile.
    """
    script = try_parse(source)
    return "" if script is None else evaluation_region(script).digest


def measurement_of(source: str, result: OwnResult) -> dict[str, str]:
    """What a finished run was measured with, by name: only scores of one measurement are compared.

    Digests of evaluation code, tokenizer and validation data, and the name of the hardware.
    """
    return {
        "evaluation": evaluation_digest(source),
        "tokenizer": result.tokenizer_digest,
        "validation": result.val_digest,
        "hardware": result.hardware,
    }


def shard_tokens(path: Path) -> int:
    """Number of tokens of a shard, from its header, which must agree with the size of the file.

    Raises ``DataError`` for another magic, version or size, or where there is no file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(12)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): get the data again") from None
    if size < HEADER_BYTES:
        raise DataError(f"{path} has {size} bytes, expected a header of {HEADER_BYTES}: replace it")
    magic, version, count = struct.unpack("<3i", header)
    if (magic, version) != (MAGIC, VERSION):
        raise DataError(
            f"{path} says {magic} version {version}, expected {MAGIC} version {VERSION}: replace it"
        )
    expected = HEADER_BYTES + TOKEN_BYTES * count
    if size != expected:
        raise DataError(f"{path} has {size} bytes, its header promises {expected}: get it again")
    return int(count)


def join_shards(shards: Sequence[Path], path: Path) -> Path:
    """Write several shards as one, for a reader that takes one file; returns its path."""
    total = sum(shard_tokens(shard) for shard in shards)
    with path.open("wb") as joined:
        joined.write(struct.pack("<3i", MAGIC, VERSION, total).ljust(HEADER_BYTES, b"\0"))
        for shard in shards:
            with shard.open("rb") as file:
                file.seek(HEADER_BYTES)
                shutil.copyfileobj(file, joined, 1 << 20)
    return path


def validation_shards(data_dir: Path) -> tuple[Path, ...]:
    """The validation shards of a data folder by name, the per-token byte sidecars left out."""
    found = sorted(data_dir.glob("fineweb_val_*.bin"))
    return tuple(path for path in found if "_bytes_" not in path.name)


@frozen
class Files:
    """The script of a finished run, the artifact that it wrote, its data and its tokenizer."""

    script: Path
    artifact: Path
    data_dir: Path
    tokenizer: Path

    def shards(self, otherwise: str) -> tuple[Path, ...]:
        """Return the validation shards; raises ``DataError`` where any of the files is missing."""
        for path in (self.script, self.artifact, self.tokenizer):
            if not path.is_file():
                raise DataError(f"{path} is not a file: {otherwise} without it")
        found = validation_shards(self.data_dir)
        if not found:
            raise DataError(f"{self.data_dir} has no fineweb_val_*.bin: get the data again")
        return found


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


def measure_files(files: Files, *, env: Mapping[str, str] | None = None) -> Measured:
    """Measure a finished run; ``env`` are the overrides that it ran with.

    Raises ``DataError`` where a file is missing or a shard is not what its header says.
    """
    shards = files.shards("the run cannot be measured")
    script = files.script
    return Measured(
        code_bytes=script.stat().st_size,
        model_bytes=files.artifact.stat().st_size,
        val_tokens=sum(shard_tokens(shard) for shard in shards),
        val_digest=digest_files(*shards),
        tokenizer_digest=digest_files(files.tokenizer),
        code_digest=digest_files(script),
        artifact_digest=digest_files(files.artifact),
        sequence=longest_sequence(script.read_text("utf-8", "replace"), env or {}),
    )


def longest_sequence(source: str, env: Mapping[str, str]) -> int:
    """The longest sequence that a script evaluates: less than that may be left out at the end."""
    script = try_parse(source)
    lengths = [
        int(env[name]) if env.get(name, "").isdigit() else int(setting.number or 0)
        for name, setting in (read_settings(script).items() if script else ())
        if re.search(r"SEQ_?LEN", name)
    ]
    return max(lengths, default=0) or LONGEST_SEQUENCE


def compare_run(measured: Measured, result: OwnResult, *, limit: int = ARTIFACT_LIMIT) -> Findings:
    """Compare the files with what the result line says of them: D6 for sizes, D8 for the data."""
    found = plausibility.artifact(
        measured.artifact_bytes, logged=result.artifact_bytes, limit=limit
    )
    for name in ("code_bytes", "model_bytes"):
        stated, real = getattr(result, name), getattr(measured, name)
        if stated != real:
            found += broken("D6", f"the script says {name} {stated:,}, the file has {real:,}")
    names = ("val", "tokenizer", "code", "artifact")
    found += plausibility.same_digests(
        {name: getattr(result, f"{name}_digest") for name in names},
        {name: getattr(measured, f"{name}_digest") for name in names},
    )
    left_out = measured.val_tokens - 1 - result.val_tokens
    if 0 <= left_out < measured.sequence:
        return found
    return found + broken(
        "D8",
        f"{result.val_tokens:,} tokens scored of {measured.val_tokens - 1:,} in the shards, "
        f"expected all but a tail shorter than {measured.sequence:,}",
    )


def compare_baseline(
    values: Mapping[str, float], baseline: Mapping[str, float], *, tail: int, text: bool = True
) -> Findings:
    """D8 and D9: a run scored the text that the baseline scored, whatever its tokens are.

    Both map names of metrics to numbers. Bytes are compared, not tokens; where neither a log states
    its tokens, the bytes of one token. ``tail``: as many tokens may be left out at the end, for
    another sequence length. ``text``: the tokenizer is the same, so that tokens count as well.
    """
    mine, theirs = _bytes_scored(values), _bytes_scored(baseline)
    if mine is None or theirs is None:
        return ()
    if abs(mine / theirs - 1) > plausibility.TOLERANCE:
        return broken("D9", f"the score implies {mine:,.6g} bytes, the baseline's {theirs:,.6g}")
    missing = baseline.get("val_tokens", 0) - values.get("val_tokens", 0)
    if text and abs(missing) >= tail:
        found = f"{values.get('val_tokens', 0):,.0f} validation tokens scored"
        return broken("D8", f"{found}, the baseline scored {baseline.get('val_tokens', 0):,.0f}")
    return ()


def _bytes_scored(values: Mapping[str, float]) -> float | None:
    loss, score = values.get("val_loss"), values.get("val_bpb")
    if not loss or not score:
        return None
    return plausibility.implied_bytes(int(values.get("val_tokens", 1)), loss, score)


@frozen(kw_only=True)
class Clocks:
    """Seconds of one run by two clocks: the launcher's for all of it, and the script's own."""

    seconds: float
    train: float
    evaluation: float
    steps: float

    @classmethod
    def of(cls, values: Mapping[str, float], seconds: float) -> Clocks | None:
        """Return the clocks of a run by its metrics; None where they tell no training."""
        train, steps = values.get("train_time_ms"), values.get("steps")
        if train is None or not steps:
            return None
        evaluation = values.get("eval_time_ms", 0.0)
        return cls(seconds=seconds, train=train / 1e3, evaluation=evaluation / 1e3, steps=steps)

    @property
    def untold(self) -> float:
        """Seconds in neither of the script's clocks: start-up, compiling, packing."""
        return max(0.0, self.seconds - self.train - self.evaluation)


HIDDEN_SHARE = 0.7  # of the time that steps should have taken, found outside of the clock instead
FASTER = 1.25  # times; below it a speed-up and a slower start-up are told apart by no clock
NOISE_SECONDS = 30.0  # two starts of one script on a busy machine


def compare_training(run: Clocks, baseline: Clocks) -> Findings:
    """D3 by effect: training that the script's clock left out stands in the launcher's.

    The time for start-up, compiling and packing is what the baseline needed. A run whose steps are
    suddenly cheap while that time grew by what they should have cost has trained outside of its
    clock; so has one in which it grew by half of the training time or more.
    """
    grown = run.untold - baseline.untold
    owed = run.steps * baseline.train / baseline.steps
    saved = owed - run.train
    said = f"{run.untold:.1f} s are in neither of the script's clocks, {baseline.untold:.1f} before"
    if owed > FASTER * run.train and saved > 1.0 and grown > HIDDEN_SHARE * saved:
        steps = f"{run.steps:.0f} steps in {run.train:.3f} s of training would be {owed:.1f} s"
        return broken("D3", f"{steps} at the baseline's speed, and {said}: trained off the clock")
    if grown > baseline.untold + max(NOISE_SECONDS, 0.5 * max(run.train, baseline.train)):
        return broken("D3", f"{said}: too much to be no training")
    return ()


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
