"""The lab: a local clone without any remote, where experiments are written, committed and kept.

The user's repository gets two kinds of refs from it, ``autoresearch/<tag>`` (the kept line) and
``refs/autoresearch/<tag>/<experiment>`` (every tried commit); nothing else of it is touched.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import ClassVar

from attrs import evolve, field, frozen

from autoresearch.durable import is_editable
from autoresearch.errors import WorkspaceError
from autoresearch.git import SERVED, Git, LabGit
from autoresearch.launchers.environment import expanded
from autoresearch.log import is_own_name
from autoresearch.model import Change, Idea, Workspace
from autoresearch.text import one_line

_MARKS = ("<<<<<<<", "=======", ">>>>>>>")
TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


@frozen(kw_only=True)
class Lab:
    """The folder ``.autoresearch/<tag>`` of one campaign: its clone, worktrees and runs.

    ``editable`` holds the patterns of the files, besides the script, that an idea may change.
    """

    runs_code: ClassVar[bool] = True  # a simulated one only draws scores

    project: Path
    tag: str
    script: str
    editable: tuple[str, ...] = ()
    _texts: dict[str, Mapping[str, str]] = field(factory=dict, eq=False, repr=False, init=False)
    # At first all of them, for what an earlier process did not bring there.
    _unpublished: set[str] = field(factory=lambda: {"*"}, eq=False, repr=False, init=False)
    _git: LabGit = field(init=False, eq=False, repr=False)

    @_git.default
    def _guarded(self) -> LabGit:
        return LabGit((self.folder / "lab").resolve())  # as git calls it, where the store is a link

    @property
    def folder(self) -> Path:
        """Where everything of the campaign but the log lives."""
        return self.project / ".autoresearch" / self.tag

    def run_folder(self, name: str) -> Path:
        """Return where a run works, and what it wrote stays."""
        return self.folder / "runs" / name

    @property
    def clone(self) -> Git:
        """The lab's own repository."""
        return self._git.main()

    def take_planted(self) -> tuple[str, ...]:
        """Return what someone put into the lab's git folder since the last time; it was removed."""
        with suppress(WorkspaceError):  # the next command in the lab tells it
            self._git.check()
        return self._git.take_planted()

    @property
    def branch(self) -> str:
        """Name of the branch of kept commits."""
        return f"autoresearch/{self.tag}"

    def ref(self, number: int) -> str:
        """Return the ref that keeps the commit of an experiment reachable for ever."""
        return f"refs/autoresearch/{self.tag}/{number}"

    def later_ref(self, number: int, runs: int) -> str:
        """Return the ref of another commit of an experiment, made after so many of its runs."""
        return f"{self.ref(number)}.{runs}"

    def create(self, base: str) -> None:
        """Clone the project, and start the branch at commit ``base`` in the user's repository.

        Safe to repeat after an interruption: an unfinished clone is made again.
        """
        ready = self.folder / "lab" / "autoresearch-ready"
        if not ready.exists():
            shutil.rmtree(self.folder / "lab", ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            Git(self.folder).run(
                "clone", "--quiet", "--local", "--no-checkout", "--no-tags", "--template=",
                SERVED, str(self.project), "lab",
            )  # fmt: skip
            self._git.settle()
            # A lab that was lost comes back with all that it had published.
            mine = f"+refs/autoresearch/{self.tag}/*:refs/autoresearch/{self.tag}/*"
            self.clone.run("fetch", "--quiet", "--no-tags", SERVED, str(self.project), mine)
            self.clone.run("checkout", "--quiet", "--detach", base)
            ready.touch()
        if Git(self.project).commit_of(f"refs/heads/{self.branch}") is None:
            Git(self.project).run("update-ref", f"refs/heads/{self.branch}", base)

    def restart(self, base: str, known: Callable[[str], bool]) -> str:
        """Let an existing lab and its branch begin at another commit of the user's repository.

        Returns the ref that keeps a commit of the user's own, as :meth:`move_branch` does.
        """
        self.create(base)
        if self.clone.commit_of(base) is None:
            source = str(self.project)
            name = f"refs/autoresearch/{self.tag}/unpacked*"  # where there is one
            fetched = ("fetch", "--quiet", "--no-tags", SERVED, source, "HEAD", f"+{name}:{name}")
            self.clone.run(*fetched)
        self.clone.run("checkout", "--quiet", "--force", "--detach", base)
        return self.move_branch(base, known)

    def files_at(self, commit: str) -> Mapping[str, str]:
        """Return the text of every editable file in a commit, by path, with its own line ends.

        Raises WorkspaceError when the script is not there or a file is not UTF-8 text.
        """
        if commit not in self._texts:
            if len(self._texts) > 3:
                self._texts.clear()  # what is asked for again: pristine, head, the newest
            self._texts[commit] = texts_at(self.clone, commit, self.script, self.editable)
        return self._texts[commit]

    def export(self, commit: str, folder: Path) -> None:
        """Write every tracked file of a commit into an empty folder, without a repository."""
        packed = folder / ".git"  # a name that no commit has a file of
        self.clone.run("archive", "--format=tar", f"--output={packed}", commit)
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
        packed.unlink()

    def workspace(self, number: int) -> Workspace:
        """Return where experiment ``number`` happens, whether or not it is there."""
        return Workspace(
            path=self.folder / "work" / str(number),
            script=self.script,
            project=self.project,
            editable=self.editable,
        )

    def remove(self) -> None:
        """Undo :meth:`create` for a campaign that did not start.

        The branch goes too, while it stands where it was created and nothing has it checked out.
        """
        user = Git(self.project)
        if (self.folder / "lab" / "autoresearch-ready").exists():
            base = self.clone.commit_of("HEAD")
            if base is not None and user.commit_of(f"refs/heads/{self.branch}") == base:
                user.attempt("branch", "-D", self.branch)  # refuses what is checked out
        shutil.rmtree(self.folder, ignore_errors=True)

    def worktree(self, number: int, commit: str) -> Workspace:
        """Return a clean worktree of experiment ``number`` that stands at ``commit``."""
        made = self.workspace(number)
        if (made.path / ".git").exists() and self._git.owns(made.path):
            git = self._git.worktree(made.path)
            git.run("reset", "--quiet", "--hard", commit)
            git.run("clean", "--quiet", "-ffdx")
            return made
        self.drop_worktree(number)
        add = ("worktree", "add", "--quiet", "--force", "--detach", str(made.path), commit)
        self.clone.run(*add)
        return made

    @property
    def pristine_workspace(self) -> Workspace:
        """Where evaluations happen, whether or not it is there."""
        return evolve(self.workspace(0), path=self.folder / "work" / "pristine")

    def pristine_worktree(self, commit: str) -> Workspace:
        """Return a new worktree at ``commit`` for an evaluation; nothing of an old one is left.

        Git trusts sizes and times, which a run may have set, so cleaning would not be enough.
        """
        made = self.pristine_workspace
        self._git.forget(made.path)
        self.clone.run("worktree", "add", "--quiet", "--force", "--detach", str(made.path), commit)
        return made

    def lend(self, workspace: Workspace, paths: Sequence[str]) -> None:
        """Link what a commit lacks of the user's files into a worktree: ignored data, LFS files.

        What an idea may change is never taken from there. The next clean worktree has no links.
        """
        for name in paths:
            source = self.project / expanded(name)
            if source.is_relative_to(self.project) and ".." not in source.parts:
                _link_in(workspace, source, source.relative_to(self.project))

    def written_in(self, workspace: Workspace) -> tuple[str, ...]:
        """Return the files of a worktree that its commit does not have, ignored ones too."""
        if not (workspace.path / ".git").exists():
            return ()
        listed = self._git.worktree(workspace.path).run("ls-files", "--others", "-z")
        return tuple(name for name in listed.split("\0") if name)

    def worktrees(self) -> tuple[int, ...]:
        """Return the experiments that have a worktree."""
        found = (self.folder / "work").glob("*")
        return tuple(sorted(int(path.name) for path in found if path.name.isdigit()))

    def drop_worktree(self, number: int) -> None:
        """Remove the worktree of a decided experiment; its commit stays."""
        self._git.forget(self.workspace(number).path)

    def apply(self, idea: Idea, workspace: Workspace) -> None:
        """Write the idea's texts or patch into the worktree; environment overrides need nothing.

        A patch whose surroundings have moved on is merged. Raises WorkspaceError when it does not
        apply, with what clashes.
        """
        texts = idea.texts(self.script)
        for path, text in texts.items():
            _refuse_links(workspace, path)
            target = workspace.path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8"))
        if idea.patch is None or texts:
            return
        patch = idea.patch if idea.patch.endswith("\n") else idea.patch + "\n"
        git = self._git.worktree(workspace.path)
        done = git.attempt("apply", "--recount", "-", stdin=patch)
        if done.returncode == 0:
            return
        merged = git.attempt("apply", "--3way", "--recount", "-", stdin=patch)
        if merged.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no message"]
            problem = _clash(git) or said[-1]
            raise WorkspaceError(
                f"the patch does not apply: {problem}; make the patch again from head"
            )

    def as_patch(self, before: Mapping[str, str], after: Mapping[str, str]) -> str:
        """Return the unified diff that turns the texts of files into new ones, by path.

        Raises WorkspaceError when nothing differs or a file may not be changed.
        """
        for path in after:
            if not self.workspace(0).allows(path):
                raise WorkspaceError(
                    f"{path} may not be changed; it is not among the editable files"
                )
        with tempfile.TemporaryDirectory() as folder:
            for side, texts in (("a", before), ("b", {**before, **after})):
                root = evolve(self.workspace(0), path=Path(folder, side))
                self.apply(Idea(direction="", description="", hypothesis="", files=texts), root)
            asked = ("diff", "--no-index", "--no-prefix", "--no-ext-diff", "--no-color")
            # With whole ids a merge finds the text that the patch was made for.
            patch = _apart(folder).attempt(*asked, "--full-index", "a", "b").stdout
        if not patch:
            raise WorkspaceError("the idea changes nothing; propose a change of the script")
        return patch

    def patched(self, patch: str, texts: Mapping[str, str]) -> Mapping[str, str]:
        """Return the texts of files as a patch leaves them, by path.

        Raises WorkspaceError for a patch that does not apply to these texts, or of other files.
        """
        with tempfile.TemporaryDirectory() as folder:
            root = evolve(self.workspace(0), path=Path(folder))
            self.apply(Idea(direction="", description="", hypothesis="", files=texts), root)
            git, whole = _apart(folder), patch if patch.endswith("\n") else patch + "\n"
            listed = git.attempt("apply", "--numstat", "--recount", "-z", "-", stdin=whole)
            for entry in listed.stdout.split("\0"):
                path = entry.rpartition("\t")[2]
                if path and not root.allows(path):
                    raise WorkspaceError(f"the patch changes {path}; only {self._scope} may change")
            done = git.attempt("apply", "--recount", "-", stdin=whole)
            if done.returncode != 0:
                said = one_line(done.stderr, 300) or "no message"
                raise WorkspaceError(
                    f"the patch does not apply to head: {said}; make it from {self.branch}"
                )
            found = [path for path in root.path.rglob("*") if path.is_file()]
            names = [path.relative_to(root.path).as_posix() for path in found]
            return {name: _text_in(root, name) or "" for name in names}

    @property
    def _scope(self) -> str:
        return ", ".join(dict.fromkeys((self.script, *self.editable)))

    def changed_files(self, workspace: Workspace, since: str = "") -> Mapping[str, str | None]:
        """Return what differs from the worktree's commit: path to new text, None when deleted.

        Commits that somebody else made in it on top of ``since`` are undone, their files kept.
        Raises WorkspaceError for a file that an idea may not change, in its place or by its kind.
        """
        asked = ("status", "--porcelain", "--no-renames", "-z", "-uall", "--ignore-submodules=all")
        git = self._git.worktree(workspace.path)
        if since:
            git.run("reset", "--quiet", "--mixed", since)
        listed = git.run(*asked)
        paths = sorted(entry[3:] for entry in listed.split("\0") if entry)
        outside = [path for path in paths if not workspace.allows(path)]
        if outside:
            raise WorkspaceError(f"the idea changes {outside[0]}; only {self._scope} may change")
        return {path: _text_in(workspace, path) for path in paths}

    def commit(self, ref: str, workspace: Workspace, change: Change, message: str) -> str:
        """Commit a change in the worktree under a ref of the experiment, and return the commit."""
        git = self._git.worktree(workspace.path)
        git = evolve(git, variables={**git.variables, "GIT_LITERAL_PATHSPECS": "1"})  # train[1].py
        added = [path for path in change.files if path not in change.originals]
        if added:
            git.run("add", "--", *added)
        git.run(
            "commit", "--quiet", "--allow-empty", "--no-verify", "--file=-", "--", *change.files,
            stdin=message,
        )  # fmt: skip
        commit = git.head()
        self._hold(ref, commit)
        return commit

    def keep(self, number: int, commit: str) -> None:
        """Make the commit of an experiment reachable for ever."""
        self._hold(self.ref(number), commit)

    def _hold(self, ref: str, commit: str) -> None:
        self.clone.run("update-ref", ref, commit)
        self._unpublished.add(ref.rpartition("/")[2])

    def move_branch(self, commit: str, known: Callable[[str], bool]) -> str:
        """Make ``commit``, which was published, the tip of the branch in the user's repository.

        A branch that the user has checked out is left where it is, so that the checkout does not
        change under their hands. A tip that the campaign does not ``know`` is the user's own
        commit: it is kept under a ref of its own. Returns that ref, or an empty string.
        """
        user, head = Git(self.project), f"refs/heads/{self.branch}"
        shape = "%(objectname) %(worktreepath)"
        tip, _, place = user.run("for-each-ref", f"--format={shape}", head).partition(" ")
        if tip == commit or place:
            return ""
        kept = "" if not tip or known(tip) else f"refs/autoresearch/{self.tag}/user/{tip[:12]}"
        if kept:
            user.run("update-ref", kept, tip)
        user.run("update-ref", head, commit, tip or "0" * len(commit))
        return kept

    def publish(self) -> None:
        """Bring tried commits into the user's repository, under ``refs/autoresearch``.

        Those since the last time; all of them at first, and where nothing is known to be new.
        """
        names = {"*"} if "*" in self._unpublished else self._unpublished or {"*"}
        refs = [f"refs/autoresearch/{self.tag}/{name}" for name in sorted(names)]
        self._git.check()
        Git(self.project).run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc",
            "--update-shallow", SERVED,
            str(self.folder / "lab"), *(f"+{ref}:{ref}" for ref in refs),
        )  # fmt: skip
        self._unpublished.clear()


