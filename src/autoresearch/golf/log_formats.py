"""Reading the score, and everything else a person asks for, from a foreign training log."""

from __future__ import annotations

from attrs import evolve

from autoresearch.golf.candidates import Candidate
from autoresearch.golf.log_guard import dataset_of, judge, unverifiable
from autoresearch.golf.log_lines import Source, open_source, read_lines
from autoresearch.golf.log_reading import ABSENT, LogReading
from autoresearch.golf.log_scan import Run, Scan, scan
from autoresearch.golf.log_table import format_reading
from autoresearch.golf.official import LogStatus, Ruling, rule
from autoresearch.golf.plausibility import Findings, implied_bytes
from autoresearch.golf.sizes import artifact_of
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
    with open_source(source) as stream:
        scanned = scan(read_lines(stream))
    _complete(scanned)
    ruling = rule(scanned, exit_code=exit_code, timed_out=timed_out)
    return _reading(scanned, ruling)


def _complete(scanned: Scan) -> None:
    """Let a process that only evaluates inherit what the training process before it printed."""
    if len(scanned.runs) < 2 or scanned.last.last_step is not None:
        return
    if not scanned.last.candidates:
        return
    earlier, last = scanned.runs[-2], scanned.last
    last.facts = {**earlier.facts, **last.facts}
    last.sizes = [*earlier.sizes, *last.sizes]
    last.last_step, last.train_time_ms = earlier.last_step, earlier.train_time_ms


def _reading(scanned: Scan, ruling: Ruling) -> LogReading:
    run, score = scanned.last, ruling.score
    eval_ms = _eval_ms(run, score)
    findings = judge(run, ruling.last, eval_ms) if ruling.last is not None else ()
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
