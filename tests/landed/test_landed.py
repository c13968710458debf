"""A campaign that release 0.1.0 wrote is read, shown and continued; make.py tells how it came."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Verdict
from autoresearch.testing import git

HERE = Path(__file__).parent
EXPECTED = HERE / "expected"
# Columns of the views that have another name since: view and name in 0.1.0 to name now.
RENAMED = {
    ("experiments", "generator"): "author",
    ("experiments", "policy"): "decided_by",
    ("decisions", "policy"): "author",
    ("ideas", "generator"): "author",
    ("dead_ends", "rule"): "author",
}
Rows = list[dict[str, object]]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the release left it, with its tables, for tests that only read."""
    project = _unpacked(tmp_path_factory.mktemp("landed"))
    _cli(project, "rebuild")
    return project


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The project as the release left it, to work on."""
    return _unpacked(tmp_path)


def _unpacked(folder: Path) -> Path:
    project = folder / "project"
    with tarfile.open(HERE / "project.tar.gz") as archive:
        archive.extractall(project, filter="data")
    return project


def _cli(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoresearch", *words],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )


def _journals(project: Path) -> dict[str, bytes]:
    folder = project / ".autoresearch" / "journal"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _now(view: str, row: dict[str, object]) -> dict[str, object]:
    return {RENAMED.get((view, name), name): value for name, value in row.items()}


def _sorted(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def _views(project: Path, expected: dict[str, Rows]) -> dict[str, Rows]:
    """Return the rows of the views by the columns that they had."""
    shown = {}
    with autoresearch.connect(project) as connection:
        for name, rows in expected.items():
            columns = ", ".join(f'"{column}"' for column in rows[0])
            found = connection.execute(f'SELECT {columns} FROM "{name}"').fetchall()
            made = [dict(zip(rows[0], row, strict=True)) for row in found]
            shown[name] = _sorted(json.loads(json.dumps(made, default=str)))
    return shown


def _expected_views() -> dict[str, Rows]:
    recorded: dict[str, Rows] = json.loads((EXPECTED / "views.json").read_text())
    return {name: _sorted([_now(name, row) for row in rows]) for name, rows in recorded.items()}


def _sections(notes: str) -> dict[str, list[str]]:
    parts = notes.split("## ")[1:]
    lines = [[line for line in part.splitlines() if line] for part in parts]
    return {title: rows for title, *rows in lines}


def test_verify_finds_nothing(landed: Path) -> None:
    """Every line, source, commit and output is as the release acknowledged it."""
    report = json.loads(_cli(landed, "verify", "--json").stdout)
    told = json.loads((EXPECTED / "verify.json").read_text())
    assert report["ok"] is True
    assert report["findings"] == []
    assert report["events"] == told["events"]


def test_views_give_the_rows_that_they_gave(landed: Path) -> None:
    """What an analyst asked yesterday has the same answer today."""
    expected = _expected_views()
    assert _views(landed, expected) == expected


def test_rebuild_gives_the_same_files_and_tables_each_time(own: Path) -> None:
    """results.tsv has the very bytes that the release wrote, notes.md the same lines."""
    expected = _expected_views()
    for _ in range(2):
        for name in ("results.tsv", "notes.md"):
            (own / name).unlink()
            (own / ".autoresearch" / "old" / name).unlink()
        _cli(own, "rebuild")
        for folder in (own, own / ".autoresearch" / "old"):
            results, notes = (folder / name for name in ("results.tsv", "notes.md"))
            assert results.read_bytes() == (EXPECTED / "results.tsv").read_bytes()
            told = (EXPECTED / "notes.md").read_text()
            assert _sections(notes.read_text()) == _sections(told)
            assert notes.read_text() == told
        assert _views(own, expected) == expected


def test_history_is_folded_from_what_is_there(landed: Path) -> None:
    """Keeps, discards, a crash, a fix, reruns, quarantines, a backtrack, a queue: all are known."""
    history = autoresearch.open_campaign(landed).history
    rows = [row.split("\t") for row in (EXPECTED / "results.tsv").read_text().splitlines()[1:]]
    told = [row[3] for row in rows if row[3] != "backtrack"]
    assert [str(item.verdict) for item in history.experiments] == told
    assert [item.commit[:7] for item in history.experiments] == [
        row[0] for row in rows if row[3] != "backtrack"
    ]
    assert [len(item.runs) for item in history.experiments] == [1] * 4 + [2, 3] + [1] * 9
    assert history.experiments[4].fixes == 1
    assert dict(history.experiments[7].env) == {"RATE": "0.4"}
    assert history.experiments[11].runs[0].status == "stopped_early"
    assert (history.head, history.best_number) == (9, 9)
    assert list(history.dead_ends) == ["wide"]
    assert [item.experiments for item in history.plateaus] == [(10, 11, 12, 13, 14)]
    assert [idea.description for idea in history.ranked_queue] == ["rate 0.35"]
    assert [note.text for note in history.notes] == [
        "look at the rate;\tit matters",
        "the rest tomorrow",
    ]
    assert history.spent.tokens == 150 * 18


@pytest.mark.parametrize("lab", ["as it was", "lost"])
def test_campaign_goes_on_where_it_was(own: Path, lab: str) -> None:
    """Two more experiments are run on it, the queued idea first; not a byte before is touched."""
    if lab == "lost":
        shutil.rmtree(own / ".autoresearch" / "old" / "lab")
    before = _journals(own)
    refs = git(own, "for-each-ref", "refs/autoresearch").splitlines()
    with autoresearch.open_campaign(own) as campaign:
        campaign.run(2, wait=False, accept_plugin_changes=True)
        history = campaign.history
    assert len(history.decided) == 17
    assert history.experiments[15].idea.description == "rate 0.35"
    assert all(item.verdict in Verdict for item in history.experiments)
    for name, data in before.items():
        assert _journals(own)[name].startswith(data)
    assert set(refs) <= set(git(own, "for-each-ref", "refs/autoresearch").splitlines())
    assert (own / "results.tsv").read_text().startswith((EXPECTED / "results.tsv").read_text())
    assert json.loads(_cli(own, "verify", "--json").stdout)["findings"] == []
