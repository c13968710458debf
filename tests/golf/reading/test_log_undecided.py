"""Logs that do not say which of their numbers counts: no score, and the frauds in them flagged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoresearch.golf.reading import read_log

if TYPE_CHECKING:
    from conftest import Sketch

ROUNDTRIP = ("final_int6_roundtrip_exact", 1.13)
SLIDING = ("final_int6_sliding_window_exact", 1.11)


def test_an_adaptation_that_spoils_the_score_is_not_taken_for_it(sketch: Sketch) -> None:
    """Nobody hands in a test-time training that lost 0.2 bpb: no line is taken for the score."""
    reading = read_log(sketch.with_(finals=(ROUNDTRIP, SLIDING, ("final_int6_ttt", 1.336))).text())
    assert reading.val_bpb is None
    assert "not in this log: final_int6_ttt" in reading.note
    assert "is worse than" in reading.note
    assert not reading.violations


@pytest.mark.parametrize(
    "line",
    [
        "final_integrated_exact model_bpb:1.48535122 cached_bpb:1.05085540",
        "final_blended mixed_bpb:1.20179238 bits_saved:585942.68",
        "final_probe_exact val_bpb:1.19975497 delta_bpb:-0.00591724",
    ],
)
def test_a_later_score_in_an_unknown_form_is_not_passed_over(sketch: Sketch, line: str) -> None:
    """A last line that states a score under another key leaves the one before it undecided."""
    reading = read_log(sketch.with_(after=(line,)).text())
    assert reading.val_bpb is None
    assert "in an unknown form" in reading.note


@pytest.mark.parametrize(
    "line",
    ["final_summary delta_bpb:-0.004", "final_gain_bpb:0.01", "  final_val_bpb: 1.3000", "done"],
)
def test_a_last_line_without_a_score_of_its_own_changes_nothing(sketch: Sketch, line: str) -> None:
    """Differences and the indented table of a launcher are no scores."""
    assert read_log(sketch.with_(after=(line,)).text()).val_bpb == 1.2243657


@pytest.mark.parametrize(
    "summary",
    [
        "SUBMISSION_SUMMARY seed=42 val_loss=1.8742 val_bpb=1.11000000 artifact_bytes=15863489",
        'SUBMISSION_SUMMARY {"seed": 42, "val_bpb": 1.11, "artifact_bytes": 15863489}',
        "val_bpb:          1.11000000",
    ],
)
def test_a_summary_settles_which_of_two_lines_counts(sketch: Sketch, summary: str) -> None:
    """The last word of a log names the number; the line that it repeats is the score."""
    finals = (ROUNDTRIP, SLIDING, ("final_int6_ttt", 1.336))
    reading = read_log(sketch.with_(finals=finals, after=(summary,)).text())
    assert (reading.val_bpb, reading.score_name) == (1.11, "final_int6_sliding_window_exact")


def test_a_number_repeated_under_an_earlier_name_is_of_the_later_stage(sketch: Sketch) -> None:
    """A sliding window's name that says again what test-time training scored hides nothing."""
    finals = (SLIDING, ("legal_ttt_exact", 1.105), ("final_int6_sliding_window_exact", 1.105))
    assert read_log(sketch.with_(finals=finals).text()).val_bpb == 1.105


def test_a_stream_in_brackets_in_front_of_a_line_is_no_part_of_its_name(sketch: Sketch) -> None:
    """`[eval] final_...` is the line `final_...`."""
    text = sketch.with_(finals=()).text() + f"[eval] {sketch.metric('final_int6_x', 1.12)}\n"
    reading = read_log(text)
    assert (reading.val_bpb, reading.score_name) == (1.12, "final_int6_x")


def test_a_line_that_was_settled_before_is_the_only_one_that_counts(sketch: Sketch) -> None:
    """Neither a later stage nor a better number stands in for it."""
    text = sketch.with_(finals=(ROUNDTRIP, SLIDING)).text()
    assert read_log(text, line="final_int6_roundtrip").val_bpb == 1.13
    missed = read_log(text, line="legal_ttt")
    assert missed.val_bpb is None
    assert missed.note.startswith("not in this log: no line 'legal_ttt'")


def test_a_setting_in_words_may_stand_before_the_numbers(sketch: Sketch) -> None:
    """Settings between name and numbers need no digit in them."""
    text = sketch.with_(finals=(ROUNDTRIP,)).text()
    loss = sketch.loss(1.12)
    text += f"\nfinal_int6_sliding_exact backend:flash val_loss:{loss:.8f} val_bpb:1.12000000\n"
    assert read_log(text).val_bpb == 1.12


def test_a_cheat_is_flagged_where_the_log_does_not_say_what_counts(sketch: Sketch) -> None:
    """A cache's impossible number before a last ordinary line is withheld and flagged as well."""
    finals = (SLIDING, ("final_ngram_exact", 0.3), ("final_int6_roundtrip_exact", 1.13))
    reading = read_log(sketch.with_(finals=finals).text())
    assert reading.val_bpb is None
    assert {v.rule for v in reading.violations} == {"D10", "D11"}
