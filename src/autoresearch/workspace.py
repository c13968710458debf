"""The lab: a local clone without any remote, where experiments are written, committed and kept.

The user's repository gets two kinds of refs from it, ``autoresearch/<tag>`` (the kept line) and
``refs/autoresearch/<tag>/<experiment>`` (every tried commit); nothing else of it is touched.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from attrs import frozen

from autoresearch.errors import WorkspaceError
from autoresearch.git import Git
from autoresearch.model import Idea, Workspace

TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
RESERVED = frozenset({"journal", "sources", "locks", "manifest.jsonl", "events.duckdb", "cache"})


@frozen(kw_only=True)
class Lab:
    """The folder ``.autoresearch/<tag>`` of one campaign: its clone, worktrees and runs."""

    project: Path
    tag: str
    script: str

    @property
    def folder(self) -> Path:
        """Where everything of the campaign but the log lives."""
        return self.project / ".autoresearch" / self.tag

    @property
    def clone(self) -> Git:
        """The lab's own repository."""
        return Git(self.folder / "lab")

    @property
    def branch(self) -> str:
        """Name of the branch of kept commits."""
        return f"autoresearch/{self.tag}"

    def ref(self, number: int) -> str:
        """Return the ref that keeps the commit of an experiment reachable for ever."""
        return f"refs/autoresearch/{self.tag}/{number}"

    def create(self, base: str) -> None:
        """Clone the project and start the branch at commit ``base``, in both repositories.

        Safe to repeat after an interruption: an unfinished clone is made anew.
        """
        ready = self.folder / "lab" / "autoresearch-ready"
        if not ready.exists():
            shutil.rmtree(self.folder / "lab", ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            Git(self.folder).run(
                "clone", "--quiet", "--local", "--no-checkout", "--no-tags", "--template=",
                str(self.project), "lab",
            )  # fmt: skip
            self.clone.run("remote", "remove", "origin")
            # Somebody's settings may hide refs from fetches; ours have to come back.
            self.clone.run("config", "transfer.hideRefs", "!refs")
            self.clone.run("update-ref", f"refs/heads/{self.branch}", base)
            self.clone.run("checkout", "--quiet", "--detach", base)
            ready.touch()
        if Git(self.project).commit_of(f"refs/heads/{self.branch}") is None:
            Git(self.project).run("update-ref", f"refs/heads/{self.branch}", base)

    def script_at(self, commit: str) -> str:
        """Return the text of the script in a commit, with its own line ends."""
        done = self.clone.attempt("show", f"{commit}:{self.script}")
        if done.returncode != 0:
            raise WorkspaceError(
                f"{self.script} is not in commit {commit[:7]}; commit it, or name another script"
            )
        return done.stdout

    def worktree(self, number: int, commit: str) -> Workspace:
        """Return a clean worktree of experiment ``number`` that stands at ``commit``."""
        path = self.folder / "work" / str(number)
        if not (path / ".git").exists():
            shutil.rmtree(path, ignore_errors=True)
            self.clone.run("worktree", "prune")
            self.clone.run("worktree", "add", "--quiet", "--force", "--detach", str(path), commit)
        git = Git(path)
        git.run("reset", "--quiet", "--hard", commit)
        git.run("clean", "--quiet", "-ffdx")
        return Workspace(path=path, script=self.script, project=self.project)

    def drop_worktree(self, number: int) -> None:
        """Remove the worktree of a decided experiment; its commit stays."""
        path = self.folder / "work" / str(number)
        self.clone.attempt("worktree", "remove", "--force", "--force", str(path))
        shutil.rmtree(path, ignore_errors=True)

    def apply(self, idea: Idea, workspace: Workspace) -> None:
        """Write the idea's source or patch into the worktree; environment overrides need nothing.

        Raises WorkspaceError when a patch does not apply.
        """
        if idea.source is not None:
            workspace.script_path.write_bytes(idea.source.encode("utf-8"))
        elif idea.patch is not None:
            patch = idea.patch if idea.patch.endswith("\n") else idea.patch + "\n"
            done = Git(workspace.path).attempt("apply", "--recount", "-", stdin=patch)
            if done.returncode != 0:
                said = done.stderr.strip().splitlines() or ["no message"]
                raise WorkspaceError(
                    f"the patch does not apply: {said[-1]}; make it anew from head"
                )

    def changed_files(self, workspace: Workspace) -> tuple[str, ...]:
        """Return the paths in the worktree that differ from its commit, new files included."""
        listed = Git(workspace.path).run("status", "--porcelain", "--no-renames", "-z", "-uall")
        return tuple(sorted(entry[3:] for entry in listed.split("\0") if entry))

    def commit(self, number: int, workspace: Workspace, message: str) -> str:
        """Commit the script in the worktree, move the branch to it, and show both to the user."""
        git = Git(workspace.path)
        git.run("add", "--", self.script)
        git.run("commit", "--quiet", "--allow-empty", "--no-verify", "--file=-", stdin=message)
        commit = git.run("rev-parse", "HEAD")
        self.clone.run("update-ref", self.ref(number), commit)
        self.move_branch(commit)
        return commit

    def keep(self, number: int, commit: str) -> None:
        """Make the commit of an experiment reachable for ever."""
        self.clone.run("update-ref", self.ref(number), commit)
        self.publish()

    def commit_in(self, workspace: Workspace) -> str:
        """Return the commit at which a worktree stands."""
        return Git(workspace.path).run("rev-parse", "HEAD")

    def move_branch(self, commit: str) -> None:
        """Make ``commit`` the tip of the branch (git reset --hard without a checkout)."""
        self.clone.run("update-ref", f"refs/heads/{self.branch}", commit)
        self.publish()

    def publish(self) -> None:
        """Bring the branch and every tried commit into the user's repository.

        A branch that the user has checked out is left where it is, so that the checkout does not
        change under their hands; its commits arrive under ``refs/autoresearch`` all the same.
        """
        user = Git(self.project)
        specs = [f"+refs/autoresearch/{self.tag}/*:refs/autoresearch/{self.tag}/*"]
        head = f"refs/heads/{self.branch}"
        if head not in _checked_out(user):
            specs.append(f"+{head}:{head}")
        user.run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc",
            "--update-shallow",
            str(self.folder / "lab"), *specs,
        )  # fmt: skip


def _checked_out(user: Git) -> set[str]:
    lines = user.run("worktree", "list", "--porcelain").splitlines()
    return {line.removeprefix("branch ") for line in lines if line.startswith("branch ")}


def check_tag(tag: str) -> str:
    """Return the tag if it can name a branch and a folder; raise WorkspaceError otherwise."""
    if not TAG.fullmatch(tag) or tag in RESERVED or ".." in tag or tag.endswith((".lock", ".")):
        raise WorkspaceError(
            f"{tag!r} cannot be a run tag; use up to 40 of a-z, 0-9, '.', '_' and '-', like mar18"
        )
    return tag
