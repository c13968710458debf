"""A run that cannot win any more is stopped, and a run that may still win is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import evolve
from simulated import Fast, Simulated, SimulatedRun

import autoresearch
from autoresearch import Config, History, Run, RunRequest, RunStatus, Workspace, events
from autoresearch.config import MetricConfig
from autoresearch.plugins import Plugins
from autoresearch.policies import curves
from autoresearch.testing import PluginContract, Story, experiment, make_project, run_request
from autoresearch.testing.story import judgement, proposal, run

Stop = Callable[..., str | None]


class TestContract(PluginContract):
    hooks = ("should_stop_run",)

    @pytest.fixture
    def plugin(self) -> curves.Plugin:
        return curves.Plugin()


def watched(*told: dict[int, float], better: str = "lower") -> Story:
    """Tell experiments with what was seen at each step; the last one is still running."""
    story = Story(Config(preset="plain", metric=MetricConfig(better=better)))
    for number, curve in enumerate(told):
        made = experiment(list(curve.values())[-1], number=number)
        for fact in [*proposal(story.history, made), *run(story.history, story.config, made)]:
            story.tell(fact)
            if isinstance(fact, events.RunStarted):
                for step, value in curve.items():
                    seen = events.MetricObserved(
                        run=fact.run, experiment=number, name="score", value=value, step=step
                    )
                    story.tell(seen)
                if number == len(told) - 1:
                    return story
        for fact in judgement(story.history, made):
            story.tell(fact)
    return story


@pytest.fixture
def stop(tmp_path: Path) -> Stop:
    """Asks whether the run that is under way should stop."""

    def ask(
        told: Story, observed: Mapping[str, float] | None = None, name: str = "", **settings: object
    ) -> str | None:
        config = Config(preset="plain", plugins={"curves": settings})
        plugins = Plugins.only(curves.Plugin, config=config)
        plugins.on_failure = lambda failure: pytest.fail(str(failure))
        number = len(told.history.experiments) - 1
        request = run_request(tmp_path, name=name or f"test-{number}-0", experiment=number)
        return plugins.should_stop_run(request, observed or {}, told.history)

    return ask


# Of six finished runs each came nearer to the best by 0.04 to 0.06 from step 1 on.
KNOWN = (
    {1: 2.0, 2: 1.0}, {1: 2.15, 2: 1.10}, {1: 2.25, 2: 1.21}, {1: 2.11, 2: 1.05},
    {1: 2.16, 2: 1.11}, {1: 2.34, 2: 1.30}, {1: 2.56, 2: 1.50},
)  # fmt: skip


def test_what_cannot_catch_up_is_stopped_at_the_stated_confidence(stop: Stop) -> None:
    """The campaign's own finished runs say how much a run comes nearer from a step on."""
    reason = stop(watched(*KNOWN, {1: 2.2}))
    assert reason is not None
    assert reason.startswith("score 2.2000 at step 1, where the best run had 2.0000: it loses with")
    assert "since 6 finished runs came nearer by 0.0500 on average" in reason
    assert stop(watched(*KNOWN, {1: 2.07})) is None  # behind, and may still win
    assert stop(watched(*KNOWN, {1: 2.08}), confidence=0.9) is not None
    assert stop(watched(*KNOWN, {1: 1.9})) is None


def test_before_enough_is_known_only_a_disaster_is_stopped(stop: Stop) -> None:
    """Five curves make a spread that means something; two are the least for any."""
    few = watched(*KNOWN[:4], {1: 2.19})
    assert stop(few) is None
    assert stop(few, margin=0.05) is not None
    assert stop(few, curves=3) is not None
    assert stop(watched(*KNOWN[:2], {1: 2.19}), curves=0) is None


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_only_the_newest_common_step_counts(stop: Stop, better: str) -> None:
    """Ten per cent behind there is too much; what caught up or has no step in common goes on."""
    best, lost = {1: 2.0, 2: 1.0, 3: 0.5}, {1: 2.0, 2: 1.2}
    if better == "higher":
        best, lost = {1: 0.1, 2: 0.5, 3: 0.9}, {1: 0.1, 2: 0.4}
    reason = stop(watched(best, lost, better=better))
    assert reason is not None
    assert "at step 2" in reason
    for fine in ({1: 2.0, 2: 1.05}, {1: 5.0, 2: 1.0}, {7: 9.0}):
        assert stop(watched({1: 2.0, 2: 1.0}, fine)) is None
    told = watched({1: 2.0, 2: 1.0}, {1: 2.0, 2: 1.2})
    assert stop(told, margin=0.5) is None
    assert stop(told, from_step=3) is None


