"""What a campaign does, experiment after experiment, on a real project with real runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import autoresearch
from autoresearch import (
    Backtrack,
    Campaign,
    Change,
    Cost,
    Decision,
    Idea,
    RunOutput,
    Verdict,
    Violation,
    hookimpl,
)
from autoresearch.durable import digest
from autoresearch.projections.files import ResultsTsv
from autoresearch.testing import RecordingObserver, ScriptedIdeas, git, set_constant

Go = Callable[..., Campaign]


def types(campaign: Campaign) -> list[str]:
    """The types of the campaign's events, in order."""
    return [record.type for record in campaign.log.read(campaign=campaign.tag)]


def test_baseline_runs_first_and_as_it_is(campaign: Go, project: Path) -> None:
    """Experiment 0 is the committed script, kept, at the commit the campaign started from."""
    made = campaign(1)
    baseline = made.history.baseline
    assert baseline is not None
    assert baseline.verdict is Verdict.KEEP
    assert baseline.commit == git(project, "rev-parse", "HEAD")
    assert made.history.score(baseline) == pytest.approx(1.29)


def test_one_experiment_leaves_the_events_of_the_protocol(campaign: Go) -> None:
    """Review, idea, reasoning, change, audit, commit, run, analysis, decision: in this order."""
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]),))
    listed = types(made)
    second = listed[listed.index("memory_reviewed") :]
    assert second == [
        "memory_reviewed",
        "idea_proposed",
        "reasoning_recorded",
        "change_applied",
        "audit_passed",
        "commit_made",
        "run_requested",
        "run_started",
        "cost_incurred",
        "run_finished",
        "metrics_extracted",
        "analysis_recorded",
        "lesson_learned",
        "decided",
        "campaign_stopped",
    ]


def test_improvement_is_kept_and_regression_is_reset(campaign: Go, project: Path) -> None:
    """The branch holds the kept commits only; a discarded one stays reachable under its ref."""
    ideas = ScriptedIdeas([set_constant("WIDTH", 6), set_constant("WIDTH", 1)])
    made = campaign(3, plugins=(ideas,))
    verdicts = [item.verdict for item in made.history.experiments]
    assert verdicts == [Verdict.KEEP, Verdict.KEEP, Verdict.DISCARD]
    kept, lost = made.history.experiments[1].commit, made.history.experiments[2].commit
    assert git(project, "rev-parse", "autoresearch/t1") == kept
    assert git(project, "rev-parse", "refs/autoresearch/t1/2") == lost
    assert "WIDTH = 1" in git(project, "show", f"{lost}:train.py")


def test_users_checkout_stays_as_it_was(campaign: Go, project: Path) -> None:
    """Branch, index, worktrees, stash, configuration and hooks are untouched; nothing pushes."""
    before = _everything(project)
    campaign(3, plugins=(ScriptedIdeas([set_constant("WIDTH", 6), set_constant("WIDTH", 1)]),))
    assert _everything(project) == before
    assert git(project / ".autoresearch" / "t1" / "lab", "remote") == ""


def _everything(project: Path) -> list[str]:
    shown = [
        git(project, "rev-parse", "HEAD"),
        git(project, "symbolic-ref", "HEAD"),
        git(project, "diff", "HEAD"),
        git(project, "ls-files", "--stage"),
        git(project, "worktree", "list"),
        git(project, "stash", "list"),
        (project / ".git" / "config").read_text(),
        (project / "train.py").read_text(),
    ]
    return [*shown, *sorted(path.name for path in (project / ".git" / "hooks").iterdir())]


def test_hooks_of_the_user_do_not_run(campaign: Go, project: Path) -> None:
    """A pre-commit hook or a reference-transaction hook of the user is never started by us."""
    for name in ("pre-commit", "commit-msg", "reference-transaction", "post-checkout"):
        hook = project / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {project}/ran-{name}\nexit 1\n")
        hook.chmod(0o755)
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]),))
    assert len(made.history.kept) == 2
    assert not list(project.glob("ran-*"))


