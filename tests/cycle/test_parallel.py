"""Several experiments under way at once: runs side by side, all else one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest
from attrs import define, field
from simulated import Fast, Simulated

import autoresearch
from autoresearch import Campaign, History, Idea, RunRequest, Verdict, hookimpl
from autoresearch.testing import make_project

SCRIPT = "RATE = 5\nWIDTH = 5\nDEPTH = 5\nprint(1)\n"
SETTINGS = 'preset = "plain"\nlauncher = "simulated"\n[metric]\nname = "score"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose runs are simulated."""
    return make_project(tmp_path / "project", script=SCRIPT, settings=SETTINGS)


@define
class Lines:
    """Proposes to set constants of the script, in order; remembers what it was told."""

    wanted: list[tuple[str, int]]
    flying: list[tuple[int, ...]] = field(factory=list)

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        self.flying.append(tuple(item.number for item in history.in_flight))
        for name, value in self.wanted:
            said = f"{name} to {value}"
            if said not in {item.idea.description for item in history.experiments}:
                lines = [
                    f"{name} = {value}" if line.startswith(name) else line
                    for line in source.splitlines()
                ]
                text = "\n".join(lines) + "\n"
                return Idea(
                    direction=name.lower(), description=said, hypothesis="better", source=text
                )
        return None


@define
class Lists(Lines):
    """Gives all its ideas in one answer, the same list each time that it is asked."""

    asked: int = 0

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> list[Idea]:
        self.asked += 1
        return [
            Idea(
                direction=name.lower(),
                description=f"{name} to {value}",
                hypothesis="better",
                expected_gain=0.1,
                source=SCRIPT.replace(f"{name} = 5", f"{name} = {value}"),
            )
            for name, value in self.wanted
        ]


@define
class Audits(Lines):
    """Audits too; remembers how many experiments the history had each time."""

    known: list[int] = field(factory=list)

    @hookimpl
    def audit_change(self, history: History) -> None:
        self.known.append(len(history.experiments))


def scores(texts: Mapping[str, float]) -> Callable[[RunRequest, str], float]:
    """Return a score: 10 less what each line of the script is worth."""
    return lambda request, source: (
        10.0 - sum(worth for line, worth in texts.items() if line in source)
    )


def go(
    project: Path, ideas: Lines, score: Callable[[RunRequest, str], float], seconds: list[float],
    parallel: int = 4,
) -> tuple[Campaign, Simulated]:  # fmt: skip
    """Run the ideas, each for its seconds, and return the campaign."""
    clock = Fast()
    launcher = Simulated(clock, score, lambda request: seconds[request.experiment])
    plugins = (launcher, ideas, "no:script_ideas", "no:greedy", KeepsBetter())
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(plugins=plugins, wait=False, parallel=parallel, clock=clock)
    return made, launcher


class KeepsBetter:
    """Keeps every better score."""

    @hookimpl
    def decide(self, candidate: autoresearch.Candidate, history: History) -> autoresearch.Decision:
        best = history.best_metric
        better = candidate.metric is not None and (best is None or candidate.metric < best)
        verdict = Verdict.KEEP if better else Verdict.DISCARD
        return autoresearch.Decision(verdict=verdict, reason=f"{candidate.metric} after {best}")


