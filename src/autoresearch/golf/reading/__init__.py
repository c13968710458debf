"""What the log of a run says: its score, everything beside it, and what speaks against it.

A log of the project's own script is decided by its result line (`own`), any other by the order of
its evaluation (`ruling`). `read_run` reads a file once and gives both views of it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.golf.plausibility import artifact_of, implied_bytes, over_limit, packed_model
from autoresearch.golf.reading.grammar import Candidate, Validation
from autoresearch.golf.reading.own import (
    MARK,
    Outcome,
    OwnReading,
    OwnResult,
    ResultWatch,
    cross_check,
    own_reading,
)
from autoresearch.golf.reading.ruling import (
    LogStatus,
    Ruling,
    dataset_of,
    judge,
    judge_claims,
    rule,
)
from autoresearch.golf.reading.scan import Run, Scan, Source, open_source, read_lines, scan
from autoresearch.model import Violation
from autoresearch.text import one_line

ABSENT = "not in this log"
_MOST_CANDIDATES = 40


@frozen(kw_only=True)
class LogReading:
    """What a log says: losses in nats per token, scores in bits per byte, times in milliseconds.

    `val_bpb` is None where the log has no official score; `note` says why, or which line was
    taken and on what ground. `violations` speak against believing the score; `warnings` do not.
    """

    status: LogStatus
    val_bpb: float | None
    val_loss: float | None
    score_name: str | None
    score_line: int | None
    candidates: tuple[Candidate, ...]
    artifact_bytes: int | None
    artifact_label: str | None
    model_bytes: int | None
    model_params: int | None
    steps: int | None
    train_time_ms: float | None
    eval_time_ms: float | None
    val_tokens: int | None
    implied_val_bytes: int | None
    runs: int
    violations: tuple[Violation, ...]
    note: str
    warnings: tuple[Violation, ...] = ()
    dataset: str | None = None
    last_validation: Validation | None = None
    exception: str | None = None
    crash_tail: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the reading as JSON values, up to `note`; every number is finite."""
        values = {name: getattr(self, name) for name in _JSON}
        scores = [candidate for candidate in self.candidates if candidate.is_number]
        values["status"] = self.status.value
        values["candidates"] = [{n: getattr(c, n) for n in _CANDIDATE} for c in scores]
        values["violations"] = [{"rule": v.rule, "detail": v.detail} for v in self.violations]
        for name in ("train_time_ms", "eval_time_ms"):
            if values[name] is not None and values[name] == int(values[name]):
                values[name] = int(values[name])
        return values


_JSON = (
    "status", "val_bpb", "val_loss", "score_name", "score_line", "candidates", "artifact_bytes",
    "artifact_label", "model_params", "steps", "train_time_ms", "eval_time_ms", "val_tokens",
    "implied_val_bytes", "runs", "violations", "note",
)  # fmt: skip
_CANDIDATE = ("name", "line", "stage", "val_bpb", "val_loss")
# What an extractor calls the numbers of a log; the result line of the own script has more.
_METRICS = (
    "val_bpb", "val_loss", "artifact_bytes", "model_params", "steps", "train_time_ms",
    "eval_time_ms", "val_tokens",
)  # fmt: skip


@frozen(kw_only=True)
class RunReading:
    """The log of a finished run, read once: its own result line, and all that it says beside it."""

    own: OwnReading
    log: LogReading

    @property
    def result(self) -> OwnResult | None:
        """The result of the project's own script, None where it does not count or is not there."""
        return self.own.result

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What the log says against itself; a log without a result line is judged as a foreign.

        The artifact's size is not among it: a run over the limit is discarded, not doubted.
        """
        if self.own.outcome is not Outcome.ABSENT:
            return self.own.violations
        return tuple(v for v in self.log.violations if v.rule != "D6")

    def metrics(self) -> dict[str, float] | None:
        """Return the numbers of the result line, else those of `log`; None without a score."""
        if self.own.result is not None:
            return self.own.result.metrics()
        if self.own.outcome is not Outcome.ABSENT or self.log.val_bpb is None:
            return None
        values = {name: getattr(self.log, name) for name in _METRICS}
        return {name: float(value) for name, value in values.items() if value is not None}


def read_run(path: Path, exit_code: int | None, line: str | None = None) -> RunReading:
    """Read the log of a finished run; asked again for the same file, it is not read again.

    `exit_code` is the launcher's word, `line` the name of the one line that counts, None where
    that is still open. Raises AutoresearchError where there is no such file.
    """
    try:
        stat = path.stat()
    except OSError:
        return _read(path, exit_code)  # which says what is wrong
    return _remembered(path, exit_code, line, stat.st_size, stat.st_mtime_ns)


# One entry: metrics, measurement and audit of one run follow each other.
@lru_cache(maxsize=1)
def _remembered(
    path: Path, exit_code: int | None, line: str | None, size: int, mtime_ns: int  # noqa: ARG001
) -> RunReading:  # fmt: skip
    return _read(path, exit_code, line=line)


def read_log(
    source: Source,
    *,
    exit_code: int | None = None,
    timed_out: bool = False,
    line: str | None = None,
) -> LogReading:
    """Read a log of the Parameter Golf family: a path, or the text itself (more than one line).

    `exit_code` and `timed_out` are what a launcher knows beside the log; `line` is the name of the
    one line that counts. Raises AutoresearchError where there is no such file. Any content at all
    is survived, in one pass of bounded memory.
    """
    return _read(source, exit_code, timed_out, line).log


def read_result(source: Source, exit_code: int | None) -> OwnReading:
    """Read the result line of the project's own script from its output, by the strict rule."""
    return _read(source, exit_code).own


