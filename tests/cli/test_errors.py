"""Bad input gets one clear line on standard error, exit code 1, and nothing is left half-done."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from attrs import evolve

import autoresearch
from autoresearch.errors import LogError, brought_by
from autoresearch.testing import git
from autoresearch.workspace import Lab


def check_refused(said: object, words: str) -> None:
    """Check for exit code 1 and one line with these words."""
    assert said.code == 1, said  # type: ignore[attr-defined]
    assert words in said.err  # type: ignore[attr-defined]
    assert said.err.count("\n") == 1  # type: ignore[attr-defined]
    assert "Traceback" not in said.err  # type: ignore[attr-defined]


def check_untouched(project: Path) -> None:
    """Check that no campaign was begun."""
    assert git(project, "for-each-ref", "refs/heads/autoresearch", "refs/autoresearch") == ""
    assert not (project / "results.tsv").exists()


def test_outside_a_repository(say, project: Path, tmp_path: Path) -> None:
    """A folder that is no git checkout is named."""
    check_refused(say("init", "--project", str(tmp_path)), "git init")


def test_repository_without_a_commit(say, tmp_path: Path) -> None:
    """An empty repository has nothing to start from."""
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    (empty / "autoresearch.toml").write_text('preset = "plain"\nscript = "train.py"\n')
    check_refused(say("init", "--project", str(empty)), "has no commit yet")


def test_existing_branch(say, project: Path) -> None:
    """The branch of a new tag must not exist."""
    git(project, "branch", "autoresearch/t1")
    check_refused(say("init", "--tag", "t1"), "already exists")


def test_tag_that_cannot_name_a_branch(say, project: Path) -> None:
    """A tag with odd signs is refused with an example."""
    for tag in ("Mar 18", "../x", "journal", "a..b", "x.lock", ""):
        check_refused(say("init", "--tag", tag), "cannot be a run tag")
    check_untouched(project)


def test_dirty_tree(say, project: Path) -> None:
    """Uncommitted changes would silently be left out, so they are refused."""
    (project / "train.py").write_text("print('score: 1')\n")
    check_refused(say("init", "--tag", "t1"), "train.py has changes that are not committed")
    check_untouched(project)


def test_script_that_is_not_there(say, project: Path) -> None:
    """The script must be in the commit."""
    check_refused(say("init", "--set", "script=other.py"), "other.py is not in commit")
    check_untouched(project)


def test_script_that_does_not_compile(say, project: Path) -> None:
    """A syntax error is told with its line."""
    (project / "train.py").write_text("x = (\n")
    git(project, "commit", "-qam", "break")
    check_refused(say("init", "--tag", "t1"), "train.py line 1 does not compile")
    check_untouched(project)


def test_missing_data_tells_the_command_that_gets_it(say, project: Path) -> None:
    """The exact command of the preset is printed."""
    sets = ("--set", 'data=["data/datasets/x"]', "--set", "data_command=make data")
    check_refused(say("init", *sets), "get the data with: make data")
    check_untouched(project)


def test_foreign_results_file_is_not_overwritten(say, project: Path) -> None:
    """A results.tsv that is not of a campaign here stays."""
    (project / "results.tsv").write_text("mine\n")
    check_refused(say("init", "--tag", "t1"), "results.tsv exists already")
    assert (project / "results.tsv").read_text() == "mine\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(say, project: Path) -> None:
    """A read-only project is told as such."""
    project.chmod(0o555)
    try:
        check_refused(say("init", "--tag", "t1"), "writable")
    finally:
        project.chmod(0o755)


def test_verbs_without_a_campaign(say) -> None:
    """Reading before there is anything says how to begin."""
    for words in (("status",), ("sql", "select 1"), ("verify",), ("show",), ("idea", "list")):
        check_refused(say(*words), "start one with autoresearch init")


def test_unknown_campaign_and_experiment(say) -> None:
    """What does not exist is named with what does."""
    say("run", "--tag", "t1", "--experiments", "1", "--no-wait")
    check_refused(say("status", "--tag", "other"), "known: t1")
    check_refused(say("show", "7"), "no experiment 7")
    check_refused(say("accept", "7", "--reason", "x"), "t1 has 0 to 0")
    check_refused(say("log", "0", "--run", "9"), "has no run 9; it has runs 0 to")
    check_refused(say("sql", "--tag", "other", "select 1"), "use one of t1")


def test_columns_that_cannot_be_read(say, project: Path) -> None:
    """The word that is wrong is named, also where others follow it."""
    (project / "old.tsv").write_text("commit\tloss\nabc1234\t1.0\n")
    maps = ("--map", "metric", "--map", "commit=commit")
    check_refused(say("import", "old.tsv", *maps), "--map 'metric' is not FIELD=COLUMN")
    maps = ("--map", "metric=loss", "--map", "metric=commit")
    check_refused(say("import", "old.tsv", *maps), "'metric=commit' names a field twice")


def test_query_that_fails(say) -> None:
    """DuckDB's complaint is one line; writing through sql is not possible."""
    say("init", "--tag", "t1")
    check_refused(say("sql", "select nothing from nowhere"), '"show tables" lists the tables')
    check_refused(say("sql", "select nothing from gain"), '"describe TABLE" lists the columns')
    check_refused(say("sql", "delete from events"), "the query failed")


def test_unknown_setting_and_plugin(say, project: Path) -> None:
    """Misspelt names come with a suggestion."""
    check_refused(say("config", "--set", "limits.hour=1"), "did you mean 'hours'")
    check_refused(say("config", "--set", "limits.hours"), "--set 'limits.hours' is not NAME=VALUE")
    check_refused(say("plugins", "--plugin", "gredy"), "did you mean 'greedy'")
    check_refused(say("plugins", "--plugin", "nope"), "there is no plugin 'nope'; plugins are")


