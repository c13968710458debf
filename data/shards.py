"""The token files of the challenge: writing, naming and checking one shard.

A shard is a header of 256 little-endian int32 (magic, version, token count, zeros) followed by
that many little-endian uint16 token ids.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from console import DataError
from numpy.typing import NDArray

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = HEADER_INTS * 4
TOKEN_BYTES = 2
MAX_VOCABULARY = 65_536  # what a uint16 can name
SHARD_TOKENS = 100_000_000  # a full shard of the published data set, 200,001,024 bytes

Tokens = NDArray[np.uint16]


class ShardError(DataError):
    """A file is not a whole shard of the challenge's format."""


def shard_name(split: str, index: int) -> str:
    """Name one shard file, for instance `fineweb_train_000003.bin`."""
    return f"fineweb_{split}_{index:06d}.bin"


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write tokens as one shard and wait until the disk has them."""
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.write(tokens.astype("<u2", copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())


def check_shard(path: Path) -> int:
    """Return the number of tokens of a shard; ShardError when magic, version or size is wrong."""
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise ShardError(f"{path} has {size} bytes, fewer than the header's {HEADER_BYTES}")
    magic, version, tokens = (int(number) for number in np.fromfile(path, "<i4", count=3))
    if magic != MAGIC:
        raise ShardError(f"{path} starts with {magic}, a shard starts with {MAGIC}")
    if version != VERSION:
        raise ShardError(f"{path} has shard version {version}, expected {VERSION}")
    expected = HEADER_BYTES + TOKEN_BYTES * tokens
    if tokens < 0 or size != expected:
        raise ShardError(f"{path} has {size} bytes, its header of {tokens} tokens asks {expected}")
    return tokens


def read_tokens(path: Path) -> Tokens:
    """Read the tokens of a checked shard."""
    check_shard(path)
    tokens: Tokens = np.fromfile(path, "<u2", offset=HEADER_BYTES).astype(np.uint16, copy=False)
    return tokens


def sha256_file(path: Path) -> str:
    """Digest a file as lower-case hexadecimal sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardWriter:
    """Cut a stream of documents into the shards of one split."""

    def __init__(self, folder: Path, split: str, shard_tokens: int) -> None:
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._waiting: list[Tokens] = []
        self._waiting_tokens = 0
        self.names: list[str] = []
        self.tokens = 0

    def add(self, documents: Iterable[Tokens]) -> None:
        """Append documents, writing every shard that became full."""
        for document in documents:
            self._waiting.append(document)
            self._waiting_tokens += len(document)
            self.tokens += len(document)
            while self._waiting_tokens >= self._shard_tokens:
                self._flush(self._shard_tokens)

    def close(self) -> None:
        """Write what is left as the last, shorter shard."""
        if self._waiting_tokens:
            self._flush(self._waiting_tokens)

    def _flush(self, count: int) -> None:
        stream = np.concatenate(self._waiting)
        name = shard_name(self._split, len(self.names))
        write_shard(self._folder / name, stream[:count])
        self.names.append(name)
        self._waiting = [stream[count:]]
        self._waiting_tokens = len(stream) - count
