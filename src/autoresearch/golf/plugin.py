"""The challenge's eyes: reads the score of its runs, audits its changes, doubts its results."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from subprocess import SubprocessError

from attrs import evolve, frozen

from autoresearch.config import Config, setting
from autoresearch.cycle.traces import LINE
from autoresearch.desk import Desk
from autoresearch.durable import digest_files
from autoresearch.errors import AutoresearchError
from autoresearch.golf import ARTIFACT_BYTES, plausibility
from autoresearch.golf.audits import audit_change as audit
from autoresearch.golf.audits import needs_model_tests
from autoresearch.golf.audits.script import try_parse
from autoresearch.golf.audits.settings import estimated_payload
from autoresearch.golf.measurement import (
    Clocks,
    Files,
    compare_baseline,
    compare_clocks,
    compare_run,
    compare_training,
    evaluation_digest,
    longest_sequence,
    measure_files,
    measurement_of,
)
from autoresearch.golf.packing import MARK as UNPACKED
from autoresearch.golf.packing import adopted, packed_bytes
from autoresearch.golf.plausibility import broken, doubt
from autoresearch.golf.reading import RunReading, read_run
from autoresearch.golf.reading.grammar import base_name
from autoresearch.golf.reading.own import MARK, Outcome, OwnResult
from autoresearch.history import History
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.launchers.local import interpreter
from autoresearch.model import (
    Change,
    Experiment,
    IdeaKind,
    RunOutput,
    RunStatus,
    Violation,
    Workspace,
)
from autoresearch.python_source import fault_of, readable

DEFAULT_TOKENIZER = "data/tokenizers/fineweb_1024_bpe.model"
LOSSES = ("train_loss", "val_loss", "val_bpb")


@frozen(kw_only=True)
class Settings:
    """The table ``[plugins.golf]``."""

    score_again: bool = setting(
        True,
        "score the artifact of a run that would be kept once more: in a new process, "
        "or in a job of its own where runs go elsewhere",
    )
    required_calls: tuple[str, ...] = setting(
        (), "calls that an edit must not take away, as the script writes them: `dist.barrier`"
    )


class Plugin(WithTable[Settings]):
    """Reads ``val_bpb`` by the declared rule; what breaks a rule of the game is quarantined."""

    name, Settings = "golf", Settings

    @hookimpl
    def unpack_script(self, source: str) -> str | None:
        """Unpack a script that only executes a compressed literal."""
        return adopted(source)

    @hookimpl
    def audit_change(
        self, change: Change, workspace: Workspace, history: History
    ) -> Sequence[Violation]:
        """Run the static checks S1 to S10; a change of the evaluation faces the canary as well."""
        project = str(workspace.project)
        env = {k: text.replace("{project}", project) for k, text in self._config.env.items()}
        found = audit(
            change,
            allowed=(workspace.script,),
            env=env,
            limit=self._limit,
            ratio=_measured_ratio(history, change.pristine, env),
            required_calls=self._settings.required_calls,
        )
        found = (*found, *_compiled(change.after, self._config, workspace.project))
        if any(item.blocks for item in found) or not needs_model_tests(found):
            return found
        tokenizer = workspace.project / env.get("TOKENIZER_PATH", DEFAULT_TOKENIZER)
        return (*found, *_model_tests(change.after, tokenizer))

    @hookimpl
    def extract_metrics(self, output: RunOutput, history: History) -> Mapping[str, float] | None:
        """Read the score as `metrics` does, from the line that the baseline's was read from.

        A run that did not complete has no score, whatever its log says.
        """
        reading = _read(output, history) if output.status is RunStatus.COMPLETED else None
        found = None if reading is None else reading.metrics()
        if found and reading is not None and (size := _packed_size(reading, output)):
            return {**found, "artifact_bytes": float(size)}
        return found

    @hookimpl
    def explain_no_score(self, output: RunOutput, history: History) -> str | None:
        """Say which line was looked for, and which were printed."""
        reading = _read(output, history)
        if reading is None or reading.metrics() is not None:
            return None
        told = reading.own.outcome is not Outcome.ABSENT or reading.log.val_bpb is not None
        return reading.own.reason if told else reading.log.note

    @hookimpl
    def measure_run(self, output: RunOutput, history: History) -> Mapping[str, str] | None:
        """Say what the score was measured with: evaluation code, tokenizer, data and hardware.

        A script without a result line has its evaluation code, and the line of its score.
        """
        reading = _read(output, history)
        if output.script_path is None or reading is None or reading.metrics() is None:
            return None
        source = output.script_path.read_text(encoding="utf-8", errors="replace")
        if reading.result is not None:
            return measurement_of(source, reading.result)
        line = base_name(reading.log.score_name or "")
        return {"evaluation": evaluation_digest(source), LINE: line}

    @hookimpl
    def should_stop_run(self, observed: Mapping[str, float]) -> str | None:
        """Stop a run whose loss is no longer a number."""
        lost = [name for name in LOSSES if not math.isfinite(observed.get(name, 0.0))]
        return f"{lost[0]} is {observed[lost[0]]}" if lost else None

    @hookimpl
    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History, desk: Desk
    ) -> Sequence[Violation] | None:
        """Run the dynamic checks D2 to D9; what would be kept is scored again from its artifact."""
        reading = _read(output, history)
        if reading is None:
            return None
        values, result = reading.metrics() or {}, reading.result
        found = [*reading.violations, *judge_run(values, experiment, output, history)]
        if result is not None:
            found += judge_result(result, experiment, output)
        if experiment.idea.kind is IdeaKind.EVALUATION:
            found += _unproved(experiment, output, desk)
        if result is None:
            return tuple(found)
        here = self._config.launcher == "local"
        found += measure(result, output) if here else ()
        best = history.best_metric
        improves = best is not None and history.better(result.val_bpb, best)
        if self._settings.score_again and improves and not any(v.blocks for v in found):
            found += score_again(result, output) if here else score_there(result, output, desk)
        return tuple(found)

    @property
    def _limit(self) -> int:
        return self._config.limits.artifact_bytes or ARTIFACT_BYTES


def _read(output: RunOutput, history: History) -> RunReading | None:
    if not output.log_path.exists():
        return None
    # One that was killed behind its score has no exit code, and completed by its launcher's word.
    killed = output.status is RunStatus.COMPLETED and output.exit_code is None
    return read_run(output.log_path, 0 if killed else output.exit_code, score_line(history))


def _script(output: RunOutput) -> str:
    return output.script_path.read_text("utf-8", "replace") if output.script_path else ""


def _packed_size(reading: RunReading, output: RunOutput) -> int | None:
    """Return the artifact of a script that was unpacked, as it will be handed in: packed again."""
    model = reading.result.model_bytes if reading.result else reading.log.model_bytes
    text = _script(output)
    return model + packed_bytes(text) if model is not None and text.startswith(UNPACKED) else None


def score_line(history: History) -> str | None:
    """Return the name of the line that a campaign's score is read from; None while it is open.

    The baseline's own log settles it: see `ruling`. What older releases recorded has no name for
    it, and was read from the result line where the tokenizer is known.
    """
    known = history.baseline.measurement if history.baseline else {}
    return known.get(LINE) or (MARK if "tokenizer" in known else None)


def _measured_ratio(history: History, pristine: str, env: Mapping[str, str]) -> float | None:
    """Return what the baseline's packed model has for each byte that its shape lets expect."""
    size = history.baseline.metrics.get("artifact_bytes") if history.baseline else None
    script = try_parse(pristine)
    payload = estimated_payload(script, env) if script is not None else None
    return (size - len(pristine.encode())) / payload if size and payload else None


