"""An agent or a person drives: the loop's own steps, in their order, by whoever holds the lease."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import autoresearch
from autoresearch import Change, Verdict, Violation, hookimpl
from autoresearch.driving import HOW, Stand, due
from autoresearch.errors import ProtocolError, WorkspaceError
from autoresearch.history import LEASE_SECONDS
from autoresearch.testing import ScriptedIdeas, make_project, set_constant

from .conftest import SCRIPT, WORDS, wider

Step = Callable[..., Stand]
FRAME = {"campaign_started", "campaign_resumed", "campaign_stopped", "lease_taken"}


def history(project: Path) -> autoresearch.History:
    """The newest history of a project's campaign."""
    return autoresearch.open_campaign(project).history


def facts(project: Path) -> list[str]:
    """The types of all events but those that frame a process's work."""
    log = autoresearch.open_campaign(project).log
    return [record.type for record in log.read() if record.type not in FRAME]


def test_the_same_facts_as_the_loop_records(begun: Step, project: Path, tmp_path: Path) -> None:
    """Who drives an idea leaves the same events in the same order as the loop with that idea."""
    begun("review")
    wider(begun)
    begun("run")
    begun("analyze", "wider fits more", "width helps")
    stand = begun("decide")
    assert (stand.facts["verdict"], stand.next) == ("keep", "review")
    other = make_project(tmp_path / "other", script=SCRIPT)
    ideas = ("no:script_ideas", ScriptedIdeas([set_constant("WIDTH", 5)]))
    autoresearch.start(other, tag="t1", plugins=ideas).run(2, plugins=ideas, wait=False)
    assert facts(project) == facts(other)
    mine, loops = history(project).experiments[1], history(other).experiments[1]
    assert (mine.metrics, mine.verdict) == (loops.metrics, loops.verdict)
    assert mine.decision is not None
    assert loops.decision is not None
    assert mine.decision.reason == loops.decision.reason
    assert mine.analysis is not None
    assert (mine.analysis.author, mine.analysis.lesson) == ("codex", "width helps")


def test_no_step_can_be_skipped(begun: Step, project: Path) -> None:
    """Each step that is not due is refused with the one that is, and records nothing."""
    words: dict[str, tuple[Any, ...]] = {"analyze": ("because", "learn")}

    def refused(*steps: str, due: str) -> None:
        before = history(project).position
        for step in steps:
            given = {} if step != "reason" else {"description": "wider", **WORDS}
            with pytest.raises(ProtocolError, match=f"{step} is not the next step .*: {due} is"):
                begun(step, *words.get(step, ()), **given)
        assert history(project).position == before

    refused("reason", "edit", "run", "analyze", "decide", due="review")
    begun("review")
    refused("edit", "run", "analyze", "decide", due="reason")
    stand = begun("reason", "wider", **WORDS)
    assert stand.how.startswith("change the files in ")
    refused("reason", "run", "analyze", "decide", due="edit")
    begun("edit", files={"train.py": SCRIPT.replace("WIDTH = 4", "WIDTH = 5")})
    refused("reason", "edit", "analyze", "decide", due="run")
    begun("run")
    refused("reason", "edit", "run", "decide", due="analyze")
    begun("analyze", "wider fits more", "width helps")
    refused("reason", "edit", "run", "analyze", due="decide")
    assert begun("review").next == "decide"  # reading is never refused


def test_loop_and_driver_never_both_act(begun: Step, project: Path) -> None:
    """While somebody drives the loop refuses, and so does every other driver, in one line."""
    begun("review")
    campaign = autoresearch.open_campaign(project)
    with pytest.raises(WorkspaceError, match=r"is driven by codex since .*step release"):
        campaign.run(1, wait=False)
    with pytest.raises(WorkspaceError, match="is driven by codex"):
        begun("reason", "wider", by="ann", **WORDS)
    assert campaign.release() == "codex"
    with pytest.raises(WorkspaceError, match="nobody drives"):
        campaign.release()
    with (
        campaign.log.writer("t1"),
        pytest.raises(WorkspaceError, match=r"being written by loop .*autoresearch stop"),
    ):
        begun("review")
    begun("review", by="ann")
    lease = history(project).lease
    assert lease is not None
    assert lease.by == "ann"


