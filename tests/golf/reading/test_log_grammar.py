"""Every way in which a log of the family says a score, a size or a fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoresearch.golf.plausibility import artifact_of, parse_size
from autoresearch.golf.reading import read_log
from autoresearch.golf.reading.grammar import Stage, announced_stage, parse_candidate, stage_of

if TYPE_CHECKING:
    from conftest import Sketch

STAGES = {
    "final_int8_zlib_roundtrip_exact": "roundtrip",
    "final_int8_zlib_roundtrip": "roundtrip",
    "final_int6_roundtrip": "roundtrip",
    "final_int6_roundtrip_exact": "roundtrip",
    "final_INT7_zlib_roundtrip": "roundtrip",
    "final_xnor_roundtrip": "roundtrip",
    "final_ternary_roundtrip": "roundtrip",
    "final_binary_roundtrip": "roundtrip",
    "final_roundtrip": "roundtrip",
    "final_temped": "roundtrip",
    "quantized": "roundtrip",
    "final_int8_zlib_roundtrip sliding": "sliding",
    "final_int8_zlib_roundtrip_exact sliding": "sliding",
    "final_sliding": "sliding",
    "final_sliding_window": "sliding",
    "final_sliding_window_exact": "sliding",
    "final_sliding_window_eval": "sliding",
    "final_sliding_window_eval_exact": "sliding",
    "final_int6_sliding_window": "sliding",
    "final_int6_sliding_window_exact": "sliding",
    "final_int6_sliding_window_s64_exact": "sliding",
    "quantized_sliding_window": "sliding",
    "ttt_sliding:done": "ttt",
    "legal_ttt": "ttt",
    "legal_ttt_exact": "ttt",
    "quantized_ttt": "ttt",
    "quantized_ttt_lora": "ttt",
    "quantized_ttt_phased": "ttt",
    "final_ttt_lora": "ttt",
    "final_int8_ttt_lora": "ttt",
    "final_int6_ttt": "ttt",
    "final_slot_exact": "mixture",
    "final_int6_sliding_window_ngram_exact": "mixture",
    "ppm_mix": "mixture",
    "diagnostic pre-quantization post-ema": "diagnostic",
    "diagnostic quantized": "diagnostic",
    "DIAGNOSTIC post_ema": "diagnostic",
    "pre-quantization post-ema": "diagnostic",
    "final_prequant": "diagnostic",
    "post_ema": "diagnostic",
    "swa_eval": "diagnostic",
    "ttt_epoch": "diagnostic",
    "something": "other",
}


@pytest.mark.parametrize("name", STAGES)
def test_a_name_tells_its_stage(name: str) -> None:
    """A metric belongs to the latest stage that its name speaks of, diagnostics to none."""
    assert stage_of(name) == STAGES[name]
    assert stage_of(name).is_final == (STAGES[name] not in ("diagnostic", "other"))


VARIANTS = {
    "canonical": (
        "final_int8_zlib_roundtrip val_loss:2.0741 val_bpb:1.2284 eval_time:5599ms",
        ("final_int8_zlib_roundtrip", 2.0741, 1.2284, 5599.0),
    ),
    "exact": (
        "final_int8_zlib_roundtrip_exact val_loss:2.07405347 val_bpb:1.22837129",
        ("final_int8_zlib_roundtrip_exact", 2.07405347, 1.22837129, None),
    ),
    "a setting between name and numbers": (
        "final_sliding_window_eval_exact stride:64 val_loss:2.02215627 val_bpb:1.19763674",
        ("final_sliding_window_eval_exact", 2.02215627, 1.19763674, None),
    ),
    "a word between name and numbers, twice": (
        "final_x_exact sliding val_loss:2.02 sliding val_bpb:1.19 eval_time:149579ms",
        ("final_x_exact sliding", 2.02, 1.19, 149579.0),
    ),
    "several words and a hyphen": (
        "diagnostic pre-quantization post-ema val_loss:2.7687 val_bpb:1.0718 eval_time:5993ms",
        ("diagnostic pre-quantization post-ema", 2.7687, 1.0718, 5993.0),
    ),
    "equals signs and seconds": (
        "ttt_sliding:done val_loss=1.889768 val_bpb=1.119230 elapsed=409.8s",
        ("ttt_sliding:done", 1.889768, 1.11923, 409800.0),
    ),
    "extras in brackets": (
        "final_sliding val_loss:2.9877 val_bpb:1.1568 (stride=16, T=0.90) time:428712ms",
        ("final_sliding", 2.9877, 1.1568, 428712.0),
    ),
    "a blank after the colon": (
        "quantized val_loss: 2.8475 val_bpb: 1.1023 eval_time: 7531ms",
        ("quantized", 2.8475, 1.1023, 7531.0),
    ),
    "the other order": ("x_ttt val_bpb:1.1192 val_loss:1.8898", ("x_ttt", 1.8898, 1.1192, None)),
    "a setting in brackets inside the name": (
        "final_quant_zlib(level=9)_roundtrip val_loss:2.0802 val_bpb:1.2320 eval_time:5ms",
        ("final_quant_zlib(level=9)_roundtrip", 2.0802, 1.232, 5.0),
    ),
    "no loss": ("final_ngram val_bpb:1.0999", ("final_ngram", None, 1.0999, None)),
    "an exponent": ("final_x val_loss:2e0 val_bpb:1.2e+0", ("final_x", 2.0, 1.2, None)),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_final_line_is_read_in_each_of_its_forms(variant: str) -> None:
    """Name, loss, score and time are read whatever separates them."""
    line, expected = VARIANTS[variant]
    found = parse_candidate(line, 7)
    assert found is not None
    assert (found.name, found.val_loss, found.val_bpb, found.eval_time_ms) == expected
    assert found.line == 7


NOTHING = {
    "code that is echoed": '    log0(f"final_x val_loss:{q_loss:.4f} val_bpb:{q_bpb:.4f}")',
    "code with numbers in it": 'print("final_x val_loss:2.0727 val_bpb:1.2244")',
    "a comment": "# final_x val_loss:2.0727 val_bpb:1.2244",
    "a table row": "| final_x | val_loss:2.0727 | val_bpb:1.2244 |",
    "prose": "In this record the model reaches a val_loss:2.07 and a val_bpb:1.2244 at last",
    "a JSON field": '"val_bpb": 1.2244, "val_loss": 2.07',
    "a running value": "  ttt_chunk [121/474] bpb=1.125899 time=65.9s",
    "a batch": "ttp: b111/157 bl:2.3328 bb:1.0705 rl:2.2648 rb:1.0735",
    "a mixture without the key": "ppm_mix bytes=27048621 mix_bpb=0.901871 nn_only=0.972946",
    "a probe": "probe_bpb:1.3",
    "a placeholder": "final_x val_loss:X val_bpb:Y",
    "a number that goes on as a word": "final_x val_loss:2.0 val_bpb:1.2abc",
    "a format": "final_x val_loss:%.4f val_bpb:%.4f",
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_only_looks_like_a_score_is_none(what: str) -> None:
    """Source, prose, progress and placeholders state no score."""
    assert parse_candidate(NOTHING[what], 1) is None


@pytest.mark.parametrize(
    "front",
    [
        "",
        "1776144156.999 ",
        "[rank0]: ",
        "[rank0]:",
        "rank 0: ",
        "0: ",
        "81:",
        "[1,0]<stdout>:",
        "2026-03-18 14:38:12,123 ",
        "[2026-03-18T14:38:12.123Z] ",
        "2026-03-18T14:38:12.123456789Z stdout F ",
        "[14:38:12] ",
        "INFO: ",
        "2026-03-18 14:38:12,123 - INFO - ",
        "(RayTrainWorker pid=1234, ip=10.0.0.1) ",
        "trainer-1  | ",
        "\x1b[32m",
        "\r 99%|#### | 1/2\r",
    ],
)
def test_what_stands_in_front_of_every_line_changes_nothing(sketch: Sketch, front: str) -> None:
    """Times, ranks, streams, levels, escapes and progress bars in front are taken off."""
    text = "".join(f"{front}{line}\n" for line in sketch.lines())
    reading = read_log(text)
    assert (reading.status, reading.val_bpb) == ("completed", 1.22436570)
    assert (reading.steps, reading.train_time_ms, reading.runs) == (13780, 600038, 1)
    assert (reading.val_tokens, reading.artifact_bytes) == (62021632, 15863489)
    assert reading.violations == ()


def test_the_newer_logger_is_read_as_well() -> None:
    """Steps without a word, blanks after colons and minutes instead of milliseconds."""
    text = """
