"""The lab: experiments happen in a clone that cannot push; the user's repository stays itself."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Change, Idea
from autoresearch.errors import BlockedError, WorkspaceError
from autoresearch.evidence import anchors_in
from autoresearch.git import Git
from autoresearch.log import SnapshotStore, Tip
from autoresearch.testing import git, make_project
from autoresearch.workspace import Lab, check_tag


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab of a small project, ready."""
    project = make_project(tmp_path / "project")
    made = Lab(project=project, tag="t1", script="train.py")
    (project / ".autoresearch").mkdir()
    made.create(git(project, "rev-parse", "HEAD"))
    return made


def wider(lab: Lab, number: int, width: int) -> str:
    """Commit a change of the script as an experiment."""
    base = git(lab.project, "rev-parse", "HEAD")
    workspace = lab.worktree(number, base)
    before = workspace.read_script()
    source = before.replace("WIDTH = 4", f"WIDTH = {width}")
    lab.apply(Idea(direction="w", description="w", hypothesis="h", source=source), workspace)
    change = Change(
        idea=Idea(direction="w", description="w", hypothesis="h"),
        before=before,
        after=source,
        files={"train.py": source},
        originals={"train.py": before},
    )
    commit = lab.commit(lab.ref(number), workspace, change, f"Experiment {number}")
    lab.publish()
    return commit


def keep(lab: Lab, commit: str) -> str:
    """Move the branch to a commit of the lab's; return the ref of a commit of the user's."""
    return lab.move_branch(commit, lambda tip: lab.clone.commit_of(tip) is not None)


def test_lab_has_no_remote(lab: Lab) -> None:
    """Pushing is impossible: there is nowhere to push to."""
    assert lab.clone.run("remote") == ""
    assert lab.clone.attempt("push").returncode != 0


def test_tried_commit_arrives_in_the_users_repository(lab: Lab) -> None:
    """Per-experiment ref, and branch when it is kept, can be used where the user stands."""
    commit = wider(lab, 1, 6)
    assert keep(lab, commit) == ""
    assert git(lab.project, "rev-parse", "refs/autoresearch/t1/1") == commit
    assert git(lab.project, "rev-parse", "autoresearch/t1") == commit
    assert "WIDTH = 6" in git(lab.project, "show", "autoresearch/t1:train.py")


def test_discard_moves_the_branch_back_and_keeps_the_commit(lab: Lab) -> None:
    """After moving back, the commit is still reachable under its ref."""
    base = git(lab.project, "rev-parse", "HEAD")
    commit = wider(lab, 1, 1)
    keep(lab, commit)
    keep(lab, base)
    assert git(lab.project, "rev-parse", "autoresearch/t1") == base
    assert git(lab.project, "rev-parse", "refs/autoresearch/t1/1") == commit


def test_checked_out_branch_is_left_alone(lab: Lab) -> None:
    """A user who stands on the branch does not find their checkout changed under their hands."""
    git(lab.project, "checkout", "-q", "autoresearch/t1")
    before = git(lab.project, "rev-parse", "HEAD")
    commit = wider(lab, 1, 6)
    keep(lab, commit)
    assert git(lab.project, "rev-parse", "HEAD") == before
    assert git(lab.project, "status", "--porcelain", "--untracked-files=no") == ""
    assert git(lab.project, "rev-parse", "refs/autoresearch/t1/1") == commit


def test_creating_again_changes_nothing(lab: Lab) -> None:
    """create is safe to repeat, with commits in the lab."""
    commit = wider(lab, 1, 6)
    keep(lab, commit)
    lab.create(git(lab.project, "rev-parse", "main"))
    assert git(lab.project, "rev-parse", lab.branch) == commit
    assert lab.clone.commit_of(lab.ref(1)) == commit


def test_worktree_is_clean_every_time(lab: Lab) -> None:
    """What an interrupted attempt left behind is gone."""
    base = git(lab.project, "rev-parse", "HEAD")
    workspace = lab.worktree(1, base)
    workspace.script_path.write_text("broken")
    (workspace.path / "stray.txt").write_text("x")
    again = lab.worktree(1, base)
    assert "WIDTH = 4" in again.read_script()
    assert not (again.path / "stray.txt").exists()


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    """A script with carriage returns is run and digested byte for byte."""
    project = make_project(tmp_path / "p", script="RATE = 1\r\nprint('score: 1')\r\n")
    lab = Lab(project=project, tag="t1", script="train.py")
    (project / ".autoresearch").mkdir()
    lab.create(git(project, "rev-parse", "HEAD"))
    assert lab.files_at(git(project, "rev-parse", "HEAD"))["train.py"].count("\r\n") == 2
    assert lab.worktree(1, git(project, "rev-parse", "HEAD")).read_script().count("\r\n") == 2


def test_patch_that_does_not_apply_is_told(lab: Lab) -> None:
    """The reason is git's own, in one line."""
    workspace = lab.worktree(1, git(lab.project, "rev-parse", "HEAD"))
    patch = "--- a/train.py\n+++ b/train.py\n@@ -1,1 +1,1 @@\n-not there\n+x\n"
    with pytest.raises(WorkspaceError, match="does not apply"):
        lab.apply(Idea(direction="d", description="d", hypothesis="h", patch=patch), workspace)