def _apart(folder: str) -> Git:
    """Return a temporary folder as no part of a repository, wherever TMPDIR lies."""
    return Git(folder, variables={"GIT_CEILING_DIRECTORIES": str(Path(folder).parent)})


def _clash(git: Git) -> str:
    """Return where a merge failed, and the two texts that clash there; empty: it was no merge."""
    for path in git.run("diff", "--name-only", "--diff-filter=U", "-z").split("\0"):
        lines = _lines_of(git.path / path) if path else []
        marks = [index for index, line in enumerate(lines) if line[:7] in _MARKS]
        if len(marks) >= 3:
            start, middle, end = marks[:3]
            ours, theirs = (
                one_line(" / ".join(part), 120) or "nothing"
                for part in (lines[start + 1 : middle], lines[middle + 1 : end])
            )
            return f"at line {start + 1} of {path} head has {ours!r}, the patch {theirs!r}"
    return ""


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # deleted on one side


def _link_in(workspace: Workspace, source: Path, path: Path) -> None:
    target = workspace.path / path
    if path.name == ".git" or not source.exists() or workspace.allows(path.as_posix()):
        return
    if target.is_symlink() and target.exists():
        return  # linked already
    if target.is_dir() and source.is_dir():
        for inner in source.iterdir():
            _link_in(workspace, inner, path / inner.name)
    elif not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def texts_at(git: Git, commit: str, script: str, editable: Sequence[str]) -> Mapping[str, str]:
    """Return the text of the script and of every other editable file in a commit, by path.

    Raises WorkspaceError for a script or a pattern that the commit does not have, and for a file
    that is a link or not UTF-8 text.
    """
    listed = git.run("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
    entries = [entry.partition("\t") for entry in listed if entry]
    chosen = {p: told for told, _, p in entries if p == script or is_editable(p, editable)}
    if script not in chosen:
        raise WorkspaceError(
            f"{script} is not in commit {commit[:7]}; commit it, or name another script"
        )
    for pattern in editable:
        if not any(is_editable(path, (pattern,)) for path in chosen):
            raise WorkspaceError(
                f"editable {pattern!r} matches no file of commit {commit[:7]}; commit one or "
                "correct the pattern"
            )
    for path, told in chosen.items():
        if not told.startswith("100"):
            raise WorkspaceError(f"{path} is not a plain file in commit {commit[:7]}; replace it")
    texts = git.blobs(told.split()[2] for told in chosen.values())
    return {path: _decoded(path, data) for path, data in zip(chosen, texts, strict=True)}


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise WorkspaceError(f"{path} is not UTF-8 text; convert it and commit") from None


def _text_in(workspace: Workspace, path: str) -> str | None:
    _refuse_links(workspace, path)
    target = workspace.path / path
    if not target.exists():
        return None
    if not target.is_file():
        raise WorkspaceError(f"the idea turns {path} into something other than a file")
    return _decoded(path, target.read_bytes())


def _refuse_links(workspace: Workspace, path: str) -> None:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or ".git" in parts:
        raise WorkspaceError(f"{path} leads out of the repository; name a file inside it")
    # A text written through a link lands wherever the link points.
    for count in range(1, len(parts) + 1):
        if workspace.path.joinpath(*parts[:count]).is_symlink():
            raise WorkspaceError(f"{path} leads through a symbolic link; change plain files only")


def check_tag(tag: str) -> str:
    """Return the tag if it can name a branch and a folder; raise WorkspaceError otherwise."""
    if not TAG.fullmatch(tag) or is_own_name(tag) or ".." in tag or tag.endswith((".lock", ".")):
        raise WorkspaceError(
            f"{tag!r} cannot be a run tag; use up to 40 of a-z, 0-9, '.', '_' and '-', like mar18"
        )
    return tag