def test_reasoning_cites_an_earlier_experiment(campaign: Go) -> None:
    """Every experiment but the baseline cites what was read, whatever the generator says."""
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]),))
    reasoning = made.history.experiments[1].reasoning
    assert reasoning is not None
    assert reasoning.cites == (0,)
    assert reasoning.read_to > 0


def test_crash_of_an_idea_is_recorded_and_the_loop_goes_on(campaign: Go, project: Path) -> None:
    """A script that raises is a crash row with 0.000000 and 0.0, and the next idea runs."""
    ideas = ScriptedIdeas([_replace("import os", "import os\n1 / 0"), set_constant("WIDTH", 6)])
    made = campaign(3, plugins=(ideas,))
    crashed = made.history.experiments[1]
    assert crashed.verdict is Verdict.CRASH
    assert made.history.score(crashed) is None
    row = (project / "results.tsv").read_text().splitlines()[2].split("\t")
    assert row[1:4] == ["0.000000", "0.0", "crash"]
    assert made.history.experiments[2].verdict is Verdict.KEEP


def _replace(old: str, new: str) -> Callable[[str], Idea]:
    def propose(source: str) -> Idea:
        return Idea(
            direction="edit",
            description=f"replace {old!r} by {new!r}",
            hypothesis="a test wants it",
            source=source.replace(old, new),
        )

    return propose


def test_missing_import_is_mended_and_run_again(campaign: Go) -> None:
    """A NameError for a module of the standard library gets its import, once, as an event."""
    ideas = ScriptedIdeas([_replace("WIDTH = 4", "WIDTH = math.floor(6.5)")])
    made = campaign(2, plugins=(ideas,))
    mended = made.history.experiments[1]
    assert mended.fixes == 1
    assert len(mended.runs) == 2
    assert mended.verdict is Verdict.KEEP
    assert "import math\n" in made.lab.files_at(mended.commit)["train.py"]


class _Counting:
    """Counts the audits, and refuses what it is told to."""

    def __init__(self, refuse: str = "") -> None:
        self.seen: list[str] = []
        self._refuse = refuse

    @hookimpl
    def audit_change(self, change: Change) -> list[Violation]:
        self.seen.append(change.idea.kind.value)
        refused = bool(self._refuse) and self._refuse in change.after
        return [Violation(rule="X", detail="a test refuses it")] if refused else []


def test_each_change_is_audited_once(campaign: Go) -> None:
    """The idea and its mending go past the auditors one time each: audits can be dear."""
    audit = _Counting()
    ideas = ScriptedIdeas([_replace("WIDTH = 4", "WIDTH = math.floor(6.5)")])
    campaign(2, plugins=(ideas, audit))
    assert audit.seen == ["change", "fix"]


def test_refused_mending_leaves_the_crash(campaign: Go) -> None:
    """A fix that an audit refuses is not run, and the experiment that ran stays a crash."""
    ideas = ScriptedIdeas([_replace("WIDTH = 4", "WIDTH = math.floor(6.5)")])
    made = campaign(2, plugins=(ideas, _Counting(refuse="import math")))
    assert made.history.experiments[1].verdict is Verdict.CRASH
    assert len(made.history.experiments[1].runs) == 1


def test_fixes_are_bounded(campaign: Go) -> None:
    """A script that keeps crashing in new trivial ways is given up after the configured fixes."""
    lines = "\n".join(f"print({name}.__name__)" for name in ("math", "json", "glob", "calendar"))
    made = campaign(2, plugins=(ScriptedIdeas([_replace("RATE = 0.5", f"RATE = 0.5\n{lines}")]),))
    assert made.history.experiments[1].fixes == 2
    assert made.history.experiments[1].verdict is Verdict.CRASH


