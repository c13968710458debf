"""Following a growing log."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autoresearch.numbers import MOST_NAMES, Tail


def test_a_curve_grows_with_the_log_and_ends_with_its_last_line(tmp_path: Path) -> None:
    """A line counts once, also one without a line end, once the run is over."""
    log = tmp_path / "run.log"
    tail = Tail(log, "loss")
    log.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    tail.read()
    first = [(point.step, point.value) for point in tail.take()]
    with log.open("a") as file:
        file.write('ss": 2.0}\n{"step": 3, "loss": 1.0}')
    tail.finish()
    assert first == [(1, 3.0)]
    assert [(point.step, point.value) for point in tail.take()] == [(2, 2.0), (3, 1.0)]


def test_long_curves_are_thinned_out_and_keep_their_ends(tmp_path: Path) -> None:
    """Ten thousand lines are some hundred points of the metric, fewer of the others."""
    log = tmp_path / "run.log"
    log.write_text("".join(f"step:{i}/10000 loss:{1 / i} lr:{i}\n" for i in range(1, 10_001)))
    tail = Tail(log, "loss")
    tail.finish()
    points = list(tail.take())
    loss = [point.step for point in points if point.name == "loss"]
    rate = [point.step for point in points if point.name == "lr"]
    assert (loss[0], loss[-1], rate[-1]) == (1, 10_000, 10_000)
    assert 100 < len(loss) < 400
    assert len(rate) < 120


def test_names_are_bounded_but_the_metric_always_has_its_place(tmp_path: Path) -> None:
    """A log that invents names does not fill the history with them."""
    log = tmp_path / "run.log"
    log.write_text("".join(f"step:{i}/99 n{i}: {i}\n" for i in range(99)) + "step:99/99 loss:1\n")
    tail = Tail(log, "loss")
    assert len(tail.finish()) == MOST_NAMES + 1
    assert tail.numbers["loss"] == 1
    assert len({point.name for point in tail.take()}) == MOST_NAMES + 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_and_colour_is_read(tmp_path: Path, encoding: str) -> None:
    """Escapes, carriage returns and UTF-16 hide no number."""
    log = tmp_path / "run.log"
    text = "\x1b[32mstep:1/2 loss:3.0\x1b[0m\r\n10%\rstep:2/2 loss:2.0\n"
    log.write_bytes(text.encode(encoding))
    tail = Tail(log, "loss")
    tail.finish()
    assert [(point.step, point.value) for point in tail.take()] == [(1, 3.0), (2, 2.0)]


def test_the_step_from_which_a_run_diverged_is_known(tmp_path: Path) -> None:
    """NaN is no point of a curve; its first step is remembered unless the metric recovers."""
    log = tmp_path / "run.log"
    log.write_text("step:1/9 loss:nan\nstep:2/9 loss:2\nstep:3/9 loss:nan\nstep:4/9 loss:nan\n")
    tail = Tail(log, "loss")
    assert math.isnan(tail.finish()["loss"])
    assert tail.diverged == 3
    assert [point.step for point in tail.take()] == [2]


def test_the_last_error_is_remembered_whatever_follows(tmp_path: Path) -> None:
    """A launcher that has the last word does not hide why the script failed."""
    log = tmp_path / "run.log"
    log.write_text("Traceback\n  x\ntorch.cuda.OutOfMemoryError: CUDA out of memory\nbye\n")
    tail = Tail(log)
    tail.finish()
    assert tail.error == "torch.cuda.OutOfMemoryError: CUDA out of memory"
