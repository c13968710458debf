"""What is known of the challenge, and its proposals."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch import events
from autoresearch.config import Config, MetricConfig
from autoresearch.golf.known import known
from autoresearch.ideas import catalogue
from autoresearch.ideas.edits import hyperparameters
from autoresearch.model import Idea
from autoresearch.testing import Story, story

METRIC = MetricConfig(name="val_bpb", sd=0.00064)


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
    env = settings.pop("env", {})
    plugin.configure(
        Config(preset="golf", metric=METRIC, env=env, plugins={"catalogue": settings})  # type: ignore[arg-type]
    )
    found = []
    while idea := plugin.propose_idea(told.history, source):
        found.append(idea)
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    return found


def test_rows_are_facts_with_sources() -> None:
    """Keys are unique, verdicts and measures are of the known kinds, every row has a source."""
    rows = known()
    assert len({row.key for row in rows}) == len(rows) > 50
    assert {row.verdict for row in rows} == {
        *("works", "mixed", "neutral", "unknown", "fails", "illegal")
    }
    assert all(row.source and row.note and row.direction and row.area for row in rows)
    assert all(row.effect_bpb is None or abs(row.effect_bpb) < 0.6 for row in rows)


def test_what_works_got_better_and_what_fails_got_worse() -> None:
    """The sign of an effect agrees with its verdict, and forbidden tricks promise a lot."""
    for row in known():
        if row.effect_bpb is not None:
            assert row.effect_bpb <= 0 or row.verdict in ("fails", "neutral"), row.key
            assert row.effect_bpb > 0 or row.verdict != "fails", row.key
        assert not (row.verdict in ("fails", "illegal") and row.settings), row.key


def test_settings_name_variables_of_the_trainer(trainer: str) -> None:
    """Every row that is an edit can be made in the project's own trainer."""
    names = {item.name for item in hyperparameters(trainer)}
    assert {item.name for row in known() for item in row.settings} <= names


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
    assert "-0.0056 bpb, isolated" in found.evidence[0]


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


def test_other_metrics_and_scripts_get_no_advice(trainer: str) -> None:
    """The catalogue is about one challenge, and silent elsewhere."""
    assert every(story([1.1]), trainer) == []
    assert every(golf(), "print(1)\n") == []