def test_baseline_without_a_score_ends_with_code_1(say, project: Path) -> None:
    """The loop cannot go on without a baseline: the last line says what to do."""
    (project / "train.py").write_text("print('hello')\n")
    git(project, "commit", "-qam", "no score")
    said = say("run", "--tag", "t1", "--experiments", "2", "--no-wait")
    assert said.code == 1
    assert "run again: the campaign starts again under its tag" in said.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("runn",), "no such command 'runn'; did you mean 'run'? see autoresearch --help"),
        (("run", "--nonsense"), "no such option '--nonsense'; see autoresearch run --help"),
        (("step", "nonsense"), "no such command 'nonsense'; see autoresearch step --help"),
        (("replay",), "missing option '--policy'; see autoresearch replay --help"),
    ],
)
def test_usage_errors_are_a_line_and_exit_with_2(say, words, line: str) -> None:
    """A wrong option is usage, not a failure; the line says where the right ones stand."""
    said = say(*words)
    assert (said.code, said.err) == (2, f"autoresearch: {line}\n")


def test_number_that_is_none_is_told_in_plain_words(say) -> None:
    """The types of the parser are not words of ours."""
    said = say("show", "abc")
    assert said.code == 2
    assert "'abc' is not a whole number" in said.err


def test_part_that_is_not_installed_is_named_with_its_extra(say, monkeypatch) -> None:
    """A module that is missing is one line with the command that brings it, for every verb."""
    for name in [name for name in sys.modules if name.startswith("autoresearch.golf.canary")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    check_refused(say("canary"), "this needs numpy; pip install 'autoresearch[data]'")
    assert brought_by("matplotlib") == "pip install 'autoresearch[report]'"
    assert brought_by("nowhere") == "pip install nowhere"


def test_verb_that_needs_another_word_shows_its_help(say) -> None:
    """A group alone is a question, and its help is the answer."""
    said = say("step")
    assert said.code == 2
    assert "review" in said.err + said.out


def test_file_that_is_not_there_is_named_once(say, project: Path) -> None:
    """Without the number of the system's error and without the path a second time."""
    say("init", "--tag", "t1")
    check_refused(
        say("idea", "add", "x", "--patch", "no.patch"),
        "cannot read no.patch: No such file or directory; name a unified diff",
    )


def test_patch_that_is_no_text_is_named(say, project: Path) -> None:
    """Wherever a patch is taken; nothing is queued and nothing committed."""
    say("init", "--tag", "t1")
    (project.parent / "latin.patch").write_bytes("--- a/train.py\n# caf\xe9\n".encode("latin-1"))
    patch = ("--patch", str(project.parent / "latin.patch"))
    for words in (("idea", "add", "x", *patch), ("step", "edit", *patch), ("observe", "x", *patch)):
        check_refused(say(*words), "latin.patch: 'utf-8' codec can't decode")
    assert say("idea", "list", "--json").out.strip() == "[]"


def test_failed_init_leaves_nothing(say, project: Path) -> None:
    """A branch that git cannot create leaves no lab and no fact, and the tag stays free."""
    blocked = project / ".git/refs/heads/autoresearch"
    blocked.write_text("in the way\n")
    check_refused(say("init", "--tag", "t1"), "autoresearch")
    assert not (project / ".autoresearch/t1").exists()
    assert not (project / "results.tsv").exists()
    check_refused(say("status"), "start one with autoresearch init")
    blocked.unlink()
    assert say("init", "--tag", "t1").code == 0
    assert say("verify").code == 0


def test_failed_append_takes_the_branch_back(say, project: Path, monkeypatch) -> None:
    """The lab and the branch go again when the fact cannot be recorded."""

    def full(*_: object, **__: object) -> None:
        raise LogError("no space left; free some")

    with monkeypatch.context() as patched:
        patched.setattr("autoresearch.log.writer.FileWriter.append", full)
        check_refused(say("init", "--tag", "t1"), "no space left")
    check_untouched(project)
    assert not (project / ".autoresearch/t1").exists()
    assert say("init", "--tag", "t1").code == 0


def test_results_file_is_not_overwritten_after_a_failed_init(say, project: Path) -> None:
    """A store without a campaign does not make a foreign results.tsv ours."""
    (project / ".autoresearch").mkdir()
    (project / "results.tsv").write_text("mine\n")
    check_refused(say("init", "--tag", "t1"), "results.tsv exists already")


def test_killed_init_is_made_again(say, project: Path) -> None:
    """A kill before the fact leaves a lab and a branch; init starts over with them."""
    base = git(project, "rev-parse", "HEAD")
    Lab(project=project, tag="t1", script="train.py").create(base)
    (project / "train.py").write_text("print('score: 1')\n")
    git(project, "commit", "-qam", "go on")
    assert say("init", "--tag", "t1").code == 0
    assert git(project, "rev-parse", "autoresearch/t1") == git(project, "rev-parse", "HEAD")


def test_status_without_readable_settings(say, project: Path) -> None:
    """What another release recorded is shown as far as it goes; only running needs all of it."""
    assert say("init", "--tag", "t1").code == 0
    campaign = autoresearch.open_campaign(project)
    started = campaign.history.started
    assert started is not None
    with campaign.log.writer("t1") as writer:
        writer.append(evolve(started, config={**started.config, "limits": "none"}))
    said = say("status")
    assert said.code == 0, said
    assert "campaign:     t1" in said.out
    line = next(line for line in said.out.splitlines() if line.startswith("settings:"))
    assert "limits" in line
    assert say("show").code == 0
    check_refused(say("run", "--experiments", "1"), "limits")
