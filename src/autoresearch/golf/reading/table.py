"""A log reading as a table for people; every word in it is safe to show in a terminal."""

from __future__ import annotations

from autoresearch.golf.reading.reading import ABSENT, LogReading
from autoresearch.text import one_line

_MOST_CANDIDATES = 40


def format_reading(reading: LogReading) -> str:
    """Return the reading as aligned lines."""
    rows = [(name, value) for name, value in _facts(reading) if value]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {one_line(value, 1000)}" for name, value in rows]
    return "\n".join([*lines, *_candidates(reading), *_findings(reading), *_tail(reading)])


def _facts(reading: LogReading) -> list[tuple[str, str]]:
    return [
        ("status", reading.status.value),
        ("val_bpb", ABSENT if reading.val_bpb is None else f"{reading.val_bpb:.8f}"),
        ("val_loss", _decimals(reading.val_loss)),
        ("from", f"{reading.score_name}, line {reading.score_line}" if reading.score_name else ""),
        ("note", reading.note),
        ("artifact", _artifact(reading)),
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


def _candidates(reading: LogReading) -> list[str]:
    if not reading.candidates:
        return []
    shown = reading.candidates[-_MOST_CANDIDATES:]
    hidden = len(reading.candidates) - len(shown)
    head = ["", f"candidates{f' (the last {len(shown)})' if hidden else ''}"]
    return head + [
        f"  line {c.line:>7}  {c.stage.value:<10}  {c.val_bpb:>11.8f}  {one_line(c.name, 120)}"
        for c in shown
    ]


def _findings(reading: LogReading) -> list[str]:
    lines = [f"  {v.rule:<4} {one_line(v.detail, 300)}" for v in reading.violations]
    return ["", "violations", *lines] if lines else []


def _tail(reading: LogReading) -> list[str]:
    lines = [f"  {one_line(row, 200)}" for row in reading.crash_tail]
    return ["", "last lines", *lines] if lines else []


def _artifact(reading: LogReading) -> str:
    if reading.artifact_bytes is None:
        return ""
    return f"{reading.artifact_bytes:,} bytes ({reading.artifact_label})"


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.8f}"


def _count(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:,.0f}{unit}"