Hyperparameters:
  datasets_dir: ./data/datasets/fineweb10B_sp8192
  max_wallclock_seconds: 600.0
  sliding_window_enabled: True
  seed: 1
  world_size: 8
train_shards: 128
val_tokens: 40540160
model_params:35943512
warmup_step: 1/20
0/20000 val_loss: 9.0065 val_bpb: 3.4865
1/20000 train_loss: 9.0083 train_time: 0.0m tok/s: 8671604
4500/20000 train_loss: 2.8130 train_time: 8.7m tok/s: 6808105
4988/20000 val_loss: 2.8177 val_bpb: 1.0908
stopping_early: wallclock_cap train_time: 588138ms step: 4988/20000
pre-quantization post-ema val_loss:2.81547748 val_bpb:1.08995907 eval_time:6003ms
Code size: 15516 bytes
Serialized model quantized+brotli: 15972031 bytes
Total submission size quantized+brotli: 15987547 bytes
quantized val_loss:2.84757723 val_bpb:1.10238588 eval_time:7531ms
quantized_sliding_window val_loss:2.80405024 val_bpb:1.08553523 eval_time:83990ms
"""
    reading = read_log(text)
    assert (reading.val_bpb, reading.score_name) == (1.08553523, "quantized_sliding_window")
    assert (reading.steps, reading.train_time_ms, reading.eval_time_ms) == (4988, 588138, 83990)
    assert (reading.implied_val_bytes, reading.runs) == (151078222, 1)
    assert reading.last_validation is not None
    assert (reading.last_validation.step, reading.last_validation.val_bpb) == (4988, 1.0908)
    assert reading.violations == ()


SIZES = {
    "the labelled total": (
        ["Total submission size: 67272625 bytes", "Total submission size int8+zlib: 15863489 B"],
        (15863489, "int8+zlib"),
    ),
    "the last of two labels": (
        ["Total submission size int6+zstd: 15 bytes", "Total submission size int8+zlib: 14 bytes"],
        (14, "int8+zlib"),
    ),
    "a label with digits and signs": (
        ["Total submission size int6+zstd-22: 16,186,500 bytes"],
        (16186500, "int6+zstd-22"),
    ),
    "a bare total that is small enough": (
        ["Total submission size: 15128724 bytes"],
        (15128724, ""),
    ),
    "a budget line before a rounded one": (
        ["artifact:15.60MB binary:97320960(1B) code:70399", "budget:15670651/16000000 FITS"],
        (15670651, "budget line"),
    ),
    "megabytes that leave the code out": (
        ["artifact:15.92MB ternary:64503808(12900762B) fp:2542200(2585072B) code:70853"],
        (15990853, "artifact:ternary (MB rounded to 5 kB, plus code)"),
    ),
    "a joined line": (
        ["INT7+zlib model: 15370972 bytes | Total submission: 15441941 bytes"],
        (15441941, "INT7+zlib"),
    ),
    "a short name": (["Total submission: 15441941 bytes"], (15441941, "")),
    "the bare total that is packed model and code": (
        ["Code size: 80288 bytes", "Total submission size: 111648442 bytes",
         "Serialized model rdquant+zstd: 16558180 bytes", "Total submission size: 16638468 bytes"],
        (16638468, ""),
    ),
    "a sum of megabytes": (
        ["  INT4+fp8+brotli: 15.42MB model + 0.077MB code = 15.50/16.00MB FITS"],
        (15497000, "INT4+fp8+brotli (MB rounded to 5 kB)"),
    ),
    "a trailer": (["artifact_bytes:   15555017"], (15555017, "artifact_bytes")),
}  # fmt: skip


@pytest.mark.parametrize("what", SIZES)
def test_the_artifact_is_the_size_that_is_submitted(what: str) -> None:
    """The last labelled total counts, and the best of what else there is without one."""
    lines, expected = SIZES[what]
    found = artifact_of([s for s in (parse_size(line, 1) for line in lines) if s])
    assert found is not None
    assert (found.bytes, found.label) == expected


def test_a_checkpoint_is_no_artifact() -> None:
    """The uncompressed total, the model and the code alone say nothing about the artifact."""
    lines = ("Serialized model: 67224983 bytes", "Code size: 47642 bytes",
             "Total submission size: 67272625 bytes")  # fmt: skip
    assert artifact_of([s for s in (parse_size(line, 1) for line in lines) if s]) is None


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("ttt:starting lr=0.005 epochs=3 chunk=32768 momentum=0.9", Stage.TTT),
        ("ttt_sliding:start chunks=474 chunk_tokens=131072", Stage.TTT),
        ("  ttt_chunk [1/474] bpb=1.196551 time=0.7s", Stage.TTT),
        ("beginning TTT eval timer", Stage.TTT),
        ("tttg: c58/102 lr:0.000400 t:4.6s", Stage.TTT),
        ("sliding_eval: 100/4000 windows", Stage.SLIDING),
        ("slot:start steps=24", Stage.MIXTURE),
        ("ttt:elapsed=178.7s", None),
        ("ttt_adamw:done elapsed=178.7s", None),
        ("ttt_enabled: True", None),
        ("ttt_epochs=3 ttt_lr=0.002", None),
        ("ttt:start skipped, disabled", None),
        ("total_eval_time:353.0s", None),
    ],
)
def test_a_stage_that_begins_is_noticed(line: str, stage: Stage | None) -> None:
    """A line that reports beginning or progress announces a stage; settings and ends do not."""
    assert announced_stage(line) == stage