def test_a_lease_lapses_in_silence(begun: Step, project: Path) -> None:
    """The loop takes over from a driver that is gone, and finishes its experiment."""
    begun("review")
    wider(begun)
    known = history(project)
    assert known.lease is not None
    assert not known.lease.lapsed(known)
    old = datetime.now(UTC) - timedelta(seconds=LEASE_SECONDS + 5)
    assert known.lease.lapsed(evolve(known, last_at=old.isoformat()))
    autoresearch.open_campaign(project).release()
    autoresearch.open_campaign(project).run(1, wait=False)
    assert history(project).experiments[1].verdict is Verdict.KEEP


def test_a_driver_finishes_what_the_loop_began(begun: Step, project: Path) -> None:
    """The log alone says what is due, whoever did the steps before."""
    begun("review")
    wider(begun)
    autoresearch.open_campaign(project).release()
    assert due(history(project)) == "run"
    begun("run", by="ann")
    stand = begun("analyze", "wider fits more", "width helps", by="ann")
    assert stand.next == "decide"


def test_reasons_are_whole_and_cite_what_exists(begun: Step, project: Path) -> None:
    """A block without one of its lines, or with an invented experiment, is refused."""
    begun("review")
    for name, gone in {"hypothesis": "", "evidence": (), "risk": ""}.items():
        with pytest.raises(ProtocolError, match=f"the reasoning has no {name}"):
            begun("reason", "wider", **{**WORDS, name: gone})
    with pytest.raises(ProtocolError, match="cites experiment 9, which is not there"):
        begun("reason", "wider", **{**WORDS, "cites": (0, 9)})
    with pytest.raises(ProtocolError, match="cites no experiment"):
        begun("reason", "wider", **{**WORDS, "cites": ()})
    assert history(project).current is None


def test_a_change_that_cannot_be_tried_may_be_corrected(begun: Step, project: Path) -> None:
    """Another file, no Python, no change: refused, and the experiment stays where it was."""
    begun("review")
    folder = Path(begun("reason", "wider", **WORDS).facts["folder"])
    with pytest.raises(WorkspaceError, match=r"nothing is changed in .* yet"):
        begun("edit")
    (folder / "other.py").write_text("1\n")
    with pytest.raises(WorkspaceError, match=r"changes other\.py; only train\.py may change"):
        begun("edit")
    (folder / "other.py").unlink()
    (folder / "train.py").write_text("print(\n")
    with pytest.raises(WorkspaceError, match="does not compile"):
        begun("edit")
    assert (folder / "train.py").read_text() == "print(\n"
    with pytest.raises(WorkspaceError, match=r"README\.md may not be changed"):
        begun("edit", files={"README.md": "hello"})
    (folder / "train.py").write_text(SCRIPT.replace("WIDTH = 4", "WIDTH = 6"))
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *name, "commit", "-qam", "mine"], cwd=folder, check=True)
    assert begun("edit").next == "run"  # a commit of its own is no way around
    commit = history(project).experiments[1].commit
    shown = subprocess.run(
        ["git", "log", "-1", "--format=%s", commit], cwd=project, capture_output=True, text=True
    )
    assert shown.stdout.startswith("Experiment 1: wider")


class Strict:
    """An audit that refuses a width of 9."""

    @hookimpl
    def audit_change(self, change: Change) -> list[Violation]:
        wide = "WIDTH = 9" in change.after
        return [Violation(rule="width", detail="9 is too wide")] if wide else []


