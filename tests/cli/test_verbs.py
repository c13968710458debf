"""Every verb does what its help says, prints JSON where it reads, and ends with the right code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from two_numbers import SCRIPT

import autoresearch
from autoresearch.testing import git, make_project

WIDER = """--- a/train.py
+++ b/train.py
@@ -1,3 +1,3 @@
 RATE = 0.5
-WIDTH = 4
+WIDTH = 7
 print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""


@pytest.fixture(scope="module")
def ran_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a campaign of three experiments, for copies of it."""
    made = make_project(tmp_path_factory.mktemp("ran") / "project", script=SCRIPT)
    autoresearch.start(made, tag="t1").run(experiments=3, wait=False)
    return made


@pytest.fixture
def ran(ran_once: Path, project: Path) -> None:
    """A campaign of three experiments, to do anything to."""
    shutil.rmtree(project)
    subprocess.run(["cp", "-a", ran_once, project], check=True)  # notes.md is a hard link


def test_init_prepares_and_runs_nothing(say, project: Path) -> None:
    """init makes the branch, the header of results.tsv and notes.md, and no experiment."""
    said = say("init", "--tag", "t1")
    assert said.code == 0
    assert git(project, "rev-parse", "autoresearch/t1") == git(project, "rev-parse", "HEAD")
    assert (project / "results.tsv").read_text().count("\n") == 1
    assert (project / "notes.md").exists()
    assert "t1" in said.out


def test_tag_comes_from_the_date(say, project: Path) -> None:
    """Without --tag the branch is named after today, like mar18; a second one gets a number."""
    say("init")
    say("init")
    branches = git(project, "for-each-ref", "--format=%(refname:short)", "refs/heads/autoresearch")
    first, second = branches.splitlines()
    assert second == f"{first}-2"


def test_run_starts_prints_a_table_and_continues(say, project: Path) -> None:
    """The first run starts the campaign, the next goes on; each ends with table and queries."""
    first = say("run", "--tag", "t1", "--experiments", "2", "--no-wait")
    assert first.code == 0
    assert "autoresearch sql" in first.out
    say("run", "--experiments", "1", "--no-wait")
    assert len(autoresearch.open_campaign(project).history.decided) == 3


def test_batch_finishes_the_batch_under_way(say, project: Path) -> None:
    """--batch 3 brings 2 to 3 and 3 to 6."""
    say("run", "--tag", "t1", "--experiments", "2", "--no-wait")
    say("run", "--batch", "3", "--no-wait")
    assert len(autoresearch.open_campaign(project).history.decided) == 3
    say("run", "--batch", "3", "--no-wait")
    assert len(autoresearch.open_campaign(project).history.decided) == 6


@pytest.mark.usefixtures("ran")
def test_status_and_show_read_as_text_and_json(say) -> None:
    """The same facts for people and for programs."""
    facts = json.loads(say("status", "--json").out)
    assert facts["experiments"] == 3
    assert facts["best"] < 1.29
    assert "as metric.sd says" in say("status").out
    assert facts["tip"] == json.loads(say("verify", "--json").out)["tip"]
    shown = json.loads(say("show", "1", "--json").out)
    assert shown["number"] == 1
    assert "=== REASONING ===" in say("show", "1").out
    assert len(json.loads(say("show", "--json").out)) == 3


@pytest.mark.usefixtures("ran")
def test_sql_answers_as_table_json_and_csv(say) -> None:
    """A query sees the experiments under the campaign's metric."""
    query = "select experiment, status, metric from experiments order by 1"
    assert json.loads(say("sql", query, "--json").out)[0] == {
        "experiment": 0,
        "status": "keep",
        "metric": 1.29,
    }
    assert say("sql", query, "--csv").out.splitlines()[0] == "experiment,status,metric"
    assert "experiment" in say("sql", query).out


@pytest.mark.usefixtures("ran")
def test_time_travel(say) -> None:
    """--at shows the past: before the last decision there were fewer decided experiments."""
    where = "select max(position) - 1 as p from events where type = 'decided'"
    position = json.loads(say("sql", where, "--json").out)[0]["p"]
    assert json.loads(say("status", "--json", "--at", str(position)).out)["experiments"] == 2
    count = "select count(*) as n from decisions"
    assert json.loads(say("sql", count, "--json", "--at", str(position)).out)[0]["n"] == 2
    assert say("project", "results.tsv", "--at", str(position)).out.count("\n") == 3


