"""The best is measured again every so many experiments; its score is the mean of all its runs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from attrs import evolve
from simulated import Fast, Simulated

import autoresearch
from autoresearch import Campaign, History, Idea, RunRequest, Verdict, events, hookimpl
from autoresearch.config import MetricConfig
from autoresearch.cycle.recorder import check
from autoresearch.errors import ProtocolError
from autoresearch.projections.files import NotesMd, controls
from autoresearch.testing import Story, make_project

SETTINGS = """preset = "plain"
launcher = "simulated"
[metric]
name = "score"
sd = 0.01
"""
CONTROLS = "[controls]\nevery = 2\n"


class Counts:
    """Proposes a new width each time."""

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea:
        width = len(history.experiments) + 5
        return Idea(direction="width", description=f"width {width}", hypothesis="h",
                    source=f"WIDTH = {width}\n")  # fmt: skip


def go(
    folder: Path, until: int, settings: str = CONTROLS, clock: Fast | None = None, **more: int
) -> tuple[Campaign, Simulated]:
    """Run experiments of which each run scores its number and a tenth of its index."""
    clock = clock or Fast()

    def score(request: RunRequest, source: str) -> float:
        return 1.0 + 0.1 * request.experiment + 0.01 * request.index

    launcher = Simulated(clock, score, lambda request: 100.0, gpus=1)
    plugins = (launcher, Counts(), "no:script_ideas")
    project = make_project(folder / "project", script="WIDTH = 4\n", settings=SETTINGS + settings)
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(until, plugins=plugins, wait=False, clock=clock, **more)
    return made, launcher


def test_best_runs_again_with_another_seed_and_its_score_is_the_mean(tmp_path: Path) -> None:
    """A control is a run of the best: no row, no verdict, paid for, and part of its score."""
    made, launcher = go(tmp_path, 6)
    history = made.history
    order = ("0-0", "1-0", "0-1", "2-0", "3-0", "0-2", "4-0", "5-0")
    assert launcher.started == [f"t1-{name}" for name in order]
    best = history.experiments[0]
    assert [run.control for run in best.runs] == [False, True, True]
    assert len({run.seed for run in best.runs}) == 3
    assert history.score(best) == pytest.approx(1.01)
    assert best.analysis is not None
    assert best.verdict is Verdict.KEEP
    assert len((made.lab.project / "results.tsv").read_text().splitlines()) == 7
    assert history.spent.gpu_seconds == 800.0
    assert history.spent.seconds == sum(
        run.seconds for item in history.experiments for run in item.runs
    )
    assert history.spent.seconds > 0
    assert "control of experiment 0, 4 decided" in NotesMd().render(history)
    assert made.lab.worktrees() == ()
    rows = autoresearch.connect(made.lab.project).execute(
        "SELECT run, control FROM runs WHERE experiment = 0 ORDER BY position"
    )
    assert rows.fetchall() == [("t1-0-0", False), ("t1-0-1", True), ("t1-0-2", True)]
    assert made.log.verify().ok


def test_without_the_setting_nothing_runs_again(tmp_path: Path) -> None:
    """Controls cost runs, so a person asks for them."""
    made, launcher = go(tmp_path, 4, settings="")
    assert launcher.started == [f"t1-{number}-0" for number in range(4)]
    assert made.history.control is None


def test_control_in_flight_is_found_again_and_runs_once(tmp_path: Path) -> None:
    """Whoever interrupts the loop in a control loses nothing and pays nothing twice."""
    clock = Fast(at=250.0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.act = interrupt
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, 4, clock=clock)
    made = autoresearch.open_campaign(tmp_path / "project", tag="t1")
    assert [run.status for run in made.history.experiments[0].runs][1:] == [None]
    launcher = Simulated(clock, lambda *_: 1.5, lambda _: 100.0)
    plugins = (launcher, Counts(), "no:script_ideas")
    made.run(until=4, plugins=plugins, wait=False, clock=clock)
    assert launcher.started == ["t1-0-1", "t1-2-0", "t1-3-0"]  # the launcher itself was lost too
    assert len(made.history.decided) == 4
    assert made.log.verify().ok


def test_control_takes_a_place_among_parallel_runs(tmp_path: Path) -> None:
    """No more run at once than were asked for, and never two controls."""
    made, launcher = go(tmp_path, 9, parallel=2)
    assert launcher.most == 2
    assert len(made.history.decided) == 9
    assert 2 <= sum(run.control for run in made.history.experiments[0].runs) <= 4


def test_control_that_no_budget_allows_is_left_out(tmp_path: Path) -> None:
    """It is held against the budgets like any run."""
    limits = f"{CONTROLS}[limits]\ntimeout_seconds = 100\nhours = {200 / 3600}\n"
    made, launcher = go(tmp_path, 4, settings=limits)
    assert launcher.started == ["t1-0-0", "t1-1-0"]
    assert len(made.history.decided) == 2


def told(*more: tuple[float | None, float, str]) -> History:
    """Tell a baseline of 1.0 in 100 s, a second keep of 0.97, and its controls."""
    story = Story(autoresearch.Config(preset="plain", metric=MetricConfig(sd=0.01)))
    story.add(1.0).add(0.97)
    first = events.RunLocked(run="test-1-0", experiment=1, measurement={"hardware": "H100"})
    story.tell(first)
    for index, (score, seconds, hardware) in enumerate(more, 1):
        one = {"run": f"test-1-{index}", "experiment": 1}
        story.tell(events.RunRequested(index=index, seed=index, launcher="fake", command=("x",),
                                       timeout_seconds=1.0, control=True, **one))  # fmt: skip
        status = "crashed" if score is None else "completed"
        story.tell(events.RunFinished(status=status, seconds=seconds, detail="oom", **one))
        metrics = {} if score is None else {"score": score}
        story.tell(events.MetricsExtracted(metrics=metrics, **one))
        if hardware:
            story.tell(events.RunLocked(measurement={"hardware": hardware}, **one))
    return story.history


def test_drift_a_slow_machine_and_another_one_are_said() -> None:
    """What the control shows is a matter of the machine, not of any idea."""
    first, *machine = controls(told((0.972, 1.0, ""), (1.2, 2.0, "A10")))
    assert first.startswith("control of experiment 1, 2 decided: score 1.2000, 0.2290 worse")
    assert "; mean of 3: 1.0473; drift" in first
    assert machine == [
        "it ran on A10, not H100",
        "the machine is slower than it was: a step takes 2.00 times as long",
    ]
    assert len(controls(told((0.972, 1.05, "")))) == 1
    assert "drift" not in controls(told((0.972, 1.0, ""), (0.971, 1.0, "")))[0]
    (crashed,) = controls(told((None, 1.0, "")))
    assert crashed.endswith("no score, crashed (oom)")
    assert controls(Story().history) == ()


def test_best_whose_mean_got_worse_gives_its_place_to_the_next() -> None:
    """A lucky first run is worth no more than the mean of all."""
    history = told((1.2, 1.0, "A10"))
    assert history.score(history.experiments[1]) == pytest.approx(1.085)
    assert (history.best_number, history.head) == (0, 1)
    assert history.experiments[1].measurement == {"hardware": "H100"}  # what it was judged by stays


def test_only_a_kept_experiment_is_measured_again() -> None:
    """A control of anything else would be a verdict by the back door."""
    story = Story().add(1.0).add(2.0)
    request = events.RunRequested(experiment=1, run="test-1-1", index=1, seed=1, launcher="fake",
                                  command=("x",), timeout_seconds=1.0, control=True)  # fmt: skip
    for number in (1, 7, -1):
        with pytest.raises(ProtocolError, match="is not kept"):
            check(story.history, evolve(request, experiment=number))
    check(story.history, evolve(request, experiment=0))
