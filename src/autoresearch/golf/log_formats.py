"""Reading the score, and everything else a person asks for, from a foreign training log."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from autoresearch.golf.candidates import Candidate, Validation
from autoresearch.golf.log_guard import dataset_of, judge, unverifiable
from autoresearch.golf.log_lines import Source, open_source, read_lines
from autoresearch.golf.log_scan import Run, Scan, scan
from autoresearch.golf.official import LogStatus, Ruling, rule
from autoresearch.golf.plausibility import Findings, implied_bytes
from autoresearch.golf.sizes import artifact_of
from autoresearch.golf.stages import Stage
from autoresearch.model import Violation
from autoresearch.text import block, one_line

ABSENT = "not in this log"


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
        """Return the reading as JSON values; every number is finite."""
        return {
            "status": self.status.value,
            "val_bpb": self.val_bpb,
            "val_loss": self.val_loss,
            "score_name": self.score_name,
            "score_line": self.score_line,
            "candidates": [_candidate_json(c) for c in self.candidates if c.is_number],
            "artifact_bytes": self.artifact_bytes,
            "artifact_label": self.artifact_label,
            "model_params": self.model_params,
            "steps": self.steps,
            "train_time_ms": self.train_time_ms,
            "eval_time_ms": self.eval_time_ms,
            "val_tokens": self.val_tokens,
            "implied_val_bytes": self.implied_val_bytes,
            "runs": self.runs,
            "violations": [{"rule": v.rule, "detail": v.detail} for v in self.violations],
            "note": self.note,
        }


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
    violations = tuple(v for v in findings if v.blocks)
    warnings = tuple(v for v in findings if not v.blocks)
    failed = ruling.status not in (LogStatus.COMPLETED, LogStatus.NO_SCORE)
    return LogReading(
        status=ruling.status,
        val_bpb=shown.val_bpb if shown else None,
        val_loss=shown.val_loss if shown else None,
        score_name=shown.name if shown else None,
        score_line=shown.line if shown else None,
        candidates=_all_candidates(scanned),
        artifact_bytes=artifact.bytes if artifact else None,
        artifact_label=(artifact.label or "unlabelled") if artifact else None,
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
        crash_tail=tuple(block(row, 400) for row in scanned.tail) if failed else (),
    )


def _withheld(run: Run, score: Candidate | None, findings: Findings) -> str | None:
    if score is None:
        return None
    over = [f.detail for f in findings if f.rule == "D6" and f.blocks]
    return over[0] if over else unverifiable(run.facts, score)


def _all_candidates(scanned: Scan) -> tuple[Candidate, ...]:
    runs = scanned.runs or [scanned.preamble]
    found = [c for run in runs for c in run.candidates if c.stage is not Stage.OTHER]
    return tuple(evolve(c, name=one_line(c.name, 120)) for c in found)


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


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "line": candidate.line,
        "stage": candidate.stage.value,
        "val_bpb": candidate.val_bpb,
        "val_loss": candidate.val_loss,
    }


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 18 else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None else None
