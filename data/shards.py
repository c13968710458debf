"""The token files of the challenge: naming, writing and checking one shard.

A shard is a header of 256 little-endian int32 (magic, version, token count, zeros) followed by
that many little-endian uint16 token ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from console import DataError
from files import write_whole
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


def shard_bytes(tokens: int) -> int:
    """Size of a shard file of so many tokens."""
    return HEADER_BYTES + TOKEN_BYTES * tokens


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write tokens as one shard and wait until the disk has them."""
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    write_whole(path, header.tobytes() + tokens.astype("<u2", copy=False).tobytes())


def count_tokens(path: Path) -> int:
    """Return the number of tokens of a shard.

    Raises ShardError, without the file's name, when magic, version or size is wrong.
    """
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise ShardError(f"{size} bytes are fewer than a shard's header of {HEADER_BYTES}")
    magic, version, tokens = (int(number) for number in np.fromfile(path, "<i4", count=3))
    if magic != MAGIC:
        raise ShardError(f"it starts with {magic}, a shard starts with {MAGIC}")
    if version != VERSION:
        raise ShardError(f"shard version {version}, expected {VERSION}")
    if tokens < 0 or size != shard_bytes(tokens):
        raise ShardError(f"{size} bytes, expected {shard_bytes(tokens)} for its {tokens} tokens")
    return tokens


class ShardWriter:
    """Cut a stream of documents into the shards of one split."""

    def __init__(self, folder: Path, split: str, shard_tokens: int) -> None:
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._waiting: list[Tokens] = []
        self._waiting_tokens = 0
        self.files = 0
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
        first = self._waiting[0]
        stream = np.concatenate(self._waiting) if len(self._waiting) > 1 else first
        write_shard(self._folder / shard_name(self._split, self.files), stream[:count])
        self.files += 1
        self._waiting = [stream[count:]]
        self._waiting_tokens = len(stream) - count
