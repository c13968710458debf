"""Reruns, going back, quarantine and what a kill between two facts leaves, in the real loop."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoresearch
from autoresearch import (
    Backtrack,
    Campaign,
    Candidate,
    Change,
    Decision,
    History,
    Idea,
    Objection,
    RunHandle,
    RunRequest,
    Verdict,
    Violation,
    hookimpl,
)
from autoresearch.cycle.recorder import Recorder
from autoresearch.errors import ProtocolError
from autoresearch.events import Decided, IdeaProposed
from autoresearch.log.journal import JournalFile
from autoresearch.plugins import Plugins
from autoresearch.testing import FakeLauncher, ScriptedIdeas, make_project, set_constant
from autoresearch.testing.fakes import FakeRun

BASE = ("no:script_ideas",)
SHOUTING = "WIDTH = 4\nprint('score: 1')\n"


def types(campaign: Campaign) -> list[str]:
    """The types of the campaign's events, in order."""
    return [record.type for record in campaign.log.read(campaign=campaign.tag)]


class Asks:
    """Asks for another run of experiment 1 until it had so many."""

    def __init__(self, runs: float) -> None:
        self.runs = runs

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision | None:
        if candidate.experiment.number == 1 and len(candidate.experiment.runs) < self.runs:
            return Decision(verdict=Verdict.RERUN, reason="once more", author="asks")
        return None


class BySeed:
    """A launcher whose score depends on the seed: 1337 gives 1.00, 1338 gives 0.90, and so on."""

    def __init__(self) -> None:
        self.started: list[str] = []

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        if request.launcher != "fake":
            return None
        score = 2.0 if request.experiment == 0 else 1.0 - 0.1 * (request.seed - 1337)
        inner = FakeLauncher([f"score: {score}\n"])
        handle = inner.launch_run(request)
        self.started += inner.started
        return handle


def begun(project: Path, plugins: tuple[object, ...], **limits: float) -> Campaign:
    """Start a campaign with the fake launcher."""
    overrides = {"launcher": "fake", **{f"limits.{key}": value for key, value in limits.items()}}
    return autoresearch.start(project, tag="t1", overrides=overrides, plugins=plugins)


def wider(*widths: int) -> ScriptedIdeas:
    """Ideas that set WIDTH, one after another."""
    return ScriptedIdeas([set_constant("WIDTH", width) for width in widths])


def test_rerun_is_judged_by_the_mean_of_its_seeds(project: Path) -> None:
    """A policy that asks once gets one more run with the next seed, and the mean is judged."""
    launcher = BySeed()
    plugins = (*BASE, wider(6), launcher, Asks(2))
    made = begun(project, plugins)
    made.run(2, plugins=plugins, wait=False)
    tried = made.history.experiments[1]
    assert [run.seed for run in tried.runs] == [1337, 1338]
    assert made.history.score(tried) == pytest.approx(0.95)
    assert tried.verdict is Verdict.KEEP
    assert launcher.started == ["t1-0-0", "t1-1-0", "t1-1-1"]
    assert types(made).count("decided") == 3
    assert types(made).count("lesson_learned") == 2


def test_policy_that_asks_for_ever_is_stopped(project: Path) -> None:
    """limits.reruns holds whatever a policy answers, and the reason names it."""
    plugins = (*BASE, wider(6), BySeed(), Asks(float("inf")))
    made = begun(project, plugins, reruns=2)
    made.run(2, plugins=plugins, wait=False)
    tried = made.history.experiments[1]
    assert len(tried.runs) == 3
    assert tried.verdict is Verdict.DISCARD
    assert tried.decision is not None
    assert tried.decision.reason == "asks wanted more than 2 reruns (limits.reruns)"


def test_budget_is_asked_before_every_run(project: Path) -> None:
    """Two seconds of runs, of a second at the most: the third run is not started."""
    launcher = BySeed()
    plugins = (*BASE, wider(6), launcher, Asks(float("inf")))
    made = begun(project, plugins, hours=2 / 3600, reruns=50, timeout_seconds=1.0)
    assert "hours is used up" in made.run(plugins=plugins, wait=False)
    assert launcher.started == ["t1-0-0", "t1-1-0"]
    assert made.history.experiments[1].verdict is Verdict.RERUN
    assert "budget_exhausted" in types(made)