def _read(
    source: Source, exit_code: int | None, timed_out: bool = False, line: str | None = None
) -> RunReading:
    watch = ResultWatch()
    with open_source(source) as stream:
        scanned = scan(watch.over(read_lines(stream)))
    if line not in (None, MARK):
        watch.results.clear()  # another line counts here
    own = own_reading(watch, scanned, exit_code)
    _complete(scanned)
    log = _reading(scanned, rule(scanned, exit_code=exit_code, timed_out=timed_out, line=line))
    if watch.results:
        log = _by_result(log, watch, scanned, failed=timed_out or exit_code not in (None, 0))
    return RunReading(own=own, log=log)


def _by_result(
    reading: LogReading, watch: ResultWatch, scanned: Scan, *, failed: bool
) -> LogReading:
    """Let the result line decide: it alone counts, or nothing does."""
    try:
        result = watch.result()
    except AutoresearchError as error:
        return _without_score(reading, f"a result line that does not count: {error}")
    if failed:
        late = reading.status is LogStatus.TERMINATED
        reading = evolve(reading, status=LogStatus.CRASHED) if late else reading
        return _without_score(reading, "a result line, and the exit status was not 0")
    known = {v.rule for v in reading.violations}
    said = [f"warning {w.rule}: {w.detail}" for w in reading.warnings]
    note = "; ".join(["the result line counts", "a log does not tell its exit status", *said])
    found = (v for v in cross_check(result, scanned) if v.rule not in known)
    return evolve(
        reading,
        status=LogStatus.COMPLETED,
        score_name=MARK,
        score_line=watch.last,
        artifact_label=MARK,
        implied_val_bytes=round(implied_bytes(result.val_tokens, result.val_loss, result.val_bpb)),
        violations=(*reading.violations, *found),
        note=one_line(note, 1000),
        **{name: getattr(result, name) for name in _METRICS},
    )


def _without_score(reading: LogReading, reason: str) -> LogReading:
    nothing = dict.fromkeys(("val_bpb", "val_loss", "score_name", "score_line"))
    return evolve(reading, note=one_line(f"{ABSENT}: {reason}", 1000), **nothing)  # type: ignore[arg-type]


def _complete(scanned: Scan) -> None:
    """Let a process that only evaluates inherit what the training process before it printed."""
    scanned.last.facts = scanned.last.all_facts
    if len(scanned.runs) < 2 or scanned.last.last_step is not None:
        return
    if not scanned.last.candidates:
        return
    earlier, last = scanned.runs[-2], scanned.last
    last.facts = {**earlier.all_facts, **last.facts}
    last.sizes = [*earlier.sizes, *last.sizes]
    last.last_step, last.train_time_ms = earlier.last_step, earlier.train_time_ms


