"""What a run plants in the lab, its worktree or the user's settings: the loop starts none of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch import Change, Idea
from autoresearch.errors import BlockedError, WorkspaceError
from autoresearch.git import Git
from autoresearch.testing import git, make_project
from autoresearch.workspace import Lab

Plant = Callable[["Ground"], None]


class Ground:
    """A lab with one worktree, and a program that leaves a mark when it is started."""

    def __init__(self, folder: Path) -> None:
        self.project = make_project(folder / "project")
        self.base = git(self.project, "rev-parse", "HEAD")
        (self.project / ".autoresearch").mkdir()
        self.lab = self.fresh()
        self.lab.create(self.base)
        self.work = self.lab.worktree(1, self.base)
        self.folder = self.lab.folder / "lab" / ".git"
        self.mark = folder / "ran"
        self.evil = folder / "evil"
        self.evil.write_text(f"#!/bin/sh\necho $0 $@ >> {self.mark}\ncat\n")
        self.evil.chmod(0o755)
        self.other = folder / "elsewhere"

    def fresh(self) -> Lab:
        """Return the lab as another session opens it."""
        return Lab(project=self.project, tag="t1", script="train.py")

    def settings(self) -> str:
        """Return a configuration in which everything that can name a program names this one."""
        evil = self.evil
        return f"""
[core]
\thooksPath = {evil.parent}/hooks
\tfsmonitor = {evil}
\tpager = {evil}
\teditor = {evil}
\tsshCommand = {evil}
\talternateRefsCommand = {evil}
\tattributesFile = {evil.parent}/attributes
[filter "x"]
\tclean = {evil}
\tsmudge = {evil}
\tprocess = {evil}
\trequired = true
[diff]
\texternal = {evil}
[diff "x"]
\tcommand = {evil}
\ttextconv = {evil}
[merge "x"]
\tdriver = {evil}
[alias]
\tstatus = !{evil}
\tx = !{evil}
[credential]
\thelper = {evil}
[gpg]
\tprogram = {evil}
[commit]
\tgpgSign = true
[uploadpack]
\tpackObjectsHook = {evil}
[remote "{self.lab.folder / "lab"}"]
\tuploadpack = {evil}
[include]
\tpath = {evil.parent}/more
"""

    def use(self, lab: Lab) -> None:
        """Do all that the loop does with git in the life of two experiments."""
        for number in (1, 2):
            work = lab.worktree(number, self.base)
            before = lab.files_at(self.base)["train.py"]
            after = before.replace("WIDTH = 4", f"WIDTH = {number + 4}")
            patch = lab.as_patch({"train.py": before}, {"train.py": after})
            idea = Idea(direction="w", description="w", hypothesis="h", patch=patch)
            lab.apply(idea, work)
            assert lab.changed_files(work) == {"train.py": after}
            files = {"train.py": after}
            change = Change(idea=idea, before=before, after=after, files=files, originals=files)
            commit = lab.commit(lab.ref(number), work, change, f"Experiment {number}")
            lab.publish()
            lab.move_branch(commit, lambda _: True)
            lab.drop_worktree(number)
            shown = git(self.project, "show", f"{lab.branch}:train.py")
            assert f"WIDTH = {number + 4}" in shown


def in_config(ground: Ground) -> None:
    """Everything in the lab's own configuration, switched on by its own attributes."""
    with (ground.folder / "config").open("a") as file:
        file.write(ground.settings())
    (ground.folder / "info").mkdir(exist_ok=True)
    (ground.folder / "info" / "attributes").write_text("* filter=x diff=x merge=x\n")


def in_config_of_worktree(ground: Ground) -> None:
    """The configuration that git reads for one worktree alone."""
    with (ground.folder / "config").open("a") as file:
        file.write("[extensions]\n\tworktreeConfig = true\n")
    for place in (ground.folder, ground.folder / "worktrees" / "1"):
        text = f"{ground.settings()}[core]\n\tworktree = {ground.other}\n"
        (place / "config.worktree").write_text(text)


