"""Experiments appear on an MLflow server, each once, whatever happens in between."""

import importlib.util
from pathlib import Path

import pytest
from attrs import evolve

from autoresearch import Config, events
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing import ObserverContract, Story, idea, story


@pytest.fixture
def server(monkeypatch):
    """A loopback server that keeps what it is sent."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    place = Path(__file__).parent / "mlflow_server.py"
    spec = importlib.util.spec_from_file_location("mlflow_server", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.MlflowServer() as running:
        yield running


class TestContract(ObserverContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("mlflow_mirror")

    @pytest.fixture
    def config(self, server):
        return Config(preset="plain", plugins={"mlflow_mirror": {"tracking_uri": server.uri}})


@pytest.fixture
def show(single_file, server):
    """Shows the newest verdict of a story to a plugin that was just loaded; returns failures."""

    def observe(told: Story, kind: str = "decided", **settings) -> list[PluginFailure]:
        table = {"tracking_uri": server.uri, **settings}
        config = Config(preset="plain", plugins={"mlflow_mirror": table})
        plugins = Plugins.only(single_file("mlflow_mirror"), config=config)
        failures: list[PluginFailure] = []
        plugins.on_failure = failures.append
        event = [item for item in told.log.read() if item.type == kind][-1]
        plugins.event_recorded(event, told.history)
        plugins.close()
        return failures

    return observe


def numbers(server) -> list[str]:
    """Return which experiments the server has, in the order in which they arrived."""
    return [server.tags(run)["autoresearch_run"] for run in server.runs]


def test_a_run_says_what_was_tried_and_what_came_of_it(show, server):
    """Metrics, overrides, verdict and times of an experiment stand in its run."""
    tried = idea("a wider model", direction="width", env={"WIDTH": "5"})
    told = story([1.1]).add(1.05, idea=tried, metrics={"step avg (ms)": 43.5})
    assert show(told) == []
    run = server.runs[0]
    assert server.tags(run) == {
        "autoresearch_run": "test/1",
        "mlflow.runName": "test 1: a wider model",
        "verdict": "keep",
        "direction": "width",
    }
    assert {item["key"]: item["value"] for item in run["data"]["metrics"]} == {
        "score": 1.05,
        "step avg _ms_": 43.5,
    }
    assert run["data"]["params"] == [{"key": "WIDTH", "value": "5"}]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["end_time"] - run["info"]["start_time"] == 1000


def test_a_crash_is_a_failed_run_without_a_score(show, server):
    """A missing metric stays missing."""
    show(story([1.1, None]))
    assert server.runs[0]["info"]["status"] == "FAILED"
    assert server.runs[0]["data"]["metrics"] == []


def test_only_a_verdict_or_a_stop_is_worth_a_request(show, server):
    """Thousands of other events cost nothing, and neither does a plugin without an address."""
    show(story([1.1]), kind="run_finished")
    show(story([1.1]), tracking_uri="")
    assert server.calls == []
    told = story([1.1])
    told.tell(events.CampaignStopped(reason="a test"))
    show(told, kind="campaign_stopped")
    assert numbers(server) == ["test/0"]


def test_a_repetition_adds_nothing(show, server):
    """After a resume every experiment is found again, over several pages of answers."""
    told = story([1.1, 1.05, 1.2, 1.3, 1.0])
    show(told)
    server.calls.clear()
    show(told)
    assert {path for path, _ in server.calls} == {"experiments/search", "runs/search"}
    told.add(0.9)
    show(told)
    assert sorted(numbers(server)) == [f"test/{number}" for number in range(6)]


def test_what_an_outage_cost_is_made_up_for(show, server):
    """A run that was cut off half way is completed, and those that were missed are added."""
    server.refuse = "runs/log-batch"
    (failure,) = show(story([1.1]))
    assert "400" in failure.error
    server.refuse = ""
    show(story([1.1, 1.05]))
    assert sorted(numbers(server)) == ["test/0", "test/1"]
    assert {run["info"]["status"] for run in server.runs} == {"FINISHED"}


def test_a_server_that_is_away_is_a_failure_and_no_delay(show):
    """The observer fails at once, so it is neither waited for nor switched off."""
    (failure,) = show(story([1.1]), tracking_uri="http://127.0.0.1:9")
    assert "refused" in failure.error


def test_time_is_up_and_the_rest_follows(show, server):
    """With no time left nothing new is begun; the next verdict brings what is missing."""
    told = story([1.1, 1.05])
    show(told, seconds=0.0)
    before = len(server.runs)
    show(told)
    assert before == 0
    assert len(server.runs) == 2


def test_other_campaigns_of_the_server_stay_apart(show, server):
    """Two campaigns in one MLflow experiment do not take each other for done."""
    show(story([1.1]))
    other = Story(campaign="test2").add(1.1)
    show(other)
    assert numbers(server) == ["test/0", "test2/0"]


def test_a_token_is_sent_as_mlflow_expects_it(show, server, monkeypatch):
    """The secret comes from the environment and is never recorded."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    show(story([1.1]))
    assert {token for _, token in server.calls} == {"Bearer abc"}


def test_what_was_seen_during_a_run_is_a_curve(show, server):
    """The values of one run by training step, at most as many as the server takes at once."""
    told = story([1.1, 1.05])
    curve = {step: 3.0 - step / 1000 for step in range(1200)}
    seen = evolve(told.history.experiments[1].runs[0], observed=curve)
    item = evolve(told.history.experiments[1], runs=(seen,))
    told.history = evolve(told.history, experiments=told.history.experiments.set(1, item))
    assert show(told) == []
    steps = [item["step"] for item in server.runs[0]["data"]["metrics"] if "seen" in item["key"]]
    assert steps == list(range(900, 1200))


def test_a_campaign_is_mirrored_while_it_runs(campaign, server):
    """A real campaign leaves the baseline and its experiment on the server."""
    running = campaign(
        "mlflow_mirror",
        "WIDTH = 4\n",
        f'[plugins.mlflow_mirror]\ntracking_uri = "{server.uri}"\n',
        scores=[1.5],
    )
    running.run(experiments=2, wait=False)
    assert numbers(server) == ["toy/0", "toy/1"]
    assert [item.event.error for item in running.log.read() if item.type == "plugin_failed"] == []
