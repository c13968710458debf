"""Files that are either whole or not there: locking, writing, placing, digesting."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from console import say


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Let one process at a time do its work; a second one says that it waits, and waits."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the other process that holds {lock}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def place(source: Path, target: Path) -> None:
    """Give a whole file its final name: a hard link where the disk allows it, else a copy.

    The name appears in one step, so a kill never leaves half a file under it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    part.replace(target)


def sha256_file(path: Path) -> str:
    """Digest a file as lower-case hexadecimal sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