def in_includes(ground: Ground) -> None:
    """A line that reads the rest from elsewhere, on a condition."""
    (ground.evil.parent / "more").write_text(ground.settings())
    text = f'[includeIf "gitdir:/**"]\n\tpath = {ground.evil.parent}/more\n'
    with (ground.folder / "config").open("a") as file:
        file.write(text)


def in_hooks(ground: Ground) -> None:
    """Every hook that a checkout, a commit or a change of a ref starts."""
    (ground.folder / "hooks").mkdir(exist_ok=True)
    names = "pre-commit post-commit post-checkout reference-transaction post-index-change"
    for name in f"{names} prepare-commit-msg commit-msg pre-applypatch".split():
        shutil.copy(ground.evil, ground.folder / "hooks" / name)


def in_worktree(ground: Ground) -> None:
    """Attributes and submodules in the checkout, and a repository of its own inside it."""
    (ground.work.path / ".gitattributes").write_text("* filter=x diff=x\n")
    (ground.work.path / ".gitmodules").write_text(
        '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c evil\n\tupdate = !evil\n'
    )
    inner = make_project(ground.work.path / "s")
    (inner / ".git" / "info" / "attributes").write_text("* filter=x\n")
    (inner / ".git" / "config").write_text(ground.settings())


def in_another_gitdir(ground: Ground) -> None:
    """A `.git` of the worktree that leads to a repository of the run's own."""
    other = make_project(ground.other)
    with (other / ".git" / "config").open("a") as file:
        file.write(ground.settings())
    (other / ".git" / "info" / "attributes").write_text("* filter=x\n")
    (ground.work.path / ".git").write_text(f"gitdir: {other}/.git\n")


def in_commondir(ground: Ground) -> None:
    """A `commondir` of the worktree's folder, and of the lab's, that leads elsewhere."""
    in_another_gitdir(ground)
    for place in (ground.folder, ground.folder / "worktrees" / "1"):
        (place / "commondir").write_text(f"{ground.other}/.git\n")


def in_home(ground: Ground) -> None:
    """The settings of the user, which a run of the same user can write."""
    home = ground.evil.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(ground.settings())
    (ground.evil.parent / "attributes").write_text("* filter=x diff=x\n")


PLANTS = [
    in_config, in_config_of_worktree, in_includes, in_hooks,
    in_worktree, in_another_gitdir, in_commondir,
]  # fmt: skip


@pytest.mark.parametrize("again", [False, True], ids=["going on", "in another session"])
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_nothing_that_a_run_planted_is_started(tmp_path: Path, plant: Plant, again: bool) -> None:
    """The loop goes on as if nothing had been there."""
    ground = Ground(tmp_path)
    plant(ground)
    ground.use(ground.fresh() if again else ground.lab)
    assert not ground.mark.exists(), ground.mark.read_text()


def test_what_was_planted_is_told_once(tmp_path: Path) -> None:
    """The files that were put right are named, so that the fact can be recorded."""
    ground = Ground(tmp_path)
    assert ground.lab.take_planted() == ()
    in_config(ground)
    in_another_gitdir(ground)
    ground.use(ground.lab)
    places = {ground.folder / "config", ground.folder / "info" / "attributes"}
    told = ground.lab.take_planted()
    assert set(told) == {str(path) for path in (*places, ground.work.path / ".git")}
    assert ground.lab.take_planted() == ()
    text = (ground.folder / "config").read_text()
    assert "filter" not in text
    assert "hideRefs = !refs" in text


def test_the_plants_would_run(tmp_path: Path) -> None:
    """The tests above have teeth: git as a person runs it starts what was planted."""
    for number, plant in enumerate((in_config, in_hooks, in_another_gitdir)):
        ground = Ground(tmp_path / str(number))
        plant(ground)
        script = ground.work.path / "train.py"
        script.write_text("print(1)\n")
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.worktree="]
        command += ["commit", "-qam", "x"]
        subprocess.run(command, cwd=ground.work.path, capture_output=True, check=False)
        assert ground.mark.exists(), plant.__name__


