"""How a run ended and which line is its score: the order of stages decides, never the minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autoresearch.golf.reading import read_log

if TYPE_CHECKING:
    from conftest import Sketch

SIGTERM = (
    "W0325 06:31:28.212000 329471 torch/api.py:725] Received 15 death signal, shutting down",
    "W0325 06:31:28.216000 329471 torch/api.py:908] Sending process 1 closing signal SIGTERM",
    "Traceback (most recent call last):",
    '  File "/usr/local/bin/torchrun", line 7, in <module>',
    "    sys.exit(main())",
    "torch.distributed.elastic.multiprocessing.api.SignalException: Process 1 got signal: 15",
)
TTT_CRASH = (
    "ttt:starting lr=0.005 epochs=3 chunk=32768",
    "[rank5]: Traceback (most recent call last):",
    '[rank5]:   File "train_gpt.py", line 1292, in eval_val_sliding_ttt',
    "[rank5]:     loss.backward()",
    "[rank5]: RuntimeError: Inference tensors cannot be saved for backward",
    "[rank5]:[W427 22:36:57.2 ProcessGroupNCCL.cpp:1524] Warning: destroy_process_group()",
    "Traceback (most recent call last):",
    '  File "/usr/local/bin/torchrun", line 7, in <module>',
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
)
SILENT_OOM = (
    "Traceback (most recent call last):",
    '  File "train_gpt.py", line 1500, in main',
    "    sw_loss, sw_bpb = eval_val_sliding(args, model)",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
)
TEARDOWN = (
    "Traceback (most recent call last):",
    '  File "train_gpt.py", line 1600, in main',
    "    dist.destroy_process_group()",
    "RuntimeError: NCCL communicator was aborted",
)
ROUNDTRIP = ("final_int6_roundtrip_exact", 1.13)
SLIDING = ("final_int6_sliding_window_exact", 1.11)
TTT = ("legal_ttt_exact", 1.105)
CANONICAL = ("final_int8_zlib_roundtrip_exact", 1.11)


def test_the_last_final_line_is_the_score_not_the_lowest(sketch: Sketch) -> None:
    """A later stage counts even where an earlier one printed a lower number."""
    reading = read_log(sketch.with_(finals=(SLIDING, ("legal_ttt_exact", 1.114))).text())
    assert (reading.val_bpb, reading.score_name) == (1.114, "legal_ttt_exact")
    assert "stage ttt" in reading.note


def test_the_line_with_more_decimals_stands_for_its_twin(sketch: Sketch) -> None:
    """Of a pair that prints one measurement twice, the exact line is quoted."""
    finals = (SLIDING, ("final_int6_sliding_window", 1.11))
    reading = read_log(sketch.with_(finals=finals).text())
    assert reading.score_name == "final_int6_sliding_window_exact"
    assert reading.eval_time_ms == 1401


def test_another_name_for_the_same_number_is_not_a_twin(sketch: Sketch) -> None:
    """The last line keeps its name where an earlier stage happens to have its number."""
    finals = (SLIDING, ("ttt_sliding:done", 1.11))
    assert read_log(sketch.with_(finals=finals).text()).score_name == "ttt_sliding:done"


def test_an_old_name_for_a_later_score_shows_its_true_stage(sketch: Sketch) -> None:
    """The canonical name repeats the sliding score: same number, stage sliding."""
    reading = read_log(sketch.with_(finals=(ROUNDTRIP, SLIDING, CANONICAL)).text())
    assert (reading.score_name, reading.val_bpb) == CANONICAL
    assert reading.candidates[-1].stage == "sliding"


def test_a_mode_line_shows_the_stage_of_the_canonical_name(sketch: Sketch) -> None:
    """Logs that announce how they will evaluate are believed."""
    finals = ("final_eval_mode:sliding_window stride:64 batch_seqs:1024", CANONICAL)
    reading = read_log(sketch.with_(in_training=1.13, finals=finals).text())
    assert reading.candidates[-1].stage == "sliding"


def test_diagnostics_are_never_a_score(sketch: Sketch) -> None:
    """Scores before quantisation are listed, and the run has no score."""
    finals = (("DIAGNOSTIC post_ema", 1.1385), ("pre-quantization post-ema", 1.13))
    reading = read_log(sketch.with_(finals=finals).text())
    assert (reading.status, reading.val_bpb) == ("no_score", None)
    assert [c.stage for c in reading.candidates] == ["diagnostic", "diagnostic"]
    assert reading.note.startswith("not in this log")


def test_validation_inside_training_is_never_a_score(sketch: Sketch) -> None:
    """A log that stops after training has no score, whatever the last validation was."""
    reading = read_log(sketch.with_(finals=()).text())
    assert (reading.status, reading.val_bpb, reading.candidates) == ("no_score", None, ())


def test_a_stage_that_is_switched_on_and_absent_leaves_no_score(sketch: Sketch) -> None:
    """Where the configuration promises test-time training, the sliding window is not official."""
    log = sketch.with_(config=("  ttt_enabled: True",), finals=(ROUNDTRIP, SLIDING))
    reading = read_log(log.text())
    assert (reading.status, reading.val_bpb) == ("completed", None)
    assert "switches ttt on" in reading.note
    kept = read_log(log.with_(config=("  ttt_enabled: False",)).text())
    assert kept.val_bpb == SLIDING[1]


def test_a_lower_stage_printed_last_decides_nothing(sketch: Sketch) -> None:
    """When order and name disagree, the log does not say which one counts."""
    reading = read_log(sketch.with_(finals=(TTT, ROUNDTRIP)).text())
    assert (reading.status, reading.val_bpb) == ("completed", None)
    canonical = read_log(
        sketch.with_(finals=(TTT, ("final_int8_zlib_roundtrip_exact", 1.12))).text()
    )
    assert canonical.val_bpb == 1.12


def test_a_stop_from_outside_after_the_score_leaves_it_valid(sketch: Sketch) -> None:
    """The launcher's SIGTERM during an extra evaluation does not take the score back."""
    after = ("ttt:start lr=0.002", "  ttt_chunk [1/474] bpb=1.19", *SIGTERM)
    reading = read_log(sketch.with_(finals=(ROUNDTRIP, SLIDING, CANONICAL), after=after).text())
    assert (reading.status, reading.val_bpb) == ("terminated", 1.11)
    assert reading.exception is not None
    assert "15 death signal" in reading.exception


