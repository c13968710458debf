"""Authors and the loop: what is on their desk, how they hear refusals, and when they rest."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from facts import facts

import autoresearch
from autoresearch import (
    Campaign,
    Cost,
    Desk,
    History,
    Idea,
    OutageError,
    Remark,
    SuspendedError,
    ValueChange,
    Violation,
    events,
    hookimpl,
)
from autoresearch.cycle.proposals import untrue
from autoresearch.errors import PluginError
from autoresearch.testing import idea, story

Begin = Callable[..., Campaign]


def rate(source: str, value: float) -> Idea:
    """An idea that sets the rate."""
    return Idea(
        direction="rate",
        description=f"RATE = {value}",
        hypothesis="a smaller rate is nearer",
        source=re.sub(r"RATE = [\d.]+", f"RATE = {value}", source),
    )


class Mind:
    """Answers with what ``think`` makes of the desk."""

    def __init__(self, think: Callable[[History, str, Desk], Any]) -> None:
        self.think = think

    @hookimpl
    def propose_idea(self, history: History, source: str, desk: Desk) -> Any:
        return self.think(history, source, desk)


class Other(Mind):
    """Another author."""


def test_the_desk_has_what_a_researcher_would_look_up(campaign: Begin) -> None:
    """Memory, source, diff, output and curve of what was tried; a copy of head without a lab."""
    seen: dict[str, Any] = {}

    def think(history: History, source: str, desk: Desk) -> Idea:
        if history.next_number == 2:
            run = history.experiments[1].runs[0].name
            with desk.scratch() as copy:
                seen["copy"] = sorted(path.name for path in copy.iterdir())
                (copy / "train.py").write_text("nothing of this is kept")
            seen.update(
                review=desk.review(),
                source=desk.source(1)["train.py"],
                diff=desk.diff(1),
                tail=desk.log_tail(run),
                curve=dict(desk.curve(run)),
                left=desk.usd_left,
            )
        return rate(source, round(0.4 - 0.01 * history.next_number, 3))

    campaign(3, plugins=(Mind(think),))
    assert "best: experiment 1 with 1.18" in seen["review"]
    assert "RATE = 0.39" in seen["source"]
    assert "-RATE = 0.5" in seen["diff"]
    assert "+RATE = 0.39" in seen["diff"]
    assert "score: " in seen["tail"]
    assert "train.py" in seen["copy"]
    assert ".git" not in seen["copy"]
    assert seen["left"] is None


def test_what_is_not_there_is_said(campaign: Begin) -> None:
    """An experiment or a run that does not exist is one line with what to ask for."""
    desk = Desk(history=campaign(1).history)
    with pytest.raises(PluginError, match="there is no experiment 7"):
        desk.diff(7)
    with pytest.raises(PluginError, match="there is no run 'other'"):
        desk.curve("other")
    assert desk.log_tail("other") == ""


def test_a_command_has_a_deadline_and_leaves_nobody_behind(tmp_path: Path) -> None:
    """What it prints comes back; after the deadline it and its children are gone."""
    desk = Desk(history=History())
    code = "import sys; print(sys.stdin.read()[::-1]); sys.exit(3)"
    done = desk.run([sys.executable, "-c", code], tmp_path, text="abc")
    assert (done.exit_code, done.output, done.stopped) == (3, "cba\n", "")
    child = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "print(p.pid, flush=True); p.wait()"
    )
    start = time.monotonic()
    done = desk.run([sys.executable, "-c", code], tmp_path, seconds=1.0)
    assert time.monotonic() - start < 10
    assert done.exit_code is None
    assert "not done after 1 s" in done.stopped
    assert not psutil.pid_exists(int(done.output)) or (
        psutil.Process(int(done.output)).status() == psutil.STATUS_ZOMBIE
    )


def test_a_command_sees_no_secret(
    campaign: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in the environment stay away unless they are passed by name."""
    monkeypatch.setenv("SOME_API_KEY", "secret")
    seen = []

    def think(history: History, source: str, desk: Desk) -> Idea:
        code = "import os; print(os.environ.get('SOME_API_KEY'))"
        command = [sys.executable, "-c", code]
        seen.append(desk.run(command, tmp_path).output)
        seen.append(desk.run(command, tmp_path, passed=["SOME_API_KEY"]).output)
        return rate(source, 0.4)

    campaign(2, plugins=(Mind(think),))
    assert seen == ["None\n", "secret\n"]


def test_questions_answers_and_money_are_recorded_at_once(campaign: Begin) -> None:
    """The texts are stored by digest and the money counts before the idea is known."""

    def think(history: History, source: str, desk: Desk) -> Idea:
        desk.asked("tiny", "you research", "what next?")
        cost = Cost(tokens_in=10, tokens_out=5, usd=0.25)
        desk.answered("tiny-2", "RATE = 0.4", cost, request="r1", tokens_cached=4)
        return rate(source, 0.4)

    done = campaign(2, plugins=(Mind(think),))
    asked, answered = facts(done, events.MindAsked, events.MindAnswered)
    assert [done.log.sources.get(name) for name in asked.prompt] == ["you research", "what next?"]
    assert (asked.purpose, asked.experiment) == ("propose_idea", 1)
    assert done.log.sources.get(answered.answer) == "RATE = 0.4"
    assert (answered.model, answered.request, answered.tokens_cached) == ("tiny-2", "r1", 4)
    assert done.history.spent.usd == pytest.approx(0.25)
    assert done.history.spent.tokens == 15


