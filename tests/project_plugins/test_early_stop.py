"""A run that cannot win any more is stopped, and a run that may still win is not."""

import pytest
from attrs import evolve

from autoresearch import Config, RunStatus, events
from autoresearch.config import MetricConfig
from autoresearch.plugins import Plugins
from autoresearch.testing import PluginContract, Story, experiment, run_request
from autoresearch.testing.story import judgement, proposal, run

SLOW = """import time

PACE = 1.0
print("step:1/3 score:%.4f" % (2.0 * PACE), flush=True)
time.sleep(2.6)
print("step:2/3 score:%.4f" % (1.5 * PACE), flush=True)
time.sleep(2.6 if PACE == 1.0 else 60)
print("score: %.4f" % PACE)
"""
WORSE = """
from autoresearch import Idea, hookimpl

@hookimpl
def propose_idea(source):
    words = dict(direction="pace", description="PACE 1.0 -> 1.5", hypothesis="it helps")
    return Idea(source=source.replace("PACE = 1.0", "PACE = 1.5"), **words)
"""


class TestContract(PluginContract):
    hooks = ("should_stop_run",)

    @pytest.fixture
    def plugin(self, single_file):
        return single_file("early_stop")


def watched(*curves: dict[int, float], better: str = "lower") -> Story:
    """Tell experiments with what was seen at each step; the last one is still running."""
    told = Story(Config(preset="plain", metric=MetricConfig(better=better)))
    for number, curve in enumerate(curves):
        made = experiment(list(curve.values())[-1], number=number)
        facts = [*proposal(told.history, made), *run(told.history, told.config, made)]
        for fact in facts:
            told.tell(fact)
            if isinstance(fact, events.RunStarted):
                for step, value in curve.items():
                    seen = events.MetricObserved(
                        run=fact.run, experiment=number, name="score", value=value, step=step
                    )
                    told.tell(seen)
                if number == len(curves) - 1:
                    return told
        for fact in judgement(told.history, made):
            told.tell(fact)
    return told


@pytest.fixture
def stop(single_file, tmp_path):
    """Asks whether the run that is under way should stop."""

    def ask(told: Story, observed=None, name="", **settings) -> str | None:
        config = Config(preset="plain", plugins={"early_stop": settings})
        plugins = Plugins.only(single_file("early_stop"), config=config)
        plugins.on_failure = lambda failure: pytest.fail(str(failure))
        number = len(told.history.experiments) - 1
        request = run_request(tmp_path, name=name or f"test-{number}-0", experiment=number)
        return plugins.should_stop_run(request, observed or {}, told.history)

    return ask


def test_a_run_remembers_what_was_seen_of_it():
    """History keeps the campaign's metric of each run by training step."""
    past = watched({1: 2.0, 2: 1.5}, {1: 1.9}).history
    assert [dict(item.runs[0].observed) for item in past.experiments] == [
        {1: 2.0, 2: 1.5},
        {1: 1.9},
    ]


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_stops_what_is_far_behind_at_the_same_step(stop, better):
    """Ten per cent behind at the newest step that both have is too much."""
    best, run = ({1: 2.0, 2: 1.0, 3: 0.5}, {1: 2.0, 2: 1.2})
    if better == "higher":
        best, run = ({1: 0.1, 2: 0.5, 3: 0.9}, {1: 0.1, 2: 0.4})
    reason = stop(watched(best, run, better=better))
    assert "at step 2" in reason
    assert "behind by more than" in reason


@pytest.mark.parametrize(
    "run",
    [{1: 2.0, 2: 1.05}, {1: 5.0, 2: 1.0}, {1: 2.0, 2: 0.5}, {7: 9.0}],
    ids=["a little behind", "it caught up", "ahead", "no step in common"],
)
def test_lets_a_run_go_on_that_may_win(stop, run):
    """Only the newest common step counts, and a few per cent say nothing yet."""
    assert stop(watched({1: 2.0, 2: 1.0}, run)) is None


def test_another_seed_is_not_judged_by_the_first_run(stop):
    """A second run of an experiment is compared by what was seen of itself."""
    told = watched({1: 2.0, 2: 1.0}, {1: 2.0, 2: 9.0})
    (first,) = told.history.experiments[1].runs
    second = evolve(first, name="test-1-1", index=1, observed={1: 2.0})
    item = evolve(told.history.experiments[1], runs=(evolve(first, name="test-1-x"), second))
    told.history = evolve(told.history, experiments=told.history.experiments.set(1, item))
    assert stop(told, name="test-1-1") is None
    assert stop(told, name="test-1-x") is not None


def test_the_baseline_always_runs_to_its_end(stop):
    """There is nothing to compare the first run with."""
    assert stop(watched({1: 99.0})) is None


@pytest.mark.parametrize("name", ["score", "train_loss", "val_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stops_a_loss_that_is_no_number(stop, name, value):
    """What has diverged does not come back, not even in the baseline."""
    assert stop(watched({1: 2.0}), {name: value}) == f"{name} is {value}, it has diverged"


def test_other_numbers_may_be_infinite(stop):
    """Only losses are watched."""
    assert stop(watched({1: 2.0}), {"patience": float("inf")}) is None


def test_margin_and_first_step_can_be_set(stop):
    """A person decides how much is too much, and from when."""
    told = watched({1: 2.0, 2: 1.0}, {1: 2.0, 2: 1.2})
    assert stop(told, margin=0.5) is None
    assert stop(told, from_step=3) is None
    assert stop(told, margin=0.5, from_step=3, losses=["score"]) is None
    assert stop(told, margin=0.01) is not None


def test_a_campaign_saves_the_time_of_a_hopeless_run(campaign):
    """A real run is ended while it sleeps, and its experiment is not kept."""
    running = campaign("early_stop", SLOW, ideas=WORSE)
    running.run(experiments=2, wait=False)
    hopeless = running.history.experiments[1]
    assert hopeless.runs[0].status is RunStatus.STOPPED_EARLY
    assert hopeless.runs[0].seconds < 30
    assert hopeless.verdict != "keep"
