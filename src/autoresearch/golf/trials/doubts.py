"""The canary as an audit: findings about a source whose way of measuring may have changed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from autoresearch.golf.canary import run_canary
from autoresearch.golf.trials.report import CanaryReport
from autoresearch.model import Violation


def audit_measuring(
    source: str,
    *,
    tokenizer: Path,
    env: Mapping[str, str] | None = None,
    typed: bool = True,
    name: str = "train_gpt.py",
    python: str = sys.executable,
    timeout_s: float = 120.0,
) -> tuple[Violation, ...]:
    """Run the canary over a source; each test that fails is a violation.

    Where nothing can be proved (no torch, no GPU that the script asks for) an evaluation change
    (``typed``) is stopped, because it must not be believed untested; any other change is warned.
    Raises ``DataError`` where the tokenizer cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        script = Path(folder) / name
        script.write_text(source, encoding="utf-8")
        report = run_canary(
            script, tokenizer=tokenizer, env=env, python=python, timeout_s=timeout_s
        )
    return findings_of(report, typed=typed)


def findings_of(report: CanaryReport, *, typed: bool = True) -> tuple[Violation, ...]:
    """Turn a report into findings: nothing for a canary that passed."""
    failures = tuple(
        Violation(rule=test.rule, detail=f"canary, {test.name}: {test.detail}")
        for test in report.failures
    )
    if failures or report.passed:
        return failures
    why = "; ".join(report.notes) or "no test was possible"
    severity = "violation" if typed else "warning"
    detail = f"the canary proved nothing: {why}"
    return (Violation(rule="T5", detail=detail, severity=severity),)