def test_a_crash_in_a_later_evaluation_leaves_no_score(sketch: Sketch) -> None:
    """A roundtrip before a failed test-time training is not the score of the run."""
    reading = read_log(sketch.with_(finals=(ROUNDTRIP,), after=TTT_CRASH).text())
    assert (reading.status, reading.val_bpb) == ("crashed", None)
    assert reading.exception == "RuntimeError: Inference tensors cannot be saved for backward"
    assert reading.crash_tail[-1].startswith("torch.distributed.elastic")


def test_a_crash_in_an_extra_evaluation_after_the_last_stage_changes_nothing(
    sketch: Sketch,
) -> None:
    """Nothing official comes after test-time training."""
    reading = read_log(sketch.with_(finals=(SLIDING, TTT), after=SILENT_OOM).text())
    assert (reading.status, reading.val_bpb) == ("terminated", 1.105)


def test_training_at_test_time_before_the_finals_is_no_later_stage(sketch: Sketch) -> None:
    """Only what is announced after the last final line is still to come."""
    finals = (("DIAGNOSTIC post_ema", 1.2), "ttt:start epochs=6", ROUNDTRIP)
    reading = read_log(sketch.with_(in_training=1.14, finals=finals).text())
    assert (reading.status, reading.val_bpb) == ("completed", 1.13)


