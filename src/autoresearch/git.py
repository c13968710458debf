"""Runs git as a program: no hooks, no prompts, no signing, no surprise from anybody's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from autoresearch.errors import WorkspaceError
from autoresearch.text import one_line

# Hooks, monitors, maintenance and signing are other people's programs: none may run inside ours.
_QUIET = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
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
    "advice.detachedHead=false",
    "apply.ignoreWhitespace=no",
    "apply.whitespace=nowarn",
    "commit.cleanup=whitespace",
    "i18n.commitEncoding=utf-8",
    "user.name=autoresearch",
    "user.email=autoresearch@localhost",
)


@frozen
class Git:
    """One repository or worktree, asked through the git program."""

    path: Path = field(converter=Path)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what git prints, without the last line end.

        Raises WorkspaceError with git's own last line when it fails.
        """
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise WorkspaceError(
                f"git {arguments[0]} failed in {self.path}: {one_line(said[-1], 300)}; "
                "see to it and try again"
            )
        return done.stdout.removesuffix("\n")

    def attempt(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run git and return what happened, also when it failed."""
        quiet = [word for setting in _QUIET for word in ("-c", setting)]
        try:
            done = subprocess.run(
                [_program(), *quiet, *arguments],
                cwd=self.path,
                env=_environment(os.environ),
                input=b"" if stdin is None else stdin.encode("utf-8"),
                capture_output=True,
                check=False,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise WorkspaceError(f"{self.path} is no folder; run this inside a project") from None
        # Line ends stay as they are: a script's bytes are what is run and what is digested.
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def commit_of(self, name: str) -> str | None:
        """Return the full commit id that ``name`` stands for, or None."""
        done = self.attempt("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return done.stdout.strip() or None if done.returncode == 0 else None


def top_level(folder: Path) -> Path:
    """Return the root of the git checkout around ``folder``.

    Raises WorkspaceError when there is none, or git is not installed.
    """
    done = Git(folder).attempt("rev-parse", "--show-toplevel")
    if "dubious ownership" in done.stderr:
        raise WorkspaceError(
            f"git does not trust {folder}, which belongs to somebody else; run as its owner, "
            "or allow it with git config --global --add safe.directory"
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


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in environ.items() if not key.startswith("GIT_")}
    return {
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