def test_patch_whose_surroundings_moved_is_merged(tmp_path: Path) -> None:
    """A queued patch was made from another head; where both changed one line, the clash is told."""
    lines = [f"line_{number} = {number}" for number in range(12)]
    project = make_project(tmp_path / "project", script="\n".join(lines) + "\n")
    lab = Lab(project=project, tag="t1", script="train.py")
    (project / ".autoresearch").mkdir()
    base = git(project, "rev-parse", "HEAD")
    lab.create(base)

    def text(**changed: str) -> str:
        return "".join(f"{changed.get(line.split()[0], line)}\n" for line in lines)

    def patch(new: str) -> Idea:
        made = lab.as_patch(lab.files_at(base), {"train.py": new})
        return Idea(direction="d", description="d", hypothesis="h", patch=made)

    git(project, "checkout", "-q", "-b", "moved")
    (project / "train.py").write_text(text(line_4="line_4 = 'head'"))
    git(project, "commit", "-qam", "moved")
    head = git(project, "rev-parse", "HEAD")
    lab.clone.run("fetch", "-q", str(project), "moved")
    workspace = lab.worktree(1, head)
    lab.apply(patch(text(line_6="line_6 = 'patch'")), workspace)
    assert workspace.read_script() == text(line_4="line_4 = 'head'", line_6="line_6 = 'patch'")
    assert list(lab.changed_files(workspace)) == ["train.py"]
    clash = r"at line 5 of train.py head has \"line_4 = 'head'\", the patch \"line_4 = 'patch'\""
    with pytest.raises(WorkspaceError, match=clash):
        lab.apply(patch(text(line_4="line_4 = 'patch'")), lab.worktree(2, head))