def test_runs_go_side_by_side_and_are_judged_as_they_end(project: Path) -> None:
    """The table has the order of the decisions; generators see what is in flight."""
    ideas = Lines([("RATE", 1), ("WIDTH", 1), ("DEPTH", 1)])
    made, launcher = go(project, ideas, scores({}), [10.0, 300.0, 200.0, 100.0])
    assert launcher.most == 3
    assert ideas.flying[:3] == [(), (1,), (1, 2)]
    assert list(made.history.timeline) == [0, 3, 2, 1]
    rows = (project / "results.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[5][:5] for row in rows] == ["basel", "DEPTH", "WIDTH", "RATE "]
    assert made.history.open_numbers == ()
    assert made.log.verify().ok


def test_keep_under_a_moved_head_is_made_again_there_and_confirmed(project: Path) -> None:
    """The later of two gains runs again on the earlier one, under a commit of its own.

    A value beside the one that head has changed is no clash.
    """
    ideas = Audits([("RATE", 1), ("WIDTH", 1)])
    worth = {"RATE = 1": 1.0, "WIDTH = 1": 2.0}
    made, launcher = go(project, ideas, scores(worth), [10.0, 100.0, 200.0])
    assert ideas.known == [2, 3, 3]  # the third time for the change that was made again
    first, second = made.history.experiments[1:]
    assert [first.verdict, second.verdict] == [Verdict.KEEP, Verdict.KEEP]
    assert [run.superseded for run in second.runs] == [True, False]
    assert second.built_on == 1
    assert second.parent_commit == first.commit
    assert made.history.score(second) == 7.0
    assert made.history.head == made.history.best_number == 2
    assert made.lab.files_at(second.commit)["train.py"].startswith("RATE = 1\nWIDTH = 1\nDEPTH = 5")
    assert launcher.started == ["t1-0-0", "t1-1-0", "t1-2-0", "t1-2-1"]
    assert autoresearch.connect(project).execute(
        "SELECT status, metric, runs FROM experiments WHERE experiment = 2"
    ).fetchall() == [("keep", 7.0, 2)]
    from autoresearch.evidence import missing_things

    assert list(missing_things(made.log)) == []


def test_what_no_longer_helps_on_the_new_head_is_discarded(project: Path) -> None:
    """It is judged by what it scores on head as it is now."""
    ideas = Lines([("RATE", 1), ("DEPTH", 1)])
    worth = {"RATE = 1": 1.0, "DEPTH = 1": 2.0, "RATE = 1\nWIDTH = 5\nDEPTH = 1": -3.0}
    made, _ = go(project, ideas, scores(worth), [10.0, 100.0, 200.0])
    assert made.history.experiments[2].verdict is Verdict.DISCARD
    assert made.history.head == 1


def test_change_that_clashes_with_the_new_head_is_discarded_with_its_conflict(
    project: Path,
) -> None:
    """Two changes of one line cannot both be there."""
    ideas = Lines([("RATE", 1), ("RATE", 2)])
    made, _ = go(project, ideas, scores({"RATE = 1": 1.0, "RATE = 2": 2.0}), [10.0, 100.0, 200.0])
    last = made.history.experiments[2]
    assert last.verdict is Verdict.DISCARD
    assert last.decision is not None
    for part in ("it would be kept on experiment 0", "head is experiment 1 now", "'RATE = 1'"):
        assert part in last.decision.reason


def test_baseline_is_alone_and_a_target_is_not_overshot(project: Path) -> None:
    """Nothing can be judged before the baseline; no more is begun than was asked for."""
    clock = Fast()
    launcher = Simulated(clock, scores({}), lambda request: 100.0)
    ideas = Lines([("RATE", value) for value in range(10, 40)])
    plugins = (launcher, ideas, "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins, overrides={"runs.parallel": 3})
    made.run(1, plugins=plugins, clock=clock)
    assert launcher.most == 1
    made.run(5, plugins=plugins, clock=clock)
    assert launcher.most == 3
    assert len(made.history.experiments) == 6
    assert made.config.runs.parallel == 3


def test_stop_lets_every_run_come_to_its_verdict_and_now_stops_them_all(project: Path) -> None:
    """A person's word reaches all that is in flight."""
    ideas = Lines([("RATE", value) for value in range(10, 40)])
    clock = Fast()
    launcher = Simulated(clock, scores({}), lambda request: 100.0 + request.experiment)
    plugins = (launcher, ideas, "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    clock.at, clock.act = 150.0, made.stop
    reason = made.run(plugins=plugins, clock=clock, parallel=3)
    assert reason.startswith("stopped by ")
    assert len(made.history.decided) == len(made.history.experiments) == 4
    clock.at, clock.act = clock.now() + 50.0, lambda: made.stop(now=True)
    made.run(plugins=plugins, clock=clock, parallel=3)
    assert len(made.history.in_flight) == 3
    assert all(item.runs[-1].interrupted for item in made.history.in_flight)
    made.run(until=7, plugins=plugins, clock=clock, parallel=3)
    assert len(made.history.decided) == 7


def test_one_answer_of_several_ideas_fills_every_place(project: Path) -> None:
    """The first is tried, the others wait in the queue under their author; none runs twice."""
    ideas = Lists([("RATE", 1), ("WIDTH", 1), ("DEPTH", 1)])
    made, launcher = go(project, ideas, scores({}), [10.0, 300.0, 200.0, 100.0])
    assert launcher.most == 3
    assert sorted(launcher.started) == ["t1-0-0", "t1-1-0", "t1-2-0", "t1-3-0"]
    tried = made.history.experiments[1:]
    assert {item.idea.description for item in tried} == {"RATE to 1", "WIDTH to 1", "DEPTH to 1"}
    assert {item.idea.author for item in tried} == {"lists"}
    assert tried[0].idea.description == "RATE to 1"
    queued = [item.event for item in made.log.read() if item.type == "idea_queued"]
    assert [event.author for event in queued] == ["lists", "lists"]
    assert {event.idea for event in queued} == {item.idea_id for item in tried[1:]}
    assert made.history.queue == {}
    assert ideas.asked > 1
    assert made.log.verify().ok


def test_a_further_idea_that_cannot_be_tried_is_not_queued(project: Path) -> None:
    """It changes nothing, so it is refused once, however often it is offered."""
    ideas = Lists([("RATE", 1), ("WIDTH", 5), ("DEPTH", 1)])
    made, launcher = go(project, ideas, scores({}), [10.0, 30.0, 20.0], parallel=1)
    assert launcher.started == ["t1-0-0", "t1-1-0", "t1-2-0"]
    (refused,) = made.history.refusals
    assert (refused.author, refused.stage) == ("lists", "queue")
    assert refused.reason == "the idea changes nothing; propose a change of the script"