class Fails(FakeLauncher):
    """A launcher of a machine that fails every time."""

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        handle = super().launch_run(request)
        if handle is None or request.experiment == 0:
            return handle
        kept = handle.log_path.parent / "fake.json"
        kept.write_text('{"status": "infra_failed", "exit_code": null, "seconds": 1.0}')
        return FakeRun(request.name, handle.log_path)


def test_failed_machine_is_tried_again_and_never_judged(project: Path) -> None:
    """limits.infra_retries further runs at once, then the loop waits, or ends when it may not."""
    launcher = Fails([2.0, 1.0])
    plugins = (*BASE, wider(6), launcher)
    made = begun(project, plugins, infra_retries=2)
    reason = made.run(2, plugins=plugins, wait=False)
    assert reason == "no run of experiment 1 could be made: the machine failed"
    assert launcher.started == ["t1-0-0", "t1-1-0", "t1-1-1", "t1-1-2"]
    assert made.history.experiments[1].verdict is None


class Rule:
    """A rule that always wants to go to the experiments that it is given, in turn."""

    def __init__(self, after: int, *targets: int) -> None:
        self.after, self.targets, self.asked = after, targets, 0

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        if len(history.decided) != self.after:
            return None
        self.asked += 1
        target = self.targets[self.asked % len(self.targets)]
        return Backtrack(signal="regression", reason="a test wants it", to_experiment=target)


def test_head_moves_once_for_a_decision(project: Path) -> None:
    """A rule that wants to and fro moves head one time."""
    rule = Rule(3, 0, 1)
    plugins = (*BASE, wider(6, 5), FakeLauncher([3.0, 2.0, 1.0]), rule)
    made = begun(project, plugins)
    made.run(3, plugins=plugins, wait=False)
    assert types(made).count("backtracked") == 1
    assert made.history.head == 1
    assert rule.asked > 1


def test_going_where_head_is_is_no_move(project: Path) -> None:
    """A rule that names head itself records nothing."""
    rule = Rule(3, 2)
    plugins = (*BASE, wider(6, 5), FakeLauncher([3.0, 2.0, 1.0]), rule)
    made = begun(project, plugins)
    made.run(3, plugins=plugins, wait=False)
    assert made.history.head == 2
    assert rule.asked > 0
    assert "backtracked" not in types(made)


def test_no_idea_before_the_memory_was_read(project: Path) -> None:
    """Each proposal but the baseline's has a review of its own, since the last decision."""
    plugins = (*BASE, wider(6, 5, 4), FakeLauncher([4.0, 3.0, 2.0, 1.0]))
    made = begun(project, plugins)
    made.run(4, plugins=plugins, wait=False)
    told = [name for name in types(made) if name in ("memory_reviewed", "idea_proposed", "decided")]
    assert (
        told
        == ["idea_proposed", "decided"]
        + [
            "memory_reviewed",
            "idea_proposed",
            "decided",
        ]
        * 3
    )
    assert made.history.reviewed is None


