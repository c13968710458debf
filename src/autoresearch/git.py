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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

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
    if done.returncode != 0:
        raise WorkspaceError(
            f"{folder} is not inside a git repository; run git init and commit the script first"
        )
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
