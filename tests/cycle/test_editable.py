"""A campaign on a small package: ideas change the script, a module and a settings file."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign, Change, Idea, ValueChange, Verdict, Workspace, hookimpl
from autoresearch.cycle import digest as text_digest
from autoresearch.durable import is_editable, tree_digest
from autoresearch.errors import ConfigError, WorkspaceError
from autoresearch.testing import ScriptedIdeas, git, make_project

TRAIN = """from model import score
width = int(open("config.yaml").read().split(": ")[1])
print(f"score: {score(width):.6f}")
"""
MODEL = (
    "RATE = 0.5\n\ndef score(width):\n    return 1 + 0.01 * (width - 7) ** 2 + abs(RATE - 0.3)\n"
)
SETTINGS = """preset = "plain"
script = "train.py"
noise.runs = 1
editable = ["model.py", "*.yaml", "blocks/**/*.py"]

[metric]
name = "score"
"""
FILES = {"model.py": MODEL, "config.yaml": "width: 4\n", "blocks/a/b.py": "", "other.py": ""}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A project of a script, a module and a settings file."""
    return make_project(tmp_path / "package", script=TRAIN, settings=SETTINGS, files=FILES)


def idea(what: str, **fields: object) -> Idea:
    """An idea with some words."""
    return Idea(direction=what, description=what, hypothesis=f"{what} helps", **fields)  # type: ignore[arg-type]


def run(project: Path, *ideas: Idea, more: tuple[object, ...] = ()) -> Campaign:
    """A campaign that has tried the ideas."""
    plugins = (ScriptedIdeas(ideas), "no:script_ideas", *more)
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(1 + len(ideas), plugins=plugins, wait=False)
    return made


WIDER = idea(
    "width",
    files={"config.yaml": "width: 6\n"},
    changes=(ValueChange(name="width", old=4, new=6, file="config.yaml"),),
)
BOTH = idea("both", files={"model.py": MODEL.replace("0.5", "0.3"), "config.yaml": "width: 7\n"})


def test_ideas_change_any_editable_file(package: Path) -> None:
    """Each file is committed, run, and what the next idea builds on."""
    made = run(package, WIDER, BOTH)
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP] * 3
    assert made.history.best_metric == pytest.approx(1.0)
    assert git(package, "show", "autoresearch/t1:config.yaml") == "width: 7"
    assert git(package, "diff", "--name-only", "main", "autoresearch/t1").split() == [
        "config.yaml",
        "model.py",
    ]


def test_texts_are_stored_by_file_and_the_digest_stands_for_all(package: Path) -> None:
    """Every text that was tried is in the store, and so is the list of them."""
    made = run(package, WIDER)
    tried = made.history.experiments[1]
    assert tried.sources.keys() == {"train.py", "model.py", "config.yaml", "blocks/a/b.py"}
    assert made.log.sources.get(tried.sources["config.yaml"]) == "width: 6\n"
    assert tried.source_digest == tree_digest(tried.sources)
    assert tried.sources["config.yaml"] in made.log.sources.get(tried.source_digest)
    assert tried.source_digest in made.history.tried_sources


def test_changed_values_travel_through_the_log(package: Path) -> None:
    """What the generator said in values comes back as values, not as words."""
    made = run(package, WIDER)
    assert made.history.experiments[1].idea.changes == WIDER.changes
    assert autoresearch.open_campaign(package).history.experiments[1].idea.changes == WIDER.changes