def _compiled(source: str, config: Config, project: Path) -> Sequence[Violation]:
    """S2 by the interpreter that will run a script; where it cannot be asked, that is told."""
    python = interpreter(config, project)
    try:
        if python is None:
            raise FileNotFoundError(f"the interpreter of {config.launcher!r} is not known here")
        refused = fault_of(python, source)
    except (OSError, SubprocessError) as error:
        newer = readable(source) != source
        said = f"needs a newer Python than {platform.python_version()}, and whether the one that "
        return doubt("S2", f"{said}runs it is one could not be asked: {error}") if newer else ()
    if refused is None:
        return ()
    return broken("S2", f"does not compile by {python}, which runs it: {refused.message}")


def _model_tests(source: str, tokenizer: Path) -> Sequence[Violation]:
    """Run the canary beside the loop; where it proves nothing, a doubt stays a doubt."""
    try:
        from autoresearch.golf.canary import audit_measuring

        return audit_measuring(source, tokenizer=tokenizer, typed=False)
    except (AutoresearchError, ImportError) as error:
        return doubt("T5", f"the canary could not run: {error}")


def _unproved(experiment: Experiment, output: RunOutput, desk: Desk) -> Iterator[Violation]:
    """Yield why a change of the evaluation is not believed yet, and what a person can do."""
    there = output.env.get("TOKENIZER_PATH", DEFAULT_TOKENIZER)
    here = Path(there) if Path(there).is_file() else Path(DEFAULT_TOKENIZER)
    source = _script(output)
    advice = f"check it, then autoresearch accept {experiment.number} --reason WHY"
    found: Sequence[Violation]
    try:
        from autoresearch.golf.canary import audit_measuring

        run = partial(desk.job, output, "model-tests")
        env = {"TOKENIZER_PATH": there}
        found = audit_measuring(source, tokenizer=here, env=env, run=run, seed=_seed(output))
    except (AutoresearchError, ImportError) as error:
        found = broken("T5", f"the canary could not run: {error}")
    for item in found:
        yield evolve(item, detail=f"{item.detail}; {advice}")


