"""What must not be believed in a log is flagged, and what an honest run prints is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from autoresearch.golf.reading import LogReading, read_log

if TYPE_CHECKING:
    from conftest import Sketch

CASEOPS = "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved"


def rules(reading: LogReading) -> set[str]:
    """Return the ids of the broken rules."""
    return {v.rule for v in reading.violations}


HONEST: dict[str, dict[str, object]] = {
    "the baseline": {},
    "the launch export": {"tokens": 63_779_840, "text_bytes": 155_769_746},
    "sp4096": {"dataset": "fineweb10B_sp4096", "tokens": 45_508_608},
    "sp8192 with another tail": {"dataset": "fineweb10B_sp8192", "tokens": 40_538_112},
    "another vocabulary": {
        "dataset": "fineweb10B_sp2048", "tokens": 52_000_000, "text_bytes": 150_748_000,
    },
    "caseops": {"dataset": CASEOPS, "tokens": 47_853_343},
    "bytes": {"dataset": "fineweb10B_byte260", "tokens": 151_130_112, "text_bytes": 151_080_113},
    "data that nobody knows": {"dataset": "wikitext", "tokens": 240_000, "text_bytes": 1_290_000},
    "a long run without a cap": {"cap": 0.0, "train_ms": 7_763_355},
    "a long run with a long cap": {"cap": 14_400.0, "train_ms": 14_400_039},
    "one step over the cap": {"train_ms": 600_150},
    "sliding windows": {
        "finals": (("final_int6_roundtrip_exact", 1.224), ("final_sliding_window_exact", 1.19)),
    },
    "test-time training": {
        "finals": (
            ("final_int6_roundtrip_exact", 1.224),
            ("final_sliding_window_exact", 1.19),
            ("legal_ttt_exact", 1.178),
        ),
    },
    "test-time training without a sliding window": {
        "finals": (("final_int6_roundtrip_exact", 1.2274), ("final_int8_ttt_lora", 1.1929)),
    },
    "a bad quantisation": {
        "finals": (("final_int6_roundtrip_exact", 1.39), ("legal_ttt_exact", 1.21)),
    },
    "a weak model that adapts": {
        "in_training": 1.9,
        "finals": (("final_int6_roundtrip_exact", 1.91), ("legal_ttt_exact", 1.82)),
    },
    "a slow evaluation on one GPU": {
        "world_size": 1,
        "finals": ("final_sliding_window val_loss:2.0141 val_bpb:1.1929 eval_time:2400000ms",),
    },
    "an extra loss in training": {"config": ("mtp_num_heads:2 mtp_params:1",), "train_loss": 2.9},
    "a prefix of documents to adapt on": {
        "config": ("ttt_phased: total_docs:50000 prefix_docs:2000 suffix_docs:48000",),
    },
    "a total with a script that is packed before it is submitted": {
        "sizes": (
            "Code size (uncompressed): 104963 bytes",
            "Code size (compressed): 31260 bytes",
            "Serialized model int6+lzma: 15950000 bytes",
            "Total submission size int6+lzma: 16054963 bytes",
        ),
    },
    "a script that can still be packed": {
        "sizes": (
            "Code size: 104963 bytes",
            "Serialized model int6+lzma: 15950000 bytes",
            "Total submission size int6+lzma: 16054963 bytes",
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("what", HONEST)
def test_no_honest_run_is_flagged(sketch: Sketch, what: str) -> None:
    """Each way of being honest and unusual leaves the score as it is."""
    reading = read_log(sketch.with_(**HONEST[what]).text())
    assert reading.violations == ()
    assert reading.val_bpb is not None


FRAUDS: dict[str, tuple[str, dict[str, object]]] = {
    "bytes 4 % too many": ("D9", {"text_bytes": 157_274_657}),
    "bytes 8.9 % too many": (
        "D9",
        {"dataset": "fineweb10B_sp8192", "tokens": 47_851_520, "text_bytes": 164_594_398},
    ),
    "bytes 17 % too many in an unknown vocabulary": (
        "D9",
        {"dataset": "fineweb10B_sp6144", "tokens": 42_000_000, "text_bytes": 176_310_000},
    ),
    "bytes 33 % too many": ("D9", {"text_bytes": 200_936_882}),
    "bytes 1 % too few": ("D9", {"text_bytes": 149_500_000}),
    "bytes 21 % too many in a data set with a name of its own": (
        "D9",
        {"dataset": "scylla_998", "tokens": 60_000_000, "text_bytes": 182_800_000},
    ),
    "the launch export's tokens with other bytes": (
        "D9",
        {"tokens": 63_779_840, "text_bytes": 165_000_000},
    ),
    "a fifth of the split": (
        "D8",
        {"dataset": CASEOPS, "tokens": 9_662_464, "text_bytes": 30_500_000},
    ),
    "the last twentieth cut off": ("D8", {"tokens": 58_920_550, "text_bytes": 143_526_344}),
    "half of an unknown vocabulary": (
        "D8",
        {"dataset": "fineweb10B_sp2048", "tokens": 26_000_000, "text_bytes": 75_540_000},
    ),
    "fewer documents": (
        "D8",
        {"config": ("ttt_phased: total_docs:10000 prefix_docs:2000 suffix_docs:8000",)},
    ),
    "a cache below the roundtrip": (
        "D10",
        {"finals": (("final_int6_roundtrip_exact", 1.158), ("final_ngram_exact", 1.08))},
    ),
    "optimised on the answers": (
        "D10",
        {"finals": (("final_int6_sliding_window_exact", 1.19), ("final_slot_exact", 1.15))},
    ),
    "one line below the validation in training": (
        "D10",
        {"finals": (("final_int8_zlib_roundtrip_exact", 1.15),)},
    ),
    "a declared paid prefix": (
        "D10",
        {"config": ("paid_prefix_file:p.xz paid_prefix_tokens:12924343 paid_prefix_bytes:8750",)},
    ),
    "a paid prefix that nobody declares": (
        "D10",
        {
            "train_loss": 2.5,
            "sizes": (
                "Code size: 52785 bytes",
                "Serialized model int8+zlib: 7120056 bytes",
                "Total submission size int8+zlib: 15922841 bytes",
            ),
        },
    ),
    "better than anything audited": (
        "D11",
        {"in_training": 1.0, "finals": (("final_int8_zlib_roundtrip_exact", 1.01),)},
    ),
    "a model over the limit": (
        "D6",
        {
            "sizes": (
                "Code size: 58666 bytes",
                "Serialized model int6+zstd-22: 16127834 bytes",
                "Total submission size int6+zstd-22: 16186500 bytes",
            ),
        },
    ),
    "a packed script over the limit": (
        "D6",
        {
            "sizes": (
                "Code size (uncompressed): 151807 bytes",
                "Code size (compressed): 31260 bytes",
                "Serialized model quantized+brotli: 15974567 bytes",
                "Total submission size quantized+brotli: 16005827 bytes",
            ),
        },
    ),
    "a clock that ran on": ("D3", {"train_ms": 601_669}),
    "an evaluation over its time": (
        "D5",
        {"finals": ("legal_ttt val_loss:2.0141 val_bpb:1.1929 eval_time:688000ms",)},
    ),
}


@pytest.mark.parametrize("what", FRAUDS)
def test_every_fraud_is_flagged_with_its_rule(sketch: Sketch, what: str) -> None:
    """Each way of being wrong breaks the rule that was made against it."""
    rule, changes = FRAUDS[what]
    assert rule in rules(read_log(sketch.with_(**changes).text()))


def test_a_fraud_keeps_the_score_that_it_claims(sketch: Sketch) -> None:
    """A flagged score is still what the log says, also of an artifact over the limit."""
    assert read_log(sketch.with_(text_bytes=164_594_398).text()).val_bpb == 1.2243657
    over = read_log(sketch.with_(**FRAUDS["a model over the limit"][1]).text())
    assert (over.val_bpb, over.status) == (1.2243657, "completed")
    assert [v.detail[:29] for v in over.violations] == ["artifact of 16,186,500 bytes "]


def test_two_scores_of_one_run_cannot_count_two_texts(sketch: Sketch) -> None:
    """Also where nobody knows the split, the bytes per token do not depend on the model."""
    mixed = "final_ppm_mix val_loss:2.0500 val_bpb:1.1000"
    log = sketch.with_(dataset="mine", tokens=100_000, text_bytes=243_590)
    reading = read_log(log.with_(finals=(("final_int6_roundtrip_exact", 1.2), mixed)).text())
    assert "D9" in rules(reading)


def test_without_a_token_count_a_foreign_ratio_is_a_doubt(sketch: Sketch) -> None:
    """Bytes per token that are not the declared split's are no proof of fraud, and are told."""
    lines = [row for row in sketch.with_(text_bytes=160_567_400).lines() if "val_loader" not in row]
    reading = read_log("\n".join(lines) + "\n")
    assert (reading.violations, reading.val_bpb, reading.val_tokens) == ((), 1.2243657, None)
    assert "2.589 bytes per token" in reading.note


