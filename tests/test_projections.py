"""results.tsv and notes.md to the letter, whatever foreign text stands in the log."""

from __future__ import annotations

import pytest
from attrs import evolve
from pyrsistent import pvector

from autoresearch import Decision, ValueChange, Verdict, events
from autoresearch.config import Config, MetricConfig
from autoresearch.folding import foresee
from autoresearch.projections.files import IN_A_LINE, WHOLE, NotesMd, ResultsTsv
from autoresearch.projections.memory import Try, bracket
from autoresearch.testing import Story, experiment, history, idea

SECTIONS = [
    "## Best Known Config",
    "## Dead Ends (do not revisit)",
    "## What Works",
    "## Ideas Queue (ranked by expected value)",
    "## Experiment Log",
]


def rows(*scores: float | None) -> list[list[str]]:
    """The cells of results.tsv for a history of these scores."""
    return [line.split("\t") for line in ResultsTsv().render(history(scores)).splitlines()]


def test_empty_campaign_has_just_the_header() -> None:
    """The file is created with six columns and nothing else."""
    table = ResultsTsv().render(history([]))
    assert table.count("\n") == 1
    assert len(table.rstrip("\n").split("\t")) == 6


def test_rows_have_six_cells_and_the_protocols_numbers() -> None:
    """Seven hex digits, six decimals, one decimal of megabytes, the status; zeros for a crash."""
    table = rows(1.10, 1.08, None)
    assert [len(row) for row in table] == [6] * 4
    assert [row[1] for row in table[1:]] == ["1.100000", "1.080000", "0.000000"]
    assert [row[3] for row in table[1:]] == ["keep", "keep", "crash"]
    assert table[3][2] == "0.0"
    assert all(len(row[0]) == 7 for row in table[1:])


def test_sections_of_notes_are_the_five_in_order() -> None:
    """notes.md has its five sections to the letter, also when nothing happened yet."""
    for past in (history([]), history([1.10, 1.08, 1.09, None])):
        lines = NotesMd().render(past).splitlines()
        assert [line for line in lines if line.startswith("## ")] == SECTIONS


def test_every_decided_experiment_has_its_two_blocks() -> None:
    """REASONING and ANALYSIS stand in the log of each experiment, in the given form."""
    notes = NotesMd().render(history([1.10, 1.08, 1.09]))
    assert notes.count("### Experiment ") == 3
    assert notes.count("=== REASONING ===\nHypothesis: ") == 3
    assert notes.count("=== ANALYSIS ===\nResult: ") == 3
    assert notes.count("\nvs Expected: ") == 3


def test_best_known_config_names_score_commit_and_change() -> None:
    """The first section tells what to build on."""
    past = history([1.10, 1.08, 1.09])
    first = NotesMd().render(past).split("## Dead Ends")[0]
    assert "1.080000" in first
    assert past.experiments[1].commit[:7] in first


def test_foreign_text_cannot_pose_as_structure() -> None:
    """Tabs, line ends, escapes and headings inside an idea stay inside one cell and one line."""
    past = history([1.10, 1.08])
    nasty = "a\tb\n## Dead Ends (do not revisit)\n- [x]\x1b[2J\r\n=== ANALYSIS ==="
    hostile = evolve(past.experiments[1], idea=idea(nasty))
    past = evolve(past, experiments=past.experiments.set(1, hostile))
    assert [len(line.split("\t")) for line in ResultsTsv().render(past).splitlines()] == [6] * 3
    notes = NotesMd().render(past)
    assert [line for line in notes.splitlines() if line.startswith("## ")] == SECTIONS
    assert "\x1b" not in notes


def test_quarantined_experiment_is_shown_as_discard_with_the_reason() -> None:
    """The table knows no fourth word, so the description says that a result is not believed."""
    past = history([1.10])
    held = evolve(
        experiment(0.50, verdict=Verdict.QUARANTINE, number=1),
    )
    past = evolve(past, experiments=past.experiments.append(held), timeline=past.timeline.append(1))
    row = ResultsTsv().render(past).splitlines()[-1].split("\t")
    assert row[3] == "discard"
    assert "quarantined" in row[5]


def test_crash_row_shows_no_number() -> None:
    """A run that printed a score and then crashed is 0.000000 and 0.0, as the protocol asks."""
    crashed = experiment(0.9, verdict="crash", metrics={"artifact_bytes": 5_000_000.0})
    row = ResultsTsv().render(history([1.1, crashed])).splitlines()[2].split("\t")
    assert row[1:4] == ["0.000000", "0.0", "crash"]


def test_several_changed_files_are_one_line() -> None:
    """Beside the blocks, and only where more than one differs from the commit built on."""
    past = history([1.1, 1.2, 1.3])
    first, second, third = past.experiments
    both, one = {"a.py": "2", "b.toml": "2", "c": "1"}, {"a.py": "1", "b.toml": "2", "c": "1"}
    sources = [{"a.py": "1", "b.toml": "1", "c": "1"}, both, one]
    made = [
        evolve(item, sources=told, parent_commit=first.commit)
        for item, told in zip((first, second, third), sources, strict=True)
    ]
    text = NotesMd().render(evolve(past, experiments=pvector(made)))
    assert [line for line in text.splitlines() if line.startswith("Files")] == [
        "Files: a.py, b.toml"
    ]
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS


def test_older_experiments_have_one_line_each() -> None:
    """The newest thirty are whole; of others number, change, score, verdict and lesson stay."""
    notes = NotesMd().render(history([2.0 - n / 100 for n in range(WHOLE + 3)]))
    log = notes.split("## Experiment Log\n")[1]
    assert log.count("### Experiment ") == log.count("=== REASONING ===") == WHOLE
    assert log.startswith(
        "The 3 before the newest 30 in one line each; results.tsv has a row for every experiment, "
        "and `autoresearch show NUMBER` has any of them whole.\n"
    )
    lines = [line for line in log.splitlines() if line.startswith("- ")]
    assert [line.split(":")[0] for line in lines] == ["- 0", "- 1", "- 2"]
    assert "; score 1.990000; keep; " in lines[1]
    assert [line for line in notes.splitlines() if line.startswith("## ")] == SECTIONS


def test_notes_are_as_long_after_many_experiments() -> None:
    """What was not kept and is far behind has no line; the table has a row for it."""
    story = history([2.0, *([1.9, 2.1, 2.1, 2.1] * 50)])
    log = NotesMd().render(story).split("## Experiment Log\n")[1]
    assert log.startswith(f"All kept before, and the {IN_A_LINE} before the newest {WHOLE} in one")
    lines = [int(line[2:].split(":")[0]) for line in log.splitlines() if line.startswith("- ")]
    first = 201 - WHOLE - IN_A_LINE
    kept = [item.number for item in story.kept if item.number < first]
    assert lines == [*kept, *range(first, 201 - WHOLE)]
    assert kept == [0, 1]
    assert ResultsTsv().render(story).count("\n") == 202


@pytest.mark.parametrize("made", [NotesMd, ResultsTsv])
def test_a_projection_that_has_rendered_before_renders_the_same(made) -> None:
    """What is kept of single experiments is never shown in place of what they are now."""
    story, used = Story(), made()
    for n in range(WHOLE + 5):
        story.add(2.0 - n / 100 if n % 3 else 3.0)
        assert used.render(story.history) == made().render(story.history)
    held = evolve(story.history.experiments[4], decision=Decision(verdict="crash", reason="no"))
    changed = evolve(story.history, experiments=story.history.experiments.set(4, held))
    assert used.render(changed) == made().render(changed) != used.render(story.history)
    other = evolve(changed, metric="loss")
    assert used.render(other) == made().render(other)
    facts = (
        events.Backtracked(to_experiment=0, after_experiment=3, reason="no", commit="abc1234"),
        events.Overruled(experiment=2, verdict="discard", reason="looked", author="a person"),
    )
    forks = [foresee(story.history, fact) for fact in facts]
    assert len({made().render(told) for told in (story.history, *forks)}) == 3
    for told in [*forks, story.history, *forks]:
        assert used.render(told) == made().render(told)


@pytest.mark.parametrize(("confidence", "unproven"), [(0.9, True), (0.966, False)])
def test_notes_call_a_keep_unproven_where_its_decision_did(
    confidence: float, unproven: bool
) -> None:
    """The decision knew how many runs were compared; the notes do not judge again."""
    kept = Decision(verdict="keep", reason="better", author="a test", confidence=confidence)
    config = Config(preset="plain", metric=MetricConfig(name="score", sd=0.06))
    told = history([1.36, experiment(1.25, decision=kept)], config=config)
    works = NotesMd().render(told).split("## What Works")[1].split("\n## ")[0]
    assert ("unproven" in works) == unproven


def test_the_gain_of_a_direction_stands_beside_all_of_its_way() -> None:
    """Two steps of one value that were kept are told from where the first began."""
    steps = [
        experiment(score, idea=idea(changes=(ValueChange(name="LR", old=old, new=new),)))
        for score, old, new in [(1.0, 0.3, 0.133), (0.8, 0.133, 0.0887)]
    ]
    notes = NotesMd().render(history([1.2, *steps]))
    works = notes.split("## What Works")[1].split("\n## ")[0]
    assert ": LR 0.3 -> 0.0887][better by 0.400000 score][experiments 1, 2]" in works


def test_a_likely_gain_is_no_loss_in_a_bracket() -> None:
    """What was not kept although it scored better is not said to be worse."""

    def moved(number: int, verdict: str, gain: float, old: float, new: float) -> Try:
        return Try(number=number, verdict=Verdict(verdict), gain=gain, name="LR", old=old, new=new)

    tries = (moved(1, "keep", 0.17, 0.1, 0.07), moved(2, "discard", 0.05, 0.07, 0.04))
    assert bracket(tries) == (
        "best LR = 0.07, bracketed: not proven better at 0.04 and worse at 0.1"
    )
    assert bracket(tries[1:]) == "best LR = 0.07, not proven better at 0.04, nothing tried above"
    lost = moved(3, "discard", -0.05, 0.07, 0.04)
    assert bracket((lost,)) == "best LR = 0.07, worse at 0.04, nothing tried above"