def _seed(output: RunOutput) -> int:
    """Draw the same texts when the loop asks again after a crash; no run knows its own output."""
    return int(digest_files(output.log_path)[:16], 16)


def judge_run(
    values: Mapping[str, float], experiment: Experiment, output: RunOutput, history: History
) -> Iterator[Violation]:
    """Yield what is wrong with the numbers of a run beside the baseline's: its text, its clocks.

    A change of the evaluation may take its own time over another vocabulary, but not other bytes.
    """
    baseline = history.baseline
    if baseline is None or baseline.number == experiment.number or not baseline.metrics:
        return
    typed = experiment.idea.kind is IdeaKind.EVALUATION
    source = _script(output)
    tail = longest_sequence(source, output.env)
    yield from compare_baseline(values, baseline.metrics, tail=tail, text=not typed)
    first = next((run for run in baseline.runs if run.metrics and run.seconds), None)
    before = first and Clocks.of(first.metrics, first.seconds)
    now = Clocks.of(values, output.seconds)
    if before and now and not typed:
        yield from compare_training(now, before)


def judge_result(
    result: OwnResult, experiment: Experiment, output: RunOutput
) -> Iterator[Violation]:
    """Yield what is wrong with a result line beside its own numbers and the commit."""
    yield from compare_clocks(result, output.seconds)
    yield from plausibility.conservation(
        result.val_tokens, result.val_loss, result.val_bpb, result.val_bytes
    )
    if experiment.source_digest:
        stated, committed = {"script": result.code_digest}, {"script": experiment.source_digest}
        yield from plausibility.same_digests(stated, committed)


def measure(result: OwnResult, output: RunOutput) -> Iterator[Violation]:
    """Yield where the files of a local run are not what its script says.

    How large they are together is no violation: the loop discards what is over its limit.
    """
    files = _files(output, result)
    if files is None:
        detail = f"the run left no file of {result.model_bytes:,} bytes that could be measured"
        yield from broken("D6", detail)
        return
    try:
        measured = measure_files(files, env=output.env)
    except AutoresearchError as error:
        yield from broken("D6", f"the run cannot be measured: {error}")
        return
    yield from compare_run(measured, result, limit=measured.artifact_bytes + 1)


def score_again(result: OwnResult, output: RunOutput) -> Iterator[Violation]:
    """Yield D7 where the artifact alone does not give the score, in a new process."""
    from autoresearch.golf.model_tests import NoAnswerError, reload_score

    files = _files(output, result)
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


def score_there(result: OwnResult, output: RunOutput, desk: Desk) -> Iterator[Violation]:
    """Yield D7 where the artifact alone does not give the score, in a job where the run was."""
    artifact = _artifact(output, result)
    source = _script(output)
    if artifact is None or "EVAL_ARTIFACT" not in source:
        yield from doubt("D7", "the run left no artifact that could be scored again")
        return
    asked = evolve(output, env={**output.env, "EVAL_ARTIFACT": artifact.name})
    ended = desk.job(asked, "reload", source, files=(artifact,))
    if ended is None:
        return
    text = ended.log_path.read_text("utf-8", "replace") if ended.log_path.exists() else ""
    said = re.findall(r'^artifact_score .*"val_bpb": ([\d.]+)', text, re.MULTILINE)
    if ended.status is RunStatus.COMPLETED and said:
        yield from plausibility.reload(result.val_bpb, float(said[-1]))
    elif ended.status is RunStatus.INFRA_FAILED:
        yield from doubt("D7", f"the artifact could not be scored again: {ended.detail}")
    else:
        yield from broken("D7", f"the artifact alone gives no score: {ended.detail or 'no line'}")


def _artifact(output: RunOutput, result: OwnResult) -> Path | None:
    """The artifact of a run: it has whatever name, and the bytes that the result states."""
    own = (path for path in sorted(output.folder.iterdir()) if path.is_file())
    sized = [path for path in own if path.stat().st_size == result.model_bytes]
    named = [path for path in sized if digest_files(path) == result.artifact_digest]
    return next(iter((*named, *sized)), None)


def _files(output: RunOutput, result: OwnResult) -> Files | None:
    """The files of a run on this machine."""
    data, tokenizer = output.env.get("DATA_PATH"), output.env.get("TOKENIZER_PATH")
    artifact = _artifact(output, result)
    if output.script_path is None or artifact is None or not data or not tokenizer:
        return None
    return Files(output.script_path, artifact, Path(data), Path(tokenizer))