def _reading(scanned: Scan, ruling: Ruling) -> LogReading:
    run, score = scanned.last, ruling.score
    eval_ms = _eval_ms(run, score)
    findings = judge(run, ruling.last, eval_ms) if ruling.last is not None else ()
    if ruling.last is not None and score is None:
        findings += judge_claims(run, ruling.last)
    elif ruling.last is None:
        findings += over_limit(run.sizes)
    artifact = artifact_of(run.sizes)
    findings = tuple(evolve(v, detail=one_line(v.detail, 300)) for v in findings)
    warnings = tuple(v for v in findings if not v.blocks)
    failed = ruling.status not in (LogStatus.COMPLETED, LogStatus.NO_SCORE)
    candidates = (c for found in scanned.runs or [scanned.preamble] for c in found.candidates)
    return LogReading(
        status=ruling.status,
        val_bpb=score.val_bpb if score else None,
        val_loss=score.val_loss if score else None,
        score_name=one_line(score.name, 120) if score else None,
        score_line=score.line if score else None,
        candidates=tuple(evolve(c, name=one_line(c.name, 120)) for c in candidates),
        artifact_bytes=artifact.bytes if artifact else None,
        artifact_label=one_line(artifact.label or "unlabelled", 80) if artifact else None,
        model_bytes=packed_model(run.sizes),
        model_params=_whole(run.facts.get("model_params")),
        steps=_whole(run.facts.get("stop_step")) or run.last_step,
        train_time_ms=float(run.facts.get("stop_ms", 0)) or run.train_time_ms,
        eval_time_ms=eval_ms,
        val_tokens=_whole(run.facts.get("val_tokens")),
        implied_val_bytes=_implied(run, score),
        runs=len(scanned.runs),
        violations=tuple(v for v in findings if v.blocks),
        note=_note(scanned, ruling, warnings),
        warnings=warnings,
        dataset=one_line(dataset_of(run.facts), 200) or None,
        last_validation=run.validations[-1] if run.validations else None,
        exception=ruling.failure.text if ruling.failure else None,
        crash_tail=tuple(one_line(row, 400) for row in scanned.tail) if failed else (),
    )


def _eval_ms(run: Run, score: Candidate | None) -> float | None:
    if score is None:
        return None
    same = [c for c in run.candidates if c.agrees_with(score) and c.eval_time_ms is not None]
    named = [c for c in same if c.base_name == score.base_name]
    return (named or same)[-1].eval_time_ms if same else None


def _implied(run: Run, score: Candidate | None) -> int | None:
    tokens = _whole(run.facts.get("val_tokens"))
    known = [c for c in run.candidates if c.is_number and c.val_loss is not None]
    chosen = score if score is not None else known[-1] if known else None
    if not tokens or chosen is None or chosen.val_loss is None:
        return None
    return round(implied_bytes(tokens, chosen.val_loss, chosen.val_bpb))


def _note(scanned: Scan, ruling: Ruling, warnings: tuple[Violation, ...]) -> str:
    parts = [f"{ABSENT if ruling.score is None else 'inferred'}: {ruling.reason}"]
    if len(scanned.runs) > 1:
        parts.append(f"{len(scanned.runs)} runs in this file, the last one counts")
    parts += [f"warning {w.rule}: {w.detail}" for w in warnings]
    return one_line("; ".join(parts), 1000)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 18 else None


def format_reading(reading: LogReading) -> str:
    """Return the reading as aligned lines; every word in it is safe to show in a terminal."""
    rows = [(name, value) for name, value in _facts(reading) if value]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {one_line(value, 1000)}" for name, value in rows]
    shown = reading.candidates[-_MOST_CANDIDATES:]
    some = len(shown) < len(reading.candidates)
    scores = [
        f"  line {c.line:>7}  {c.stage.value:<10}  {c.val_bpb:>11.8f}  {one_line(c.name, 120)}"
        for c in shown
    ]
    lines += _section(f"candidates (the last {len(shown)})" if some else "candidates", scores)
    found = [f"  {v.rule:<4} {one_line(v.detail, 300)}" for v in reading.violations]
    lines += _section("violations", found)
    lines += _section("last lines", [f"  {one_line(row, 200)}" for row in reading.crash_tail])
    return "\n".join(lines)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *lines] if lines else []


def _facts(reading: LogReading) -> list[tuple[str, str]]:
    size = _count(reading.artifact_bytes, f" bytes ({reading.artifact_label})")
    return [
        ("status", reading.status.value),
        ("val_bpb", ABSENT if reading.val_bpb is None else f"{reading.val_bpb:.8f}"),
        ("val_loss", "" if reading.val_loss is None else f"{reading.val_loss:.8f}"),
        ("from", f"{reading.score_name}, line {reading.score_line}" if reading.score_name else ""),
        ("note", reading.note),
        ("artifact", size),
        ("model_params", _count(reading.model_params)),
        ("steps", _count(reading.steps)),
        ("train_time", _count(reading.train_time_ms, " ms")),
        ("eval_time", _count(reading.eval_time_ms, " ms")),
        ("dataset", reading.dataset or ""),
        ("val_tokens", _count(reading.val_tokens)),
        ("val_bytes", _count(reading.implied_val_bytes, " (implied)")),
        ("runs", str(reading.runs)),
        ("exception", reading.exception or ""),
    ]


def _count(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:,.0f}{unit}"