def test_audits_see_every_changed_file(package: Path) -> None:
    """A change maps files to their new texts, and to the ones they had."""
    seen: list[Change] = []

    class Auditor:
        @hookimpl
        def audit_change(self, change: Change, workspace: Workspace) -> None:
            assert workspace.allows("blocks/new.py")
            assert not workspace.allows("other.py")
            seen.append(change)

    new = idea("new", files={"blocks/new.py": "x = 1\n", "config.yaml": "width: 5\n"})
    made = run(package, new, more=(Auditor(),))
    assert dict(seen[0].files) == {"blocks/new.py": "x = 1\n", "config.yaml": "width: 5\n"}
    assert dict(seen[0].originals) == {"config.yaml": "width: 4\n"}
    assert git(package, "show", "refs/autoresearch/t1/1:blocks/new.py") == "x = 1"
    assert made.history.experiments[1].added_lines == 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"other.py": "x = 1\n"}, "changes other.py; only train.py, model.py"),
        ({"../outside.py": "x"}, "leads out of the repository"),
        ({"model.py": "def broken(:\n"}, "model.py line 1 does not compile"),
        ({"model.py": MODEL}, "changes nothing"),
    ],
)
def test_what_an_idea_may_not_do_is_one_line(
    package: Path, files: dict[str, str], reason: str
) -> None:
    """Outside the editable files, outside the repository, broken, or nothing at all."""
    made = run(package, idea("wrong", files=files))
    assert len(made.history.experiments) == 1
    assert reason in made.history.rejected[0].reason


def test_patch_may_change_several_files_but_delete_none(package: Path) -> None:
    """A patch of two files is one change; a deleted file is refused by name."""
    gone = "--- a/config.yaml\n+++ /dev/null\n@@ -1 +0,0 @@\n-width: 4\n"
    made = run(package, idea("gone", patch=gone))
    assert "deletes config.yaml" in made.history.rejected[0].reason
    patch = made.lab.as_patch(dict(FILES), {"config.yaml": "width: 7\n", "model.py": "RATE = 1\n"})
    assert patch.count("--- a/") == 2


def test_queued_texts_are_kept_as_a_patch(package: Path) -> None:
    """An idea with whole files can be queued, and still fits when head has moved elsewhere."""
    made = run(package)
    queued = made.add_idea(BOTH)
    assert "config.yaml" in (made.history.queue[queued].patch or "")
    made.run(1, plugins=("no:script_ideas", ScriptedIdeas([])), wait=False)
    assert made.history.best_metric == pytest.approx(1.0)
    with pytest.raises(WorkspaceError, match="may not be changed"):
        made.add_idea(idea("out", files={"other.py": "x = 2\n"}))


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x.py", ".git/config", "", "a/./b"])
def test_pattern_that_leads_out_is_refused(tmp_path: Path, pattern: str) -> None:
    """Patterns stay in the repository and away from git's own files."""
    settings = SETTINGS.replace("model.py", pattern)
    project = make_project(tmp_path / "p", script=TRAIN, settings=settings, files=FILES)
    with pytest.raises(ConfigError, match="write paths from the top of the repository"):
        autoresearch.start(project, tag="t1")


def test_pattern_that_matches_nothing_is_told(tmp_path: Path) -> None:
    """A misspelt file would otherwise be missed for a whole night."""
    settings = SETTINGS.replace("model.py", "modell.py")
    project = make_project(tmp_path / "p", script=TRAIN, settings=settings, files=FILES)
    with pytest.raises(WorkspaceError, match=r"'modell\.py' matches no file"):
        autoresearch.start(project, tag="t1")


def test_patterns_mean_what_gitignore_means() -> None:
    """One star stays in its folder, two cross folders."""
    assert is_editable("a.py", ["*.py"])
    assert not is_editable("a/b.py", ["*.py"])
    assert is_editable("src/b.py", ["src/**/*.py"])
    assert is_editable("src/c/d/b.py", ["src/**/*.py"])
    assert is_editable("src/x", ["src/**"])
    assert not is_editable("srcx", ["src/**"])
    assert is_editable("a+b.py", ["a+?.py"])


def test_one_file_has_its_own_digest() -> None:
    """Campaigns with a single script keep the digests they always had."""
    assert tree_digest({"train.py": text_digest("x")}) == text_digest("x")
    assert tree_digest({"a": "1", "b": "2"}) == tree_digest({"b": "2", "a": "1"})
