"""The checks before a campaign: everything that would spoil it later is one clear line now."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from pathlib import Path

from attrs import frozen

from autoresearch.config import Config
from autoresearch.cycle.changes import syntax_problem
from autoresearch.errors import DataError, WorkspaceError
from autoresearch.git import Git
from autoresearch.workspace import check_tag, texts_at

FILES = ("results.tsv", "notes.md")
_REPORTED = ("autoresearch", "duckdb", "numpy", "torch", "sentencepiece", "modal", "openai")


@frozen(kw_only=True)
class Ground:
    """What a campaign will stand on: the base commit and its editable files' texts by path."""

    base: str
    files: Mapping[str, str]


def free_tag(project: Path, wanted: str | None, today: date) -> str:
    """Return the run tag: the one wanted, or today's date like ``mar18`` (``mar18-2`` if taken).

    Raises WorkspaceError when the branch of a wanted tag exists already.
    """
    git = Git(project)
    if git.commit_of("refs/heads/autoresearch") is not None:
        raise WorkspaceError(
            "a branch called autoresearch is in the way of autoresearch/<tag>; "
            "rename it with git branch -m autoresearch <name>"
        )
    if wanted is not None:
        check_tag(wanted)
        if _taken(git, project, wanted):
            raise WorkspaceError(
                f"branch autoresearch/{wanted} already exists; choose another --tag, "
                f"or continue it with autoresearch run --tag {wanted}"
            )
        return wanted
    stem = today.strftime("%b%d").lower()
    number = 1
    tag = stem
    while _taken(git, project, tag):
        number += 1
        tag = f"{stem}-{number}"
    return tag


def _taken(git: Git, project: Path, tag: str) -> bool:
    # Also branches below it, autoresearch/<tag>/<more>, are in its way.
    branches = git.run("for-each-ref", f"refs/heads/autoresearch/{tag}")
    return bool(branches) or (project / ".autoresearch" / tag).exists()


def check_ground(project: Path, config: Config) -> Ground:
    """Check the repository, the files in scope and the data; return what to start from.

    Raises WorkspaceError or DataError with the first thing that is wrong and how to fix it.
    """
    git = Git(project)
    base = git.commit_of("HEAD")
    if base is None:
        raise WorkspaceError(f"{project} has no commit yet; commit {config.script} first")
    for name in dict.fromkeys((*config.in_scope, config.script)):
        if git.attempt("cat-file", "-e", f"{base}:{name}").returncode != 0:
            raise WorkspaceError(f"{name} is not in commit {base[:7]}; add it and commit")
    _check_script(git, base, config.script)
    _check_clean(git)
    _check_files(git, project)
    _check_data(project, config)
    files = texts_at(git, base, config.script, config.editable)
    for path, text in files.items():
        problem = syntax_problem(path, text)
        if problem:
            raise WorkspaceError(problem)
    return Ground(base=base, files=files)


def _check_script(git: Git, base: str, script: str) -> None:
    listed = git.run("ls-tree", "--full-tree", "-z", base, "--", script).split("\0")[0]
    kind, _, path = listed.partition("\t")
    if path != script:
        wanted = path or "its path from the top of the repository"
        raise WorkspaceError(f"script is {script!r}; write {wanted}")
    if not kind.startswith("100"):
        what = "a symbolic link" if kind.startswith("120000") else "not a file"
        raise WorkspaceError(f"{script} is {what} in commit {base[:7]}; name the script itself")


def _check_clean(git: Git) -> None:
    listed = Git(git.path, as_user=True).run(
        "status", "--porcelain", "--untracked-files=no", "--ignore-submodules"
    )
    if listed:
        name = listed.splitlines()[0][3:]
        raise WorkspaceError(
            f"{name} has changes that are not committed; commit or stash them, since experiments "
            "start from the last commit"
        )


def _check_files(git: Git, project: Path) -> None:
    for name in FILES:
        if git.attempt("ls-files", "--error-unmatch", name).returncode == 0:
            raise WorkspaceError(
                f"{name} is tracked by git; git rm --cached it, it is a projection"
            )
        ours = any((project / ".autoresearch").glob(f"*/{name}"))
        if (project / name).exists() and not ours:
            raise WorkspaceError(f"{name} exists already and no campaign wrote it; move it away")
    if not os.access(project, os.W_OK):
        raise WorkspaceError(f"{project} cannot be written; make it writable or copy it elsewhere")


def _check_data(project: Path, config: Config) -> None:
    for name in config.data:
        if not (project / name).exists():
            get = config.data_command or "put it there"
            raise DataError(f"{name} does not exist; get the data with: {get}")


def environment() -> dict[str, str]:
    """Return what the results depend on: the machine and the versions of its packages."""
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
    for name in _REPORTED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
