"""One experiment whole: show, diff, log, checkout, export; and questions at a prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import autoresearch
from autoresearch.cli import cli
from autoresearch.cli.reading import print_experiments
from autoresearch.cli.showing import sparkline
from autoresearch.testing import git, history, make_project

Run = Callable[..., Result]
SCRIPT = """WIDTH = 4
for step in range(30):
    print(f"step: {step} score: {2.0 + 0.01 * (WIDTH - 7) ** 2 - step / 30:.6f}")
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2:.6f}")
"""
SETTINGS = 'preset = "plain"\n[metric]\nname = "score"\nsd = 0.001\n'


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two campaigns: one of two experiments, and one that was only started."""
    project = make_project(
        tmp_path_factory.mktemp("showing") / "project", script=SCRIPT, settings=SETTINGS
    )
    autoresearch.start(project, tag="second")
    autoresearch.start(project, tag="first").run(2, wait=False)
    return project


@pytest.fixture
def run(ran: Path) -> Run:
    """Run a verb in that project."""

    def call(*words: str, code: int = 0, **more: str) -> Result:
        done = CliRunner().invoke(cli, [*words, "--project", str(ran)], **more)  # type: ignore[arg-type]
        failed = done.exception is not None and not isinstance(done.exception, SystemExit)
        assert failed == (code != 0), done.output
        return done

    return call


def test_show_has_all_of_an_experiment(run: Run) -> None:
    """Reasoning, change, run with its curve, analysis, decision, cost, and where things are."""
    out = run("show", "1").output
    parts = ["=== REASONING ===", "-WIDTH = 4", "run first-1-0: seed", "█", "=== ANALYSIS ==="]
    parts += ["cost: ", "kept as refs/autoresearch/first/1", "source train.py ", "output /"]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    told = json.loads(run("show", "1", "--json").output)
    assert told["costs"]["seconds"] > 0
    assert "-WIDTH = 4" in told["diff"]
    assert "REASONING" in run("show", "0").output


@pytest.mark.parametrize(
    ("values", "bars"), [((), ""), ((1.0, 1.0), "▁▁"), ((3.0, 2.0, 1.0), "█▅▁"), ((1, 2), "▁█")]
)
def test_sparkline_has_the_lowest_value_lowest(values, bars: str) -> None:
    """A curve in one line."""
    assert sparkline(values) == bars
    assert len(sparkline(list(range(1000)))) <= 41


def test_diff_and_log(run: Run, ran: Path) -> None:
    """What one changed, how two differ in that direction, and what a run printed."""
    assert "-WIDTH = 4" in run("diff", "1").output
    assert run("diff", "1", "0").output.count("+WIDTH = 4") == 1
    assert run("diff", "0").output == "no difference in any file\n"
    assert run("log", "1", "--tail", "1").output.startswith("score: ")
    assert len(run("log", "1", "--run", "0").output.splitlines()) == 31
    assert "has runs 0 to 0" in str(run("log", "1", "--run", "7", code=1).exception)


def test_checkout_is_a_clone_at_the_commit(run: Run, ran: Path, tmp_path: Path) -> None:
    """The files of the experiment, apart from the user's own checkout."""
    folder = tmp_path / "there"
    run("checkout", "1", str(folder))
    commit = autoresearch.open_campaign(ran, "first").history.experiments[1].commit
    assert git(folder, "rev-parse", "HEAD") == commit
    assert "WIDTH = 4" not in (folder / "train.py").read_text()
    assert "exists already" in str(run("checkout", "1", str(folder), code=1).exception)


# What 53 of the 55 public records have, and their types.
RECORD = {"author": str, "github_id": str, "name": str, "date": str, "blurb": str}


def test_export_has_the_layout_of_a_record(run: Run, tmp_path: Path) -> None:
    """README.md, submission.json, the script that ran, and its log."""
    folder = tmp_path / "record"
    run("export", "1", str(folder), "--github-id", "me")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "submission.json", "train.log", "train.py"]
    told = json.loads((folder / "submission.json").read_text())
    assert {name: type(told[name]) for name in RECORD} == RECORD
    assert told["bytes_code"] == (folder / "train.py").stat().st_size
    printed = (folder / "train.log").read_text().splitlines()[-1]
    assert printed == f"score: {told['score']:.6f}"
    assert "| 1337 |" in (folder / "README.md").read_text()
    assert "not empty" in str(run("export", "1", str(folder), code=1).exception)
    assert "say what to write" in str(run("export", code=1).exception)


def test_sql_is_about_one_campaign_unless_asked(run: Run, ran: Path) -> None:
    """By default the last active one, or the one named; --all has every one."""
    count = "select count(*) as n from campaign_started"
    views = "select count(distinct campaign) as n from experiments"

    def n(*words: str) -> int:
        return json.loads(run("sql", *words, "--json").output)[0]["n"]

    assert (n(count), n(count, "--all"), n(views)) == (1, 2, 1)
    assert n("select count(*) as n from experiments", "--tag", "second") == 0
    assert n("select count(*) as n from experiments", "--at", "12") <= 1
    assert "no campaign 'nope'" in str(run("sql", count, "--tag", "nope", code=1).exception)


def test_sql_through_a_pipe_and_into_parquet(run: Run, tmp_path: Path) -> None:
    """A query may be piped, and its answer be a file for other tools."""
    assert "keep" in run("sql", input="select status from experiments where experiment = 0").output
    path = tmp_path / "answer.parquet"
    run("sql", "select * from experiments order by 1", "--parquet", str(path))
    assert path.read_bytes()[:4] == b"PAR1"


def test_sql_at_a_prompt(ran: Path) -> None:
    """Several lines until a semicolon; a mistake is told and the prompt goes on."""
    words = [sys.executable, "-m", "autoresearch", "sql", "--project", str(ran)]
    typed = b"select 40 + 2\n as answer;\nselect nothing_there;\ntables;\nexit;\n"
    done = subprocess.run(
        ["script", "-qec", " ".join(words), "/dev/null"], input=typed, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout.decode()
    assert "42" in said
    assert "nothing_there" in said
    assert "best_so_far" in said


def test_a_long_campaign_ends_with_its_newest_experiments(capsys) -> None:
    """The table at the end of a run stays a screen; the rest is one verb away."""
    past = history([2 - number / 100 for number in range(30)])
    print_experiments(past, newest=20)
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[2].split()[0]) == (23, "10")
    assert lines[-1] == "10 older ones: autoresearch show"
    print_experiments(past)
    assert len(capsys.readouterr().out.splitlines()) == 32
