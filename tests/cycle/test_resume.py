"""kill -9 of the loop at any instant: nothing is lost, nothing runs twice, it ends the same way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from thinned import thinned

import autoresearch
from autoresearch.errors import PluginError, StreamHeldError
from autoresearch.testing import git, make_project

COUNTING = """import os
RATE = 0.5
WIDTH = 4
with open(os.environ["STARTS"], "a") as file:
    file.write(os.environ["RUN_ID"] + "\\n")
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""

SETTINGS = """preset = "plain"
script = "train.py"
noise.runs = 1
boundary.kind = "none" # the script writes where bubblewrap would not let it
env = { STARTS = "{project}/.git/starts.txt" }
[metric]
name = "score"
"""

KILLER = '''"""Kills the loop right after a chosen event is durable."""
import os, signal
from autoresearch import hookimpl

@hookimpl
def event_recorded(event):
    if event.type == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
'''

EVENTS = (
    "campaign_resumed",
    "idea_proposed",
    "reasoning_recorded",
    "commit_made",
    "run_requested",
    "run_started",
    "cost_incurred",
    "run_finished",
    "metrics_extracted",
    "analysis_recorded",
    "lesson_learned",
    "decided",
    "memory_reviewed",
    "change_applied",
    "audit_passed",
)

GO_ON = """
import sys, autoresearch
autoresearch.open_campaign(sys.argv[1]).run(until=4, wait=False)
"""


@pytest.fixture
def killable(tmp_path: Path) -> Path:
    """A project that counts the starts of its script, with a plugin that can kill the loop."""
    return _project(tmp_path / "killable")


def _project(folder: Path) -> Path:
    return make_project(
        folder, script=COUNTING, settings=SETTINGS, files={"plugins/killer.py": KILLER}
    )


def _go_on(project: Path, kill_at: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", GO_ON, str(project)],
        env={**os.environ, "KILL_AT": kill_at},
        stdout=subprocess.DEVNULL,
    )


def _table(project: Path) -> list[list[str]]:
    """results.tsv without the commits, whose trailers hold times."""
    rows = (project / "results.tsv").read_text().splitlines()
    return [row.split("\t")[1:] for row in rows]


def _starts(project: Path) -> list[str]:
    return (project / ".git" / "starts.txt").read_text().split()


def test_killed_after_every_kind_of_event_it_ends_the_same_way(
    killable: Path, tmp_path: Path
) -> None:
    """However often it is killed, the table is that of an undisturbed campaign, each run once."""
    autoresearch.start(killable, tag="t1")
    for kind in thinned(EVENTS, 4):
        process = _go_on(killable, kind)
        assert process.wait(timeout=60) in (-signal.SIGKILL, 0), kind
    assert _go_on(killable).wait(timeout=60) == 0
    calm = _project(tmp_path / "calm")
    autoresearch.start(calm, tag="t1").run(until=4, wait=False)
    assert _table(killable) == _table(calm)
    assert _starts(killable) == _starts(calm)


def test_start_that_was_killed_is_finished_by_the_next_run(killable: Path) -> None:
    """With the start recorded but the lab and the branch missing, run makes them."""
    campaign = autoresearch.start(killable, tag="t1")
    git(killable, "update-ref", "-d", "refs/heads/autoresearch/t1")
    (campaign.lab.folder / "lab" / "autoresearch-ready").unlink()
    campaign.run(1, wait=False)
    assert git(killable, "rev-parse", "autoresearch/t1") == git(killable, "rev-parse", "HEAD")


def test_second_loop_of_a_campaign_is_refused(killable: Path) -> None:
    """Two processes cannot run one campaign; the refusal names the holder."""
    campaign = autoresearch.start(killable, tag="t1")
    with campaign.log.writer("t1"), pytest.raises(StreamHeldError, match=str(os.getpid())):
        autoresearch.open_campaign(killable).run(1)


def test_other_plugins_are_refused_on_resume(killable: Path) -> None:
    """What is active is part of the campaign; a change has to be accepted, and is recorded."""
    campaign = autoresearch.start(killable, tag="t1")
    campaign.run(1, wait=False)
    with pytest.raises(PluginError, match="accept-plugin-changes"):
        campaign.run(1, plugins=("no:script_ideas",), wait=False)
    campaign.run(1, plugins=("no:script_ideas",), accept_plugin_changes=True, wait=False)
    resumed = [item for item in campaign.log.read() if item.type == "campaign_resumed"]
    assert "script_ideas" in resumed[-1].payload.split("accepted_changes")[1][:80]
    campaign.run(1, plugins=("no:script_ideas",), wait=False)
