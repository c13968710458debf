"""The checks of a finished run, one by one, as functions of values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.golf import plausibility as check
from autoresearch.golf.plausibility import (
    LAUNCH,
    PUBLISHED_BYTES,
    SPLITS,
    expected_bytes,
    named_split,
    split_of_count,
)

TOKENS = 62_021_632


def rules(found: check.Findings) -> list[tuple[str, str]]:
    """Return what was found as pairs of rule and severity."""
    return [(v.rule, v.severity) for v in found]


@given(st.floats(0.5, 8), st.integers(1000, 10**9), st.integers(1000, 10**10), st.floats(-0.3, 0.3))
def test_conservation_sees_the_bytes_and_not_the_model(
    bpb: float, tokens: int, size: int, off: float
) -> None:
    """Whatever the score, bytes that are off by more than 0.5 % are found, fewer are not."""
    loss = bpb * math.log(2) * size * (1 + off) / tokens
    found = check.conservation(tokens, loss, bpb, size)
    if abs(off) > 0.00501:
        assert rules(found) == [("D9", "violation")]
    elif abs(off) < 0.00499:
        assert found == ()


def test_conservation_knows_the_published_text() -> None:
    """The published baseline conserves 151,080,363 bytes, and 8.9 % more are found."""
    assert check.conservation(TOKENS, 2.09055653, 1.23814533) == ()
    (found,) = check.conservation(47_851_520, 2.40073153, 1.00692894)
    assert "164,594,398" in found.detail
    assert "+8.9%" in found.detail


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_conservation_refuses_what_is_no_score(bad: float) -> None:
    """A loss or a score that no model has is a finding, not an exception."""
    assert rules(check.conservation(TOKENS, bad, 1.2)) == [("D9", "violation")]
    assert rules(check.conservation(TOKENS, 2.0, bad)) == [("D9", "violation")]
    assert rules(check.conservation(0, 2.0, 1.2)) == [("D9", "violation")]


@pytest.mark.parametrize(
    ("earlier", "final", "stage", "flagged"),
    [
        (1.2172, 1.2244, "training", False),
        (1.2274, 1.1929, "roundtrip", False),
        (1.20, 1.141, "roundtrip", False),
        (1.20, 1.139, "roundtrip", True),
        (1.1107, 0.7093, "sliding", True),
        (1.12, 1.091, "sliding", False),
        (1.12, 1.089, "sliding", True),
        (1.5907, 1.5161, "roundtrip", False),
        (1.2, math.nan, "roundtrip", True),
    ],
)
def test_a_gap_is_plausible_up_to_what_honest_stages_win(
    earlier: float, final: float, stage: str, flagged: bool
) -> None:
    """0.06 bpb below any stage or 0.03 below a sliding window is more than evaluation gives."""
    assert bool(check.gap(earlier, final, stage=stage)) == flagged


def test_the_lowest_stage_is_the_one_to_beat() -> None:
    """A bad quantisation that adaptation repairs is not a gap."""
    assert check.stage_gaps(1.21, others={"training": 1.217, "roundtrip": 1.39}) == ()
    (found,) = check.stage_gaps(1.10, others={"training": 1.217, "roundtrip": 1.39})
    assert "training" in found.detail


def test_what_no_audit_ever_confirmed_is_flagged() -> None:
    """A score far under the audited leader needs a person."""
    assert check.beyond_audited(1.0565) == ()
    assert rules(check.beyond_audited(1.0217)) == [("D11", "violation")]


@pytest.mark.parametrize(
    ("train_ms", "step_ms", "severity"),
    [
        (600_000, 43.5, None), (600_199, 43.5, None), (600_201, 43.5, "warning"),
        (601_000, 43.5, "warning"), (601_001, 43.5, "violation"), (602_500, 3000.0, None),
    ],
)  # fmt: skip
def test_training_may_overshoot_by_one_step(
    train_ms: float, step_ms: float, severity: str | None
) -> None:
    """A step that was under way at the cap is finished; a second over is too much."""
    found = check.training_clock(train_ms, step_ms=step_ms)
    assert [v.severity for v in found] == ([severity] if severity else [])


def test_evaluation_has_ten_minutes_of_its_own() -> None:
    """The runner's clock decides."""
    assert check.evaluation_clock(600_000) == ()
    assert rules(check.evaluation_clock(688_000)) == [("D5", "violation")]


def test_the_artifact_is_what_lies_on_disk() -> None:
    """Under 16,000,000 bytes, and the log says the same number to the byte."""
    assert check.artifact(15_999_999, logged=15_999_999) == ()
    assert rules(check.artifact(16_000_000)) == [("D6", "violation")]
    (found,) = check.artifact(15_863_490, logged=15_863_489)
    assert "15,863,489" in found.detail
    assert "15,863,490" in found.detail


def test_a_reloaded_artifact_scores_the_same() -> None:
    """Within 1e-4, and a score that was never repeated is a finding."""
    assert check.reload(1.2244, 1.22449) == ()
    assert rules(check.reload(1.2244, 1.2246)) == [("D7", "violation")]
    assert rules(check.reload(1.2244, None)) == [("D7", "violation")]


def test_a_digest_that_differs_or_is_missing_is_found() -> None:
    """Each locked thing is compared, and the finding names it."""
    locked = {"val": "a" * 64, "tokenizer": "b" * 64}
    assert check.same_digests({**locked, "more": "c"}, locked) == ()
    found = check.same_digests({"val": "a" * 63 + "c"}, locked)
    assert [v.rule for v in found] == ["D8", "D8"]
    assert "digest of tokenizer is absent" in found[1].detail


def test_known_splits_are_found_by_name_and_by_count() -> None:
    """A path names its variant, a count names its split, and another dataset names nothing."""
    assert named_split("./data/datasets/fineweb10B_sp1024") == SPLITS["sp1024"]
    assert named_split("/x/fineweb10B_sp8192_lossless_caps_caseops_v1") == SPLITS["caseops"]
    assert named_split("fineweb10B_sp777") is None
    assert named_split("wikitext_sp1024") is None
    assert split_of_count(63_779_840) == LAUNCH
    assert split_of_count(45_516_800) == SPLITS["sp4096"]
    assert split_of_count(50_000_000) is None
    assert expected_bytes("wikitext", 50_000_000) is None
    assert expected_bytes("fineweb10B_sp777", 50_000_000) == PUBLISHED_BYTES
    assert expected_bytes("", 63_779_840) == 155_769_746