def test_script_that_does_not_compile_costs_no_run(campaign: Go) -> None:
    """An idea with a syntax error is dropped with the reason, and its number is used again."""
    ideas = ScriptedIdeas([_replace("WIDTH = 4", "WIDTH = ("), set_constant("WIDTH", 6)])
    made = campaign(2, plugins=(ideas,))
    assert "change_rejected" in types(made)
    assert len(made.history.experiments) == 2
    assert made.history.experiments[1].verdict is Verdict.KEEP
    assert types(made).count("run_requested") == 2


def test_change_outside_the_script_is_refused(campaign: Go) -> None:
    """A patch that creates another file never reaches a commit."""
    patch = "--- /dev/null\n+++ b/other.py\n@@ -0,0 +1 @@\n+import socket\n"
    outside = Idea(direction="x", description="add a file", hypothesis="h", patch=patch)
    made = campaign(2, plugins=(ScriptedIdeas([outside]),))
    rejected = [item for item in made.log.read() if item.type == "change_rejected"]
    assert "other.py" in rejected[0].payload
    assert len(made.history.experiments) == 1


def test_idea_that_changes_nothing_is_dropped(campaign: Go) -> None:
    """The same source again is no experiment."""
    same = ScriptedIdeas([_replace("nothing of this", "is there")])
    made = campaign(2, plugins=(same,))
    assert len(made.history.experiments) == 1


def test_kept_environment_stays_in_force(campaign: Go, project: Path) -> None:
    """An idea made of environment overrides is inherited by the experiments that build on it."""
    by_env = 'WIDTH = int(os.environ.get("WIDTH", "4"))'
    ideas = ScriptedIdeas(
        [
            _replace("WIDTH = 4", by_env),
            Idea(direction="w", description="wider", hypothesis="h", env={"WIDTH": "7"}),
            set_constant("RATE", 0.4),
        ]
    )
    made = campaign(4, plugins=(ideas, _keep_all()))
    assert made.history.score(made.history.experiments[3]) == pytest.approx(1.1)
    assert "Autoresearch-Env: WIDTH=7" in git(
        project, "log", "-1", "--format=%B", made.history.experiments[2].commit
    )


class _Keep:
    @hookimpl
    def decide(self) -> Decision:
        return Decision(verdict=Verdict.KEEP, reason="a test wants it")


def _keep_all() -> object:
    return _Keep()


def test_memory_is_read_before_every_experiment(campaign: Go, project: Path) -> None:
    """memory_reviewed names the digests of the files exactly as they stood on the disk."""
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]),))
    reviews = [item for item in made.log.read() if item.type == "memory_reviewed"]
    assert len(reviews) == 1
    assert reviews[0].position > 1
    as_of = made.at(reviews[0].position - 1)
    assert digest(ResultsTsv().render(as_of)) in reviews[0].payload


class _BackToStart:
    """Goes back to the baseline after experiment 2."""

    @hookimpl
    def backtrack(self, history: autoresearch.History) -> Backtrack | None:
        if len(history.decided) == 3 and history.head != 0:
            return Backtrack(signal="regression", reason="it went wrong", to_experiment=0)
        return None


def test_backtrack_moves_the_branch_and_logs_a_row(campaign: Go, project: Path) -> None:
    """After a regression signal the branch is at the good commit and results.tsv says backtrack."""
    ideas = ScriptedIdeas([set_constant("WIDTH", 6), set_constant("WIDTH", 5)])
    made = campaign(3, plugins=(ideas, _BackToStart()))
    assert made.history.head == 0
    base = git(project, "rev-parse", "HEAD")
    assert git(project, "rev-parse", "autoresearch/t1") == base
    row = (project / "results.tsv").read_text().splitlines()[-1].split("\t")
    assert (row[0], row[3]) == (base[:7], "backtrack")
    assert "it went wrong" in (project / "notes.md").read_text()