@pytest.mark.parametrize("setting", ["autocrlf", "filemode"])
def test_clean_checkout_is_clean_under_the_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Whether files are changed is asked with the settings with which they were checked out."""
    project = make_project(tmp_path / "project")
    if setting == "autocrlf":
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
        for name in ("train.py", "autoresearch.toml"):
            (project / name).unlink()
        git(project, "-c", "core.autocrlf=true", "checkout", "--", ".")
        assert b"\r\n" in (project / "train.py").read_bytes()
    else:
        git(project, "config", "core.fileMode", "false")
        (project / "train.py").chmod(0o755)
    assert autoresearch.start(project, tag="t1").lab.clone.commit_of("HEAD")


def test_trust_in_a_folder_of_somebody_else_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice is a whole command; `safe.directory` through GIT_CONFIG_COUNT is enough."""
    project = make_project(tmp_path / "pro ject")
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(WorkspaceError, match=r"--add safe\.directory '.*/pro ject'$"):
        autoresearch.start(project, tag="t1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(project))
    made = autoresearch.start(project, tag="t1")
    wider(made.lab, 1, 6)


def test_git_environment_of_the_caller_is_ignored(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR and the like, as a git hook would set them, do not reach our git."""
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert Git(lab.project).commit_of("HEAD") is not None


def test_shallow_and_detached_repositories_work(tmp_path: Path) -> None:
    """A shallow clone with a detached head, as CI makes it, can hold a campaign."""
    origin = make_project(tmp_path / "origin")
    (origin / "x").write_text("x")
    git(origin, "add", "x")
    git(origin, "commit", "-qm", "second")
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", f"file://{origin}", str(shallow)],
        check=True,
        env=os.environ,
    )
    git(shallow, "checkout", "-q", "--detach")
    lab = Lab(project=shallow, tag="t1", script="train.py")
    (shallow / ".autoresearch").mkdir()
    lab.create(git(shallow, "rev-parse", "HEAD"))
    commit = wider(lab, 1, 6)
    assert git(shallow, "rev-parse", "refs/autoresearch/t1/1") == commit


def test_odd_settings_of_the_user_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of remotes, pruning, hidden refs, signing and encodings of theirs stay out of ours."""
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[clone]\n\tdefaultRemoteName = upstream\n\trejectShallow = true\n"
        "[fetch]\n\tprune = true\n\tpruneTags = true\n"
        "[transfer]\n\thideRefs = refs/autoresearch\n"
        "[commit]\n\ttemplate = /nonexistent\n\tgpgSign = true\n\tcleanup = scissors\n"
        "[i18n]\n\tcommitEncoding = latin1\n[apply]\n\twhitespace = error\n"
        "[color]\n\tui = always\n[status]\n\tshowUntrackedFiles = no\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(settings.read_text())
    project = make_project(tmp_path / "project")
    (project / ".autoresearch").mkdir()
    made = Lab(project=project, tag="t1", script="train.py")
    made.create(git(project, "rev-parse", "HEAD"))
    assert wider(made, 1, 5) == git(project, "rev-parse", "refs/autoresearch/t1/1")
    workspace = made.worktree(2, git(project, "rev-parse", "HEAD"))
    (workspace.path / "new.py").write_text("")
    with pytest.raises(WorkspaceError, match=r"changes new\.py"):
        made.changed_files(workspace)


def test_commit_of_the_user_on_the_branch_keeps_a_ref(lab: Lab) -> None:
    """What the user committed on the campaign's branch is never left without a ref."""
    git(lab.project, "checkout", "-q", "autoresearch/t1")
    (lab.project / "mine.txt").write_text("mine")
    git(lab.project, "add", "mine.txt")
    git(lab.project, "commit", "-qm", "mine")
    mine = git(lab.project, "rev-parse", "HEAD")
    git(lab.project, "checkout", "-q", "main")
    kept = keep(lab, wider(lab, 1, 6))
    assert kept.startswith("refs/autoresearch/t1/user/")
    assert git(lab.project, "rev-parse", kept) == mine


def test_no_file_of_the_store_can_be_a_tag(tmp_path: Path) -> None:
    """Whatever a store has in its folder beside campaigns, no campaign can take its name."""
    project = make_project(tmp_path / "project")
    made = autoresearch.start(project, tag="t1")
    made.run(1)
    log, names = made.log, set[str]()
    SnapshotStore(log.ordering).save("any", log.tip(), b"state")
    (log.root / "fold.json").unlink()  # the database is then set aside, and made again
    (log.root / "events.duckdb.wal").write_bytes(b"left over")
    for _ in range(2):
        names |= {path.name for path in log.root.iterdir()}
        assert log.sync()
    assert {"journal", "snapshots", "fold.json", "events.duckdb", ".gitignore", "t1"} <= names
    assert any(name.startswith("events.duckdb.damaged-") for name in names)
    for name in (names | {"cache", "events.duckdb.new", "events.duckdb.tmp"}) - {"t1"}:
        with pytest.raises(WorkspaceError, match="cannot be a run tag"):
            check_tag(name)
    assert check_tag("t1") == "t1"


def test_tips_in_commits_of_either_name_are_anchors(tmp_path: Path) -> None:
    """The trailer is called Autoresearch-Tip; commits of the first release say Head."""
    project = make_project(tmp_path / "project")
    for number, name in enumerate(("Head", "Tip"), 1):
        tip = Tip(number + 3, f"{number}" * 64)
        text = f"Experiment {number}\n\nAutoresearch-{name}: {tip}\n"
        git(project, "commit", "--quiet", "--allow-empty", "--message", text)
        git(project, "update-ref", f"refs/autoresearch/t1/{number}", "HEAD")
    found = anchors_in(project)
    assert [(item.position, item.hash[0]) for item in found] == [(4, "1"), (5, "2")]
    assert found[0].where == "the commit of refs/autoresearch/t1/1"


def test_a_patch_is_made_and_tried_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a repository git passes over what a patch names from the top of the folder."""
    around = make_project(tmp_path / "around")
    (around / ".gitattributes").write_text("*.py -diff\n")
    (around / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(around / "tmp"))
    project = make_project(tmp_path / "project")
    made = Lab(project=project, tag="t1", script="train.py")
    texts = {"train.py": "a = 1\nb = 2\n"}
    patch = made.as_patch(texts, {"train.py": "a = 1\nb = 3\n"})
    assert "+b = 3" in patch
    assert made.patched(patch, texts) == {"train.py": "a = 1\nb = 3\n"}


def test_a_script_may_have_a_name_that_git_takes_for_a_pattern(tmp_path: Path) -> None:
    """``tr[a]in*.py`` is one file, and no other is committed with it."""
    project = make_project(tmp_path / "project")
    for name in ("tr[a]in*.py", ":(top)x.py"):
        (project / name).write_text("WIDTH = 4\n")
        git(project, "add", "--all")
        git(project, "commit", "-qm", "odd")
        made = Lab(project=project, tag="t1", script=name)
        (project / ".autoresearch").mkdir(exist_ok=True)
        made.create(git(project, "rev-parse", "HEAD"))
        place = made.worktree(1, made.clone.head())
        made.apply(Idea(direction="w", description="w", hypothesis="h", source="W = 5\n"), place)
        change = Change(
            idea=Idea(direction="w", description="w", hypothesis="h"),
            before="WIDTH = 4\n", after="W = 5\n", files={name: "W = 5\n"},
            originals={name: "WIDTH = 4\n"},
        )  # fmt: skip
        commit = made.commit(made.ref(1), place, change, "Experiment 1")
        assert made.files_at(commit) == {name: "W = 5\n"}
        shutil.rmtree(project / ".autoresearch")


def test_a_git_that_was_killed_may_work_later(lab: Lab) -> None:
    """A git that may not write dies by a signal and says nothing; that is not the idea's fault."""
    head = git(lab.project, "rev-parse", "HEAD")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        with pytest.raises(BlockedError, match=r"killed by signal 25|ile too large"):
            lab.keep(1, head)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for lock in (lab.folder / "lab" / ".git").rglob("*.lock"):  # as it is ten seconds later
        os.utime(lock, (0, 0))
    lab.keep(1, head)
