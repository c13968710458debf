"""What the generators propose for the challenge's trainer is what its audit lets through."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from autoresearch import events
from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.golf.audits import audit_change
from autoresearch.history import History
from autoresearch.ideas import catalogue, script
from autoresearch.model import Idea
from autoresearch.testing import change, experiment, story

CONFIG = Config(
    preset="golf",
    metric=MetricConfig(name="val_bpb", sd=0.00064),
    limits=LimitsConfig(artifact_bytes=16_000_000),
    knowledge="autoresearch.golf:known.csv",
)


@pytest.mark.parametrize("plugin", [script.Plugin, catalogue.Plugin], ids=["script", "catalogue"])
def test_no_idea_is_a_violation(
    plugin: type[script.Plugin | catalogue.Plugin], request: pytest.FixtureRequest
) -> None:
    """With the baseline's artifact in the history, ten ideas break no rule and fit."""
    source = (Path(request.config.rootpath) / "train_gpt.py").read_text()
    base = experiment(1.2244, metric="val_bpb", metrics={"artifact_bytes": 15_863_489})
    told, made = story([base], config=CONFIG), plugin()
    made.configure(CONFIG)
    for number in range(10):
        idea = ask(made, told.history, source, number)
        if idea is None:
            break
        assert idea.source is not None
        edit = change(source, idea.source, idea=idea, files={"train_gpt.py": idea.source})
        found = audit_change(edit, allowed=("train_gpt.py",), limit=16_000_000)
        assert not [item for item in found if item.blocks], idea.description
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    assert len(told.history.rejected) == 10


def ask(
    made: script.Plugin | catalogue.Plugin, past: History, source: str, seed: int
) -> Idea | None:
    """Return the next idea of either generator."""
    if isinstance(made, script.Plugin):
        return made.propose_idea(past, source, Random(seed), {})
    return made.propose_idea(past, source, {})
