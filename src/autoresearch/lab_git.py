"""The lab's repository, asked so that no file a run can write decides which programs start.

Generated code runs as the same user and may find the lab. Git starts what its configuration names
(filters, hooks, monitors, drivers), so the loop takes its settings from the command line alone:
neither the user's nor the system's are read, the folders are named by the loop and not by files in
a worktree, and the lab's own configuration has to consist of lines that are known.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from attrs import define, field

from autoresearch.errors import WorkspaceError
from autoresearch.git import Git

# Every line that git, on any file system, and this module write: none of them names a program.
_LINES = frozenset(
    f"{line}\n"
    for line in (
        *("[core]", "[transfer]", "[extensions]", "\thideRefs = !refs"),
        *("\trepositoryformatversion = 0", "\trepositoryformatversion = 1", "\tbare = false"),
        *("\tfilemode = true", "\tfilemode = false", "\tsymlinks = false", "\tignorecase = true"),
        *("\tlogallrefupdates = true", "\tprecomposeunicode = true", "\tobjectformat = sha1"),
        *("\tobjectformat = sha256", "\trefstorage = files", "\trefstorage = reftable"),
    )
)
# Somebody's settings may hide refs from fetches; the lab's have to come back.
_SHOWS_REFS = "[transfer]\n\thideRefs = !refs\n"
# The first two name filters and drivers, or hide files; the rest leads to other repositories.
_NOT_OURS = ("info/attributes", "info/exclude", "info/grafts", "commondir", "config.worktree")
_LOCK = re.compile(r"'([^']+\.lock)': File exists")
_DEAD_SECONDS = 10.0  # the loop alone starts git here, one at a time, and none holds a lock so long


@define
class LabGit:
    """The git folder of the lab at `path`, which is checked before every command in it."""

    path: Path
    _config: str | None = field(default=None, init=False)
    _planted: list[str] = field(factory=list, init=False)

    @property
    def folder(self) -> Path:
        """Where git keeps the lab's objects, refs and configuration."""
        return self.path / ".git"

    def settle(self) -> None:
        """Reduce the configuration of a new clone to what the lab needs; it has no remote then."""
        file = self.folder / "config"
        self._config = _known(file.read_text(encoding="utf-8")) + _SHOWS_REFS
        file.write_text(self._config, encoding="utf-8")

    def main(self) -> Git:
        """Return the lab itself."""
        return self._asked(self.path, self.folder)

    def worktree(self, path: Path) -> Git:
        """Return the worktree at `path`, whatever its own `.git` says."""
        return self._asked(path.absolute(), self._record(path))

    def _asked(self, path: Path, folder: Path) -> Git:
        variables = {
            "GIT_DIR": str(folder),
            "GIT_COMMON_DIR": str(self.folder),
            "GIT_WORK_TREE": str(path),
            "GIT_NO_REPLACE_OBJECTS": "1",
        }
        return Git(path, variables=variables, check=self.check, unblock=self.unblock)

    def owns(self, path: Path) -> bool:
        """Return whether the worktree at `path` is a plain folder that the lab knows.

        A `.git` file that leads elsewhere is put right: a script that asks git where it is should
        hear of its own commit.
        """
        if path.is_symlink() or path.parent.is_symlink() or not self._record(path).is_dir():
            return False
        told, right = path / ".git", f"gitdir: {self._record(path)}\n"
        plain = told.is_file() and not told.is_symlink()
        if not plain or told.read_text(encoding="utf-8", errors="replace") != right:
            _remove(told)
            told.write_text(right, encoding="utf-8")
            self._planted.append(str(told))
        return True

    def forget(self, path: Path) -> None:
        """Remove the worktree at `path`, and what the lab knows of it."""
        _remove(path.parent if path.parent.is_symlink() else path)
        _remove(self._record(path))

    def _record(self, path: Path) -> Path:
        return self.folder / "worktrees" / path.name

    def check(self) -> None:
        """Put the git folder right before git reads it, and remember what was wrong.

        Raises WorkspaceError where that is impossible.
        """
        try:
            self._check_config(self.folder / "config")
            for name in _NOT_OURS:
                if os.path.lexists(self.folder / name):
                    _remove(self.folder / name)
                    self._planted.append(str(self.folder / name))
        except OSError as error:
            raise WorkspaceError(
                f"the git folder of the lab cannot be used: {error}; restore {self.folder}"
            ) from None

    def _check_config(self, file: Path) -> None:
        plain = file.is_file() and not file.is_symlink()
        found = file.read_text(encoding="utf-8", errors="replace") if plain else ""
        if self._config is None and plain:  # as an earlier session left it
            self._config = _known(found)
        if found == self._config:
            return
        if self._config is None:
            raise WorkspaceError(f"the lab has lost {file}; restore it")
        _remove(file)
        file.write_text(self._config, encoding="utf-8")
        self._planted.append(str(file))

    def unblock(self, said: str) -> bool:
        """Remove the lock that git says is in its way, if a git that was killed left it here."""
        named = _LOCK.search(said)
        if named is None or not Path(named[1]).is_relative_to(self.folder):
            return False
        try:
            age = time.time() - Path(named[1]).lstat().st_mtime
        except FileNotFoundError:
            return True
        if age > _DEAD_SECONDS:
            Path(named[1]).unlink(missing_ok=True)
        return age > _DEAD_SECONDS

    def take_planted(self) -> tuple[str, ...]:
        """Return the files that were put right since the last time."""
        found = tuple(dict.fromkeys(self._planted))
        self._planted.clear()
        return found


def _known(config: str) -> str:
    return "".join(line for line in config.splitlines(keepends=True) if line in _LINES)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