def test_three_discards_make_a_dead_end(campaign: Go, project: Path) -> None:
    """The protocol's first signal: the direction is abandoned and noted."""
    ideas = ScriptedIdeas([set_constant("WIDTH", width) for width in (3, 2, 1)])
    made = campaign(4, plugins=(ideas,))
    assert len(made.history.dead_ends) == 1
    notes = (project / "notes.md").read_text()
    assert "experiments 1, 2, 3" in notes.split("## What Works")[0]


def test_observer_sees_every_event_after_it_is_durable(campaign: Go) -> None:
    """An observer is told of each event of the campaign that was appended while it was active."""
    observer = RecordingObserver()
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]), observer))
    listed = types(made)
    assert list(observer.types) == listed[listed.index("campaign_resumed") :]


class _Broken:
    @hookimpl
    def event_recorded(self) -> None:
        raise RuntimeError("observer is broken")

    @hookimpl
    def propose_idea(self) -> Idea:
        raise RuntimeError("generator is down")


def test_broken_plugins_are_recorded_and_disturb_nobody(campaign: Go) -> None:
    """A generator that raises is passed over, an observer that raises changes nothing."""
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]), _Broken()))
    assert len(made.history.kept) == 2
    failed = [item.payload for item in made.log.read() if item.type == "plugin_failed"]
    assert any("generator is down" in text and "Traceback" in text for text in failed)
    assert any("observer is broken" in text for text in failed)


def test_budget_stops_the_loop(project: Path) -> None:
    """limits.experiments counts decided experiments and is recorded when it is reached."""
    made = autoresearch.start(project, tag="t1", overrides={"limits.experiments": 2})
    reason = made.run()
    assert "2 experiments" in reason
    assert len(made.history.decided) == 2
    assert "budget_exhausted" in types(made)


def test_baseline_that_crashes_stops_the_campaign(project: Path) -> None:
    """Without a baseline there is nothing to compare with, and the reason says so."""
    (project / "train.py").write_text("raise SystemExit('no data')\n")
    git(project, "commit", "-qam", "break it")
    made = autoresearch.start(project, tag="t1")
    assert "baseline gave no score" in made.run(3)
    assert made.history.experiments[0].verdict is Verdict.CRASH


def test_run_that_hangs_is_killed_and_is_a_crash(campaign: Go) -> None:
    """A run past its deadline is killed; the protocol treats it as a failure."""
    hang = _replace("WIDTH = 4", "WIDTH = 4\nimport time; time.sleep(600)")
    made = campaign(2, plugins=(ScriptedIdeas([hang]),), overrides={"limits.timeout_seconds": 2.0})
    experiment = made.history.experiments[1]
    assert experiment.runs[0].status == "timed_out"
    assert experiment.verdict is Verdict.CRASH


def test_score_that_is_not_finite_is_no_score(campaign: Go) -> None:
    """A run that prints NaN has no metric at all: neither NaN nor zero."""
    score = "{1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}"
    nan = _replace(score, "{RATE * float('nan')}")
    made = campaign(2, plugins=(ScriptedIdeas([nan]),))
    assert made.history.experiments[1].metrics == {}
    assert made.history.experiments[1].verdict is Verdict.CRASH


class _Measures:
    """Answers with the next measurement for each run."""

    def __init__(self, *answers: dict[str, str]) -> None:
        self._answers = list(answers)

    @hookimpl
    def measure_run(self) -> dict[str, str]:
        return self._answers.pop(0)


def test_score_of_another_measurement_is_not_compared(campaign: Go) -> None:
    """A better score on other data is quarantined, not kept."""
    measures = _Measures({"validation": "aaa"}, {"validation": "bbb"})
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]), measures))
    assert made.history.experiments[1].verdict is Verdict.QUARANTINE
    assert made.history.best_number == 0