@pytest.mark.usefixtures("ran")
def test_rebuild_gives_the_same_bytes(say, project: Path) -> None:
    """Without events.duckdb and both files, everything comes back as it was."""
    before = {name: (project / name).read_bytes() for name in ("results.tsv", "notes.md")}
    for name in before:
        (project / name).unlink()
    (project / ".autoresearch" / "events.duckdb").unlink()
    assert say("rebuild").code == 0
    assert {name: (project / name).read_bytes() for name in before} == before
    assert say("verify").code == 0


@pytest.mark.usefixtures("ran")
def test_verify_names_what_was_changed(say, project: Path) -> None:
    """One byte behind a journal: exit code 1 and the file's name."""
    journal = next((project / ".autoresearch" / "journal").glob("*.jsonl"))
    whole = say("verify")
    assert (whole.code, "the log is whole" in whole.out) == (0, True)
    with journal.open("a") as file:
        file.write("x")
    said = say("verify")
    assert said.code == 1
    assert journal.name in said.out
    assert json.loads(say("verify", "--json").out)["ok"] is False


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("name", ["t1/runs/t1-1-0.control/run.log", ".gitignore"])
def test_verify_finds_what_is_changed_beside_the_log(say, project: Path, name: str) -> None:
    """The output of a run is what was recorded of it, and the store hides itself from git."""
    with (project / ".autoresearch" / name).open("a") as file:
        file.write("x")
    said = say("verify")
    assert said.code == 1
    assert name in said.out


@pytest.mark.usefixtures("ran")
def test_cutting_the_tail_of_every_file_is_found(say, project: Path) -> None:
    """The heads in the commits tell that a shorter, consistent log is not the one that was."""
    store = project / ".autoresearch"
    campaign = autoresearch.open_campaign(project)
    last = campaign.history.experiments[-1]
    cut = [r for r in campaign.log.read() if r.type == "commit_made"][-1].position - 6
    keep = list(campaign.log.read(until=cut))
    for journal in (store / "journal").glob("*.jsonl"):
        lines = journal.read_bytes().splitlines(keepends=True)
        hashes = {record.hash for record in keep}
        kept = [line for line in lines if any(h.encode() in line for h in hashes)]
        journal.write_bytes(b"".join(kept))
    (store / "manifest.jsonl").unlink()
    (store / "events.duckdb").unlink()
    said = say("verify")
    assert said.code == 1
    assert f"refs/autoresearch/t1/{last.number}" in said.out


def test_a_patch_of_a_script_with_carriage_returns_is_queued(say, project: Path) -> None:
    """Line ends are part of a patch; without them it would not apply."""
    git(project, "config", "core.autocrlf", "false")
    (project / "train.py").write_bytes(SCRIPT.replace("\n", "\r\n").encode())
    git(project, "commit", "--quiet", "--all", "--message", "As Windows has it")
    say("init", "--tag", "t1")
    patch = project.parent / "wide.patch"
    lines = WIDER.replace("\n", "\r\n").replace("train.py\r", "train.py").replace("@@\r", "@@")
    patch.write_bytes(lines.encode())
    said = say("idea", "add", "width seven", "--patch", str(patch))
    assert said.code == 0, said.err


def test_people_take_part(say, project: Path) -> None:
    """Ideas and notes are queued from another process; the loop takes the idea first."""
    say("init", "--tag", "t1")
    patch = project.parent / "wide.patch"
    patch.write_text(WIDER)
    said = say("idea", "add", "width seven", "--gain", "0.09", "--patch", str(patch))
    assert said.code == 0
    assert json.loads(say("idea", "list", "--json").out)[0]["description"] == "width seven"
    say("note", "look at the width")
    say("run", "--experiments", "2", "--no-wait")
    history = autoresearch.open_campaign(project).history
    assert history.experiments[1].idea.description == "width seven"
    assert history.best_metric == pytest.approx(1.2)
    assert "look at the width" in (project / "notes.md").read_text()


def test_idea_can_be_dropped(say) -> None:
    """A queued idea can be taken out again, by its id."""
    say("init", "--tag", "t1")
    say("idea", "add", "in words only")
    idea = json.loads(say("idea", "list", "--json").out)[0]["id"]
    assert say("idea", "drop", idea).code == 0
    assert json.loads(say("idea", "list", "--json").out) == []
    assert say("idea", "drop", idea).code == 1


