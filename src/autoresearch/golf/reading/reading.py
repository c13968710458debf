"""What reading a log gives: the score, everything beside it, and what speaks against it."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from autoresearch.golf.reading.candidates import Candidate, Validation
from autoresearch.golf.reading.official import LogStatus
from autoresearch.model import Violation

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
            "train_time_ms": _short(self.train_time_ms),
            "eval_time_ms": _short(self.eval_time_ms),
            "val_tokens": self.val_tokens,
            "implied_val_bytes": self.implied_val_bytes,
            "runs": self.runs,
            "violations": [{"rule": v.rule, "detail": v.detail} for v in self.violations],
            "note": self.note,
        }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "line": candidate.line,
        "stage": candidate.stage.value,
        "val_bpb": candidate.val_bpb,
        "val_loss": candidate.val_loss,
    }


def _short(value: float | None) -> float | None:
    return int(value) if value is not None and value == int(value) else value