def test_a_crash_inside_an_unannounced_evaluation_leaves_no_score(sketch: Sketch) -> None:
    """The code that a traceback went through tells that something was still to be scored."""
    reading = read_log(sketch.with_(finals=(ROUNDTRIP,), after=SILENT_OOM).text())
    assert (reading.status, reading.val_bpb) == ("crashed", None)


@pytest.mark.parametrize("after", [TTT_CRASH[-3:], ("Segmentation fault",), ("Killed",)])
def test_an_unexplained_end_makes_no_intermediate_stage_official(
    sketch: Sketch, after: tuple[str, ...]
) -> None:
    """After a roundtrip of another name more may have been to come; the canonical name is last."""
    lost = read_log(sketch.with_(finals=(ROUNDTRIP,), after=after).text())
    assert (lost.status, lost.val_bpb) == ("crashed", None)
    for finals in ((ROUNDTRIP, SLIDING), (ROUNDTRIP, CANONICAL)):
        log = sketch.with_(in_training=1.14, finals=finals, after=after)
        kept = read_log(log.text())
        assert (kept.status, kept.val_bpb) == ("terminated", 1.11)


def test_a_crash_while_tidying_up_leaves_the_score_valid(sketch: Sketch) -> None:
    """Closing the process group is not part of the score."""
    reading = read_log(sketch.with_(after=TEARDOWN).text())
    assert (reading.status, reading.val_bpb) == ("terminated", 1.2243657)


def test_what_the_interpreter_ignores_is_no_failure(sketch: Sketch) -> None:
    """A finalizer that raises while the process shuts down changes nothing."""
    after = ("Exception ignored in: <function Loader.__del__ at 0x7f>", *TEARDOWN)
    assert read_log(sketch.with_(after=after).text()).status == "completed"


def test_a_roundtrip_stopped_before_its_sliding_window_is_no_score(sketch: Sketch) -> None:
    """A stop from outside does not make an intermediate stage official."""
    after = ("sliding_eval: 100/4000 windows", "Killed")
    reading = read_log(sketch.with_(finals=(ROUNDTRIP,), after=after).text())
    assert (reading.status, reading.val_bpb) == ("crashed", None)


def test_a_log_that_ends_inside_a_later_evaluation_has_no_score(sketch: Sketch) -> None:
    """A copy that was cut off says nothing about how the run went on."""
    after = ("ttt_sliding:start chunks=474", "  ttt_chunk [121/474] bpb=1.1259 time=65.9s")
    reading = read_log(sketch.with_(finals=(ROUNDTRIP, SLIDING), after=after).text())
    assert (reading.status, reading.val_bpb) == ("no_score", None)


def test_a_failure_before_a_complete_evaluation_does_not_matter(sketch: Sketch) -> None:
    """A handled exception or a relaunch inside the log is over once the finals are printed."""
    reading = read_log("\n".join([*SILENT_OOM, *sketch.lines()]) + "\n")
    assert (reading.status, reading.val_bpb) == ("completed", 1.2243657)


def test_a_handled_exception_inside_the_run_does_not_matter(sketch: Sketch) -> None:
    """A traceback that was printed before the finals was survived."""
    reading = read_log(sketch.with_(finals=(*SILENT_OOM, *sketch.finals)).text())
    assert (reading.status, reading.val_bpb) == ("completed", 1.2243657)


def test_a_handled_exception_during_training_is_no_crash(sketch: Sketch) -> None:
    """Training went on after it, and the log ends without a sign of failure."""
    lines = sketch.with_(finals=()).lines()
    reading = read_log("\n".join([*lines[:12], *SILENT_OOM, *lines[12:]]) + "\n")
    assert reading.status == "no_score"


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("slurmstepd: error: *** JOB 77 ON n CANCELLED AT 26 DUE TO TIME LIMIT ***", "timed_out"),
        ("modal.exception.FunctionTimeoutError: Task's current input hit its timeout", "timed_out"),
        ("experiment 12 timed out after 900 s", "timed_out"),
        ("Killed", "crashed"),
        ("Terminated", "crashed"),
        ("run.sh: line 63: 183058 Killed                  torchrun train_gpt.py", "crashed"),
        ("Segmentation fault (core dumped)", "crashed"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "crashed"),
        ("E0319 torch/api.py:882] failed (exitcode: -9) local_rank: 0 (pid: 10518)", "crashed"),
        ("[rank1]:[E] Watchdog caught collective operation timeout: WorkNCCL", "no_score"),
        ("everything is fine", "no_score"),
    ],
)  # fmt: skip
def test_how_a_log_without_a_score_ended(sketch: Sketch, last: str, status: str) -> None:
    """Out of time, failed, or just at its end: the last lines tell, and there is no score."""
    reading = read_log(sketch.with_(finals=(), after=(last,)).text())
    assert (reading.status, reading.val_bpb) == (status, None)


