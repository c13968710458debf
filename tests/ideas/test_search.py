"""Arms by what they promise: known effects, moves of numbers, near misses, bundles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from attrs import evolve

from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.ideas import knobs, search
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
    """Return how often each hyperparameter is changed."""
    found = (proposed(config, told, seed) for seed in range(draws))
    return Counter(change.name for idea in found if idea for change in idea.changes)


def test_the_largest_known_effect_comes_first(config: Config) -> None:
    """Half of an isolated effect is expected; moves of numbers promise less."""
    found = first(config, story([1.2244], config=config))
    assert found["USE_GATE"] == 30
    assert found["DEPTH"] + found["MATRIX_LR"] <= 30  # one unknown move a run at the most


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


def learned(config: Config, *shown: search.Shown) -> search.Learned:
    """Return what is believed after some experiments."""
    named = {item.key: item for item in knobs({"train.py": SOURCE}, "train.py")}
    return search.Learned(config, named, 0.003, 0.0006, shown)


def shown(*names: str, gain: float | None, number: int = 1, grown: float = 0.0) -> search.Shown:
    """Return what an experiment showed that switched some things on."""
    return search.Shown(
        number=number, gain=gain, grown=grown, share=2.0,
        changes=dict.fromkeys(names, (False, True)),
    )  # fmt: skip


ON = {"USE_GATE": (False, True)}
SMALL = {"USE_SMALL": (False, True)}


def test_what_is_known_fades_where_it_does_not_hold(config: Config) -> None:
    """A try that brought nothing takes trust from the change, and from others of its area."""
    before, after = learned(config), learned(config, shown("USE_GATE", gain=-0.001))
    assert before.gain(ON)[0] == pytest.approx(0.01)
    assert abs(after.gain(ON)[0]) < 0.0011
    assert after.gain(SMALL)[0] < before.gain(SMALL)[0]


def test_a_bundle_tells_of_its_parts(config: Config) -> None:
    """What it lost is laid on all, and a part that holds alone lays it on the other."""
    lost = shown("USE_GATE", "USE_SMALL", gain=0.001)
    both, apart = learned(config, lost), learned(config, lost, shown("USE_GATE", gain=0.012))
    assert both.gain(ON)[0] < learned(config).gain(ON)[0]
    assert apart.gain(ON)[0] > 2 * both.gain(ON)[0]
    assert both.gain({"USE_GATE": (True, False)})[0] == pytest.approx(-both.gain(ON)[0])


def test_what_is_long_ago_is_forgotten_but_where_the_script_began_is_not(config: Config) -> None:
    """An idea late in a long campaign costs no more than one in the middle."""
    old = shown("USE_GATE", gain=-0.01)
    late = learned(config, old, *(shown("USE_SMALL", gain=0.0, number=n) for n in range(2, 500)))
    assert late.starts["USE_GATE"] is False
    assert late.tried.keys() == {("USE_SMALL", True)}


def test_a_crash_is_searched_for_by_halves(config: Config) -> None:
    """Who crashed together is suspected, who then ran is not, and who is left is not tried."""
    crashed = shown("USE_GATE", "USE_SMALL", gain=None)
    fresh, suspected = learned(config), learned(config, crashed)
    found = learned(config, crashed, shown("USE_SMALL", gain=0.0))
    assert fresh.worth(0.01, ON, None) > suspected.worth(0.01, ON, None) > 0.005
    assert found.worth(0.01, ON, None) < 0.001
    assert found.worth(0.01, SMALL, None) == 0.01


def test_what_does_not_fit_is_worth_nothing(config: Config) -> None:
    """Sizes are learned from what experiments weighed."""
    limited = evolve(config, limits=LimitsConfig(artifact_bytes=16_000_000))
    heavy = learned(limited, shown("USE_GATE", gain=0.01, grown=500_000.0))
    assert heavy.worth(0.01, ON, 15_700_000.0) < 1e-4
    assert heavy.worth(0.01, ON, 15_000_000.0) > 0.0099


def test_near_misses_are_tried_together(config: Config) -> None:
    """Two small gains that one run could not prove become one change."""
    told = story([1.2244], config=config)
    tried(told, "USE_GATE", 0.0010, 0.01)
    tried(told, "USE_SMALL", 0.0009, 0.0004, "small idea")
    found = [proposed(config, told, seed) for seed in range(60)]
    together = [
        idea for idea in found
        if idea and {"USE_GATE", "USE_SMALL"} <= {change.name for change in idea.changes}
    ]  # fmt: skip
    assert together
    assert together[0].direction.startswith("bundle")
    assert set(together[0].cites) >= {1, 2}


def test_nothing_left_is_said(config: Config) -> None:
    """A script without a number has no arm."""
    told = story([1.2244], config=config)
    assert proposed(config, told, source="print('score: 1')\n") is None
    assert search.Plugin().explain_no_idea()
