"""D7: the artifact alone, in a new process without training data or network, gives the score."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from autoresearch.errors import DataError
from autoresearch.golf import plausibility
from autoresearch.golf.plausibility import Findings
from autoresearch.golf.shards import join_shards, validation_shards
from autoresearch.golf.trials.process import network_off
from autoresearch.golf.trials.protocol import Asker, read_scalars


@frozen(kw_only=True)
class Reloaded:
    """The score that the artifact gave; ``offline`` says whether the network was really away."""

    val_loss: float
    val_bpb: float
    val_tokens: int
    val_bytes: int
    offline: bool


def reload_score(
    *,
    script: Path,
    artifact: Path,
    data_dir: Path,
    tokenizer: Path,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout_s: float = 900.0,
) -> Reloaded:
    """Score an artifact again in a new process that has a copy of the script and nothing else.

    ``env`` are the overrides of the run that wrote the artifact. The script is asked through the
    model-test protocol; it finds no training data, because ``DATA_PATH`` names an empty folder.
    Raises ``NoAnswerError`` where it does not answer, ``DataError`` where a file is missing.
    """
    shards = validation_shards(data_dir)
    for path in (script, artifact, tokenizer, *(shards or [data_dir / "fineweb_val_*.bin"])):
        if not path.is_file():
            raise DataError(f"{path} is not a file: the artifact cannot be scored without it")
    with tempfile.TemporaryDirectory(prefix="reload-") as name:
        folder = Path(name)
        alone = folder / script.name
        alone.write_bytes(script.read_bytes())
        (folder / "nothing").mkdir()
        place = {"DATA_PATH": str(folder / "nothing"), "TOKENIZER_PATH": str(tokenizer.resolve())}
        asker = Asker(script=alone, env={**(env or {}), **place}, folder=folder, python=python)
        text = shards[0] if len(shards) == 1 else join_shards(shards, folder / "validation.bin")
        answer = asker.ask_file("reload", text, artifact=artifact, timeout_s=timeout_s)
        loss, bpb, tokens, count = read_scalars(answer)
    return Reloaded(
        val_loss=loss,
        val_bpb=bpb,
        val_tokens=round(tokens),
        val_bytes=round(count),
        offline=bool(network_off()),
    )


def check_reload(stated_bpb: float, reloaded: Reloaded | None) -> Findings:
    """Compare the score of a run with that of its artifact: D7, 1e-4 bits per byte."""
    return plausibility.reload(stated_bpb, None if reloaded is None else reloaded.val_bpb)