def test_the_settings_of_the_user_name_nothing_that_runs_in_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can write ~/.gitconfig as well; the lab does not read it."""
    ground = Ground(tmp_path)
    in_home(ground)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lab = ground.lab
    work = lab.worktree(1, ground.base)
    source = work.read_script().replace("WIDTH = 4", "WIDTH = 5")
    lab.apply(Idea(direction="w", description="w", hypothesis="h", source=source), work)
    assert lab.changed_files(work) == {"train.py": source}
    assert not ground.mark.exists(), ground.mark.read_text()


@pytest.mark.parametrize("kind", ["worktree", "folder"])
def test_a_worktree_that_became_a_link_is_not_cleaned_through_it(tmp_path: Path, kind: str) -> None:
    """A run that puts a link in the place of its checkout does not have the target emptied."""
    ground = Ground(tmp_path)
    ground.other.mkdir()
    (ground.other / "1").mkdir()
    (ground.other / "1" / ".git").touch()
    for folder in (ground.other, ground.other / "1"):
        (folder / "precious").write_text("thesis")
    place = ground.work.path if kind == "worktree" else ground.work.path.parent
    shutil.rmtree(place)
    place.symlink_to(ground.other / "1" if kind == "worktree" else ground.other)
    ground.use(ground.lab)
    assert (ground.other / "precious").exists()
    assert (ground.other / "1" / "precious").exists()


def test_a_replaced_object_is_not_read(tmp_path: Path) -> None:
    """refs/replace shows git another text under the same id; the loop reads the committed one."""
    ground = Ground(tmp_path)
    blob = git(ground.folder, "rev-parse", f"{ground.base}:train.py")
    (ground.evil.parent / "fake.py").write_text("print('score: 0')\n")
    fake = git(ground.folder, "hash-object", "-w", str(ground.evil.parent / "fake.py"))
    git(ground.folder, "update-ref", f"refs/replace/{blob}", fake)
    assert "WIDTH = 4" in ground.lab.files_at(ground.base)["train.py"]


def test_git_of_the_loop_sees_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever program git starts after all, it has an environment of a few names."""
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    monkeypatch.setenv("NCCL_AUTH", "hunter2")
    project = make_project(tmp_path / "project")
    said = Git(project).run("-c", "alias.seen=!env", "seen")
    assert "hunter2" not in said
    assert "PATH=" in said
    assert f"HOME={os.environ['HOME']}" in said


def test_a_lab_without_its_configuration_is_refused(tmp_path: Path) -> None:
    """What cannot be put right is one line that names the file."""
    ground = Ground(tmp_path)
    (ground.folder / "config").unlink()
    ground.lab.files_at(ground.base)
    assert (ground.folder / "config").exists()
    (ground.folder / "config").unlink()
    with pytest.raises(WorkspaceError, match=r"the lab has lost .*config; restore it"):
        ground.fresh().files_at(ground.base)


@pytest.mark.parametrize("age", [0, 60])
def test_a_lock_of_a_git_that_was_killed_is_removed(tmp_path: Path, age: int) -> None:
    """A lock in the lab that nobody can hold any more is in no one's way for ever."""
    ground = Ground(tmp_path)
    for lock in (ground.folder / "worktrees" / "1" / "index.lock",
                 ground.folder / "refs" / "autoresearch" / "t1" / "1.lock"):  # fmt: skip
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        os.utime(lock, (lock.stat().st_mtime - age,) * 2)
    again = ground.fresh()
    if age:
        again.worktree(1, ground.base)
        again.keep(1, ground.base)
        return
    with pytest.raises(BlockedError, match=r"index\.lock': File exists"):
        again.worktree(1, ground.base)
    with pytest.raises(BlockedError, match=r"1\.lock': File exists"):
        again.keep(1, ground.base)
