"""A campaign whose noise nobody set: measured with a cheap baseline, said with every decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve

import autoresearch
from autoresearch import Campaign, Idea, Verdict
from autoresearch.cycle.runs import next_seed
from autoresearch.export import the_night
from autoresearch.projections.memory import noise_in_words
from autoresearch.testing import ScriptedIdeas, make_project, set_constant

NOISY = """import os, random
WIDTH = 4
DICE = 0
luck = random.Random(f"{os.environ['SEED']} {DICE} {WIDTH}").gauss(0, 0.002)
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + luck:.6f}")
"""
SETTINGS = 'preset = "plain"\nscript = "train.py"\n[metric]\nname = "score"\n'


def run(tmp_path: Path, script: str, *ideas: Callable[[str], Idea], settings: str = "") -> Campaign:
    """Run the baseline and these ideas in a project that sets no noise."""
    project = make_project(tmp_path / "project", script=script, settings=SETTINGS + settings)
    plugins = (ScriptedIdeas(list(ideas)), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(1 + len(ideas), plugins=plugins, wait=False)  # it ends where there are no more
    return made


def reprint(text: str) -> Callable[[str], Idea]:
    """An idea that replaces the last line of the script."""

    def propose(source: str) -> Idea:
        lines = source.splitlines()
        return Idea(
            direction="print", description=f"print {text}", hypothesis="lower",
            source="\n".join([*lines[:-1], text, ""]),
        )  # fmt: skip

    return propose


SPLIT = """import os
WIDTH = 1
split = {"1337": 0.04, "1338": -0.005, "1339": -0.038}.get(os.environ["SEED"], 0.0)
print(f"score: {1.0 - 0.1 * WIDTH + split:.6f}")
"""


def test_an_idea_begins_with_the_seed_that_is_most_usual(tmp_path: Path) -> None:
    """Where the seed splits the data, by the first one alone nothing would be better than a mean.

    A gain of 0.1 would look like one of 0.06, with a seed that is worse for every script.
    """
    made = run(tmp_path, SPLIT, set_constant("WIDTH", 2), set_constant("WIDTH", 1))
    first, *ideas = made.history.experiments
    assert [run.seed for run in first.runs] == [1337, 1338, 1339]
    for item in ideas:
        assert [run.seed for run in item.runs] == [1338, 1339, 1337][: len(item.runs)]
    assert ideas[0].runs[0].metrics["score"] == pytest.approx(0.795)
    # A control has run with a seed that is more usual still: it is next, and none comes twice.
    control = evolve(first.runs[0], seed=1340, metrics={"score": 0.899})
    measured = evolve(first, runs=(*first.runs, control))
    history = evolve(made.history, experiments=made.history.experiments.set(0, measured))
    kit, once = SimpleNamespace(history=history, config=made.config), ideas[0].runs[:1]
    assert next_seed(kit, evolve(ideas[0], runs=()), "") == 1340
    assert next_seed(kit, evolve(ideas[0], runs=once), "") == 1340
    assert next_seed(kit, evolve(ideas[0], runs=(*once, control)), "") in (1337, 1339)
    assert next_seed(kit, measured, "") == 1341


def test_luck_and_a_printed_constant_are_not_kept_and_real_gains_are(tmp_path: Path) -> None:
    """Thirteen edits under the defaults: four times luck, a constant, losses, a crash, gains.

    Only the three gains, of 0.05, 0.03 and 0.01 at a noise of 0.002, are kept.
    """
    lucky = [set_constant("DICE", face) for face in (1, 2, 3, 4)]
    constant = reprint('print("score: 0.1")')
    better = [set_constant("WIDTH", width) for width in (5, 6, 7)]
    worse = [set_constant("WIDTH", width) for width in (0, 2, 3, 12)]
    # The gains first: an edit of another head is another idea, and would be tried again.
    edits = [*better, constant, *lucky, *worse, set_constant("WIDTH", None)]
    made = run(tmp_path, NOISY, *edits)
    history = made.history
    assert len(edits) == 13
    first = history.experiments[0]
    assert [run.seed for run in first.runs] == [1337, 1338, 1339]
    assert first.analysis.why == "the mean of 3 runs of the script as it is"
    assert 0.0004 < history.noise.sd < 0.01
    assert "measured over 3 runs" in history.experiments[0].decision.reason  # type: ignore[union-attr]
    kept = [item.idea.description for item in history.kept[1:]]
    assert kept == ["WIDTH = 5", "WIDTH = 6", "WIDTH = 7"]
    assert any("literal_score" in item.reason for item in history.rejected)
    verdicts = [item.verdict for item in history.experiments[1:]]
    assert len(verdicts) == len(edits) - 1  # the constant was dropped before it ran
    assert verdicts.count(Verdict.CRASH) == 1


def test_a_script_with_a_seed_of_its_own_measures_nothing(tmp_path: Path) -> None:
    """Two equal scores end the repetition, and the decision says that the noise is unknown."""
    made = run(tmp_path, "WIDTH = 4\nprint('score:', WIDTH)\n", set_constant("WIDTH", 3))
    assert len(made.history.experiments[0].runs) == 2
    decision = made.history.experiments[1].decision
    assert decision is not None
    assert decision.verdict is Verdict.KEEP
    assert "noise unknown" in decision.reason
    told = "noise: unknown: two seeds gave the very same score"
    assert any(line.startswith(told) for line in the_night(made.history))


def test_a_dear_baseline_is_not_repeated(tmp_path: Path) -> None:
    """What three runs would cost is held against noise.budget_seconds."""
    made = run(tmp_path, NOISY, settings="[noise]\nbudget_seconds = 0.001\n")
    assert len(made.history.experiments[0].runs) == 1
    assert made.history.noise.sd == 0
    assert "unknown: the baseline ran once" in noise_in_words(made.history)


def test_a_repetition_that_crashes_does_not_end_the_campaign(tmp_path: Path) -> None:
    """The baseline has its score from the first run."""
    made = run(tmp_path, NOISY + "assert os.environ['SEED'] == '1337'\n")
    baseline = made.history.experiments[0]
    assert baseline.verdict is Verdict.KEEP
