"""The questions of the docs run, and answer what the page says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from autoresearch.projections.tables import people_schema
from autoresearch.testing.story import EXAMPLES

DOCS = Path(__file__).parents[2] / "docs"


def sample_module() -> ModuleType:
    """docs/sample.py as a module."""
    spec = importlib.util.spec_from_file_location("sample", DOCS / "sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_question_has_the_answer_that_the_page_shows() -> None:
    """At least 25 of them; ``docs/sample.py`` writes today's answers."""
    made = sample_module()
    page = made.PAGE.read_text(encoding="utf-8")
    assert page.count("\n## ") >= 25
    with made.sample().log.connect() as connection:
        assert made.answered(page, connection) == page


@pytest.mark.parametrize("name", EXAMPLES)
def test_best_and_lineage_are_those_of_the_history(name: str) -> None:
    """The newest row has the best that strategies see; depth counts the way to the baseline."""
    told = EXAMPLES[name]()
    told.log.schema = people_schema()
    history = told.history
    with told.log.connect() as connection:
        newest = connection.execute(
            "SELECT best, best_experiment FROM best_so_far ORDER BY experiment DESC LIMIT 1"
        ).fetchall()
        assert (newest or [(None, None)])[0] == (history.best_metric, history.best_number)
        paths = dict(connection.execute("SELECT experiment, path FROM lineage").fetchall())
        gains = dict(connection.execute("SELECT experiment, gain FROM gain").fetchall())
    numbers = {item.commit: item.number for item in history.experiments}
    for item in history.experiments:
        parent = numbers.get(item.parent_commit)
        assert paths[item.number] == [*(paths[parent] if parent is not None else []), item.number]
        score = history.score(item)
        below = history.score(history.experiments[parent]) if parent is not None else None
        if score is not None and below is not None:
            assert gains[item.number] == pytest.approx(history.gain(score, below))
