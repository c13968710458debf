"""Optuna's TPE sampler over the numbers of the script."""

import shutil
import sys
from pathlib import Path
from random import Random

import pytest
from attrs import evolve

from autoresearch import AutoresearchError, Config, hyperparameters
from autoresearch.plugins import Plugins
from autoresearch.testing import IdeaGeneratorContract, experiment, story

SCRIPT = """import os

WIDTH = 4
RATE = float(os.environ.get("RATE", "0.5"))  # kept as a comment
print(f"score: {1 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""
SEARCH = {"WIDTH": [2, 12], "RATE": [0.1, 1.0]}


class TestContract(IdeaGeneratorContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("optuna_ideas")

    @pytest.fixture
    def config(self):
        return Config(preset="plain", plugins={"optuna_ideas": {"search": SEARCH}})


@pytest.fixture
def load(single_file):
    """Makes a facade of the plugin alone with these settings."""

    def make(search=SEARCH, **options):
        config = Config(preset="plain", plugins={"optuna_ideas": {"search": search}}, **options)
        plugins = Plugins.only(single_file("optuna_ideas"), config=config)
        plugins.on_failure = lambda failure: pytest.fail(str(failure))
        return plugins

    return make


def values(source: str) -> dict[str, float]:
    """Return the hyperparameters of a script."""
    return {item.name: item.value for item in hyperparameters(source)}


def measured(source: str) -> float:
    """Return what the script prints."""
    found = values(source)
    return 1 + 0.01 * (found["WIDTH"] - 7) ** 2 + abs(found["RATE"] - 0.3)


def searched(plugins: Plugins, count: int) -> list[float]:
    """Return the scores of a search that goes on from the best script each time."""
    head, best = SCRIPT, measured(SCRIPT)
    told, scores = story([best]), []
    for number in range(count):
        idea = plugins.propose_idea(told.history, head, Random(number))
        score = measured(idea.source)
        told.add(experiment(score, idea=idea))
        scores.append(score)
        if score < best:
            head, best = idea.source, score
    return scores


def test_moves_only_what_was_named_and_within_its_range(load):
    """Numbers stay of their type, and every other byte of the script stays as it was."""
    plugins = load({"WIDTH": [2, 12]})
    for seed in range(8):
        idea = plugins.propose_idea(story([1.0]).history, SCRIPT, Random(seed))
        width = values(idea.source)["WIDTH"]
        assert 2 <= width <= 12
        assert idea.source == SCRIPT.replace("WIDTH = 4", f"WIDTH = {width}")
        assert idea.description == f"WIDTH 4 -> {width}"
        assert idea.direction == "tune WIDTH"


def test_learns_from_what_it_tried(load):
    """The last trials of a search are better than the random ones at its start."""
    scores = searched(load(), 24)
    assert sorted(scores[-8:])[4] < sorted(scores[:5])[2]
    assert min(scores) < measured(SCRIPT)


def test_knows_what_it_tried_from_the_history_alone(load):
    """A plugin that was just loaded goes on as the one that made the search would."""
    told = story([1.0])
    for number, score in enumerate((0.9, 0.95, None, 0.8, 0.85, 0.84)):
        idea = load().propose_idea(told.history, SCRIPT, Random(number))
        told.add(experiment(score, idea=idea))
    first, second = (load().propose_idea(told.history, SCRIPT, Random(9)) for _ in range(2))
    blank = load().propose_idea(story([1.0]).history, SCRIPT, Random(9))
    assert first == second
    assert first.source != blank.source


def test_leaves_alone_what_the_environment_decides(load):
    """A literal that a variable overrides would change nothing."""
    plugins = load(env={"RATE": "0.2"})
    idea = plugins.propose_idea(story([1.0]).history, SCRIPT, Random(1))
    assert values(idea.source)["RATE"] == 0.5
    assert values(idea.source)["WIDTH"] != 4


def test_leaves_alone_what_a_kept_experiment_overrides(load):
    """The overrides of the kept line count as well."""
    past = story([1.0, 0.9]).history
    head = evolve(past.experiments[1], env={"RATE": "0.2"})
    past = evolve(past, experiments=past.experiments.set(1, head))
    idea = load().propose_idea(past, SCRIPT, Random(1))
    assert values(idea.source)["RATE"] == 0.5


def test_gives_up_a_number_whose_direction_is_dead(load):
    """A dead end takes one number out of the search, and the others go on."""
    told = story([1.0, 1.1], directions=["tune WIDTH"]).declare_dead("tune WIDTH")
    idea = load().propose_idea(told.history, SCRIPT, Random(1))
    assert values(idea.source)["WIDTH"] == 4
    assert values(idea.source)["RATE"] != 0.5


def test_a_person_goes_first(load):
    """While an idea is queued the sampler is silent."""
    told = story([1.0]).queue("deeper", 0.01)
    assert load().propose_idea(told.history, SCRIPT, Random(1)) is None


def test_ignores_results_that_are_not_believed(load):
    """A quarantined score, however good, does not lead the search."""
    idea = load().propose_idea(story([1.0]).history, SCRIPT, Random(1))
    crashed, quarantined = experiment(None), experiment(0.001, verdict="quarantine")
    told = [story([1.0]).add(evolve(made, idea=idea)) for made in (crashed, quarantined)]
    for past in told:
        for number in range(8):
            tried = load().propose_idea(past.history, SCRIPT, Random(number))
            past.add(experiment(1.1 + number / 10, idea=tried))
    first, second = (load().propose_idea(past.history, SCRIPT, Random(2)) for past in told)
    assert first == second


def test_no_range_is_an_error_that_says_what_to_do(load):
    """Naming the plugin without telling it what to search stops with one line."""
    with pytest.raises(
        AutoresearchError, match=r"plugin optuna_ideas: search is empty; add ranges such"
    ):
        load({})


def test_large_whole_numbers_are_searched(load):
    """A batch of half a million tokens is a number like any other."""
    plugins = load({"TOKENS": [100_000, 4_000_000]})
    ideas = [
        plugins.propose_idea(story([1.0]).history, "TOKENS = 524288\n", Random(seed))
        for seed in range(8)
    ]
    assert all(isinstance(idea.changes[0].new, int) for idea in ideas)
    assert max(idea.changes[0].new for idea in ideas) > 1_000_000


def test_without_optuna_only_naming_it_fails(tmp_path, monkeypatch):
    """Where optuna is missing, one line says so, and only to those who use the plugin."""
    (tmp_path / "plugins").mkdir()
    shutil.copy(Path(__file__).parents[2] / "plugins" / "optuna_ideas.py", tmp_path / "plugins")
    monkeypatch.setitem(sys.modules, "optuna", None)
    blocked = Config(preset="plain", active=("no:plugins/*.py",))
    assert "optuna_ideas" not in Plugins.load(blocked, tmp_path, (), {}).active
    with pytest.raises(
        AutoresearchError, match=r"^plugin 'optuna_ideas' .*optuna.*no:optuna_ideas$"
    ):
        Plugins.load(blocked, tmp_path, ("optuna_ideas",), {})


def test_a_campaign_tries_its_ideas(campaign):
    """In a campaign its points become experiments that the log can give back to it."""
    table = "[plugins.optuna_ideas.search]\nWIDTH = [2, 12]\nRATE = [0.1, 1.0]\n"
    running = campaign("optuna_ideas", SCRIPT, table, [1.0, 1.1, 1.2])
    running.run(experiments=3, wait=False)
    tried = running.history.experiments[1:]
    assert [item.idea.author for item in tried] == ["optuna_ideas"] * 2
    names = [{change.name for change in item.idea.changes} for item in tried]
    assert all(found and found <= {"WIDTH", "RATE"} for found in names)