class Strict:
    """Audits away every rate under a limit."""

    @hookimpl
    def audit_change(self, change: Any) -> list[Violation]:
        low = "RATE = 0.1" in change.after
        return [Violation(rule="too_low", detail="rates under 0.2 are not allowed")] if low else []


def test_a_refusal_comes_back_to_its_author(campaign: Begin) -> None:
    """An audited-away idea is on the author's desk, with the stage and the reason."""
    seen: list[Any] = []

    def think(history: History, source: str, desk: Desk) -> Idea:
        seen.append([(item.stage, item.reason) for item in desk.refused])
        return rate(source, 0.4 if desk.refused else 0.1)

    done = campaign(2, plugins=(Strict(), Mind(think)))
    assert seen[0] == []
    assert seen[1] == [("audit", "audit too_low: rates under 0.2 are not allowed")]
    assert done.history.experiments[1].idea.description == "RATE = 0.4"


def test_an_author_that_is_refused_twice_starves_nobody(campaign: Begin) -> None:
    """The next author has the turn, and the refused one is asked again for the next experiment."""
    calls = []

    def stubborn(history: History, source: str, desk: Desk) -> Idea:
        calls.append(history.next_number)
        return rate(source, 0.1)

    def other(history: History, source: str, desk: Desk) -> Idea:
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    done = campaign(3, plugins=(Strict(), Other(other), Mind(stubborn)))
    assert len(done.history.decided) == 3
    assert calls == [1, 1, 2, 2]


def test_a_mind_without_a_key_is_suspended_and_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A permanent failure is asked once; the next author goes on; status and a notice say it."""
    calls, told, notices = [], [], []

    def broken(history: History, source: str, desk: Desk) -> Idea:
        calls.append(history.next_number)
        raise SuspendedError("the key is wrong; set MY_KEY")

    def other(history: History, source: str, desk: Desk) -> Idea:
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    class Ear:
        @hookimpl
        def notify(self, notice: Any) -> None:
            notices.append((notice.kind, notice.text))

    plugins = (Ear(), Other(other), Mind(broken), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(4, plugins=plugins, wait=False, tell=told.append)
    assert calls == [1]
    assert len(made.history.decided) == 4
    assert sum("the key is wrong" in line for line in told) == 2  # the failure, and what it means
    assert any(kind == "needs_human" and "the key is wrong" in text for kind, text in notices)
    (event,) = facts(made, events.MindSuspended)
    assert event.permanent
    made.resume()
    assert not made.history.suspended


def test_a_mind_that_is_down_rests_and_answers_again(project: Path) -> None:
    """It is not asked at every experiment, and what it missed is said once it is back."""
    calls: list[int] = []

    def flaky(history: History, source: str, desk: Desk) -> Idea:
        calls.append(history.next_number)
        if len(calls) < 3:
            raise OutageError("503")
        return rate(source, 0.2)

    def other(history: History, source: str, desk: Desk) -> Idea:
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    class Hurried(autoresearch.campaign.Clock):  # type: ignore[name-defined, misc]
        """An hour passes at every look."""

        hours = 0.0

        def now(self) -> float:
            Hurried.hours += 8.0
            return Hurried.hours

        def sleep(self, seconds: float) -> None:
            time.sleep(min(seconds, 0.02))

    plugins = (Other(other), Mind(flaky), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(12, plugins=plugins, wait=False, clock=Hurried())
    assert len(calls) >= 3
    assert len(set(calls)) < 11
    rests = facts(made, events.MindSuspended)
    assert [item.seconds for item in rests] == [30.0, 60.0]
    assert len(facts(made, events.MindResumed)) == 1
    assert not made.history.suspended


def test_a_mind_that_is_down_again_rests_again(project: Path) -> None:
    """What it rested before it last answered does not count: it has its whole rest each time."""
    calls: list[int] = []

    class Still(autoresearch.campaign.Clock):  # type: ignore[name-defined, misc]
        """Stands, but for what the test lets pass."""

        seconds = 0.0

        def now(self) -> float:
            return Still.seconds

        def sleep(self, seconds: float) -> None:
            time.sleep(min(seconds, 0.02))

    def flaky(history: History, source: str, desk: Desk) -> Idea:
        calls.append(history.next_number)
        if history.next_number != 3:
            raise OutageError("503")
        return rate(source, 0.2)

    def other(history: History, source: str, desk: Desk) -> Idea:
        Still.seconds += 40.0 if history.next_number == 2 else 0.0
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    plugins = (Other(other), Mind(flaky), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(6, plugins=plugins, wait=False, clock=Still())
    assert calls == [1, 3, 4]
    assert [item.seconds for item in facts(made, events.MindSuspended)] == [30.0, 30.0]


def test_a_mind_that_is_down_can_be_waited_for(project: Path) -> None:
    """With ``mind_down = "wait"`` nobody behind it is asked; the loop pauses until it answers."""
    calls: list[int] = []

    class Quick(autoresearch.campaign.Clock):  # type: ignore[name-defined, misc]
        """Passes as fast as the loop sleeps."""

        seconds = 0.0

        def now(self) -> float:
            return Quick.seconds

        def sleep(self, seconds: float) -> None:
            Quick.seconds += seconds
            time.sleep(0.001)

    def flaky(history: History, source: str, desk: Desk) -> Idea:
        calls.append(history.next_number)
        if len(calls) < 3:
            raise OutageError("503")
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    plugins = (Mind(flaky),)  # and script_ideas, which would answer
    settings = {"mind_down": "wait"}
    made = autoresearch.start(project, tag="t1", plugins=plugins, overrides=settings)
    lines: list[str] = []
    assert "503" in made.run(2, plugins=plugins, wait=False)
    assert len(made.history.experiments) == 1
    made.run(2, plugins=plugins, clock=Quick(), tell=lines.append)
    assert [item.idea.author for item in made.history.experiments[1:]] == ["mind", "mind"]
    assert calls == [1, 1, 1, 2]
    assert any("503" in line and "waiting" in line for line in lines)


def test_words_wait_for_a_mind_that_is_suspended(project: Path) -> None:
    """A mind that cannot answer has not passed: the person's words stay in the queue."""

    class Coder:
        def __init__(self) -> None:
            self.calls = 0

        @hookimpl
        def implement_idea(self) -> str:
            self.calls += 1
            raise SuspendedError("no credit")

    coder = Coder()
    plugins = (coder,)  # and script_ideas, which the queue goes before
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(1, plugins=plugins, wait=False)
    made.add_idea(Idea(direction="words", description="halve it", hypothesis="smaller is better"))
    made.run(3, plugins=plugins, wait=False)
    assert coder.calls == 1
    (waiting,) = made.history.queue.values()
    assert (waiting.description, waiting.waits_for) == ("halve it", "outage")
    assert len(made.history.decided) == 4


