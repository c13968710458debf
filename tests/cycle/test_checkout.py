"""What runs by hand runs in the lab: the working directory, its files, and what a run leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign, Candidate, Decision, Idea, Verdict, hookimpl
from autoresearch.errors import ConfigError
from autoresearch.testing import ScriptedIdeas, git, make_project

SETTINGS = 'preset = "plain"\nscript = "train.py"\n[metric]\nname = "score"\n'
CONFIGURED = """import os
exec(open("configurator.py").read())
score = float(open("conf/value.txt").read())
open("left_behind.txt", "w").write("x")
open("train.py", "a").write("# scribbled")
open(os.path.join(os.environ["AUTORESEARCH_RUN"], "kept.txt"), "w").write("kept")
print(f"score: {score + BONUS}")
"""
FILES = {"configurator.py": "BONUS = 1\n", "conf/value.txt": "2.5\n"}


def go(project: Path, experiments: int = 1, plugins: Sequence[object] = ()) -> Campaign:
    """A campaign that has run some experiments."""
    plugins = (*plugins, "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(experiments, plugins=plugins, wait=False)
    return made


def score(made: Campaign) -> float | None:
    """The score of the baseline."""
    return made.history.score(made.history.experiments[0])


def test_relative_files_of_the_commit_are_there(tmp_path: Path) -> None:
    """A script starts in its checkout, and keeps what it writes into the run's folder."""
    made = go(make_project(tmp_path / "p", script=CONFIGURED, settings=SETTINGS, files=FILES))
    assert score(made) == 3.5
    runs = made.project / ".autoresearch/t1/runs"
    assert (runs / "t1-0-0/kept.txt").read_text() == "kept"
    assert git(made.project, "status", "--porcelain", "--untracked-files=no") == ""


def test_what_a_script_leaves_disturbs_neither_a_rerun_nor_the_next_idea(tmp_path: Path) -> None:
    """Every run starts in a clean checkout of its own commit."""

    class Twice:
        @hookimpl(tryfirst=True)
        def decide(self, candidate: Candidate) -> Decision:
            again = len(candidate.experiment.runs) < 2
            return Decision(
                verdict=Verdict.RERUN if again else Verdict.KEEP, reason="x", author="x"
            )

    check = "import os\nassert not os.path.exists('left_behind.txt')\n"
    text = check + CONFIGURED + "assert open('train.py').read().count('scribbled') < 4\n"
    project = make_project(tmp_path / "p", script=text, settings=SETTINGS, files=FILES)
    idea = Idea(direction="a", description="b", hypothesis="c", source=text + "X = 1\n")
    made = go(project, 2, (Twice(), ScriptedIdeas([idea])))
    assert [len(item.runs) for item in made.history.experiments] == [2, 2]
    assert all(run.status == "completed" for item in made.history.experiments for run in item.runs)
    assert "left_behind" not in git(project, "show", "--stat", "refs/autoresearch/t1/1")


@pytest.mark.parametrize(("cwd", "there"), [("conf", True), ("{run}", False)])
def test_working_directory_is_a_setting(tmp_path: Path, cwd: str, there: bool) -> None:
    """A folder of the checkout, or the run's own folder."""
    text = "import os\nprint('score:', int(os.path.exists('value.txt')))\n"
    settings = f'cwd = "{cwd}"\n{SETTINGS}'
    made = go(make_project(tmp_path / "p", script=text, settings=settings, files=FILES))
    assert score(made) == int(there)


@pytest.mark.parametrize("cwd", ["/tmp", "../elsewhere", "{project}"])
def test_working_directory_outside_is_refused(tmp_path: Path, cwd: str) -> None:
    """It is a folder of the repository."""
    project = make_project(tmp_path / "p", settings=f'cwd = "{cwd}"\n{SETTINGS}')
    with pytest.raises(ConfigError, match="write a folder of the repository"):
        autoresearch.start(project)


def test_ignored_data_is_there_but_nothing_that_an_idea_may_change(tmp_path: Path) -> None:
    """What `data` names is linked from the project where the commit lacks it."""
    text = "print('score:', float(open('data/set.txt').read()))\nopen('data/note.txt').read()\n"
    files = {"data/note.txt": "committed\n", ".gitignore": "data/set.txt\n"}
    settings = f'data = ["data"]\neditable = ["data/note.txt"]\n{SETTINGS}'
    project = make_project(tmp_path / "p", script=text, settings=settings, files=files)
    (project / "data/set.txt").write_text("0.25\n")
    made = go(project)
    assert score(made) == 0.25
    checkout = made.lab.worktree(7, made.history.experiments[0].commit)
    made.lab.lend(checkout, ["data"])
    assert (checkout.path / "data/set.txt").is_symlink()
    assert not (checkout.path / "data/note.txt").is_symlink()
    assert (made.lab.worktree(7, made.history.experiments[0].commit).path / "data").is_dir()
    assert (project / "data/set.txt").read_text() == "0.25\n"