def test_time_that_runs_out_after_the_score_leaves_it_valid(sketch: Sketch) -> None:
    """A job limit that hits a finished run is a termination."""
    last = "slurmstepd: error: *** JOB 77 ON n CANCELLED AT 26 DUE TO TIME LIMIT ***"
    assert read_log(sketch.with_(after=(last,)).text()).status == "terminated"


def test_the_word_of_the_launcher_counts(sketch: Sketch) -> None:
    """An exit status or a deadline that the log does not mention decides as well."""
    without = sketch.with_(finals=()).text()
    assert read_log(without, exit_code=1).status == "crashed"
    assert read_log(without, exit_code=124).status == "timed_out"
    assert read_log(without, exit_code=-9, timed_out=True).status == "timed_out"
    assert read_log(sketch.text(), exit_code=0).status == "completed"
    assert read_log(sketch.text(), exit_code=1).status == "terminated"


@pytest.mark.parametrize("number", ["nan", "NaN", "inf", "-inf", "0.00000000", "-1.2"])
def test_a_final_score_that_is_no_score_is_a_crash(sketch: Sketch, number: str) -> None:
    """Not a number, infinite, zero or negative: the run failed, and an earlier line is no help."""
    bad = f"final_int8_zlib_roundtrip_exact val_loss:{number} val_bpb:{number}"
    reading = read_log(sketch.with_(finals=(ROUNDTRIP, bad)).text())
    assert (reading.status, reading.val_bpb) == ("crashed", None)


def test_a_training_that_diverged_is_a_crash(sketch: Sketch) -> None:
    """A loss that is not a number and never becomes one again needs no exception."""
    after = ("step:13781/20000 train_loss:nan train_time:600040ms step_avg:43.54ms",)
    reading = read_log(sketch.with_(finals=(), after=after).text())
    assert reading.status == "crashed"
    assert "not a number" in reading.note


def test_only_the_last_run_of_a_file_counts(sketch: Sketch) -> None:
    """Earlier runs are counted and their scores listed, and none of them is the score."""
    first = sketch.with_(finals=(("final_int8_zlib_roundtrip_exact", 1.1),))
    second = sketch.with_(finals=(("final_int8_zlib_roundtrip_exact", 1.3),), in_training=1.295)
    reading = read_log(first.text() + second.text())
    assert (reading.val_bpb, reading.runs) == (1.3, 2)
    assert [c.val_bpb for c in reading.candidates] == [1.1, 1.3]
    assert "2 runs in this file" in reading.note


def test_a_relaunch_that_crashes_takes_no_score_from_the_run_before(sketch: Sketch) -> None:
    """The last run failed in training, so there is no score."""
    crashed = [*sketch.lines()[:12], *SILENT_OOM]
    reading = read_log(sketch.text() + "\n".join(crashed) + "\n")
    assert (reading.status, reading.val_bpb, reading.runs) == ("crashed", None, 2)


def test_three_launches_that_crash_before_training_are_three_runs(sketch: Sketch) -> None:
    """Runs that never made a step are runs too."""
    crashed = "\n".join([*sketch.lines()[:8], *SILENT_OOM]) + "\n"
    assert read_log(crashed * 2 + sketch.text()).runs == 3


