"""What a canary found, as a value and as text."""

from __future__ import annotations

from attrs import frozen

from autoresearch.golf.trials.checks import Outcome, TestResult
from autoresearch.text import one_line


@frozen(kw_only=True)
class CanaryReport:
    """The tests in the order they were made; ``passed`` needs T5 to pass and nothing to fail."""

    script: str
    tests: tuple[TestResult, ...]
    notes: tuple[str, ...]
    seed: int
    vocabulary: int
    tokens: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the script may be believed, as far as its tests went."""
        proved = any(t.rule == "T5" and t.outcome is Outcome.PASSED for t in self.tests)
        return proved and not self.failures

    @property
    def failures(self) -> tuple[TestResult, ...]:
        """The tests that say no."""
        return tuple(t for t in self.tests if t.outcome is Outcome.FAILED)


def format_report(report: CanaryReport) -> str:
    """One line for each test, the notes, and a last line with the verdict and the seed."""
    width = max((len(t.name) for t in report.tests), default=0)
    lines = [
        f"{t.rule} {t.name:<{width}} {t.outcome.value.replace('_', ' '):<12} {one_line(t.detail)}"
        for t in report.tests
    ]
    lines += [f"note: {one_line(note, 300)}" for note in report.notes]
    return "\n".join([*lines, f"canary: {_verdict(report)} ({_how(report)})"])


def _verdict(report: CanaryReport) -> str:
    if report.failures:
        return "failed " + ", ".join(dict.fromkeys(t.rule for t in report.failures))
    return "passed" if report.passed else "nothing was proved"


def _how(report: CanaryReport) -> str:
    return (
        f"{report.tokens} random tokens of {report.vocabulary}, {report.seconds:.0f} s, "
        f"repeat with seed {report.seed}"
    )