def test_a_suspicion_of_a_paid_prefix_only_warns(sketch: Sketch) -> None:
    """Validation far below training loss alone has honest reasons, so it only warns."""
    reading = read_log(sketch.with_(train_loss=2.5).text())
    assert reading.violations == ()
    assert [w.rule for w in reading.warnings] == ["D10"]
    assert "warning D10" in reading.note


def test_an_extra_loss_in_training_explains_the_difference(sketch: Sketch) -> None:
    """Training that predicts several tokens has a larger loss, and nobody is warned."""
    log = sketch.with_(train_loss=2.9, config=("mtp_num_heads:2 mtp_params:1",))
    assert read_log(log.text()).warnings == ()


def test_an_overshoot_of_a_fifth_of_a_second_warns(sketch: Sketch) -> None:
    """Over 600.2 s is worth a word, over 601 s breaks the rule."""
    reading = read_log(sketch.with_(train_ms=600_500).text())
    assert (reading.violations, [w.rule for w in reading.warnings]) == ((), ["D3"])


def test_a_run_without_a_score_is_not_accused(sketch: Sketch) -> None:
    """A crash is a status, not a violation."""
    assert read_log(sketch.with_(finals=(), after=("Killed",)).text()).violations == ()


def test_validations_in_bits_per_token_are_no_gap(sketch: Sketch) -> None:
    """A script that prints its loss in bits per token while training is honest all the same."""
    nats = sketch.loss(sketch.in_training)
    said = f"val_loss:{nats:.4f} val_bpb:"
    text = sketch.text().replace(
        f"{said}{sketch.in_training:.4f}", f"{said}{nats / math.log(2):.4f}"
    )
    assert text != sketch.text()
    assert read_log(text).violations == ()
    cheat = sketch.with_(finals=(("final_int8_zlib_roundtrip_exact", 1.10),)).text()
    cheat = cheat.replace(f"{said}{sketch.in_training:.4f}", f"{said}{nats / math.log(2):.4f}")
    assert [v.rule for v in read_log(cheat).violations] == ["D10"]
