"""The challenge's eyes: reads the score of its runs, audits its changes, doubts its results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from autoresearch.config import Config
from autoresearch.golf import plausibility
from autoresearch.golf.audit import audit_change as audit
from autoresearch.golf.log_formats import read_log
from autoresearch.golf.own_result import OwnResult
from autoresearch.golf.own_run import OwnReading, read_result
from autoresearch.golf.preset import ARTIFACT_BYTES
from autoresearch.golf.stages import CANONICAL
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import (
    Change,
    Experiment,
    RunOutput,
    RunStatus,
    Violation,
    Workspace,
)

LOSSES = ("train_loss", "val_loss", "val_bpb")


class Plugin:
    """Reads ``val_bpb`` by the declared rule; what breaks a rule of the game is quarantined."""

    def __init__(self) -> None:
        self._config = Config()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Remember the limits of the campaign."""
        self._config = config

    @hookimpl
    def audit_change(self, change: Change, workspace: Workspace) -> Sequence[Violation]:
        """Run the static checks S1 to S10 over a change."""
        limit = self._config.limits.artifact_bytes or ARTIFACT_BYTES
        return audit(change, allowed=(workspace.script,), limit=limit)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Read the canonical last line; the challenge's own script has none, and prints a pair.

        A run that did not complete has no score, whatever its log says.
        """
        if output.status is not RunStatus.COMPLETED or not output.log_path.exists():
            return None
        reading = read_result(output.log_path, output.exit_code)
        if reading.result is not None:
            return reading.result.metrics()
        return _canonical_pair(output) if _prints_no_result(reading) else None

    @hookimpl
    def should_stop_run(self, observed: Mapping[str, float]) -> str | None:
        """Stop a run whose loss is no number any more."""
        lost = [name for name in LOSSES if not math.isfinite(observed.get(name, 0.0))]
        return f"{lost[0]} is {observed[lost[0]]}" if lost else None

    @hookimpl
    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History
    ) -> Sequence[Violation] | None:
        """Run the dynamic checks over the newest run of an experiment."""
        if not output.log_path.exists():
            return None
        reading = read_result(output.log_path, output.exit_code)
        if reading.result is None:
            return None
        return (*reading.violations, *self._doubts(reading.result, experiment, history))

    def _doubts(
        self, result: OwnResult, experiment: Experiment, history: History
    ) -> Iterator[Violation]:
        if experiment.source_digest and result.code_digest != experiment.source_digest:
            yield from plausibility.same_digests(
                {"script": result.code_digest}, {"script": experiment.source_digest}
            )
        baseline = history.baseline
        known = baseline.metrics if baseline and experiment.number else {}
        if "val_tokens" in known:
            yield from plausibility.validation_tokens(result.val_tokens, int(known["val_tokens"]))
        expected = int(known.get("val_bytes", result.val_bytes))
        yield from plausibility.conservation(
            result.val_tokens, result.val_loss, result.val_bpb, expected
        )


def _prints_no_result(reading: OwnReading) -> bool:
    return "has no line" in reading.reason


def _canonical_pair(output: RunOutput) -> Mapping[str, float] | None:
    """Read a run of the challenge's own script, whose last line is the exact canonical pair."""
    found = read_log(output.log_path, exit_code=output.exit_code)
    if found.val_bpb is None or found.score_name != CANONICAL:
        return None
    numbers = {
        "val_bpb": found.val_bpb,
        "val_loss": found.val_loss,
        "artifact_bytes": found.artifact_bytes,
        "model_params": found.model_params,
        "steps": found.steps,
        "train_time_ms": found.train_time_ms,
        "eval_time_ms": found.eval_time_ms,
        "val_tokens": found.val_tokens,
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}
