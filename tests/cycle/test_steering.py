"""People steer, rank and queue: what they say stands where every author reads it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign, Idea
from autoresearch.cli import main
from autoresearch.errors import WorkspaceError
from autoresearch.projections.memory import review
from autoresearch.testing import ScriptedIdeas, set_constant


def notes(project: Path) -> str:
    """notes.md as it would be written now."""
    from autoresearch.projections.files import NotesMd

    return NotesMd().render(autoresearch.open_campaign(project).history)


def test_steering_stands_until_it_is_withdrawn(
    campaign: Callable[..., Campaign], project: Path
) -> None:
    """It is in notes.md and in the prompt, by its author, and gone when taken back."""
    made = campaign(1)
    number = made.steer("leave the width alone")
    assert number == 1
    assert "up to experiment" not in notes(project)
    assert ": leave the width alone\n" in notes(project)
    assert "leave the width alone" in review(made.history, 10_000)
    made.withdraw(number)
    assert "leave the width alone" not in notes(project)
    assert "leave the width alone" not in review(made.history, 10_000)
    with pytest.raises(WorkspaceError, match="no steering 1 stands"):
        made.withdraw(number)
    with pytest.raises(WorkspaceError, match="is empty"):
        made.steer(" \n")


def test_steering_holds_for_so_many_experiments(
    campaign: Callable[..., Campaign], project: Path
) -> None:
    """Two experiments hear it, the third does not; the files are rebuilt the same."""
    ideas = ScriptedIdeas([set_constant("WIDTH", n) for n in (5, 6, 8)])
    made = campaign(1, plugins=(ideas,))
    made.steer("only the width", experiments=2)
    assert "up to experiment 2" in notes(project)
    heard = []
    for _ in range(3):
        heard.append(bool(made.history.steered))
        made.run(1, plugins=(ideas, "no:script_ideas"), wait=False)
    assert heard == [True, True, False]


def test_a_driver_reads_the_steering(campaign: Callable[..., Campaign], project: Path) -> None:
    """The review of somebody who drives has it too."""
    campaign(1).steer("only the width")
    stand = autoresearch.Driver(
        autoresearch.open_campaign(project), "codex", plugins=["no:script_ideas"]
    ).review()
    assert [text.partition(" (by ")[0] for text in stand.facts["steering"]] == ["only the width"]


def test_ranking_changes_who_is_first(campaign: Callable[..., Campaign]) -> None:
    """A gain given later counts, and the idea stays what it was."""
    made = campaign(1)
    names = [
        made.add_idea(
            Idea(
                direction="d",
                description=text,
                hypothesis="h",
                expected_gain=gain,
                env={"HOME": text},
            )
        )
        for text, gain in (("first", 0.2), ("second", 0.1))
    ]
    before = made.history.queue[names[1]]
    assert [item.id for item in made.history.ranked_queue] == names
    made.rank_idea(names[1], 0.5)
    after = made.history.queue[names[1]]
    assert [item.id for item in made.history.ranked_queue] == names[::-1]
    assert (after.env, after.description, after.author) == (
        before.env,
        before.description,
        before.author,
    )
    with pytest.raises(WorkspaceError, match="idea nothing is not queued"):
        made.rank_idea("nothing", 1.0)
    with pytest.raises(WorkspaceError, match="the expected gain is nan; give a finite number"):
        made.rank_idea(names[0], math.nan)


def test_a_variable_that_nothing_reads_is_refused(campaign: Callable[..., Campaign]) -> None:
    """A misspelt name would spend a run on nothing; the machine's own names are known."""
    made = campaign(1)
    idea = Idea(direction="d", description="wider", hypothesis="h", env={"WIDTHX": "8"})
    with pytest.raises(WorkspaceError, match="no file of the repository mentions WIDTHX"):
        made.add_idea(idea)
    assert not made.history.queue
    assert made.add_idea(idea, anyway=True) in made.history.queue
    known = Idea(direction="d", description="threads", hypothesis="h", env={"OMP_NUM_THREADS": "1"})
    assert made.add_idea(known) in made.history.queue


def test_the_verbs(
    campaign: Callable[..., Campaign], project: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """steer lists what stands; idea rank says which place that is."""
    name = campaign(1).add_idea(Idea(direction="d", description="a", hypothesis="h"))
    monkeypatch.chdir(project)

    def say(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["autoresearch", *words])
        main()
        return capsys.readouterr().out

    assert "steering 1 stands" in say("steer", "only the width", "--for", "3")
    assert '"until_experiment": 4' in say("steer", "--json")
    assert "steering 1 is withdrawn" in say("steer", "--withdraw", "1")
    assert "number 1 of 1" in say("idea", "rank", name, "0.5")
    with pytest.raises(SystemExit):
        say("steer", "")
    assert "is empty; write what you want" in capsys.readouterr().err
