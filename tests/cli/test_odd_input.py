"""What people type by mistake is told in one line, and what comes out can be read by programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.cli.shared import Teller
from autoresearch.testing import git


def check_refused(said: object, words: str) -> None:
    """Check for exit code 1 and one line with these words."""
    assert said.code == 1, said  # type: ignore[attr-defined]
    assert words in said.err  # type: ignore[attr-defined]
    assert said.err.count("\n") == 1  # type: ignore[attr-defined]


def test_script_that_is_not_named_as_git_names_it(say, project: Path) -> None:
    """Experiments compare the script's path with git's, so only one spelling will do."""
    check_refused(say("init", "--set", "script=./train.py"), "'./train.py'; write train.py")


def test_script_that_is_a_link_or_a_folder(say, project: Path) -> None:
    """A link would send every change to another file, and a folder cannot be run."""
    (project / "linked.py").symlink_to("train.py")
    (project / "package").mkdir()
    (project / "package/part.py").write_text("")
    git(project, "add", "--all")
    git(project, "commit", "-qm", "Add a link and a folder")
    check_refused(say("init", "--set", "script=linked.py"), "is a symbolic link in commit")
    check_refused(say("init", "--set", "script=package"), "name the script itself")


def test_settings_in_a_subfolder_are_not_passed_over_in_silence(say, project: Path) -> None:
    """Settings are read at the top of the repository; a file of them elsewhere is named."""
    (project / "part").mkdir()
    git(project, "mv", "autoresearch.toml", "part/autoresearch.toml")
    git(project, "commit", "-qm", "Move the settings")
    check_refused(
        say("init", "--project", str(project / "part")), "is not at the top of the repository"
    )


def test_repository_of_somebody_else(say, project: Path, monkeypatch) -> None:
    """Git's distrust of a folder of another user is told as what it is."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (project, project / ".git"):
        os.chown(path, 12345, 12345)
    check_refused(say("init"), "belongs to somebody else")


def test_store_without_a_campaign(say, project: Path) -> None:
    """An empty store is told like a missing one."""
    (project / ".autoresearch").mkdir()
    for verb in (("status",), ("show",), ("rebuild",)):
        check_refused(say(*verb), "has no campaign yet; start one with autoresearch init")


def test_position_that_the_log_has_not_reached(say) -> None:
    """An answer as of the future would be another one later, so none is given."""
    say("init", "--tag", "t1")
    for verb in (("status",), ("show",), ("project", "notes.md"), ("sql", "select 1")):
        check_refused(say(*verb, "--at", "999"), "no position 999 yet; give --at 0 to 1")
    check_refused(say("show", "0"), "has no experiment 0; run some")
    check_refused(say("accept", "0", "--reason", "x"), "0 of t1 does not exist; run some")
    assert json.loads(say("status", "--at", "1", "--json").out)["tip"].startswith("1:")


def test_words_that_say_nothing_are_not_recorded(say) -> None:
    """An idea that no generator could have had would stand in the queue's way for ever."""
    say("init", "--tag", "t1")
    check_refused(say("note", " \n"), "is empty")
    check_refused(say("idea", "add", ""), "Idea.description")
    check_refused(say("idea", "add", "not UTF-8: \udcff"), "surrogate")
    check_refused(say("idea", "add", "x", "--env", "A=a\0b"), "no process can be given it")
    assert json.loads(say("idea", "list", "--json").out) == []


def test_queued_idea_that_empties_a_variable_is_tried(say) -> None:
    """An empty value is a value."""
    assert say("idea", "add", "x", "--env", "A=").code == 1, "there is no campaign yet"
    say("init", "--tag", "t1")
    assert say("idea", "add", "no A", "--env", "A=", "--anyway").code == 0
    say("run", "--experiments", "2", "--plugin", "no:script_ideas", "--accept-plugin-changes")
    assert "no A" in say("show", "1").out


def test_json_has_no_number_that_json_lacks(say) -> None:
    """NaN and infinity become null, as other programs refuse them."""
    say("init", "--tag", "t1")
    query = "select 'nan'::double a, '-inf'::float b, [1.5, 'inf'::double] c, 2.5::decimal d"

    def strange(word: str) -> None:
        raise AssertionError(word)

    rows = json.loads(say("sql", query, "--json").out, parse_constant=strange)
    assert rows == [{"a": None, "b": None, "c": [1.5, None], "d": 2.5}]


def test_no_column_is_lost(say) -> None:
    """Joined tables have columns of one name, and each is an answer."""
    say("init", "--tag", "t1")
    rows = json.loads(say("sql", "select 1 a, 2 a, 3 b, 4 a", "--json").out)
    assert rows == [{"a": 1, "a_1": 2, "b": 3, "a_2": 4}]


def test_a_link_to_nowhere_is_no_script(say, project: Path) -> None:
    """A committed link that leads nowhere keeps nobody from being found their script."""
    git(project, "rm", "-q", "autoresearch.toml")
    (project / "train_gone.py").symlink_to("gone.py")
    git(project, "add", "--all")
    git(project, "commit", "-qm", "Add a link")
    assert say("init", "--try", "--seconds", "20").code == 0