def test_a_process_that_only_evaluates_inherits_the_training_before_it(sketch: Sketch) -> None:
    """A second process that prints its own settings and a score belongs to the same run's facts."""
    evaluation = ["Hyperparameters:", "  ttt_enabled: True", sketch.metric("legal_ttt_exact", 1.2)]
    reading = read_log(sketch.text() + "\n".join(evaluation) + "\n")
    assert (reading.val_bpb, reading.steps) == (1.2, 13780)
    assert (reading.val_tokens, reading.artifact_bytes) == (62021632, 15863489)


def test_steps_that_begin_again_without_settings_keep_them(sketch: Sketch) -> None:
    """A second phase of training is counted as a run, with the settings that were printed once."""
    second = [row for row in sketch.lines() if row.startswith(("step:", "stopping", "final"))]
    reading = read_log(sketch.with_(finals=()).text() + "\n".join(second) + "\n")
    assert (reading.runs, reading.val_tokens, reading.model_params) == (2, 62021632, 17059912)
    assert reading.val_bpb == 1.2243657


def test_settings_are_those_of_the_beginning(sketch: Sketch) -> None:
    """What a later stage says about its own part of the data is not the run's."""
    finals = ("val_tokens: 8000000", ("final_int8_zlib_roundtrip_exact", 1.22436570))
    reading = read_log(sketch.with_(finals=finals).text())
    assert (reading.val_tokens, reading.violations) == (62021632, ())


def test_settings_in_echoed_source_are_no_settings(sketch: Sketch) -> None:
    """Code before the run begins does not name the data set."""
    echoed = ("loader = Loader(data_path=args.data_path)", "val_tokens = 5", "seed: 3")
    reading = read_log(sketch.with_(header=echoed).text())
    assert (reading.dataset, reading.val_tokens) == ("fineweb10B_sp1024", 62021632)


def test_a_summary_is_the_score_where_no_line_has_a_name(sketch: Sketch) -> None:
    """A trailer states the score of a log that has no final metric line, and only then."""
    trailer = ("---", "val_bpb:          1.12278022", "artifact_bytes:   15555017")
    alone = read_log(sketch.with_(finals=(), sizes=(), after=trailer, in_training=1.14).text())
    assert (alone.val_bpb, alone.score_name) == (1.12278022, "val_bpb")
    assert (alone.artifact_bytes, alone.status) == (15555017, "completed")
    beside = read_log(sketch.with_(after=trailer).text())
    assert beside.val_bpb == 1.2243657


def test_a_readme_after_the_run_is_prose(sketch: Sketch) -> None:
    """What follows a heading quotes other runs, and none of it is a score."""
    quoted = "final_int8_zlib_roundtrip_exact val_loss:1.9 val_bpb:1.1"
    reading = read_log(sketch.with_(after=("# Results", "", "```", quoted, "```")).text())
    assert reading.val_bpb == 1.2243657


def test_source_that_is_echoed_before_the_run_is_no_score(sketch: Sketch) -> None:
    """Even a docstring that quotes a final line with numbers does not count."""
    quoted = "final_int8_zlib_roundtrip_exact val_loss:1.9 val_bpb:1.1"
    echoed = ('"""', quoted, '"""', 'log0(f"final_x val_loss:{a:.4f} val_bpb:{b:.4f}")', "=" * 100)
    reading = read_log(sketch.with_(header=echoed, finals=()).text())
    assert (reading.status, reading.val_bpb, reading.candidates) == ("no_score", None, ())


def test_a_grep_of_a_log_is_enough() -> None:
    """Three lines without any run around them are read as far as they go."""
    text = (
        "model_params:17059912\n"
        "final_int8_zlib_roundtrip val_loss:2.0727 val_bpb:1.2244 eval_time:1401ms\n"
        "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570\n"
    )
    reading = read_log(text)
    assert (reading.val_bpb, reading.model_params, reading.runs) == (1.2243657, 17059912, 0)
