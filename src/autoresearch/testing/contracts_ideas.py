"""What every idea generator must do."""

from __future__ import annotations

import random
from random import Random

import pytest

from autoresearch.history import History
from autoresearch.model import Idea
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing.builders import SOURCE, experiment
from autoresearch.testing.contracts_base import PluginContract, situations, sound
from autoresearch.testing.story import Story, story


class IdeaGeneratorContract(PluginContract):
    """Conformance of ``propose_idea``; give ``plugin``, and ``source`` when it needs a certain one.

    A generator may have no idea in any of the situations, but what it proposes must be sound.
    """

    hooks = ("propose_idea",)

    @pytest.fixture
    def source(self) -> str:
        """The script at head."""
        return SOURCE

    def test_proposes_something(
        self, plugins: Plugins, source: str, failures: list[PluginFailure]
    ) -> None:
        """After a baseline, or in one of the other situations, it has an idea."""
        found = [plugins.propose_idea(past, source, Random(1)) for _, past in situations()]
        assert any(found), "it has no idea in any situation" + "".join(
            f"; {failure}" for failure in failures[:1]
        )

    def test_survives_every_history(
        self, plugins: Plugins, source: str, failures: list[PluginFailure]
    ) -> None:
        """It neither raises nor answers nonsense, whatever the campaign looks like."""
        for name, past in situations():
            plugins.propose_idea(past, source, Random(1))
            sound(failures, name)

    def test_same_history_same_idea(self, plugins: Plugins, source: str) -> None:
        """The idea follows from history, script and ``rng`` alone, so that it can be replayed."""
        for name, past in situations():
            first, second = _ask(plugins, past, source), _ask(plugins, past, source)
            assert first == second, f"{name}: asked twice, it proposed {first} and then {second}"

    def test_leaves_global_chance_alone(self, plugins: Plugins, source: str) -> None:
        """It draws from ``rng`` and neither reads nor reseeds the module ``random``."""
        before = random.getstate()
        for _, past in situations():
            _ask(plugins, past, source)
        assert random.getstate() == before, "it used the module random; use the rng it is given"

    def test_cites_what_exists(self, plugins: Plugins, source: str) -> None:
        """It refers only to experiments that were made."""
        for name, past in situations():
            idea = _ask(plugins, past, source)
            unknown = [n for n in idea.cites if not 0 <= n < past.next_number] if idea else []
            assert not unknown, f"{name}: it cites experiments {unknown}, which do not exist"

    def test_changes_something(self, plugins: Plugins, source: str) -> None:
        """New source differs from the script at head."""
        for name, past in situations():
            idea = _ask(plugins, past, source)
            unchanged = idea is not None and idea.source == source and not idea.env
            assert not unchanged, f"{name}: it proposed the script as it is"

    def test_does_not_repeat_itself(self, plugins: Plugins, source: str) -> None:
        """An idea that was tried is not proposed again."""
        told, idea = _first_idea(plugins, source)
        told.add(experiment(1.2, verdict="discard", idea=idea))
        again = _ask(plugins, told.history, source)
        assert again is None or again.id != idea.id, f"it proposed {idea.description!r} again"

    def test_leaves_dead_ends(self, plugins: Plugins, source: str) -> None:
        """It does not propose anything in a direction that was declared dead."""
        told, idea = _first_idea(plugins, source)
        told.declare_dead(idea.direction)
        again = _ask(plugins, told.history, source)
        assert again is None or again.direction != idea.direction, (
            f"it proposed {again.description!r} in the dead direction {idea.direction!r}"
        )


def _ask(plugins: Plugins, past: History, source: str) -> Idea | None:
    return plugins.propose_idea(past, source, Random(7))


def _first_idea(plugins: Plugins, source: str) -> tuple[Story, Idea]:
    told = story([1.1, 1.05])
    idea = _ask(plugins, told.history, source)
    if idea is None:
        pytest.skip("it has no idea after a baseline and one success")
    return told, idea
