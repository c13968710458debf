"""Telling a damaged database from one that is held, a full disk, and a mistake of ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import duckdb


class DamagedError(Exception):
    """events.duckdb is not what the last fold left; the text says why."""


def is_held(error: duckdb.Error) -> bool:
    """Return whether DuckDB refused because somebody has the file open."""
    text = str(error)
    return "Could not set lock" in text or "different configuration" in text


def is_held_for_writing(path: Path) -> bool:
    """Return whether another process has a database open for writing.

    Asked in a process of its own: whoever closes the file gives up all locks that its process has
    on it, also those of a DuckDB connection that somebody is using here.
    """
    probe = [sys.executable, "-I", "-c", _PROBE, str(path)]
    return path.exists() and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 3


_PROBE = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "rb"), fcntl.LOCK_SH | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def is_damage(error: duckdb.Error) -> bool:
    """Return whether the file is to blame, not a full disk and not a mistake of ours."""
    full = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES)
    if any(os.strerror(code) in str(error) for code in full):
        return False
    bad = (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException)
    return isinstance(
        error, (*bad, duckdb.FatalException, duckdb.ConstraintException)
    ) or "orrupt" in str(error)


def first_line(error: Exception) -> str:
    """Return what is wrong in one line."""
    return str(error).strip().split("\n")[0]
