"""The built-in ANALYSIS block: always there, in the protocol's form, with this run's numbers."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from autoresearch import policies
from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.history import History
from autoresearch.model import Analysis, Experiment, Reasoning, RunStatus
from autoresearch.policies import analysis
from autoresearch.testing import EXAMPLES, candidate, experiment, history, idea

CONFIG = Config(preset="plain", metric=MetricConfig(name="val_bpb", sd=0.0006))
PAST = history([1.2244], config=CONFIG)


def analyse(made: Experiment, past: History = PAST) -> Analysis:
    """Return the block for an experiment after a history."""
    plugin = analysis.Plugin()
    plugin.configure(CONFIG)
    return plugin.analyze_run(made, past)


def run(score: float | None, predicted: float | None = None, **fields: object) -> Experiment:
    """Return an undecided experiment on val_bpb with a prediction."""
    made = experiment(score, metric="val_bpb", **fields)
    reasoning = Reasoning(hypothesis="it helps", evidence="none", risk="none", predicted=predicted)
    return evolve(made, reasoning=reasoning)


def test_the_result_has_the_form_of_the_protocol() -> None:
    """Four decimals of the score, one of decimal megabytes."""
    made = run(1.22436570, metrics={"artifact_bytes": 15_863_489})
    assert analyse(made).result == "val_bpb=1.2244 artifact=15.9MB"


def test_what_is_missing_is_called_none() -> None:
    """A crash has neither a score nor a size, and never a zero; a size only where it matters."""
    limited = evolve(CONFIG, limits=LimitsConfig(artifact_bytes=16_000_000))
    assert analyse(run(None), history([1.2], config=limited)).result == (
        "val_bpb=none artifact=none"
    )
    assert analyse(run(None)).result == "val_bpb=none"


@pytest.mark.parametrize(
    ("score", "predicted", "word"),
    [
        (1.2200, 1.2244, "better than predicted"),
        (1.2300, 1.2244, "worse than predicted"),
        (1.2245, 1.2244, "same as predicted"),
        (None, 1.2244, "worse than predicted"),
        (1.2200, None, "better"),
        (1.2300, None, "worse"),
    ],
)
def test_versus_expected_begins_with_the_verdict_on_the_prediction(
    score: float | None, predicted: float | None, word: str
) -> None:
    """Better, worse or same than predicted, within the noise of two runs; without a prediction
    than the best before."""
    assert analyse(run(score, predicted)).versus_expected.startswith(f"{word}: ")


def test_a_gain_smaller_than_predicted_reads_as_a_gain() -> None:
    """Worse is said of the prediction, beside what the change itself brought."""
    assert analyse(run(1.2200, 1.2100)).versus_expected == (
        "worse than predicted: better by 0.0044, where better by 0.0144 was expected "
        "(val_bpb 1.2200 against 1.2100)"
    )


@pytest.mark.parametrize("status", list(RunStatus))
def test_a_run_without_a_score_is_explained_by_its_ending(status: RunStatus) -> None:
    """Crash, deadline, early stop and machine failure are not the same story."""
    told = {other: analyse(run(None, status=other)).why for other in RunStatus}
    assert len(set(told.values())) == len(RunStatus)
    assert told[status]


def test_side_effects_are_named() -> None:
    """What else moved against the best explains the score: size, parameters, speed."""
    base = experiment(1.2244, metric="val_bpb", metrics={"model_params": 100.0, "steps": 1000.0})
    past = history([base], config=CONFIG)
    why = analyse(run(1.21, metrics={"model_params": 150.0, "steps": 999.0}), past).why
    assert "model_params +50%" in why
    assert "steps" not in why
    assert "better by 0.0144 val_bpb against experiment 0" in why


def test_lessons_differ_and_count() -> None:
    """A lesson carries the direction, the change and its own number, and the record before it."""
    past = history([1.2244, 1.2200, 1.2300], directions=["matrix lr"], config=CONFIG)
    lessons = {
        analyse(
            run(score, number=3, idea=idea(f"MATRIX_LR 0.04 -> {score}", direction="matrix lr")),
            past,
        ).lesson
        for score in (1.2100, 1.2201, 1.2400, None)
    }
    assert len(lessons) == 4
    assert all(lesson.startswith("matrix lr: MATRIX_LR 0.04 -> ") for lesson in lessons)
    scored = [lesson for lesson in lessons if "no score" not in lesson]
    assert all(re.search(r"\((better|worse) by 0\.\d{4}\)", lesson) for lesson in scored)
    assert all(
        "; 1 of 2 before it here were kept; the last, experiment " in lesson for lesson in scored
    )
    assert {"helps", "hurts", "makes no difference beyond the noise"} <= {
        word
        for lesson in scored
        for word in ("helps", "hurts", "makes no difference beyond the noise")
        if word in lesson
    }


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("score", [0.5, None])
def test_it_always_answers(name: str, score: float | None) -> None:
    """Whatever the history, all four lines have words, each on one line."""
    past = EXAMPLES[name]().history
    block = analyse(experiment(score, number=past.next_number, metric=past.metric), past)
    for line in (block.result, block.versus_expected, block.why, block.lesson):
        assert line
        assert "\n" not in line


def test_what_a_crashed_run_had_printed_is_told() -> None:
    """A score before a crash, and the last value before the score went missing, are evidence."""
    crashed = run(None, status=RunStatus.CRASHED)
    shown = evolve(crashed.runs[-1], metrics={"val_bpb": 1.3})
    assert analyse(evolve(crashed, runs=(shown,))).why == (
        "the run crashed after it had printed val_bpb 1.3000"
    )
    ended = run(None, status=RunStatus.COMPLETED)
    seen = evolve(ended.runs[-1], observed={10: 1.9, 20: 2.5})
    assert analyse(evolve(ended, runs=(seen,))).why == (
        "the run ended without a finite score; the last value seen was val_bpb 2.5000 at step 20"
    )


def test_the_clock_explains_nothing() -> None:
    """How long a run took depends on who else uses the machine."""
    base = experiment(
        1.2244, metric="val_bpb", metrics={"step_avg_ms": 100.0, "train_seconds": 9.0}
    )
    slow = run(1.21, metrics={"step_avg_ms": 300.0, "train_seconds": 27.0})
    assert "nothing else moved" in analyse(slow, history([base], config=CONFIG)).why


def test_the_analysis_is_as_sure_as_the_decision() -> None:
    """Both know how many runs were compared, and how well the noise is known."""
    judged = policies.compare(candidate(1.2235, PAST), PAST)
    assert judged is not None
    assert judged.confidence is not None
    assert judged.confidence < policies.confidence(judged.gain, PAST.noise.sd)
    assert policies.likelihood(judged.confidence) in analysis.explanation(run(1.2235), PAST)


def test_a_loss_is_called_a_loss() -> None:
    """The confidence is that of what happened, not of its opposite."""
    assert "a real loss with over 99.9 % confidence" in analyse(run(1.2344)).why
    assert "no change against experiment 0;" in analyse(run(1.2244)).why
