"""Named numbers in lines of output."""

from __future__ import annotations

import time

import pytest

from autoresearch.numbers import named, size_in_bytes


@pytest.mark.parametrize(
    ("line", "numbers", "step"),
    [
        ("step:10/100 loss:2.3 lr:1e-3", {"loss": 2.3, "lr": 1e-3}, 10),
        ("step 10 | loss 2.3 | lr 0.1 | tok/s 1200", {"loss": 2.3, "lr": 0.1, "tok/s": 1200}, 10),
        ("step 100/2000 | loss 2.3", {"loss": 2.3}, 100),
        ('{"step": 10, "loss": 2.3, "train": {"acc": 1}, "ok": true}',
         {"loss": 2.3, "train/acc": 1}, 10),
        ("{'loss': 2.3, 'epoch': 1.0}", {"loss": 2.3}, 1),
        ("epoch 1 step 50: loss: 2", {"loss": 2}, 50),
        ("train loss: 2.3 val/loss: 2.1", {"train_loss": 2.3, "val/loss": 2.1}, None),
        ("12:30:15 INFO loss=3 at 12:30", {"loss": 3}, None),
        ("sha: 3f2a version: 1.2.3 dt: 12ms mem: 400MB", {"dt": 12, "mem": 400}, None),
        ("Acc@1: 76.1 | mAP@0.5: 0.31", {"Acc@1": 76.1, "mAP@0.5": 0.31}, None),
        ("точность: 0.93", {"точность": 0.93}, None),
        ("loss: 0,42", {}, None),
        ("params: 12,345,678", {"params": 12_345_678}, None),
        ("loss: inf", {"loss": float("inf")}, None),
        ("information: information", {}, None),
        ("no number here", {}, None),
    ],
)  # fmt: skip
def test_numbers_and_step_of_a_line(line: str, numbers: dict[str, float], step: int | None) -> None:
    """Whole names, JSON and tables; digests, versions and times of day are no numbers."""
    found = named(line)
    assert found.numbers == numbers
    assert found.step == step


@pytest.mark.parametrize(
    "line", ["a" * 19_999 + ":", "a " * 9_999 + "=", "a=" * 9_999, "| " * 9_000]
)
def test_hostile_lines_cost_little(line: str) -> None:
    """No pattern goes back and forth over a long line."""
    began = time.process_time()
    named(line)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("unit", "size"),
    [("", 2), ("B", 2), ("bytes", 2), ("kB", 2e3), ("MB", 2e6), ("MiB", 2 * 2**20), ("GB", 2e9)],
)
def test_units_are_decimal_unless_they_say_binary(unit: str, size: float) -> None:
    """MB is 10**6 bytes, as the limit of an artifact is; MiB is 2**20."""
    assert size_in_bytes(2.0, unit) == size
