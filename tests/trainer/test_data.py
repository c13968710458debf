"""Shards, the token stream and the slices that each rank takes from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import train_gpt
from trainer_kit import TinyData, make_runtime, write_shard

TOKENS = np.arange(1, 301)


@pytest.fixture
def two_shards(tmp_path: Path) -> list[str]:
    write_shard(tmp_path / "fineweb_train_000001.bin", TOKENS[100:])
    write_shard(tmp_path / "fineweb_train_000000.bin", TOKENS[:100])
    return train_gpt.shard_files(str(tmp_path), "train")


def settings(**changes: int) -> train_gpt.Hyperparameters:
    return train_gpt.Hyperparameters(
        **{"train_batch_tokens": 64, "train_seq_len": 4, "vocab_size": 512} | changes
    )


def test_the_stream_crosses_shards_and_wraps(two_shards: list[str]) -> None:
    """Reading past the end of the last shard goes on at the first token of the first."""
    stream = train_gpt.TokenStream(two_shards)
    assert stream.read(95, 10).tolist() == TOKENS[95:105].tolist()
    assert stream.read(298, 5).tolist() == [299, 300, 1, 2, 3]
    assert stream.read(600, 2).tolist() == [1, 2]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_one_stream(two_shards: list[str], world_size: int) -> None:
    """Rank r owns the r-th span of local tokens plus one; the next step starts after all spans."""
    accumulation = 8 // world_size
    local = 64 // (world_size * accumulation)
    for rank in range(world_size):
        runtime = make_runtime(rank, world_size)
        loader = train_gpt.TrainLoader(two_shards, settings(), runtime)
        for step in range(3):
            start = (step * world_size + rank) * (local + 1)
            span = np.take(TOKENS, range(start, start + local + 1), mode="wrap")
            inputs, targets = loader.next_batch()
            assert inputs.dtype == targets.dtype == torch.int64
            assert inputs.tolist() == span[:-1].reshape(-1, 4).tolist()
            assert targets.tolist() == span[1:].reshape(-1, 4).tolist()


def test_merged_micro_steps_hold_the_same_tokens(two_shards: list[str]) -> None:
    """Asking for several micro-steps at once stacks what single requests would give."""
    single = train_gpt.TrainLoader(two_shards, settings(), make_runtime())
    merged = train_gpt.TrainLoader(two_shards, settings(), make_runtime())
    one_by_one = [single.next_batch() for _ in range(4)]
    inputs, targets = merged.next_batch(4)
    assert torch.equal(inputs, torch.cat([batch[0] for batch in one_by_one]))
    assert torch.equal(targets, torch.cat([batch[1] for batch in one_by_one]))


def test_a_batch_has_to_be_whole_sequences(two_shards: list[str]) -> None:
    """8 tokens for each micro-step cannot be cut into sequences of 5."""
    with pytest.raises(train_gpt.RunError, match="multiple of TRAIN_SEQ_LEN=5"):
        train_gpt.TrainLoader(two_shards, settings(train_seq_len=5), make_runtime())


def test_ids_outside_the_vocabulary_are_refused(two_shards: list[str]) -> None:
    """A shard of another tokenizer is named before it crashes a kernel."""
    loader = train_gpt.TrainLoader(two_shards, settings(vocab_size=20), make_runtime())
    with pytest.raises(train_gpt.RunError, match=r"ids below 20: set VOCAB_SIZE"):
        loader.next_batch(4)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "magic": (lambda b: b"\0" * 4 + b[4:], "is not a token shard"),
    "version": (lambda b: b[:4] + b"\2\0\0\0" + b[8:], "is not a token shard"),
    "short": (lambda b: b[:-2], "truncated or damaged"),
    "long": (lambda b: b + b"\0", "truncated or damaged"),
    "header only": (lambda b: b[:100], "truncated or damaged"),
    "empty": (lambda b: b"", "is not a token shard"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_no_shard_is_named(tmp_path: Path, kind: str) -> None:
    """Magic, version and size are checked; the line names the file and the mend."""
    path = tmp_path / "fineweb_train_000000.bin"
    write_shard(path, TOKENS)
    damage, complaint = DAMAGES[kind]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=complaint) as caught:
        train_gpt.open_shard(path)
    assert path.name in str(caught.value)
    assert "get the data again" in str(caught.value)


def test_missing_and_empty_data_are_errors(tmp_path: Path) -> None:
    """No matching file, and shards without a token, are both said plainly."""
    with pytest.raises(train_gpt.RunError, match=r"no file matches .*fineweb_train_\*\.bin"):
        train_gpt.shard_files(str(tmp_path), "train")
    write_shard(tmp_path / "fineweb_train_000000.bin", TOKENS[:0])
    with pytest.raises(train_gpt.RunError, match="hold no tokens"):
        train_gpt.TokenStream(train_gpt.shard_files(str(tmp_path), "train"))


def test_byte_sidecars_are_not_validation_text(tiny_data: TinyData) -> None:
    """`fineweb_val_bytes_*.bin` matches the pattern of the split and is left out."""
    names = [Path(name).name for name in train_gpt.shard_files(str(tiny_data.home), "val")]
    assert names == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]


def test_settings_come_from_literal_defaults() -> None:
    """Unset variables give the challenge's defaults."""
    hp = train_gpt.Hyperparameters()
    assert (hp.iterations, hp.train_batch_tokens, hp.train_seq_len) == (20000, 524288, 1024)
    assert (hp.matrix_lr, hp.tied_embed_lr, hp.muon_momentum) == (0.04, 0.05, 0.95)
    assert hp.keep_fp32_name_patterns == hp.control_tensor_name_patterns
    with pytest.raises(TypeError, match="unknown setting 'depth'"):
        train_gpt.Hyperparameters(depth=3)


def test_unreadable_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot be read keeps its default and leaves one line for main()."""
    monkeypatch.setattr(train_gpt, "unreadable_settings", [])
    monkeypatch.setenv("SEED", "many")
    monkeypatch.setenv("TIE_EMBEDDINGS", "yes")
    monkeypatch.setenv("MATRIX_LR", "0.02")
    assert train_gpt.env_int("SEED", 1337) == 1337
    assert train_gpt.env_bool("TIE_EMBEDDINGS", True) is True
    assert train_gpt.env_float("MATRIX_LR", 0.04) == 0.02
    assert train_gpt.unreadable_settings == [
        "SEED='many' is not an integer: set it to an integer or unset it",
        "TIE_EMBEDDINGS='yes' is not 0 or 1: set it to 0 or 1 or unset it",
    ]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("WORLD_SIZE", "3", "WORLD_SIZE=3 does not divide 8: start 1, 2, 4 or 8 processes"),
        ("WORLD_SIZE", "0", "WORLD_SIZE=0 does not divide 8"),
        ("DEVICE", "tpu", "DEVICE='tpu' is unknown: use auto or cuda or cpu"),
        ("CPU_DTYPE", "int4", "CPU_DTYPE='int4' is unknown: use auto or bf16 or fp32"),
        ("COMPILE", "2", "COMPILE='2' is unknown: use auto or 0 or 1"),
    ],
)
def test_a_machine_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    """Ranks and choices outside the allowed ones are refused before any work."""
    settings = {"device": "cpu", "cpu_dtype": "fp32"}
    if name == "WORLD_SIZE":
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv(name, value)
    else:
        settings[name.lower()] = value
    with pytest.raises(ValueError, match=complaint):
        train_gpt.setup_runtime(train_gpt.Hyperparameters(**settings))