def test_query_without_a_word(say) -> None:
    """Nothing asked is a mistake, not a crash."""
    say("init", "--tag", "t1")
    for query in ("", " ; ", "/* nothing */"):
        check_refused(say("sql", query), "write a select")


def test_picture_is_written_where_it_was_asked_for(say, project: Path) -> None:
    """A name that is not a PNG's is refused rather than changed or failed on."""
    say("init", "--tag", "t1")
    for out in (str(project), "a.xyz"):
        check_refused(say("plot", "--out", out), "is not a PNG file")


def test_tick_fits_the_terminal_and_is_cleared(monkeypatch, capsys) -> None:
    """A wrapped tick could not be taken back, and a last one must not stay before a prompt."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    teller = Teller()
    teller.tick("experiment 1: " + "x" * 100)
    teller.clear()
    ticked, cleared = capsys.readouterr().out.split("\r\x1b[2K")[1:]
    assert 0 < len(ticked) < 20
    assert cleared == ""


def test_file_that_cannot_be_written_is_named(say, project: Path) -> None:
    """Whatever the system refuses is told with the file, not with a traceback."""
    (project / "taken").write_text("")
    check_refused(
        say("new-plugin", "mine", "--folder", str(project / "taken" / "plugins")), "taken"
    )


def test_signs_that_the_terminal_lacks_are_escaped(say, project: Path) -> None:
    """A terminal that knows Latin-1 alone shows the rest as escapes."""
    say("init", "--tag", "t1")
    for form in ((), ("--csv",), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "autoresearch", "sql", "select chr(8594) as a", *form],
            cwd=project,
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "\\u2192" in done.stdout


def test_branches_that_leave_no_room_for_ours(say, project: Path) -> None:
    """A branch may not be a folder of branches too, so nothing is begun beside such a one."""
    git(project, "branch", "autoresearch/t1/more")
    check_refused(say("init", "--tag", "t1"), "autoresearch/t1 already exists")
    git(project, "branch", "-m", "autoresearch/t1/more", "autoresearch")
    check_refused(say("init", "--tag", "t1"), "rename it with git branch -m")
    assert not (project / ".autoresearch").exists()


def test_baseline_that_cannot_start_says_what_is_missing(say) -> None:
    """The line names the cause, and the tag is still free."""
    sets = ("--set", 'command=["no-such-program"]', "--set", "limits.infra_retries=0")
    check_refused(say("run", "--tag", "t1", *sets), "'no-such-program' is not installed")
    assert say("init", "--tag", "t1").code == 0


def shell(project: Path, words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a shell, where streams can be closed."""
    line = words.replace("autoresearch", f"{sys.executable} -m autoresearch")
    return subprocess.run(
        ["bash", "-c", line], cwd=project, env={**os.environ, **env}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip


def test_streams_that_are_closed_or_full(say, project: Path) -> None:
    """A caller may close any of them, and a disk behind one may be full: one line, or none."""
    say("init", "--tag", "t1")
    for words, code in (
        ("autoresearch sql <&-", 1),  # nothing asks nothing
        ("autoresearch status >&-", 0),
        ("autoresearch run --experiments 1 <&- >&- 2>&-", 0),
        ("autoresearch sql 'select 1' --csv >/dev/full", 1),
        ("autoresearch status >/dev/full", 1),
    ):
        done = shell(project, words)
        assert (done.returncode, done.stderr.count("\n")) == (code, code), (words, done.stderr)
    assert "cannot go on: No space left on device" in done.stderr
    done = shell(project, "autoresearch sql 'select 1' --csv | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_folder_that_is_gone(project: Path) -> None:
    """Whoever stands in a deleted folder is told so."""
    done = shell(project, "mkdir gone; cd gone; rmdir ../gone; autoresearch status")
    assert done.returncode == 1
    assert "autoresearch: cannot use the current folder: No such file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_user_of_a_domain(say, project: Path, monkeypatch) -> None:
    """A name with a backslash or a quote is one that the log cannot hold as it is."""
    monkeypatch.setenv("LOGNAME", 'CORP\\ann "the boss"')
    say("init", "--tag", "t1")
    assert say("note", "hello").code == 0
    assert say("steer", "wider").code == 0
    rows = json.loads(say("sql", "select distinct actor from events order by 1", "--json").out)
    assert rows == [{"actor": "CORP/ann /the boss/"}, {"actor": "loop"}]
    assert say("step", "review", "--as", 'a"b').code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "--every", "nan"),
        ("watch", "--every", "inf"),
        ("init", "--seconds", "nan"),
        ("step", "run", "--seconds", "nan"),
        ("simulate", "--noise", "nan"),
        ("simulate", "--gpu-hours", "inf"),
        ("simulate", "--effects", "-1"),
    ],
)
def test_amount_that_is_none(say, words: tuple[str, ...]) -> None:
    """NaN is within every range, and waits for ever."""
    said = say(*words)
    assert said.code == 2
    assert f"invalid value for '{words[-2]}'" in said.err.lower(), said.err
    assert said.err.count("\n") == 1
