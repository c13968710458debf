"""What verify and rebuild answer."""

from __future__ import annotations

from attrs import Factory, define, frozen

from autoresearch.log.records import Head

SHOWN = 20  # findings of one kind that are listed one by one


@frozen
class Finding:
    """One thing that is not as it was written; ``file`` is relative to the store."""

    file: str
    problem: str
    line: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        line = f" line {self.line}" if self.line is not None else ""
        position = f" (position {self.position})" if self.position is not None else ""
        return f"{self.file}{line}{position}: {self.problem}"


@define
class VerifyReport:
    """The event count and head that were found, what is wrong, and what is merely remarkable."""

    head: Head
    events: int = 0
    findings: list[Finding] = Factory(list)
    notes: list[str] = Factory(list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(
        self, file: str, problem: str, line: int | None = None, position: int | None = None
    ) -> None:
        """Remember a finding."""
        self.findings.append(Finding(file, problem, line, position))


@frozen
class RebuildReport:
    """What a rebuilt database holds, and how long it took in seconds."""

    events: int
    rejected: int
    sources: int
    head: Head
    seconds: float
