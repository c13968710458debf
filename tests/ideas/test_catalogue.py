"""What is known of the challenge, and its proposals."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch import events
from autoresearch.config import Config, MetricConfig
from autoresearch.errors import ConfigError
from autoresearch.ideas import catalogue, hyperparameters
from autoresearch.ideas.catalogue import known
from autoresearch.model import Idea
from autoresearch.presets import presets
from autoresearch.testing import Story, story

METRIC = MetricConfig(name="val_bpb", sd=0.00064)
KNOWLEDGE = presets()["golf"].settings["knowledge"]


@pytest.fixture
def trainer(request: pytest.FixtureRequest) -> str:
    """The project's own trainer."""
    return (Path(request.config.rootpath) / "train_gpt.py").read_text()


def golf() -> Story:
    """Return a campaign on val_bpb after its baseline."""
    return story([1.2244], config=Config(preset="golf", metric=METRIC))


def every(told: Story, source: str, **settings: object) -> list[Idea]:
    """Return all that the plugin proposes until it has nothing left."""
    plugin = catalogue.Plugin()
    env, knowledge = settings.pop("env", {}), settings.pop("knowledge", KNOWLEDGE)
    plugin.configure(
        Config(metric=METRIC, env=env, knowledge=knowledge, plugins={"catalogue": settings})  # type: ignore[arg-type]
    )
    found = []
    while idea := plugin.propose_idea(told.history, source, {}):
        found.append(idea)
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    return found


def test_rows_are_facts_with_sources() -> None:
    """Keys are unique, verdicts and measures are of the known kinds, every row has a source."""
    rows = known(KNOWLEDGE)
    assert len({row.key for row in rows}) == len(rows) > 50
    assert {row.verdict for row in rows} == {
        *("works", "mixed", "neutral", "unknown", "fails", "illegal")
    }
    assert all(row.source and row.note and row.direction and row.area for row in rows)
    assert all(row.effect is None or abs(row.effect) < 0.6 for row in rows)


def test_what_works_got_better_and_what_fails_got_worse() -> None:
    """The sign of an effect agrees with its verdict, and forbidden tricks promise a lot."""
    for row in known(KNOWLEDGE):
        if row.effect is not None:
            assert row.effect <= 0 or row.verdict in ("fails", "neutral"), row.key
            assert row.effect > 0 or row.verdict != "fails", row.key
        assert not (row.verdict in ("fails", "illegal") and row.settings), row.key


def test_settings_name_variables_of_the_trainer(trainer: str) -> None:
    """Every row that is an edit can be made in the project's own trainer."""
    names = {item.name for item in hyperparameters(trainer)}
    assert {item.name for row in known(KNOWLEDGE) for item in row.settings} <= names


def test_proposals_are_edits_best_prior_first(trainer: str) -> None:
    """Each direction comes once, in the order of what it promises here, and compiles."""
    ideas = every(golf(), trainer)
    gains = [idea.expected_gain for idea in ideas]
    assert len(ideas) >= 10
    assert gains == sorted(gains, key=lambda gain: -(gain or 0))
    for idea in ideas:
        assert idea.source != trainer
        compile(str(idea.source), "train_gpt.py", "exec")
        assert idea.predicted == pytest.approx(1.2244 - (idea.expected_gain or 0))
        assert idea.evidence
        assert idea.cites == (0,)


def test_halving_the_rates_is_one_edit_of_three(trainer: str) -> None:
    """The measured change moves all rates together, as it was measured."""
    found = next(i for i in every(golf(), trainer) if i.description.startswith("halve_rates: "))
    assert found.description == (
        "halve_rates: MATRIX_LR 0.04 -> 0.02, SCALAR_LR 0.04 -> 0.02, TIED_EMBED_LR 0.05 -> 0.03"
    )
    assert "-0.0056 val_bpb, isolated" in found.evidence[0]


def test_what_cannot_move_is_left_out(trainer: str) -> None:
    """Variables set by the campaign, keys that a person skips, dead ends and guesses stay out."""
    full = {idea.direction for idea in every(golf(), trainer)}
    assert "warmdown" in full
    assert "warmdown" not in {
        idea.direction for idea in every(golf(), trainer, env={"WARMDOWN_ITERS": "40"})
    }
    assert "qk gain" not in {idea.direction for idea in every(golf(), trainer, skip=["qk_*"])}
    dead = golf().declare_dead("beta2")
    assert "beta2" not in {idea.direction for idea in every(dead, trainer)}
    assert len(every(golf(), trainer, unmeasured=False)) < len(full)


def test_without_a_file_or_its_hyperparameters_there_is_no_advice(trainer: str) -> None:
    """A campaign that names no file of known effects hears of none, nor does another script."""
    assert every(golf(), trainer, knowledge="") == []
    assert every(golf(), "print(1)\n") == []


HEAD = "key,area,direction,verdict,effect,measured,changes,note,source\n"


def test_any_campaign_may_bring_its_own_file(tmp_path: Path) -> None:
    """A file of the project, read from its top, is proposed in the campaign's own direction."""
    rows = "wide,shape,width,works,0.2,isolated,WIDTH*2,Wider is better.,notebook\n"
    rows += "flat,shape,depth,works,0.9,claimed,DEPTH=2,Deeper is better.,notebook\n"
    (tmp_path / "effects.csv").write_text(HEAD + rows)
    metric = MetricConfig(name="accuracy", better="higher")
    config = Config(preset="plain", metric=metric, knowledge="effects.csv").at(tmp_path)
    plugin = catalogue.Plugin()
    plugin.configure(config)
    told = story([0.5], config=config)
    idea = plugin.propose_idea(told.history, "WIDTH = 4\nDEPTH = 1\n", {})
    assert idea is not None
    assert idea.source == "WIDTH = 4\nDEPTH = 2\n"
    assert idea.predicted == pytest.approx(0.5 + 0.9 / 4)
    assert idea.expected_gain == pytest.approx(0.9 / 4)
    assert "+0.9000 accuracy, claimed" in idea.evidence[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key,area\n", "has no column direction"),
        (HEAD + "a,b,c,works,low,isolated,,n,s\n", "row 'a'"),
        (HEAD + "a,b,c,works,1,isolated,WIDTH+2,n,s\n", "'WIDTH+2' is not a change"),
    ],
)
def test_a_file_of_another_shape_is_told(tmp_path: Path, text: str, said: str) -> None:
    """The file and what is wrong with it stand in one line; so does a file that is not there."""
    (tmp_path / "effects.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"effects\.csv") as caught:
        catalogue.Plugin().configure(Config(knowledge="effects.csv").at(tmp_path))
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the knowledge"):
        catalogue.Plugin().configure(Config(knowledge="none.csv").at(tmp_path))