def test_neither_another_seed_nor_the_best_itself_is_judged_by_a_first_run(stop: Stop) -> None:
    """A second run is compared by what was seen of itself, and a control by nothing."""
    told = watched({1: 2.0, 2: 1.0}, {1: 2.0, 2: 9.0})
    (first,) = told.history.experiments[1].runs
    second = evolve(first, name="test-1-1", index=1, observed={1: 2.0})
    control = evolve(first, name="test-1-2", control=True)
    runs = (evolve(first, name="test-1-x"), second, control)
    item = evolve(told.history.experiments[1], runs=runs)
    told.history = evolve(told.history, experiments=told.history.experiments.set(1, item))
    assert stop(told, name="test-1-1") is None
    assert stop(told, name="test-1-2") is None
    assert stop(told, name="test-1-x") is not None


def test_the_baseline_always_runs_to_its_end(stop: Stop) -> None:
    """There is nothing to compare the first run with."""
    assert stop(watched({1: 99.0})) is None


@pytest.mark.parametrize("name", ["score", "train_loss", "val_loss"])
def test_stops_a_loss_that_is_no_number(stop: Stop, name: str) -> None:
    """What has diverged does not come back, not even in the baseline; other numbers may."""
    for value in (float("nan"), float("inf")):
        assert stop(watched({1: 2.0}), {name: value}) == f"{name} is {value}, it has diverged"
    assert stop(watched({1: 2.0}), {"patience": float("inf")}) is None


def test_runs_of_another_stage_are_no_curves_to_compare_with() -> None:
    """A short run ends where a long one has hardly begun."""
    one = Run(index=0, name="a", seed=1, status=RunStatus.COMPLETED, stage="smoke",
              observed={1: 2.0}, metrics={"score": 1.0})  # fmt: skip
    made = evolve(experiment(1.0), runs=(one,))
    assert curves.finished(History(stages=("smoke", "full"), stage="full"), [made]) == []
    assert curves.finished(History(stages=("smoke", "full"), stage="smoke"), [made]) == [one]


def test_equal_curves_make_no_division_by_zero() -> None:
    """A spread of nothing is nearly that."""
    assert curves.loses(0.1, [0.0] * 5) == pytest.approx(1.0)
    assert curves.loses(-0.1, [0.0] * 5) == pytest.approx(0.0)


def test_a_campaign_saves_the_time_of_a_hopeless_run(tmp_path: Path) -> None:
    """A run that goes on is ended, and its experiment is not kept."""
    settings = 'preset = "plain"\nlauncher = "simulated"\nactive = ["curves"]\nmetric.sd = 0.01\n'
    script = "PACE = 1.0\n"
    project = make_project(tmp_path / "project", script=script, settings=settings)
    clock = Fast()

    @autoresearch.hookimpl
    def propose_idea(source: str) -> autoresearch.Idea:
        return autoresearch.Idea(
            direction="pace", description="slower", hypothesis="h", source="PACE = 9.0\n"
        )

    class Writes(Simulated):
        @autoresearch.hookimpl
        def launch_run(self, request: RunRequest, workspace: Workspace) -> SimulatedRun | None:
            made = super().launch_run(request, workspace)
            pace = workspace.read_script().split()[-1]
            path = request.folder / "run.log"
            path.write_text(f"step:1/2 score:{pace}\n" + f"score: {pace}\n" * (pace == "1.0"))
            return made

    launcher = Writes(clock, lambda *_: 1.0, lambda request: 100.0)
    proposes = type("Proposes", (), {"propose_idea": staticmethod(propose_idea)})()
    plugins = (launcher, proposes, "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(2, plugins=plugins, wait=False, clock=clock)
    (hopeless,) = made.history.experiments[1].runs
    assert hopeless.status is RunStatus.STOPPED_EARLY
    assert "behind by more than" in hopeless.detail
    assert made.history.experiments[1].verdict != "keep"