@pytest.mark.parametrize(("release", "verdict"), [(True, "keep"), (False, "discard")])
def test_quarantine_waits_for_a_person(project: Path, release: bool, verdict: str) -> None:
    """What is too good is neither kept nor built on until a person says so."""
    ideas, launcher = wider(6, 5, 3), FakeLauncher([3.0, 0.1, 2.9, 2.8])
    plugins = (*BASE, ideas, launcher)
    overrides = {"launcher": "fake", "metric.implausible_gain": 1.0}
    made = autoresearch.start(project, tag="t1", overrides=overrides, plugins=plugins)
    made.run(3, plugins=plugins, wait=False)
    doubted = made.history.experiments[1]
    assert doubted.verdict is Verdict.QUARANTINE
    assert (made.history.head, made.history.best_number) == (2, 2)
    assert made.history.experiments[2].parent_commit == made.history.experiments[0].commit
    made.resolve_quarantine(1, release=release, reason="looked at it")
    assert made.history.experiments[1].verdict == verdict
    assert made.history.best_number == (1 if release else 2)
    made.run(1, plugins=plugins, wait=False)
    built_on = made.history.experiments[1 if release else 2].commit
    assert made.history.experiments[3].parent_commit == built_on
    assert types(made).count("backtracked") == int(release)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may handle it."""


class Doubts:
    """Objects to a direction, finds fault with a width, and fixes every crash."""

    @hookimpl
    def review_idea(self, idea: Idea) -> list[Objection]:
        return [Objection(author="doubts", reason="no")] if idea.direction == "doubtful" else []

    @hookimpl
    def audit_change(self, change: Change) -> list[Violation]:
        return [Violation(rule="width", detail="too wide")] if "WIDTH = 99" in change.after else []

    @hookimpl
    def implement_idea(self, idea: Idea) -> str | None:
        return "WIDTH = 5\nprint('score:', sum(range(WIDTH)))\n" if idea.kind == "fix" else None


def doubting() -> tuple[object, ...]:
    """Ideas that are predicted, objected to, refused by the audit, and crash and are fixed."""
    predicted = Idea(
        direction="w", description="w7", hypothesis="h", env={"WIDTH": "7"}, predicted=2.5
    )
    ideas = ScriptedIdeas(
        [
            set_constant("WIDTH", 99),
            predicted,
            set_constant("WIDTH", 3, direction="doubtful"),
            set_constant("WIDTH", 6),
        ]
    )
    return (*BASE, ideas, FakeLauncher([3.0, 2.0, None]), Doubts(), Flat())


class Flat:
    """Declares a plateau and goes back to the baseline after experiment 1."""

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        if len(history.decided) != 2 or history.plateaus:
            return None
        return Backtrack(signal="plateau", reason="a test wants it", to_experiment=0)


def test_kill_before_any_append_loses_no_fact(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each of its appends in turn, a campaign records what an undisturbed one does."""
    calm = begun(make_project(tmp_path / "calm", script=SHOUTING), doubting(), crash_fixes=1)
    calm.run(until=3, plugins=doubting(), wait=False)
    made, append = begun(project, doubting(), crash_fixes=1), JournalFile.append

    for allowed in range(100):
        left = [allowed]

        def killing(self: JournalFile, data: bytes, last: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            append(self, data, last)

        with monkeypatch.context() as patched:
            patched.setattr(JournalFile, "append", killing)
            try:
                autoresearch.open_campaign(project).run(until=3, plugins=doubting(), wait=False)
                break
            except Killed:
                continue
    assert facts(made) == facts(calm)
    assert {"prediction_scored", "idea_objected", "audit_failed", "fix_attempted"} <= {*facts(made)}
    together = [("plateau_declared", "backtracked"), ("fix_attempted", "commit_made")]
    assert all(pair in zip(facts(made), facts(made)[1:], strict=False) for pair in together)


def facts(campaign: Campaign) -> list[str]:
    """The types of what is recorded once, however often the loop starts again."""
    again = ("campaign_resumed", "campaign_stopped", "memory_reviewed")
    return [name for name in types(campaign) if name not in again]


def test_head_moves_once_for_a_decision_however_often_the_loop_starts(project: Path) -> None:
    """What was done about a decision is read from the log, so a restart does not do it again."""
    plugins = (*BASE, wider(6, 5), FakeLauncher([3.0, 2.0, 1.0]), Rule(3, 0, 1))
    made = begun(project, plugins)
    for _ in range(3):
        made.run(until=3, plugins=plugins, wait=False)
    assert types(made).count("backtracked") == 1


def test_facts_out_of_order_are_refused_together(project: Path) -> None:
    """The protocol is asked about each fact after those before it; one refusal refuses all."""
    plugins = (*BASE, FakeLauncher([1.0]))
    made = begun(project, plugins)
    with made.log.writer("t1") as writer:
        recorder = Recorder(made.log, writer, Plugins.load(made.config, project), made.history)
        proposed = IdeaProposed(
            experiment=0, idea="b", direction="b", description="b", hypothesis="h",
            author="g", risk="r",
        )  # fmt: skip
        decided = Decided(experiment=0, verdict="keep", reason="r", author="p")
        with pytest.raises(ProtocolError, match="has no analysis"):
            recorder.record_many([(proposed, None), (decided, None)])
    assert "idea_proposed" not in types(made)
