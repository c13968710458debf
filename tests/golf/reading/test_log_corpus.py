"""Real public logs against what is known about them; `pytest -s` prints the table.

python -m pytest tests/golf/reading/test_log_corpus.py -s -k table
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autoresearch.golf.reading import LogReading
from autoresearch.golf.reading import read_log as read_anew

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
STATUS = {
    "ok": "completed",
    "ok_after_relaunch": "completed",
    "invalid_byte_count": "completed",
    "invalid_val_subset": "completed",
    "rule_violation": "completed",
    "ok_then_terminated": "terminated",
    "crash_in_eval": "crashed",
    "launcher_error": "crashed",
    "killed": "crashed",
}
# What the guard's checklist calls the flags that the collection gives its logs.
RULES = {
    "train_time_over_600s_by_1.7s": "D3",
    "val_tokens_too_few": "D8",
    "implied_bytes_off": "D9",
    "implausible_gap_pre_vs_final": "D10",
    "implausible_gap_roundtrip_vs_final": "D10",
}


def _records() -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for file in sorted(DATA.glob("logs/*/expected.json")):
        for case in json.loads(file.read_text())["files"]:
            flags = ["over_cap"] if case["over_cap_in_log"] else []
            known = {**case["expected"], "guard_flags": flags}
            known["all_candidates"] = case["all_candidates"]
            known["never_official"] = None if case["official"]["val_bpb"] else case["log_final"]
            found.append((file.parent / case["file"], known))
    return found


def _extras() -> list[tuple[Path, dict[str, Any]]]:
    file = DATA / "logs_extra" / "expected.json"
    if not file.is_file():
        return []
    found = []
    for case in json.loads(file.read_text())["cases"]:
        score = case["final_metric"] or {}
        known = {key: score.get(key) for key in ("val_bpb", "val_loss")}
        known |= {"metric_name": score.get("name"), "metric_line": score.get("line")}
        known["never_official"] = None
        found.append((file.parent / case["file"], {**case, **known}))
    return found


@cache
def read_log(path: Path) -> LogReading:
    """Read each log once for all tests; a reading is frozen."""
    return read_anew(path)


CASES = _records() + _extras()
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not CASES, reason="no collection of public logs beside the checkout"),
]
IDS = [f"{path.parent.name}/{path.name}" for path, _ in CASES]
each_log = pytest.mark.parametrize(("path", "known"), CASES, ids=IDS)


@each_log
def test_the_status_is_that_of_the_last_run(path: Path, known: dict[str, Any]) -> None:
    """A log says how its last run ended."""
    assert read_log(path).status == STATUS[known["status"]]


@each_log
def test_the_score_is_the_official_one_or_absent(path: Path, known: dict[str, Any]) -> None:
    """The score, its name and its line are those of the leaderboard; without one there is none."""
    reading = read_log(path)
    if known["never_official"]:  # the log has a score, which no leaderboard ever listed
        assert reading.val_bpb == known["never_official"]["val_bpb"]
        return
    assert reading.val_bpb == known["val_bpb"]
    assert reading.val_loss == known["val_loss"]
    assert reading.score_name == known["metric_name"]
    assert reading.score_line == known["metric_line"]
    assert reading.note.startswith("not in this log" if known["val_bpb"] is None else "inferred")


@each_log
def test_frauds_are_flagged_and_honest_runs_are_not(path: Path, known: dict[str, Any]) -> None:
    """Every flag of the collection becomes a violation; a run without a flag has none."""
    rules = {v.rule for v in read_log(path).violations}
    expected = {RULES[flag] for flag in known["guard_flags"] if flag in RULES}
    expected |= {"D6"} if "over_cap" in known["guard_flags"] else set()
    assert expected <= rules
    assert bool(rules) == bool(expected)


@each_log
def test_the_facts_beside_the_score_are_read(path: Path, known: dict[str, Any]) -> None:
    """Size, parameters, steps, clock, tokens, bytes and the number of runs are the log's own."""
    reading = read_log(path)
    pairs = {
        "artifact_bytes": known.get("bytes_total_in_log"),
        "model_params": known["model_params"],
        "steps": known["steps"],
        "train_time_ms": known["train_time_ms"],
        "runs": known["runs_in_file"],
        "val_tokens": known["val_tokens"],
        "implied_val_bytes": known["implied_val_bytes"],
    }
    if "approx" in str(known.get("size_label")):  # those logs also state the exact number
        assert reading.artifact_bytes == pytest.approx(pairs.pop("artifact_bytes"), abs=5000)
    stated = {name: value for name, value in pairs.items() if value is not None}
    assert {name: getattr(reading, name) for name in stated} == stated


@each_log
def test_every_candidate_is_listed(path: Path, known: dict[str, Any]) -> None:
    """No other score of the log is lost, and none is invented."""
    if "all_candidates" not in known:
        return
    listed = [(c.name, c.line, c.val_bpb) for c in read_log(path).candidates]
    assert listed == [(c["name"], c["line"], c["val_bpb"]) for c in known["all_candidates"]]


def test_table_of_expected_against_read(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole collection is read, and a person can look at the result line by line."""
    rows = [_row(path, known, read_log(path)) for path, known in CASES]
    print("\n" + "\n".join(rows))
    assert len(rows) == len(CASES)
    assert all("WRONG" not in row for row in rows)


def _row(path: Path, known: dict[str, Any], reading: LogReading) -> str:
    official = (known["never_official"] or known)["val_bpb"]
    right = reading.val_bpb == official and reading.status == STATUS[known["status"]]
    rules = ",".join(sorted({v.rule for v in reading.violations})) or "-"
    flags = ",".join(known["guard_flags"]) or "-"
    name = f"{path.parent.name}/{path.name}"[-46:]
    return (
        f"{'right' if right else 'WRONG'} {name:46} {known['status']:18} {reading.status:10} "
        f"{known['val_bpb'] or '-'!s:>10} {reading.val_bpb or '-'!s:>10}  {rules:8} {flags}"
    )
