"""The challenge's eyes: reads the score of its runs, audits its changes, doubts its results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import asdict, frozen

from autoresearch.config import Config, setting
from autoresearch.errors import AutoresearchError
from autoresearch.golf import plausibility
from autoresearch.golf.audits import audit_change as audit
from autoresearch.golf.audits import needs_model_tests
from autoresearch.golf.measurement import (
    Files,
    compare_clocks,
    compare_run,
    measure_files,
    measurement_of,
)
from autoresearch.golf.plausibility import broken, doubt
from autoresearch.golf.preset import ARTIFACT_BYTES
from autoresearch.golf.reading import RunReading, read_run
from autoresearch.golf.reading.own import OwnResult
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
ARTIFACT = "final_model.int8.ptz"


@frozen(kw_only=True)
class Settings:
    """The table ``[plugins.golf]``."""

    score_again: bool = setting(
        True, "score the artifact of a local run that would be kept once more, in a new process"
    )
    required_calls: tuple[str, ...] = setting(
        (), "calls that an edit must not take away, as the script writes them: `dist.barrier`"
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
        project = str(workspace.project)
        env = {k: text.replace("{project}", project) for k, text in self._config.env.items()}
        found = audit(
            change,
            allowed=(workspace.script,),
            env=env,
            limit=self._limit,
            required_calls=self._settings.required_calls,
        )
        if any(item.blocks for item in found) or not needs_model_tests(found):
            return found
        tokenizer = workspace.project / env.get("TOKENIZER_PATH", DEFAULT_TOKENIZER)
        return (*found, *_model_tests(change, tokenizer))

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Read the canonical last line; the challenge's own script has none, and prints a pair.

        A run that did not complete has no score, whatever its log says.
        """
        reading = _read(output) if output.status is RunStatus.COMPLETED else None
        return None if reading is None else reading.metrics()

    @hookimpl
    def measure_run(self, output: RunOutput) -> Mapping[str, str] | None:
        """Say what the score was measured with: evaluation code, tokenizer, data and hardware."""
        reading = _read(output)
        if output.script_path is None or reading is None or reading.result is None:
            return None
        source = output.script_path.read_text(encoding="utf-8", errors="replace")
        return asdict(measurement_of(source, reading.result))

    @hookimpl
    def should_stop_run(self, observed: Mapping[str, float]) -> str | None:
        """Stop a run whose loss is no longer a number."""
        lost = [name for name in LOSSES if not math.isfinite(observed.get(name, 0.0))]
        return f"{lost[0]} is {observed[lost[0]]}" if lost else None

    @hookimpl
    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History
    ) -> Sequence[Violation] | None:
        """Run the dynamic checks D2 to D9; what would be kept is scored again from its artifact."""
        reading = _read(output)
        if reading is None or reading.result is None:
            return None if reading is None else reading.violations
        result = reading.result
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


def _read(output: RunOutput) -> RunReading | None:
    return read_run(output.log_path, output.exit_code) if output.log_path.exists() else None


def _model_tests(change: Change, tokenizer: Path) -> Sequence[Violation]:
    """Run the canary; where it cannot run an evaluation change is stopped, a mere doubt is not."""
    typed = change.idea.kind is IdeaKind.EVALUATION
    try:
        from autoresearch.golf.canary import audit_measuring

        return audit_measuring(change.after, tokenizer=tokenizer, typed=typed)
    except (AutoresearchError, ImportError) as error:
        return (broken if typed else doubt)("T5", f"the canary could not run: {error}")


def judge_run(
    result: OwnResult, experiment: Experiment, output: RunOutput, history: History
) -> Iterator[Violation]:
    """Yield what is wrong with a result beside the baseline's, the clocks and the commit."""
    yield from compare_clocks(result, output.seconds)
    baseline = history.baseline
    known = baseline.metrics if baseline and experiment.number else {}
    if "val_tokens" in known:
        yield from plausibility.validation_tokens(result.val_tokens, int(known["val_tokens"]))
    expected = int(known.get("val_bytes", result.val_bytes))
    yield from plausibility.conservation(
        result.val_tokens, result.val_loss, result.val_bpb, expected
    )
    if experiment.source_digest:
        stated, committed = {"script": result.code_digest}, {"script": experiment.source_digest}
        yield from plausibility.same_digests(stated, committed)


def measure(result: OwnResult, output: RunOutput, limit: int) -> Iterator[Violation]:
    """Yield where the files of a local run are not what its script says; ``limit`` in bytes."""
    files = _files(output)
    if files is None:
        yield from broken("D6", f"the run left no {ARTIFACT} that could be measured")
        return
    try:
        measured = measure_files(files, env=output.env)
    except AutoresearchError as error:
        yield from broken("D6", f"the run cannot be measured: {error}")
        return
    yield from compare_run(measured, result, limit=limit)


def score_again(result: OwnResult, output: RunOutput) -> Iterator[Violation]:
    """Yield D7 where the artifact alone does not give the score, in a new process."""
    from autoresearch.golf.asking import NoAnswerError, reload_score

    files = _files(output)
    if files is None:
        return
    try:
        again = reload_score(files, env=output.env)
    except NoAnswerError as error:
        yield from broken("D7", f"the artifact alone gives no score: {error}")
        return
    except AutoresearchError as error:
        yield from doubt("D7", f"the artifact could not be scored again: {error}")
        return
    yield from plausibility.reload(result.val_bpb, again.val_bpb)


def _files(output: RunOutput) -> Files | None:
    artifact = output.folder / ARTIFACT
    data, tokenizer = output.env.get("DATA_PATH"), output.env.get("TOKENIZER_PATH")
    if output.script_path is None or not artifact.is_file() or not data or not tokenizer:
        return None
    return Files(output.script_path, artifact, Path(data), Path(tokenizer))