def test_other_hardware_is_said_in_the_decision(campaign: Go) -> None:
    """A result from another machine counts, and the reason tells of it."""
    measures = _Measures({"hardware": "8x H100"}, {"hardware": "cpu"})
    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 6)]), measures))
    decision = made.history.experiments[1].decision
    assert decision is not None
    assert decision.verdict is Verdict.KEEP
    assert "on other hardware than experiment 0: cpu, not 8x H100" in decision.reason


class _Spender:
    """Spends a dollar on every idea."""

    @hookimpl
    def report_costs(self) -> list[Cost]:
        return [Cost(tokens_in=100, tokens_out=10, usd=1.0)]


def test_tokens_and_runs_share_one_budget(project: Path) -> None:
    """What a language model costs is recorded under its plugin and counts against limits.usd."""
    made = autoresearch.start(
        project, tag="t1", overrides={"limits.usd": 2.5}, plugins=(_Spender(),)
    )
    assert "usd" in made.run(plugins=(_Spender(),))
    assert made.history.spent.usd >= 2.5
    assert made.history.spent.tokens > 0
    with made.connect() as connection:
        kinds = connection.execute("select distinct kind from costs order by 1").fetchall()
    assert kinds == [("run",), ("tokens",)]


def test_baseline_over_the_limit_is_discarded_and_the_loop_goes_on(project: Path) -> None:
    """A baseline with a score that does not fit is no baseline to keep, but no reason to stop."""
    (project / "train.py").write_text(
        "WIDTH = 4\nprint(f'artifact_bytes: {WIDTH * 100}')\nprint(f'score: {1 / WIDTH:.4f}')\n"
    )
    git(project, "commit", "-qam", "sizes")
    smaller = ScriptedIdeas([set_constant("WIDTH", 3)])
    made = autoresearch.start(
        project, tag="t1", overrides={"limits.artifact_bytes": 350}, plugins=(smaller, _Sized())
    )
    made.run(2, plugins=(smaller, _Sized()), wait=False)
    verdicts = [item.verdict for item in made.history.experiments]
    assert verdicts == [Verdict.DISCARD, Verdict.KEEP]


class _Sized:
    """Reads the size that the script prints."""

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> dict[str, float]:
        text = output.log_path.read_text()
        return {"artifact_bytes": float(text.split("artifact_bytes: ")[1].split()[0])}


def test_every_campaign_of_a_project_is_in_one_connection(campaign: Go, project: Path) -> None:
    """autoresearch.connect sees all campaigns, and earlier positions when asked."""
    campaign(1)
    autoresearch.start(project, tag="t2")
    with autoresearch.connect(project) as connection:
        tags = connection.execute("select distinct campaign from events order by 1").fetchall()
    assert tags == [("t1",), ("t2",)]
    with autoresearch.connect(project, at=1) as connection:
        assert connection.execute("select count(*) from events").fetchone() == (1,)


class _Patience:
    """A clock that runs without waiting, and lets a person act when time has passed."""

    def __init__(self, act: Callable[[], None], after: float) -> None:
        self._time = 0.0
        self._act = act
        self._after = after

    def now(self) -> float:
        return self._time

    def sleep(self, seconds: float) -> None:
        self._time += seconds
        if self._time >= self._after:
            self._after = float("inf")
            self._act()
        if self._time > 1e6:
            raise TimeoutError("waited for ever")
        time.sleep(0.001)


def test_loop_without_ideas_waits_and_goes_on_when_one_comes(project: Path) -> None:
    """Without ideas it asks ever less often, and takes a person's idea at once."""
    made = autoresearch.start(project, tag="t1", plugins=("no:script_ideas",))

    def queue_one() -> None:
        idea = Idea(direction="w", description="w7", hypothesis="h", env={"ANY": "1"})
        made.add_idea(idea, anyway=True)

    clock = _Patience(queue_one, after=3_000.0)
    made.run(2, plugins=("no:script_ideas",), wait=True, clock=clock)
    assert made.history.experiments[1].idea.description == "w7"
    assert types(made).count("memory_reviewed") < 20
