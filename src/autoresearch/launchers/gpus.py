"""Leases of this machine's GPUs: one run has a GPU at a time, whichever campaign or loop it is of.

A lease is a lock of the kernel on a file, one for each GPU, in a folder that all users share. The
process that owns the run holds it and lets go of it however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define

from autoresearch.config import RunsConfig
from autoresearch.launchers.environment import named_gpus

FOLDER = Path("/tmp/autoresearch-gpus")


def devices(
    settings: RunsConfig, environ: Mapping[str, str], folder: Path = Path("/dev")
) -> tuple[str, ...]:
    """Return the GPUs that runs may have: as set, as the environment says, or all there are."""
    return settings.devices or named_gpus(environ, folder)


def share(settings: RunsConfig, found: Sequence[str]) -> int:
    """Return how many of the devices one run gets."""
    return min(settings.gpus or max(1, len(found) // settings.parallel), len(found))


@define
class Lease:
    """Some GPUs, for as long as one of the open files is open in some process."""

    names: tuple[str, ...]
    files: tuple[int, ...]

    def let_go(self) -> None:
        """Close the files here; a process that inherited them goes on holding the lease."""
        for file in self.files:
            os.close(file)


def lease(found: Iterable[str], count: int, folder: Path = FOLDER) -> Lease | None:
    """Take ``count`` of the GPUs that nobody holds now, or none at all and return None."""
    names: list[str] = []
    files: list[int] = []
    for name in found:
        if len(names) < count and (file := _locked(folder, name)) is not None:
            names.append(name)
            files.append(file)
    taken = Lease(tuple(names), tuple(files))
    if len(names) == count:
        return taken
    taken.let_go()
    return None


def _locked(folder: Path, name: str) -> int | None:
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    path = folder / re.sub(r"[^\w-]", "_", name)
    # Reading is enough to lock; a file of another user is not opened for writing.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644))
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