def test_what_is_said_of_ten_experiments_is_true_of_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An author is asked once, what is untrue is left out, and rules speak where it fails."""
    monkeypatch.setattr("autoresearch.projections.memory.DIGEST_EVERY", 2)  # so that it is quick
    asked: list[int] = []

    class Historian(Mind):
        @hookimpl
        def summarize(self, history: History, since: int) -> list[Remark]:
            asked.append(since)
            if since > 1:
                raise PluginError("no words")
            score = history.score(history.experiments[1])
            return [
                Remark(text=f"a smaller rate helps:\n{score:.2f} in 1", cites=(1, 2)),
                Remark(text="0.123 was reached", cites=(1,)),
                Remark(text="nothing helps", cites=(99,)),
                *(Remark(text=f"go {way}", cites=(2,)) for way in ("on", "up", "down")),
            ]

    def think(history: History, source: str, desk: Desk) -> Idea:
        return rate(source, round(0.45 - 0.01 * history.next_number, 3))

    plugins = (Historian(think), "no:script_ideas")
    lines: list[str] = []
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(6, plugins=plugins, wait=False, tell=lines.append)
    assert asked == [1, 3]
    (written,) = facts(made, events.DigestWritten)
    assert (written.first, written.last, written.author) == (1, 2, "historian")
    said = f"a smaller rate helps: {made.history.score(made.history.experiments[1]):.2f} in 1"
    assert written.remarks == (f"{said} (1 keep, 2 keep)", "go on (2 keep)", "go up (2 keep)")
    told = [item.reason for item in facts(made, events.ProposalRefused) if item.stage == "digest"]
    assert told == [
        "0.123 is no number of experiment 1: 0.123 was reached",
        "it cites experiment 99, which was not decided",
    ]
    assert any("experiments 3 to 4: no mind worded it, so the rules do" in line for line in lines)
    notes = (project / "notes.md").read_text()
    assert f"{said} (1 keep, 2 keep)" in notes
    assert "Looking back on experiments 3 to 4: 2 of 2 kept" in notes


SAID = {
    "a gain of 0.1 by RATE 0.5 -> 0.25": "",
    "RATE at 0.25 scored 0.90": "",
    "RATE at 0.25 scored 0.95": "0.95 is no number",
    "it fell by 10 %": "10 is no number",
    "after 2 experiments": "",
    "1e3 steps": "1e3 is no number",
}


@pytest.mark.parametrize("text", SAID)
def test_numbers_of_a_remark_are_those_of_its_experiments(text: str) -> None:
    """To the digits that are given; of others, and of none, it is not true."""
    change = ValueChange(name="RATE", old=0.5, new=0.25)
    told = story([1.0]).add(0.9, idea=idea("RATE 0.5 -> 0.25", changes=(change,))).history
    found = untrue(Remark(text=text, cites=(1,)), told)
    assert found.startswith(SAID[text])
    assert bool(found) is bool(SAID[text])
    assert untrue(Remark(text="words", cites=()), told) == "no cites"
