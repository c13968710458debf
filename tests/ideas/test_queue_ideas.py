"""The queue comes first, best first, each idea once."""

from __future__ import annotations

import pytest

from autoresearch import events
from autoresearch.history import History
from autoresearch.ideas import queue
from autoresearch.model import Idea
from autoresearch.testing import IdeaGeneratorContract, experiment, story


class TestContract(IdeaGeneratorContract):
    """It is a sound idea generator; the queue is part of the example situations."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return queue.Plugin


def top(past: History) -> Idea | None:
    """Return what the plugin proposes."""
    return queue.Plugin().propose_idea(past)


def test_an_empty_queue_passes_on() -> None:
    """Without queued ideas the next generator is asked."""
    assert top(story([1.1]).history) is None


def test_the_highest_expected_gain_comes_first() -> None:
    """Ideas without an estimate wait behind those with one."""
    told = story([1.1]).queue("unknown").queue("small", 0.001).queue("large", 0.01)
    names = []
    while idea := top(told.history):
        names.append(idea.description)
        told.add(experiment(1.2, idea=idea))
    assert names == ["large", "small", "unknown"]


def test_a_queued_idea_keeps_what_was_said_and_cites_the_best() -> None:
    """Environment, author and gain are the queue's; the prediction follows from the best."""
    told = story([1.1, 1.05]).queue("wider", 0.01)
    idea = top(told.history)
    assert idea is not None
    assert (idea.author, idea.cites, dict(idea.env)) == ("a person", (1,), {"WIDTH": "5"})
    assert idea.predicted == pytest.approx(1.04)
    assert idea.evidence == ("experiment 1 is the best so far: score 1.0500",)


def test_a_refused_idea_is_not_proposed_again() -> None:
    """An idea that was dropped does not block the queue behind it."""
    told = story([1.1]).queue("first", 0.02).queue("second", 0.01)
    idea = top(told.history)
    assert idea is not None
    told.tell(events.IdeaDropped(idea=idea.id, reason="nobody can implement it"))
    following = top(told.history)
    assert following is not None
    assert following.description == "second"


def test_a_refused_idea_that_is_queued_once_more_is_still_refused() -> None:
    """Whoever wants it in spite of that says so (`again`)."""
    told = story([1.1]).queue("first", 0.02)
    idea = top(told.history)
    assert idea is not None
    told.tell(events.IdeaDropped(idea=idea.id, reason="nobody can implement it"))
    told.queue("first", 0.02)
    assert len(told.history.queue) == 1
    assert top(told.history) is None


def test_an_idea_in_words_stays_in_words() -> None:
    """It is proposed without code, for another plugin to implement."""
    told = story([1.1])
    told.tell(
        events.IdeaQueued(
            idea="abc", direction="shape", description="try experts", hypothesis="h", author="me"
        )
    )
    idea = top(told.history)
    assert idea is not None
    assert not idea.has_code
    told.add(experiment(1.2, idea=idea))
    assert top(told.history) is None
