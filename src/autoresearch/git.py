"""Runs git as a program: no hooks, no prompts, no signing, no surprise from anybody's settings.

The lab is written with fixed settings. Questions about the user's own tree, and whether git trusts
a folder at all, are answered with the user's: else a clean checkout would look changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from autoresearch.errors import BlockedError, WorkspaceError
from autoresearch.text import one_line

# Hooks, monitors, maintenance and signing are other people's programs: none may run inside ours.
_USERS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
_ISOLATED = (
    *_USERS,
    "core.autocrlf=false",
    "core.eol=lf",
    "safe.directory=*",  # top_level asked with the user's settings
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "clone.defaultRemoteName=origin",
    "clone.rejectShallow=false",
    "fetch.prune=false",
    "fetch.pruneTags=false",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "core.alternateRefsCommand=true",
    "core.editor=true",
    "core.sshCommand=false",
    "credential.helper=",
    "log.showSignature=false",
    "diff.ignoreSubmodules=all",
    "advice.detachedHead=false",
    "apply.ignoreWhitespace=no",
    "apply.whitespace=nowarn",
    "commit.cleanup=whitespace",
    "i18n.commitEncoding=utf-8",
    "user.name=autoresearch",
    "user.email=autoresearch@localhost",
)


# Git clears what trusts a folder before it serves one: the project's was checked, the lab is ours.
SERVED = "--upload-pack=git -c safe.directory='*' upload-pack"

# What git and its helpers need to find themselves, and the owner's settings; no key is among it.
_SEEN = {"PATH", "HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "LD_LIBRARY_PATH"}
_SEEN |= {"TMPDIR", "TMP", "TEMP"}
# What git says (in English, by LC_ALL) when a lock or the disk is in its way, not the request.
_BLOCKED = re.compile(
    r"\.lock': File exists|Another git process|could(n't| not) (lock|write|close|set|create|append)"
    r"|unable to (write|append|open|create)|failed to write|fsync error|died of signal"
    r"|No space left|diskspace|write error|quota exceeded|Read-only file system|Permission denied"
    r"|Input/output error|Too many open files|Cannot allocate memory|Resource temporarily"
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@frozen
class Git:
    """One repository or worktree, asked through the git program.

    ``as_user`` asks with the user's settings for line ends, file modes, ignored files and filters.
    ``variables`` are laid over the environment; ``check`` is called before every command, and
    ``unblock`` with what a failed one said: where it returns True, the command is tried again.
    """

    path: Path = field(converter=Path)
    as_user: bool = field(default=False, kw_only=True)
    variables: Mapping[str, str] = field(factory=dict, kw_only=True)
    check: Callable[[], None] = field(default=lambda: None, eq=False, repr=False, kw_only=True)
    unblock: Callable[[str], bool] = field(
        default=lambda _: False, eq=False, repr=False, kw_only=True
    )

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what git prints, without the last line end.

        Raises WorkspaceError with what git says when it fails, BlockedError when a lock file or the
        disk is in the way.
        """
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0 and self.unblock(done.stderr):
            done = self.attempt(*arguments, stdin=stdin)
        if done.returncode == 0:
            return done.stdout.removesuffix("\n")
        killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else ""
        said = (done.stderr or done.stdout).strip() or killed or "no message"
        error = BlockedError if killed or _BLOCKED.search(said) else WorkspaceError
        raise error(
            f"git {arguments[0]} failed in {self.path}: {one_line(said, 600)}; "
            "solve that and try again"
        )

    def attempt(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run git and return what happened, also when it failed."""
        done = self._start(arguments, stdin)
        # Line ends stay as they are: a script's bytes are what is run and what is digested.
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def _start(
        self, arguments: Sequence[str], stdin: str | None
    ) -> subprocess.CompletedProcess[bytes]:
        self.check()
        settings = _USERS if self.as_user else _ISOLATED
        quiet = [word for setting in settings for word in ("-c", setting)]
        try:
            return subprocess.run(
                [_program(), *quiet, *arguments],
                cwd=self.path,
                env={**_environment(os.environ, self.as_user), **self.variables},
                input=b"" if stdin is None else stdin.encode("utf-8"),
                capture_output=True,
                check=False,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise WorkspaceError(
                f"{self.path} is not a folder; run this inside a project"
            ) from None

    def head(self) -> str:
        """Return the commit at which a worktree stands."""
        if "GIT_DIR" in self.variables:  # a detached head stands in a file: no process needed
            file = Path(self.variables["GIT_DIR"], "HEAD")
            commit = file.read_text(encoding="ascii", errors="replace").strip()
            if _COMMIT.fullmatch(commit):
                return commit
        return self.run("rev-parse", "HEAD")

    def blobs(self, ids: Iterable[str]) -> list[bytes]:
        """Return the contents of blobs, in the order asked for."""
        wanted = list(ids)
        done = self._start(("cat-file", "--batch"), "".join(f"{name}\n" for name in wanted))
        rest, found = done.stdout, []
        for name in wanted:
            line, _, rest = rest.partition(b"\n")
            if not line.startswith(name.encode()) or b" blob " not in line:
                raise WorkspaceError(f"git has no file {name} in {self.path}; run git fsck")
            size = int(line.rsplit(b" ", 1)[1])
            found.append(rest[:size])
            rest = rest[size + 1 :]
        return found

    def commit_of(self, name: str) -> str | None:
        """Return the full commit id that ``name`` stands for, or None."""
        done = self.attempt("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return done.stdout.strip() or None if done.returncode == 0 else None


def top_level(folder: Path) -> Path:
    """Return the root of the git checkout around ``folder``.

    Raises WorkspaceError when there is none, or git is not installed.
    """
    done = Git(folder, as_user=True).attempt("rev-parse", "--show-toplevel")
    if "dubious ownership" in done.stderr:
        named = re.search(r"safe\.directory (.+)", done.stderr)
        place = named[1].strip() if named else shlex.quote(str(folder))
        raise WorkspaceError(
            f"git does not trust {folder}, which belongs to somebody else; run as its owner, "
            f"or allow it with git config --global --add safe.directory {place}"
        )
    if "not a git repository (or any" in done.stderr:
        raise WorkspaceError(
            f"{folder} is not inside a git repository; run git init and commit the script first"
        )
    if done.returncode != 0:
        said = one_line(done.stderr.removeprefix("fatal: "), 300)
        raise WorkspaceError(f"git cannot work in {folder}: {said}; solve that and try again")
    return Path(done.stdout.removesuffix("\n"))


def _program() -> str:
    program = shutil.which("git")
    if program is None:
        raise WorkspaceError("git is not installed; install it and try again")
    return program


def _environment(environ: Mapping[str, str], as_user: bool) -> dict[str, str]:
    if as_user:  # also a setting from the environment says which folders git may trust
        apart = {key: value for key, value in environ.items() if key.startswith("GIT_CONFIG_")}
    else:
        apart = {
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1",
        }  # fmt: skip
    return {
        **{key: value for key, value in environ.items() if key in _SEEN},
        **apart,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


# --- the lab, asked so that no file a run can write decides which programs start --------------

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
    """The git folder of the lab at `path`, which is checked before every command in it.

    Generated code runs as the same user and may find the lab. Git starts what its configuration
    names (filters, hooks, monitors, drivers), so the loop takes its settings from the command line
    alone: neither the user's nor the system's are read, the folders are named by the loop and not
    by files in a worktree, and the lab's own configuration has to consist of lines that are known.
    """

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
