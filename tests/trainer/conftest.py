"""A tiny tokenizer, tiny shards and one real run of the trainer, shared by the tests beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sentencepiece as spm
import torch

# The trainer is a script beside the package; the kit is a module beside the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import train_gpt
from trainer_kit import (
    VOCABULARY,
    Finished,
    TinyData,
    documents,
    encode,
    make_runtime,
    run_script,
    write_shard,
)

torch.set_num_threads(1)  # tiny tensors; threads only get in each other's way


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    home = tmp_path_factory.mktemp("tiny")
    texts, val = documents(400, 1), documents(40, 2)
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(home / "tiny"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        character_coverage=0.999,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = spm.SentencePieceProcessor(model_file=str(home / "tiny.model"))
    train_ids, val_ids = encode(tokenizer, texts), encode(tokenizer, val)
    cut = train_ids.size // 3 + 5
    write_shard(home / "fineweb_train_000000.bin", train_ids[:cut])
    write_shard(home / "fineweb_train_000001.bin", train_ids[cut:])
    write_shard(home / "fineweb_val_000000.bin", val_ids[:700])
    write_shard(home / "fineweb_val_000001.bin", val_ids[700:])
    (home / "fineweb_val_bytes_000000.bin").write_bytes(b"a sidecar is not a token shard")
    return TinyData(home, home / "tiny.model", tuple(val))


@pytest.fixture(scope="session")
def tiny_run(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One whole run: trained, packed, reloaded in a fresh process, reported."""
    cwd = tmp_path_factory.mktemp("run")
    (cwd / "final_model.int8.ptz.unfinished").write_bytes(b"left by a killed run")
    done = run_script(cwd, {**tiny_data.environment, "RUN_ID": "tiny"})
    assert done.code == 0, done.stderr
    return done


@pytest.fixture
def hp(tiny_data: TinyData) -> train_gpt.Hyperparameters:
    return train_gpt.Hyperparameters(**tiny_data.settings)


@pytest.fixture
def runtime() -> train_gpt.Runtime:
    return make_runtime()
