"""A tiny data set for the trainer, and a way to run the script on it as a user would."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
import torch
import train_gpt

ROOT = Path(__file__).resolve().parents[2]
PARITY = ROOT / "tests" / "fixtures" / "parity"
SHARED = ROOT.parent / "shared" / "challenge" / "parity"
SCRIPT = ROOT / "train_gpt.py"

VOCABULARY = 320
TINY = {
    "VOCAB_SIZE": str(VOCABULARY),
    "NUM_LAYERS": "3",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "TRAIN_SEQ_LEN": "64",
    "TRAIN_BATCH_TOKENS": "1024",
    "VAL_BATCH_SIZE": "2048",
    "ITERATIONS": "12",
    "WARMUP_STEPS": "2",
    "WARMDOWN_ITERS": "4",
    "VAL_LOSS_EVERY": "5",
    "MAX_WALLCLOCK_SECONDS": "0",
    "CPU_DTYPE": "fp32",
    "DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
}


def write_shard(path: Path, tokens: np.ndarray) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, tokens.size
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


@dataclass(frozen=True)
class TinyData:
    """Where the tiny data set is, and the documents that its validation split was made from."""

    home: Path
    tokenizer: Path
    val_documents: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {**TINY, "DATA_PATH": str(self.home), "TOKENIZER_PATH": str(self.tokenizer)}

    @property
    def settings(self) -> dict[str, Any]:
        """The same as keyword arguments of Hyperparameters."""
        numbers = {k.lower(): int(v) for k, v in TINY.items() if v.isdigit()}
        numbers.pop("omp_num_threads")
        paths = {"data_path": str(self.home), "tokenizer_path": str(self.tokenizer)}
        return {**numbers, **paths, "device": "cpu", "cpu_dtype": "fp32"}


def training_tokens() -> np.ndarray:
    """5,000 ids below 1,024 in which each follows from the one before up to a little noise.

    The recorded training losses belong to exactly these.
    """
    noise = np.random.default_rng(7).integers(0, 3, 5000)
    tokens = np.zeros(5000, dtype=np.int64)
    for i in range(1, tokens.size):
        tokens[i] = (5 * tokens[i - 1] + noise[i]) % 1024
    return tokens


def make_runtime(rank: int = 0, world_size: int = 1) -> train_gpt.Runtime:
    cpu = torch.device("cpu")
    return train_gpt.Runtime(rank, world_size, 8 // world_size, cpu, torch.float32, compile=False)


def documents(count: int, seed: int) -> list[str]:
    words = [
        "the",
        "tax",
        "of",
        "war",
        "and",
        "peace",
        "is",
        "a",
        "long",
        "law",
        "café",
        "naïve",
        "people",
        "union",
        "état",
        "1790",
        "42",
    ]
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(20, 60))) + "." for _ in range(count)]


def encode(tokenizer: spm.SentencePieceProcessor, texts: list[str]) -> np.ndarray:
    return np.array([i for text in texts for i in [1, *tokenizer.encode(text)]])


@dataclass(frozen=True)
class Finished:
    """A process that has ended: its folder, exit code and output."""

    cwd: Path
    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def result(self) -> dict[str, Any]:
        name, _, text = self.lines[-1].partition(" ")
        assert name == "autoresearch_result"
        return dict(json.loads(text))


def clean_environment(changes: dict[str, str]) -> dict[str, str]:
    """Ours without settings of the trainer that the person who runs the tests may have set."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    return {k: os.environ[k] for k in kept if k in os.environ} | changes


def run_script(cwd: Path, environment: dict[str, str], *launcher: str) -> Finished:
    command = [sys.executable, *launcher, str(SCRIPT)]
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(environment), capture_output=True, text=True
    )
    return Finished(cwd, done.returncode, done.stdout, done.stderr)
