"""Token shards of the challenge, by the standard library only: 1,024 bytes of header, then ids."""

from __future__ import annotations

import shutil
import struct
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

from autoresearch.errors import DataError

MAGIC, VERSION = 20240520, 1
HEADER_BYTES, TOKEN_BYTES = 1024, 2


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


def write_shard(path: Path, tokens: Sequence[int]) -> None:
    """Write token ids (0 to 65,535) as one shard."""
    ids = array("H", tokens)
    if sys.byteorder == "big":
        ids.byteswap()
    path.write_bytes(_header(len(tokens)) + ids.tobytes())


def join_shards(shards: Sequence[Path], path: Path) -> Path:
    """Write several shards as one, for a reader that takes one file; returns its path."""
    total = sum(shard_tokens(shard) for shard in shards)
    with path.open("wb") as joined:
        joined.write(_header(total))
        for shard in shards:
            with shard.open("rb") as file:
                file.seek(HEADER_BYTES)
                shutil.copyfileobj(file, joined, 1 << 20)
    return path


def _header(tokens: int) -> bytes:
    return struct.pack("<3i", MAGIC, VERSION, tokens).ljust(HEADER_BYTES, b"\0")


def validation_shards(data_dir: Path) -> tuple[Path, ...]:
    """The validation shards of a data folder by name, the per-token byte sidecars left out."""
    found = sorted(data_dir.glob("fineweb_val_*.bin"))
    return tuple(path for path in found if "_bytes_" not in path.name)