def test_quarantine_is_listed_and_resolved_by_a_person(say, project: Path) -> None:
    """A gain over the plausible is held; released, it becomes the best and the head."""
    say("init", "--tag", "t1", "--set", "metric.implausible_gain=0.01")
    patch = project.parent / "wide.patch"
    patch.write_text(WIDER)
    say("idea", "add", "width seven", "--gain", "2", "--patch", str(patch))
    say("run", "--experiments", "2", "--no-wait")
    held = json.loads(say("quarantine", "--json").out)
    assert [row["experiment"] for row in held] == [1]
    assert autoresearch.open_campaign(project).history.best_number == 0
    assert say("quarantine", "release", "1", "--why", "I measured it again").code == 0
    say("run", "--experiments", "1", "--no-wait")
    history = autoresearch.open_campaign(project).history
    assert history.best_number == 1
    assert any(
        "I measured it again" in (item.decision.reason if item.decision else "")
        for item in history.experiments
    )
    assert say("quarantine", "confirm", "0", "--why", "x").code == 1


def test_quarantine_is_resolved_from_anywhere(say, project: Path, tmp_path: Path) -> None:
    """The project of the inner command counts, wherever it is called from."""
    say("init", "--tag", "t1")
    outside = ("--project", str(tmp_path))
    words = ("release", "0", "--why", "x", "--project", str(project))
    said = say("quarantine", *outside, *words)
    assert "experiment 0 of t1 is not quarantined" in said.err


def test_config_tells_every_value_and_its_origin(say) -> None:
    """What --set says is said to come from the command line."""
    rows = json.loads(say("config", "--json", "--set", "limits.hours=8").out)
    assert rows["limits.hours"] == {"value": 8.0, "from": "command line"}
    assert rows["script"]["from"] == "autoresearch.toml"


def test_plot_draws_a_picture(say, project: Path, ran: None) -> None:
    """progress.png is a PNG of some size."""
    assert say("plot").code == 0
    assert (project / "progress.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_campaign_is_shown_in_a_few_words(say, project: Path) -> None:
    """At a prompt, a campaign is its tag and its place, not its History."""
    say("init", "--tag", "t1")
    assert repr(autoresearch.open_campaign(project)) == f"Campaign('t1' in '{project}')"


def test_plugins_are_listed(say) -> None:
    """Names, sources, hooks and whether they take part."""
    listed = {item["name"]: item for item in json.loads(say("plugins", "--json").out)}
    assert listed["greedy"]["active"] is True
    assert listed["openai"]["active"] is False
    assert "decide" in listed["greedy"]["hooks"]


def test_module_runs_as_a_program(project: Path) -> None:
    """python -m autoresearch is the same command line."""
    done = subprocess.run(
        [sys.executable, "-m", "autoresearch", "--version"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.startswith("autoresearch, version ")


@pytest.mark.usefixtures("ran")
def test_a_person_has_the_last_word_on_a_verdict(say, project: Path) -> None:
    """What is overruled is neither best nor head, the loop goes back; accepted, it is kept."""
    campaign = autoresearch.open_campaign(project)
    past = campaign.history
    assert past.best_number == past.head == 1
    said = say("overrule", "1", "--reason", "a lucky seed")
    assert said.out.strip() == "experiment 1 is discarded; campaign t1 has head 0 and best 0"
    say("run", "--experiments", "1", "--no-wait")
    assert campaign.history.experiments[3].parent_commit == past.experiments[0].commit
    assert "a lucky seed" in say("show", "1").out
    assert "best" in say("accept", "1", "--reason", "three more seeds agree").out
    assert campaign.history.experiments[1].verdict == "keep"
    query = "select verdict from decisions where experiment = 1 order by position"
    verdicts = [row["verdict"] for row in json.loads(say("sql", query, "--json").out)]
    assert verdicts == ["keep", "discard", "keep"]


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("accept", "9", "--reason", "x"), "experiment 9 of t1 does not exist"),
        (("accept", "1", "--reason", "x"), "has the verdict keep already"),
        (("overrule", "0", "--reason", "x"), "is the baseline"),
        (("overrule", "1", "--reason", " "), "needs a reason that says something"),
    ],
)
def test_a_verdict_that_cannot_be_given_is_refused(say, words, problem: str) -> None:
    """One line that says why, and nothing is recorded."""
    before = say("sql", "select count(*) from events").out
    said = say(*words)
    assert said.code == 1
    assert problem in said.err
    assert say("sql", "select count(*) from events").out == before
