"""The queue as people see it, and the word with which a person keeps a direction out."""

from random import Random

import pytest

from autoresearch import Config, Idea, events
from autoresearch.config import MetricConfig
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    IdeaGeneratorContract,
    ProjectionContract,
    ScriptedIdeas,
    idea,
    story,
)

WIDER = """
from autoresearch import Idea, hookimpl

@hookimpl
def propose_idea(history, source):
    if history.rejected:
        return None
    words = dict(direction="width", description="WIDTH 4 -> 5", hypothesis="it helps")
    return Idea(source=source.replace("WIDTH = 4", "WIDTH = 5"), **words)
"""


CONFIG = Config(preset="plain", metric=MetricConfig(sd=0.001))


class TestProjectionContract(ProjectionContract):
    @pytest.fixture
    def projection(self, single_file):
        return single_file("human_queue").QueueMd(0.001)


class TestGeneratorContract(IdeaGeneratorContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("human_queue")


@pytest.fixture
def plugins(single_file):
    """The plugin alone, with a noise of 0.001."""
    return Plugins.only(single_file("human_queue"), config=CONFIG)


@pytest.fixture
def rows(plugins):
    """Renders queue.md and returns the cells of its rows."""

    def render(told):
        (projection,) = plugins.projections(CONFIG)
        lines = projection.render(told.history).splitlines()
        return [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]

    return render


def noted(*texts: str):
    """Return a story in which a person wrote these notes."""
    told = story([1.1])
    for text in texts:
        told.tell(events.NoteAdded(text=text, author="ada"))
    return told


def objected(plugins, told, direction: str) -> list[str]:
    """Return the reasons why an idea of this direction is refused."""
    found = plugins.review_idea(idea(direction=direction), told.history)
    assert all(item.fatal and item.author == "human_queue" for item in found)
    return [item.reason for item in found]


@pytest.mark.parametrize("direction", ["width", "Width", "learning rate down"])
def test_a_veto_drops_ideas_of_its_direction(plugins, direction):
    """The pattern may have a star, and upper and lower case are the same."""
    told = noted("a thought", "veto: learning rate*", "VETO: width ")
    assert len(objected(plugins, told, direction)) == 1


def test_a_veto_leaves_other_directions_alone(plugins):
    """Notes without a veto, and vetoes of something else, refuse nothing."""
    told = noted("width does not help, veto it?", "veto: depth")
    assert objected(plugins, told, "width") == []


def test_the_last_word_about_a_direction_counts(plugins):
    """A veto can be lifted, and be put back."""
    told = noted("veto: width", "allow: width")
    assert objected(plugins, told, "width") == []
    told.tell(events.NoteAdded(text="veto: w*", author="bob"))
    assert objected(plugins, told, "width") == ["bob vetoed 'w*'"]


def test_the_queue_is_ranked_by_expected_gain(rows):
    """The idea that promises most stands first, one that promises nothing known last."""
    told = story([1.1]).queue("unknown").queue("small", 0.01).queue("large", 0.05)
    assert [(row[0], row[2], row[4]) for row in rows(told)] == [
        ("1", "+0.0500", "large"),
        ("2", "+0.0100", "small"),
        ("3", "unknown", "unknown"),
    ]


def test_each_row_says_what_will_happen(rows):
    """Vetoes, dead ends, gains lost in noise and missing code are told before they surprise."""
    told = story([1.1]).queue("fine", 0.05).queue("too small to see", 0.001)
    made = idea("in words", source=None, patch=None, direction="words")
    told.tell(
        events.IdeaQueued(
            idea=made.id,
            direction=made.direction,
            description=made.description,
            hypothesis=made.hypothesis,
            author="a person",
        )
    )
    fates = [row[6] for row in rows(told)]
    assert fates[0] == "runs"
    assert "from noise" in fates[1]
    assert fates[2] == "runs if a plugin can write its code"
    told.declare_dead("width", "it never | helped")
    assert "dead end: it never \\" in " | ".join(rows(told)[0])
    told.tell(events.NoteAdded(text="veto: width", author="ada"))
    assert rows(told)[0][6] == "dropped: ada vetoed 'width'"


def test_the_best_idea_that_nobody_vetoed_comes_first(plugins):
    """What promises most is proposed in the name of who queued it; a veto passes over it."""
    told = story([1.1]).queue("small", 0.01).queue("large", 0.05)
    first = plugins.propose_idea(told.history, "", Random(1))
    assert (first.description, first.author, first.cites) == ("large", "a person", (0,))
    told.tell(events.NoteAdded(text="veto: width", author="ada"))
    assert plugins.propose_idea(told.history, "", Random(1)) is None


def test_what_a_person_asks_for_again_runs_again(plugins):
    """An idea that was tried and queued once more is proposed like any other."""
    told = story([1.1]).add(1.2, idea=idea("deeper", env={"WIDTH": "5"})).queue("deeper")
    again = plugins.propose_idea(told.history, "", Random(1))
    assert again.id in told.history.tried


def test_a_person_goes_before_the_files_of_the_project(single_file):
    """Whoever else was registered nearer to the user, the queue is asked before them."""
    other = ScriptedIdeas([idea("something else")])
    both = Plugins.only(single_file("human_queue"), other, config=CONFIG)
    told = story([1.1]).queue("large", 0.05)
    assert both.propose_idea(told.history, "", Random(1)).description == "large"


def test_an_empty_queue_is_shown_as_one(plugins):
    """A reader sees that there is nothing, and not an empty table."""
    (projection,) = plugins.projections(CONFIG)
    assert projection.render(story([1.1]).history) == "# Ideas queue of test\n\nempty\n"


def test_a_campaign_obeys_the_veto_and_shows_the_queue(campaign):
    """What a person vetoed never runs, and queue.md stands beside results.tsv."""
    settings, scores = 'active = ["no:script_ideas"]\n', [1.0, 0.5, 0.4]
    running = campaign("human_queue", "WIDTH = 4\n", settings, scores, wider=WIDER)
    running.add_note("veto: width")
    wanted = {"hypothesis": "less is better", "expected_gain": 0.5}
    for rate in ("0.5", "0.4"):
        running.add_idea(
            Idea(direction="rate", description=f"RATE {rate}", env={"RATE": rate}, **wanted),
            anyway=True,
        )
    running.run(experiments=2, wait=False)
    tried = [item.idea.direction for item in running.history.experiments]
    assert tried == ["baseline", "rate"]
    assert "| 1 |" in (running.project / "queue.md").read_text()
    running.run(experiments=5, wait=False)
    dropped = {item.reason for item in running.history.rejected if hasattr(item, "idea")}
    assert any("vetoed 'width'" in reason for reason in dropped)
    assert len(running.history.experiments) == 3
