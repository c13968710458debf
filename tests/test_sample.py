"""The samples of the docs are true: notes of a simulated campaign, and the story of a real one."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import autoresearch
from autoresearch.history import family
from autoresearch.projections.files import IN_A_LINE, WHOLE

SAMPLE = Path(__file__).parents[1] / "docs" / "sample"


def script(name: str) -> ModuleType:
    """A script of the samples as a module."""
    spec = importlib.util.spec_from_file_location(name, SAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def notes() -> str:
    """notes.md of the simulated campaign."""
    return (SAMPLE / "simulated-notes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def log() -> list[dict[str, str]]:
    """What its log says, one row for each experiment."""
    with (SAMPLE / "simulated-log.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def section(notes: str, name: str) -> list[list[str]]:
    """The [bracketed] parts of every line of a section."""
    text = notes.partition(f"## {name}")[2].partition("\n## ")[0]
    return [re.findall(r"\[([^\]]*)\]", line) for line in text.splitlines() if line[:2] == "- "]


def numbers(text: str) -> list[int]:
    """The experiments that a claim names as its proof."""
    return [int(number) for number in re.findall(r"\d+", text)]


def test_simulated_log_is_what_the_simulator_gives(log) -> None:
    """The committed log is that of its seed: the first ones are made again here."""
    made = script("simulated")
    assert len(log) == made.EXPERIMENTS
    again = [dict(zip(made.COLUMNS, row, strict=True)) for row in made.rows(made.history(12))]
    assert again == log[:12]


def test_best_config_is_the_best_that_was_kept(notes, log) -> None:
    """Score, number and change."""
    best = min((row for row in log if row["status"] == "keep"), key=lambda row: row["score"])
    told = notes.partition("## Best Known Config\n")[2].partition("\n")[0]
    assert told.startswith(f"score {best['score']}, ")
    assert told.endswith(f"experiment {best['experiment']}: {best['description']}")


def test_dead_ends_died_of_what_they_name(notes, log) -> None:
    """Each proof is an experiment of that direction that was not kept, with its score."""
    ends = section(notes, "Dead Ends (do not revisit)")
    assert len(ends) > 5
    for direction, why, proof in ends:
        assert len(numbers(proof)) >= 3
        for number in numbers(proof):
            row = log[number]
            assert family(row["direction"]) == family(direction)
            assert row["status"] in ("discard", "crash")
            score = f"score {float(row['score']):.4f}" if row["score"] else "crash"
            assert f"{number} ({score})" in why


def test_what_works_was_kept_and_gained_that(notes, log) -> None:
    """Each proof was kept, and the gain is that on the best before it."""
    works = section(notes, "What Works")
    assert len(works) > 10
    for what, gain, proof in works:
        rows = [log[number] for number in numbers(proof)]
        assert {row["status"] for row in rows} == {"keep"}
        assert any(row["description"] in what for row in rows)
        gains = []
        for row in rows:
            before = [one for one in log[: int(row["experiment"])] if one["status"] == "keep"]
            gains.append(min(float(one["score"]) for one in before) - float(row["score"]))
        told = float(re.findall(r"better by ([\d.]+)", gain)[0])
        assert told == pytest.approx(sum(gains), abs=2e-6), what


def test_the_log_of_the_notes_has_what_was_kept_and_the_newest(notes, log) -> None:
    """The newest whole; before them a hundred, and all that was kept, in a line each."""
    for row in log:
        number, score = row["experiment"], f"score {row['score']}" if row["score"] else "no score"
        line = rf"^- {number}: .+; {score}; {row['status']}; "
        in_a_line = re.search(line, notes, re.MULTILINE) is not None
        newest = len(log) - int(number)
        assert (f"### Experiment {number}: " in notes) == (newest <= WHOLE), number
        told = newest > WHOLE and (row["status"] == "keep" or newest <= WHOLE + IN_A_LINE)
        assert in_a_line == told, number


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real campaign, unpacked."""
    return script("pictures").unpack(tmp_path_factory.mktemp("shipped"))


def test_readme_and_page_tell_what_the_real_campaign_did(shipped: Path) -> None:
    """Its lines are in results.tsv, its figures in the history; chance had as many runs."""
    history = autoresearch.open_campaign(shipped, "search").history
    chance = autoresearch.open_campaign(shipped, "chance").history
    runs = [sum(len(item.runs) for item in one.decided) for one in (history, chance)]
    assert runs == [37, 37]
    readme = (SAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("```text\n")[2].partition("```")[0].splitlines()
    told = (shipped / ".autoresearch" / "search" / "results.tsv").read_text(encoding="utf-8")
    assert set(lines) <= set(told.splitlines())
    page = (SAMPLE.parent / "sample-campaign.md").read_text(encoding="utf-8")
    best, table = history.best, history.experiments[10]
    assert best is not None
    for number in (
        history.score(history.experiments[0]),
        history.score(table),
        history.best_metric,
    ):
        assert f"{number:.6f}" in page
    assert table.verdict == "discard"
    assert f"{table.metrics['artifact_bytes']:,.0f} bytes" in page


def test_fresh_seeds_confirm_what_the_page_says() -> None:
    """The table is that of the file; the campaign's best is ahead of chance and baseline."""
    with (SAMPLE / "confirmed.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    page = (SAMPLE.parent / "sample-campaign.md").read_text(encoding="utf-8")
    means = []
    for part in (rows[:3], rows[3:6], rows[6:9]):
        assert len({row["seed"] for row in part}) == 3
        scores = [float(row["val_bpb"]) for row in part]
        means.append(sum(scores) / 3)
        assert f"| {' | '.join(f'{score:.4f}' for score in scores)} | {means[-1]:.4f} |" in page
    assert means[1] < means[2] < means[0]
