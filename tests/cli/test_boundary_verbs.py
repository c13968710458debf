"""Generated code does not take part as the person: not by a verb, not through the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Idea
from autoresearch.errors import WorkspaceError
from autoresearch.launchers import environment
from autoresearch.testing import make_project

SCRIPT = """
import os, subprocess, sys
env = {name: value for name, value in os.environ.items() if name != "AUTORESEARCH_RUN"}
for words in (["note", "a run was here"], ["idea", "add", "mine"]):
    done = subprocess.run([sys.executable, "-m", "autoresearch", *words, "--project", "PROJECT"],
                          env=env, capture_output=True, text=True)
    print(done.returncode, done.stderr.strip(), flush=True)
print("score: 1.0")
"""


def test_a_run_that_hides_what_it_is_is_refused(tmp_path: Path) -> None:
    """Without the marker in its environment it still is a child of its supervisor."""
    script = SCRIPT.replace("PROJECT", str(tmp_path / "project"))
    project = make_project(tmp_path / "project", script=script)
    overrides = {"boundary.kind": "none"}
    campaign = autoresearch.start(project, tag="t1", overrides=overrides)
    campaign.run(1, plugins=("no:script_ideas",), accept_plugin_changes=True, wait=False)
    log = next((project / ".autoresearch" / "t1" / "runs").glob("*.control/run.log")).read_text()
    assert log.count("is inside the run") == 2, log
    assert not campaign.history.queue
    with campaign.connect() as connection:
        query = "select count(*) from events where type in ('note_added', 'idea_queued')"
        assert connection.execute(query).fetchall() == [(0,)]


def test_the_library_refuses_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what this is, and what a run can do instead."""
    campaign = autoresearch.start(make_project(tmp_path / "project"), tag="t1")
    monkeypatch.setenv("AUTORESEARCH_RUN", "/runs/t1-1-0")
    refused = "inside the run /runs/t1-1-0, and a run does not take part"
    with pytest.raises(WorkspaceError, match=refused):
        campaign.add_note("a run was here")
    with pytest.raises(WorkspaceError, match=refused):
        campaign.add_idea(Idea(direction="d", description="d", hypothesis="h", env={"A": "1"}))


def test_status_says_which_boundary_is_on(say, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text and as JSON, with the reason where there is none."""
    assert say("init", "--tag", "t1").code == 0
    monkeypatch.setattr(environment, "no_bubblewrap", lambda: "bwrap is not installed")
    assert "boundary:     none (bwrap is not installed)\n" in say("status").out
    monkeypatch.setattr(environment, "no_bubblewrap", lambda: "")
    assert json.loads(say("status", "--json").out)["boundary"] == "bubblewrap"