def test_an_audit_drops_a_drivers_idea_too(project: Path, take: Step) -> None:
    """What is blocked is told and dropped; the memory must be read again before the next idea."""
    strict = Strict()
    made = autoresearch.start(project, tag="t1", plugins=[strict])
    made.run(1, plugins=[strict], wait=False)
    take("review", plugins=[strict])
    take("reason", "too wide", plugins=[strict], **WORDS)
    text = SCRIPT.replace("WIDTH = 4", "WIDTH = 9")
    stand = take("edit", files={"train.py": text}, plugins=[strict])
    assert stand.next == "review"
    assert "dropped, audit width: 9 is too wide" in stand.told[-1]
    assert "9 is too wide" in take("review", plugins=[strict]).facts["refused"][-1]


def test_limits_are_those_of_the_loop(project: Path, take: Step) -> None:
    """A gain too good to believe is quarantined, a spent budget and a pause refuse the next."""
    overrides = {"metric.implausible_gain": 0.01, "limits.experiments": 2}
    campaign = autoresearch.start(project, tag="t1", overrides=overrides)
    campaign.run(1, wait=False)
    take("review")
    wider(take, 6)
    campaign.pause("lunch")
    with pytest.raises(WorkspaceError, match=r"run has to wait: paused by .*lunch"):
        take("run")
    campaign.resume()
    take("run")
    take("analyze", "wider fits more", "width helps")
    assert take("decide").facts["verdict"] == "quarantine"
    with pytest.raises(WorkspaceError, match="the budget of 2 experiments is used up"):
        take("review")


def test_a_crash_may_be_fixed(begun: Step, project: Path) -> None:
    """After a crash the step edit commits a fix, as often as the limits say."""
    begun("review")
    begun("reason", "wider", **WORDS)
    begun("edit", files={"train.py": SCRIPT.replace("WIDTH = 4", "WIDTH = FOUR")})
    stand = begun("run")
    assert (stand.next, stand.facts["status"]) == ("analyze", "crashed")
    assert "NameError" in stand.facts["log_tail"]
    assert "fix it in its folder" in stand.told[-1]
    script = autoresearch.open_campaign(project).lab.workspace(1).script_path
    script.write_text(SCRIPT.replace("WIDTH = 4", "WIDTH = 6"))
    assert begun("edit").next == "run"
    assert begun("run").next == "analyze"
    begun("analyze", "wider fits more", "width helps")
    assert begun("decide").facts["verdict"] == "keep"
    assert history(project).experiments[1].fixes == 1


def test_a_long_run_is_watched_in_parts(begun: Step, project: Path) -> None:
    """The run goes on by itself between two looks at it, and is launched once."""
    begun("review")
    begun("reason", "slower", **WORDS)
    slow = "import time\ntime.sleep(1.5)\n" + SCRIPT.replace("WIDTH = 4", "WIDTH = 5")
    begun("edit", files={"train.py": slow})
    stand = begun("run", 0.1)
    assert (stand.next, stand.facts["status"]) == ("run", "running")
    assert begun("run").next == "analyze"
    assert [run.name for run in history(project).experiments[1].runs] == ["t1-1-0"]


def test_an_idea_of_the_queue_can_be_driven(begun: Step, project: Path) -> None:
    """What a person queued is taken by its id, with its patch, and leaves the queue."""
    campaign = autoresearch.open_campaign(project)
    source = SCRIPT.replace("WIDTH = 4", "WIDTH = 6")
    waiting = autoresearch.Idea(
        direction="width", description="six", hypothesis="six is better", source=source
    )
    campaign.add_idea(waiting)
    shown = begun("review").facts["queue"][0]
    assert shown["description"] == "six"
    begun("reason", queued=shown["id"], risk="none", cites=(0,), evidence=("a person said so",))
    begun("edit")
    experiment = history(project).experiments[1]
    assert experiment.idea.description == "six"
    assert not history(project).queue
    assert set(HOW) == {"review", "reason", "edit", "run", "analyze", "decide"}
