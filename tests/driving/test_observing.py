"""Somebody else's loop logs its experiments and has a whole campaign of them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign, Observation, Verdict, observe
from autoresearch.cli import main
from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError
from autoresearch.testing import git

from .conftest import SCRIPT

WIDER = SCRIPT.replace("WIDTH = 4", "WIDTH = 6")


@pytest.fixture
def campaign(project: Path) -> Campaign:
    """A campaign whose runs are made elsewhere, with its baseline logged."""
    made = autoresearch.start(project, tag="t1", overrides={"launcher": "observed"})
    assert observe(made, Observation(description="baseline", metric=1.29), "ann").verdict == "keep"
    return made


def test_crash_among_the_runs_of_the_baseline_ends(project: Path) -> None:
    """Nobody launches the run that is lacking, so the answer asks for it once."""
    (project / "autoresearch.toml").write_text(
        'preset = "plain"\nscript = "train.py"\nlauncher = "observed"\n'
        '[metric]\nname = "score"\nbetter = "lower"\n'
    )
    git(project, "commit", "-qam", "leave the noise unknown")
    made = autoresearch.start(project, tag="t1")
    told = Observation(description="baseline", metric=1.29)
    assert observe(made, told, "ann").verdict == "rerun"
    crash = Observation(description="baseline", status="crash", detail="out of memory")
    observe(made, crash, "ann")
    runs = made.history.experiments[0].runs
    assert [item.status for item in runs] == ["completed", "crashed"]


def test_a_whole_campaign_of_anothers_experiments(campaign: Campaign, project: Path) -> None:
    """Scores, changes, words and verdicts arrive in results.tsv, notes.md, git and SQL."""
    kept = Observation(
        description="wider",
        metric=1.21,
        status="keep",
        direction="width",
        source=WIDER,
        why="it fits more",
        lesson="width helps",
        metrics={"params": 36.0},
        seconds=300.0,
        log="step 1 score 1.5\nscore: 1.21\n",
    )
    assert observe(campaign, kept, "ann").verdict == "keep"
    lost = Observation(description="faster", metric=1.4, status="discard", hypothesis="speed")
    assert observe(campaign, lost, "ann").reason == "ann decided so"
    crash = Observation(description="huge", status="crash", detail="out of memory")
    assert observe(campaign, crash, "ann").verdict == "crash"
    history = campaign.history
    assert [item.verdict for item in history.experiments] == ["keep", "keep", "discard", "crash"]
    assert (history.head, history.best_metric) == (1, 1.21)
    rows = (project / "results.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows[1:]] == [
        "1.290000",
        "1.210000",
        "1.400000",
        "0.000000",
    ]
    notes = (project / "notes.md").read_text()
    for words in ("Why: it fits more", "Lesson: width helps", "### Experiment 3: huge"):
        assert words in notes
    with campaign.connect() as sql:
        found = sql.execute(
            "SELECT experiment, metric, seconds FROM experiments ORDER BY 1"
        ).fetchall()
    assert found[1] == (1, 1.21, 300.0)
    assert history.experiments[1].metrics["params"] == 36.0
    shown = ["git", "show", f"{history.experiments[1].commit}:train.py"]
    assert subprocess.run(shown, cwd=project, capture_output=True, text=True).stdout == WIDER
    assert campaign.log.verify().ok


def test_without_a_verdict_the_policies_decide(campaign: Campaign) -> None:
    """The other loop may ask for one; the limits hold whatever it says itself."""
    assert observe(campaign, Observation(description="worse", metric=1.5)).verdict == "discard"
    better = observe(campaign, Observation(description="better", metric=1.2))
    assert (better.experiment, better.verdict) == (2, "keep")


def test_what_contradicts_itself_is_refused(campaign: Campaign, project: Path) -> None:
    """One line each, and nothing is recorded."""
    before = campaign.history.position
    for told, why in (
        ({"metric": 1.0}, "has no description"),
        ({"description": "a"}, "metric is None; give the score"),
        ({"description": "a", "metric": float("nan")}, "metric is nan"),
        ({"description": "a", "metric": 1.0, "status": "great"}, "status is 'great'"),
        ({"description": "a", "metric": 1.0, "source": "1", "patch": "2"}, "both a patch"),
        ({"description": "a", "metric": 1.0, "seconds": -5.0}, "seconds is -5.0, but must be 0"),
        ({"description": "a", "metric": 1.0, "usd": float("nan")}, "usd is nan, but must be 0"),
        ({"description": "a", "metric": 1.0, "metrics": {"x": float("inf")}}, "x is inf; give a"),
        ({"description": "a", "metric": 1.0, "log": "\ud800"}, "is no Unicode text: surrogates"),
    ):
        with pytest.raises((WorkspaceError, ConfigError), match=why):
            observe(campaign, Observation(**told))  # type: ignore[arg-type]
    assert campaign.history.position == before
    wide = f'{{"description": "a", "metric": {"9" * 400}}}'
    for line in ("{", "[1]", '{"description": 5}', '{"descriptoin": "a"}', '{"a":' * 9_000):
        with pytest.raises(AutoresearchError):
            autoresearch.driving.agents.read(line)
    with pytest.raises(ConfigError, match="metric: int too large to convert to float"):
        autoresearch.driving.agents.read(wide)
    with pytest.raises(ConfigError, match="unknown key descriptoin; did you mean 'description'"):
        autoresearch.driving.agents.read('{"descriptoin": "a"}')
    other = autoresearch.start(project, tag="t2")
    with pytest.raises(WorkspaceError, match="makes its own runs"):
        observe(other, Observation(description="a", metric=1.0))


def test_the_baseline_comes_first(project: Path) -> None:
    """A change needs something to be compared with."""
    made = autoresearch.start(project, tag="t1", overrides={"launcher": "observed"})
    with pytest.raises(WorkspaceError, match="the first experiment is the baseline"):
        observe(made, Observation(description="wider", metric=1.0, source=WIDER))
    assert observe(made, Observation(description="baseline", metric=1.3)).experiment == 0
    assert made.history.experiments[0].verdict is Verdict.KEEP


def test_lines_of_json_on_stdin(
    campaign: Campaign,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each line is an experiment, and its answer is a line."""
    lines = [
        {"description": "wider", "metric": 1.21, "source": WIDER, "status": "keep"},
        {"description": "slower", "metric": 2, "status": "discard"},
    ]
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, lines)) + "\n"))
    monkeypatch.setattr(sys, "argv", ["autoresearch", "observe", "-", "--json"])
    main()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["verdict"] for item in said] == ["keep", "discard"]


def test_the_smallest_agent_of_the_docs(project: Path, tmp_path: Path) -> None:
    """The 40 lines that stand in the docs are a whole researcher."""
    page = Path(__file__).parents[2] / "docs" / "agents.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    (agent,) = [block for block in code if "observe" in block]
    assert len([line for line in agent.splitlines() if line]) <= 40
    file = tmp_path / "agent.py"
    file.write_text(agent)
    autoresearch.start(project, tag="t1", overrides={"launcher": "observed"})
    done = subprocess.run(
        [sys.executable, str(file), "3"], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    history = autoresearch.open_campaign(project).history
    assert len(history.decided) == 4
    assert all(item.analysis for item in history.decided)
    assert (project / "train.py").read_text() == SCRIPT  # the checkout is the user's
