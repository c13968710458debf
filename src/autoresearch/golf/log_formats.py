"""Reading the score, and everything else a person asks for, from a foreign training log."""

from __future__ import annotations

from attrs import evolve

from autoresearch.errors import AutoresearchError
from autoresearch.golf.plausibility import Findings, implied_bytes
from autoresearch.golf.reading.candidates import Candidate
from autoresearch.golf.reading.guard import dataset_of, judge, judge_claims, unverifiable
from autoresearch.golf.reading.lines import Source, open_source, read_lines
from autoresearch.golf.reading.official import LogStatus, Ruling, rule
from autoresearch.golf.reading.own_result import MARK
from autoresearch.golf.reading.own_run import ResultWatch, cross_check
from autoresearch.golf.reading.reading import ABSENT, LogReading
from autoresearch.golf.reading.scan import Run, Scan, scan
from autoresearch.golf.reading.sizes import artifact_of
from autoresearch.golf.reading.table import format_reading
from autoresearch.model import Violation
from autoresearch.text import one_line

__all__ = ["LogReading", "LogStatus", "format_reading", "read_log"]


def read_log(
    source: Source, *, exit_code: int | None = None, timed_out: bool = False
) -> LogReading:  # fmt: skip
    """Read a log of the Parameter Golf family: a path, or the text itself (more than one line).

    `exit_code` and `timed_out` are what a launcher knows beside the log. Raises AutoresearchError
    where there is no such file. Any content at all is survived, in one pass of bounded memory.
    """
    watch = ResultWatch()
    with open_source(source) as stream:
        scanned = scan(watch.over(read_lines(stream)))
    _complete(scanned)
    ruling = rule(scanned, exit_code=exit_code, timed_out=timed_out)
    reading = _reading(scanned, ruling)
    if not watch.results:
        return reading
    return _of_ours(reading, watch, scanned, failed=timed_out or exit_code not in (None, 0))


def _of_ours(reading: LogReading, watch: ResultWatch, scanned: Scan, *, failed: bool) -> LogReading:
    """Let the result line of a run of ours decide: it alone counts, or nothing does."""
    try:
        result = watch.result()
    except AutoresearchError as error:
        reason = one_line(f"{ABSENT}: a run of ours whose result does not count: {error}", 1000)
        return _without_score(reading, reason)
    if failed:
        reason = f"{ABSENT}: a run of ours that did not end with exit status 0"
        late = reading.status is LogStatus.TERMINATED
        failed_reading = evolve(reading, status=LogStatus.CRASHED) if late else reading
        return _without_score(failed_reading, reason)
    known = {v.rule for v in reading.violations}
    found = (v for v in cross_check(result, scanned) if v.rule not in known)
    return evolve(
        reading,
        status=LogStatus.COMPLETED,
        val_bpb=result.val_bpb,
        val_loss=result.val_loss,
        score_name=MARK,
        score_line=watch.last,
        artifact_bytes=result.artifact_bytes,
        artifact_label=MARK,
        model_params=result.model_params,
        steps=result.steps,
        train_time_ms=result.train_time_ms,
        eval_time_ms=result.eval_time_ms,
        val_tokens=result.val_tokens,
        implied_val_bytes=round(implied_bytes(result.val_tokens, result.val_loss, result.val_bpb)),
        violations=(*reading.violations, *found),
        note=one_line(f"the result line of a run of ours; {_warned(reading.warnings)}", 1000),
    )


def _without_score(reading: LogReading, reason: str) -> LogReading:
    return evolve(
        reading, val_bpb=None, val_loss=None, score_name=None, score_line=None, note=reason
    )


def _warned(warnings: tuple[Violation, ...]) -> str:
    said = [f"warning {w.rule}: {w.detail}" for w in warnings]
    return "; ".join(["a log does not tell its exit status", *said])


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
    doubtful = _withheld(run, score, findings)
    shown = score if doubtful is None else None
    artifact = artifact_of(run.sizes)
    findings = tuple(evolve(v, detail=one_line(v.detail, 300)) for v in findings)
    violations = tuple(v for v in findings if v.blocks)
    warnings = tuple(v for v in findings if not v.blocks)
    failed = ruling.status not in (LogStatus.COMPLETED, LogStatus.NO_SCORE)
    return LogReading(
        status=ruling.status,
        val_bpb=shown.val_bpb if shown else None,
        val_loss=shown.val_loss if shown else None,
        score_name=one_line(shown.name, 120) if shown else None,
        score_line=shown.line if shown else None,
        candidates=_all_candidates(scanned),
        artifact_bytes=artifact.bytes if artifact else None,
        artifact_label=one_line(artifact.label or "unlabelled", 80) if artifact else None,
        model_params=_whole(run.facts.get("model_params")),
        steps=_whole(run.facts.get("stop_step")) or run.last_step,
        train_time_ms=_number(run.facts.get("stop_ms")) or run.train_time_ms,
        eval_time_ms=eval_ms,
        val_tokens=_whole(run.facts.get("val_tokens")),
        implied_val_bytes=_implied(run, score),
        runs=len(scanned.runs),
        violations=violations,
        note=_note(scanned, ruling, doubtful, warnings),
        warnings=warnings,
        dataset=one_line(dataset_of(run.facts), 200) or None,
        last_validation=run.validations[-1] if run.validations else None,
        exception=ruling.failure.text if ruling.failure else None,
        crash_tail=tuple(one_line(row, 400) for row in scanned.tail) if failed else (),
    )


def _withheld(run: Run, score: Candidate | None, findings: Findings) -> str | None:
    if score is None:
        return None
    over = [f.detail for f in findings if f.rule == "D6" and f.blocks]
    return over[0] if over else unverifiable(run.facts, score)


def _all_candidates(scanned: Scan) -> tuple[Candidate, ...]:
    runs = scanned.runs or [scanned.preamble]
    return tuple(evolve(c, name=one_line(c.name, 120)) for run in runs for c in run.candidates)


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


def _note(
    scanned: Scan, ruling: Ruling, doubtful: str | None, warnings: tuple[Violation, ...]
) -> str:  # fmt: skip
    if ruling.score is None:
        parts = [f"{ABSENT}: {ruling.reason}"]
    elif doubtful is not None:
        parts = [f"{ABSENT}: {doubtful}"]
    else:
        parts = [f"inferred: {ruling.reason}"]
    if len(scanned.runs) > 1:
        parts.append(f"{len(scanned.runs)} runs in this file, the last one counts")
    parts += [f"warning {w.rule}: {w.detail}" for w in warnings]
    return one_line("; ".join(parts), 1000)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 18 else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None else None
