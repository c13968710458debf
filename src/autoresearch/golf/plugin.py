"""The challenge's eyes: reads the score of its runs, audits its changes, doubts its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import asdict, frozen

from autoresearch.config import Config, setting
from autoresearch.errors import AutoresearchError
from autoresearch.golf.after_run import judge_run, measure, score_again
from autoresearch.golf.audit import audit_change as audit
from autoresearch.golf.audit import needs_model_tests
from autoresearch.golf.locks import lock_of
from autoresearch.golf.log_formats import read_log
from autoresearch.golf.preset import ARTIFACT_BYTES
from autoresearch.golf.reading.own_run import OwnReading, read_result
from autoresearch.golf.reading.stages import CANONICAL
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import (
    Change,
    Experiment,
    IdeaKind,
    RunOutput,
    RunStatus,
    Violation,
    Workspace,
)

DEFAULT_TOKENIZER = "data/tokenizers/fineweb_1024_bpe.model"
LOSSES = ("train_loss", "val_loss", "val_bpb")


@frozen(kw_only=True)
class Settings:
    """The table ``[plugins.golf]``."""

    score_again: bool = setting(
        True, "score the artifact of a local run that would be kept once more, in a process of ours"
    )


class Plugin:
    """Reads ``val_bpb`` by the declared rule; what breaks a rule of the game is quarantined."""

    def __init__(self) -> None:
        self._config = Config()
        self._settings = Settings()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Remember the limits of the campaign."""
        self._config = config
        self._settings = config.settings("golf", Settings)

    @hookimpl
    def audit_change(self, change: Change, workspace: Workspace) -> Sequence[Violation]:
        """Run the static checks S1 to S10; a change of the evaluation faces the canary as well."""
        env = {key: fill(text, workspace) for key, text in self._config.env.items()}
        found = audit(change, allowed=(workspace.script,), env=env, limit=self._limit)
        if any(item.blocks for item in found) or not needs_model_tests(found):
            return found
        tokenizer = workspace.project / env.get("TOKENIZER_PATH", DEFAULT_TOKENIZER)
        return (*found, *_model_tests(change, tokenizer))

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
    def measure_run(self, output: RunOutput) -> Mapping[str, str] | None:
        """Name evaluation code, tokenizer, validation data and hardware."""
        if output.script_path is None or not output.log_path.exists():
            return None
        result = read_result(output.log_path, output.exit_code).result
        if result is None:
            return None
        source = output.script_path.read_text(encoding="utf-8", errors="replace")
        return asdict(lock_of(source, result))

    @hookimpl
    def should_stop_run(self, observed: Mapping[str, float]) -> str | None:
        """Stop a run whose loss is no number any more."""
        lost = [name for name in LOSSES if not math.isfinite(observed.get(name, 0.0))]
        return f"{lost[0]} is {observed[lost[0]]}" if lost else None

    @hookimpl
    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History
    ) -> Sequence[Violation] | None:
        """Run the dynamic checks D2 to D9; what would be kept is scored again from its artifact."""
        if not output.log_path.exists():
            return None
        reading = read_result(output.log_path, output.exit_code)
        result = reading.result
        if result is None:
            foreign = _prints_no_result(reading)
            return (
                read_log(output.log_path, exit_code=output.exit_code).violations if foreign else ()
            )
        found = [*reading.violations, *judge_run(result, experiment, output, history)]
        if self._config.launcher == "local":
            found += measure(result, output, self._limit)
            best = history.best_metric
            improves = best is not None and history.better(result.val_bpb, best)
            if self._settings.score_again and improves and not any(v.blocks for v in found):
                found += score_again(result, output)
        return tuple(found)

    @property
    def _limit(self) -> int:
        return self._config.limits.artifact_bytes or ARTIFACT_BYTES


def _model_tests(change: Change, tokenizer: Path) -> Sequence[Violation]:
    """Run the canary; where it cannot run an evaluation change is stopped, a mere doubt is not."""
    typed = change.idea.kind is IdeaKind.EVALUATION
    try:
        from autoresearch.golf.trials.doubts import audit_measuring

        return audit_measuring(change.after, tokenizer=tokenizer, typed=typed)
    except (AutoresearchError, ImportError) as error:
        detail = f"the canary could not run: {error}"
        severity = "violation" if typed else "warning"
        return (Violation(rule="T5", detail=detail, severity=severity),)


def fill(text: str, workspace: Workspace) -> str:
    """Replace ``{project}`` in a setting of the environment."""
    return text.replace("{project}", str(workspace.project))


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
