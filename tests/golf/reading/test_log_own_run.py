"""Runs of ours: one last line counts, once, after exit status 0, and must agree with the log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autoresearch.golf.reading import read_log, read_result

if TYPE_CHECKING:
    from conftest import Sketch

SHORT = "final_int8_zlib_roundtrip val_loss:2.0673 val_bpb:1.2244 eval_time:1401ms"
EXACT = "final_int8_zlib_roundtrip_exact val_loss:2.06728984 val_bpb:1.22436549"


def result(**changes: Any) -> dict[str, Any]:
    """Return the values of a result line that agree with the sketched log."""
    loss = 2.067289842
    return {
        "schema": 1, "val_loss": loss, "val_tokens": 62_021_632, "val_bytes": 151_080_363,
        "val_bpb": loss / math.log(2) * 62_021_632 / 151_080_363, "artifact_bytes": 15_863_489,
        "code_bytes": 47_642, "model_bytes": 15_815_847, "model_params": 17_059_912,
        "steps": 13_780, "train_time_ms": 600_038.2, "eval_time_ms": 1401.3, "seed": 1337,
        "world_size": 8, "val_digest": "a" * 64, "tokenizer_digest": "b" * 64,
        "code_digest": "c" * 64, "artifact_digest": "d" * 64,
        "script_stage": "int8_zlib_roundtrip", "hardware": "8x NVIDIA H100 80GB HBM3",
        "dtype": "bfloat16", "versions": {"python": "3.11.9", "torch": "2.9.1"},
        "reload_val_bpb": None, "data_dir": "fineweb10B_sp1024", "train_shards": 80, **changes,
    }  # fmt: skip


def line(**changes: Any) -> str:
    """Return a result line."""
    return "autoresearch_result " + json.dumps(result(**changes), separators=(",", ":"))


def log(sketch: Sketch, *after: str) -> str:
    """Return the log of a run of ours that ends in the given lines."""
    return sketch.with_(finals=(SHORT, EXACT), after=after).text()


def test_the_last_line_of_a_run_that_ended_well_is_its_result(sketch: Sketch) -> None:
    """All numbers come from the one line, with every decimal."""
    reading = read_result(log(sketch, line()), 0)
    assert reading.result is not None
    assert reading.result.val_bpb == result()["val_bpb"]
    assert reading.result.metrics()["artifact_bytes"] == 15_863_489
    assert "reload_val_bpb" not in reading.result.metrics()
    assert "seed" not in reading.result.metrics()
    assert (reading.reason, reading.violations) == ("", ())


def test_a_file_is_read_as_well_as_a_text(sketch: Sketch, tmp_path: Path) -> None:
    """The launcher leaves a file."""
    path = tmp_path / "run.log"
    path.write_text(log(sketch, line(reload_val_bpb=result()["val_bpb"] + 5e-5)))
    reading = read_result(path, 0)
    assert reading.result is not None
    assert reading.violations == ()


@pytest.mark.parametrize("exit_code", [1, -9, 124, None])
def test_without_exit_status_zero_nothing_counts(sketch: Sketch, exit_code: int | None) -> None:
    """A number that a failed process printed is no result."""
    reading = read_result(log(sketch, line()), exit_code)
    assert reading.result is None
    assert reading.reason.startswith("exit status")


def test_what_a_launchers_client_says_afterwards_does_not_matter(sketch: Sketch) -> None:
    """The output of the run ended before the client took leave."""
    farewell = ("", "Stopping app - local entrypoint completed.", "✓ App completed. View run at x")
    assert read_result(log(sketch, line(), *farewell), 0).result is not None


NO_RESULT = {
    "none": ((), "no line"),
    "in the middle": ((line(), "and then some"), "expected it in the last line"),
    "twice": ((line(), line()), "expected exactly one"),
    "forged before the true one": ((line(val_bpb=0.9), line()), "expected exactly one"),
    "cut off": ((line()[:-30],), "not valid JSON"),
    "quoted": (("print(" + line() + ")",), "no line"),
    "inside a longer line": (("score: " + line(),), "no line"),
    "another schema": ((line(schema=2),), "another schema"),
    "not a number": ((line(val_bpb=math.nan),), "NaN is not a number"),
    "infinite": ((line(val_loss=math.inf),), "Infinity is not a number"),
    "a number too large to be one": ((line().replace("1401.3", "1e999"),), "eval_time_ms"),
    "zero": ((line(val_bpb=0.0),), "val_bpb"),
    "negative": ((line(artifact_bytes=-1),), "artifact_bytes"),
    "a truth instead of a count": ((line(steps=True),), "steps"),
    "text instead of a number": ((line(val_loss="2.0"),), "val_loss"),
    "a number instead of a digest": ((line(code_digest=1),), "code_digest"),
    "half a count": ((line(val_tokens=1.5),), "val_tokens"),
    "a list": (("autoresearch_result {}",), "another schema"),
    "a key twice": ((line()[:-1] + ',"val_bpb":1.1}',), "twice"),
    "endless nesting": (("autoresearch_result {" + '"a":[' * 9000,), "not valid JSON"),
}


@pytest.mark.parametrize("what", NO_RESULT)
def test_anything_else_is_no_result_and_says_why(sketch: Sketch, what: str) -> None:
    """Forged, echoed, doubled, early, broken and mistyped lines give no score, but a reason."""
    after, reason = NO_RESULT[what]
    reading = read_result(log(sketch, *after), 0)
    assert reading.result is None
    assert reason in reading.reason


@pytest.mark.parametrize("name", [name for name in result() if name != "schema"])
def test_a_missing_value_is_named(sketch: Sketch, name: str) -> None:
    """A script that states less than the whole result states none."""
    values = {key: value for key, value in result().items() if key != name}
    reading = read_result(log(sketch, "autoresearch_result " + json.dumps(values)), 0)
    assert (reading.result, reading.reason) == (None, f"the result line has no {name}")


DISAGREEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a better score than the pair": ("D2", {"val_bpb": 1.2}),
    "another loss than the pair": ("D2", {"val_loss": 2.0}),
    "the ninth decimal is free, the seventh is not": ("D2", {"val_bpb": 1.2243656}),
    "tokens": ("D8", {"val_tokens": 62_021_000}),
    "bytes": ("D9", {"val_bytes": 164_594_398}),
    "a smaller artifact": ("D6", {"artifact_bytes": 15_000_000}),
    "a smaller model": ("D6", {"model_bytes": 15_000_000, "artifact_bytes": 15_047_642}),
    "a smaller script": ("D6", {"code_bytes": 7_642, "artifact_bytes": 15_823_489}),
    "parameters": ("D2", {"model_params": 1}),
    "steps": ("D3", {"steps": 13_000}),
    "clock": ("D3", {"train_time_ms": 590_000.0}),
    "seed": ("D2", {"seed": 1}),
    "world size": ("D2", {"world_size": 1}),
    "reload": ("D7", {"reload_val_bpb": 1.3}),
}


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_a_disagreement_with_the_rest_of_the_log_is_a_violation(sketch: Sketch, what: str) -> None:
    """The line counts, and what contradicts it is found."""
    rule, changes = DISAGREEMENTS[what]
    reading = read_result(log(sketch, line(**changes)), 0)
    assert reading.result is not None
    assert rule in {v.rule for v in reading.violations}


def test_the_canonical_pair_has_to_be_there_exactly_once(sketch: Sketch) -> None:
    """A second pair is a second run or a forgery."""
    twice = sketch.with_(finals=(SHORT, EXACT, SHORT, EXACT), after=(line(),)).text()
    none = sketch.with_(finals=(), after=(line(),)).text()
    for text in (twice, none):
        assert [v.rule for v in read_result(text, 0).violations] == ["D2"]


def test_two_runs_in_one_output_are_a_violation(sketch: Sketch) -> None:
    """One experiment has one run in its log."""
    first = sketch.with_(finals=()).text()
    reading = read_result(first + log(sketch, line()), 0)
    assert reading.result is not None
    assert "2 runs" in reading.violations[0].detail


def test_a_log_of_ours_is_read_by_its_result_line(sketch: Sketch) -> None:
    """Whoever reads the log later gets the same number, and no other line decides."""
    text = log(sketch, line())
    reading = read_log(text)
    assert (reading.status, reading.val_bpb) == ("completed", result()["val_bpb"])
    assert reading.score_name == "autoresearch_result"
    assert reading.score_line == len(text.splitlines())
    assert reading.note.startswith("the result line counts")
    assert reading.violations == ()


def test_a_log_of_ours_whose_result_does_not_count_has_no_score(sketch: Sketch) -> None:
    """The canonical pair alone is not enough where a result line was forged or doubled."""
    for after in ((line(), "more"), (line(), line()), (line()[:-9],)):
        reading = read_log(log(sketch, *after))
        assert reading.val_bpb is None
        assert reading.note.startswith("not in this log: a result line")
    failed = read_log(log(sketch, line()), exit_code=1)
    assert (failed.status, failed.val_bpb) == ("crashed", None)


def test_a_log_of_ours_shows_where_its_lines_disagree(sketch: Sketch) -> None:
    """The score of the result line is shown together with what speaks against it."""
    reading = read_log(log(sketch, line(val_bpb=1.2)))
    assert reading.val_bpb == 1.2
    assert {v.rule for v in reading.violations} == {"D2", "D9"}
