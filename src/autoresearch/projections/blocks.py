"""The REASONING and ANALYSIS blocks of the research protocol, to the letter."""

from __future__ import annotations

from autoresearch.history import History
from autoresearch.model import Analysis, Experiment, Reasoning
from autoresearch.text import one_line

LIMIT = 2_000


def reasoning_block(reasoning: Reasoning) -> str:
    """Return the block that is written before every experiment."""
    return "\n".join(
        [
            "=== REASONING ===",
            f"Hypothesis: {one_line(reasoning.hypothesis, LIMIT)}",
            f"Evidence: {one_line(reasoning.evidence, LIMIT)}",
            f"Risk: {one_line(reasoning.risk, LIMIT)}",
            "===",
        ]
    )


def analysis_block(analysis: Analysis, verdict: str) -> str:
    """Return the block that is written after every experiment; ``verdict`` ends its first line."""
    return "\n".join(
        [
            "=== ANALYSIS ===",
            f"Result: {one_line(analysis.result, LIMIT)} ({verdict})",
            f"vs Expected: {one_line(analysis.versus_expected, LIMIT)}",
            f"Why: {one_line(analysis.why, LIMIT)}",
            f"Lesson: {one_line(analysis.lesson, LIMIT)}",
            "===",
        ]
    )


def in_its_stage(experiment: Experiment, history: History) -> str:
    """Return the score of an experiment that did not come to the last stage, with the stage."""
    score = experiment.metrics.get(history.metric)
    shown = "no score" if score is None else f"{history.metric} {score:.6f}"
    return f"{shown} in the stage {experiment.stage or 'none'}"


def shown_status(experiment: Experiment) -> str:
    """Return keep, discard or crash, the words that results.tsv knows, or rerun on the way."""
    verdict = experiment.verdict
    shown = verdict.value if verdict is not None else ""
    return shown if shown in ("keep", "crash", "rerun") else "discard"
