"""Arms by what they promise: known effects, moves of numbers, near misses, bundles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from autoresearch.config import Config, MetricConfig
from autoresearch.ideas import search
from autoresearch.model import Decision, Idea, ValueChange
from autoresearch.testing import IdeaGeneratorContract, Story, experiment, story

SOURCE = "USE_GATE = False\nUSE_BAD = False\nUSE_SMALL = False\nMATRIX_LR = 0.04\nDEPTH = 9\n"
KNOWN = """key,area,direction,verdict,effect,measured,changes,note,source
gate,attention,gates,works,-0.02,isolated,USE_GATE=1,Sharper.,somebody
bad,attention,bad idea,fails,0.05,isolated,USE_BAD=1,Worse.,somebody
small,attention,small idea,works,-0.0004,isolated,USE_SMALL=1,A little.,somebody
"""


class TestContract(IdeaGeneratorContract):
    """It is a sound generator."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return search.Plugin


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A campaign whose knowledge has one large effect, one small one and one that fails."""
    path = tmp_path / "known.csv"
    path.write_text(KNOWN)
    return Config(
        preset="plain", metric=MetricConfig(name="val_bpb", sd=0.0006), knowledge=str(path)
    )


def proposed(config: Config, told: Story, seed: int = 0, source: str = SOURCE) -> Idea | None:
    """Return the idea of one seed."""
    plugin = search.Plugin()
    plugin.configure(config)
    return plugin.propose_idea(told.history, source, Random(seed), {})


def first(config: Config, told: Story, draws: int = 30) -> Counter[str]:
    """Return how often each direction is proposed."""
    found = (proposed(config, told, seed) for seed in range(draws))
    return Counter(idea.direction for idea in found if idea)


def test_the_largest_known_effect_comes_first(config: Config) -> None:
    """Half of an isolated effect is expected; moves of numbers promise less."""
    assert first(config, story([1.2244], config=config)).most_common(1)[0][0] == "gates"


def test_what_is_known_to_fail_is_not_tried(config: Config) -> None:
    """Neither as a known direction nor as a move of its switch."""
    found = [proposed(config, story([1.2244], config=config), seed) for seed in range(60)]
    assert not [i for i in found if i and any(c.name == "USE_BAD" for c in i.changes)]


def tried(told: Story, name: str, gain: float, expected: float, direction: str = "gates") -> None:
    """Tell an experiment that switched something on."""
    best = told.history.best_metric or 1.2244
    idea = Idea(
        direction=direction,
        description=f"{name} False -> True",
        hypothesis="it helps",
        author="search",
        changes=(ValueChange(name=name, old=False, new=True),),
        expected_gain=expected,
        source=f"# {name}\n{SOURCE}",
    )
    verdict = "keep" if gain > 0.002 else "discard"
    told.add(
        experiment(
            best - gain,
            metric="val_bpb",
            idea=idea,
            number=told.history.next_number,
            decision=Decision(verdict=verdict, reason="x", author="x", delta=-gain),
        )
    )


def test_what_is_known_fades_where_it_does_not_hold(config: Config) -> None:
    """Own tries of a group that brought nothing take trust from what is left of it."""
    shares = {"known attention": [-1.0, -0.5, 0.0]}
    assert search._held("known attention", shares["known attention"])[0] < 0.4
    assert search._held("known attention", [])[0] == 1.0
    assert search._held("known attention", [1.0] * 20)[1] < search._held("known attention", [])[1]


def test_near_misses_are_tried_together(config: Config) -> None:
    """Two small gains that one run could not prove become one change."""
    told = story([1.2244], config=config)
    tried(told, "USE_GATE", 0.0010, 0.01)
    tried(told, "USE_SMALL", 0.0009, 0.0004, "small idea")
    plugin = search.Plugin()
    plugin.configure(config)
    found = [proposed(config, told, seed) for seed in range(60)]
    together = [i for i in found if i and i.direction.startswith("bundle")]
    assert together
    assert {change.name for change in together[0].changes} == {"USE_GATE", "USE_SMALL"}
    assert set(together[0].cites) >= {1, 2}


def test_nothing_left_is_said(config: Config) -> None:
    """A script without a number has no arm."""
    told = story([1.2244], config=config)
    assert proposed(config, told, source="print('score: 1')\n") is None
    assert search.Plugin().explain_no_idea()
