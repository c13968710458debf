"""Files: there wholly or not at all, known by digests, chosen by patterns, locked by a process.

A lock dies with its process. Patterns say which files an idea may change, and one digest stands
for all of them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from autoresearch.errors import ConfigError

UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)


def digest(data: str | bytes) -> str:
    """Return the sha256 of bytes, or of a text in UTF-8, as 64 hex digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest_files(*paths: Path) -> str:
    """Return the sha256 over the bytes of files, one after the other."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
    return whole.hexdigest()


def end_of(path: Path, size: int) -> str:
    """Return the last bytes of a file, at most so many, as text; raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read().decode("utf-8", "replace")


def make_durable(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Names are metadata, which fdatasync may leave out.
        (os.fsync if path.is_dir() else os.fdatasync)(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    make_durable(path.parent)


def open_for_append(path: Path) -> int:
    """Open a file for appending and return its handle; a new one gets its name durably."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        handle = os.open(path, flags | os.O_CREAT, 0o644)
        make_durable(path.parent)
        return handle


def write_all(handle: int, data: bytes, *, durable: bool = True) -> None:
    """Write every byte, however many calls the kernel wants, and make them durable."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    if durable:
        os.fdatasync(handle)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Give a file new content that a reader sees wholly or not at all.

    It is so after a power cut as well, unless ``durable`` is False: enough for what can be made
    again. Raises OSError with the old content in place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            write_all(handle, data, durable=durable)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        make_durable(path.parent)


class FileLock:
    """An exclusive lock that the kernel gives back when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._owner = 0

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False when it is held elsewhere and ``wait`` is False."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._handle, self._owner = handle, os.getpid()
        _HELD.add(self)
        return True

    def write(self, data: bytes) -> None:
        """Leave a message for those who find the lock taken."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, data, 0)

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        handle, self._handle = self._handle, None
        _HELD.discard(self)
        if handle is None:
            return
        if self._owner == os.getpid():
            # A child that is being forked this instant may share the open file: unlock it for all.
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)

    def __del__(self) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock at ``path``; OSError where there is no such file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` for the length of a block, waiting for it; make its folder."""
    make_folder(path.parent)
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


# A lock belongs to the open file, which a forked child shares: without this a child that outlives
# its parent would keep the parent's streams locked.
_HELD: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_MEANS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_editable(path: str, patterns: Iterable[str]) -> bool:
    """Return whether a path from the top of the repository matches one of the patterns.

    ``*`` and ``?`` stay within one folder, ``**`` crosses folders.
    """
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


def check_pattern(pattern: str) -> None:
    """Raise ConfigError for a pattern that leads out of the repository or into git's own files."""
    parts = pattern.split("/")
    if not pattern or pattern.startswith("/") or {".", "..", ".git", ".autoresearch"} & set(parts):
        raise ConfigError(
            f"editable holds {pattern!r}; write paths from the top of the repository, "
            "such as model.py or src/**/*.py"
        )


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    made, end = "", 0
    for found in _WILD.finditer(pattern):
        made += re.escape(pattern[end : found.start()]) + _MEANS[found[0]]
        end = found.end()
    return re.compile(made + re.escape(pattern[end:]), re.DOTALL)


def listing(digests: Mapping[str, str]) -> str:
    """Return the text that stands for several files: their paths and sha256, as canonical JSON."""
    return json.dumps(dict(digests), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def tree_digest(digests: Mapping[str, str]) -> str:
    """Return one sha256 for editable files: a single file's own, or that of their `listing`."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return digest(listing(digests))
