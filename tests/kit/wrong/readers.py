"""Wrong metric extractors and audits; the first of each kind is right."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping, Sequence

from autoresearch.hookspecs import hookimpl
from autoresearch.model import Change, RunOutput, Violation, Workspace
from wrong.strategies import Elsewhere


class Extractor:
    """A right extractor: the last line ``score: number``."""

    pattern = re.compile(r"^score: (\d+\.\d+)\s*$", re.MULTILINE)
    which = -1
    absent: Mapping[str, float] | None = None

    def text(self, output: RunOutput) -> str:
        """Return the log, whatever is in it."""
        if not output.log_path.is_file():
            return ""
        return output.log_path.read_bytes().decode("utf-8", "replace")

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Extract."""
        found = self.pattern.findall(self.text(output))
        return {"score": float(found[self.which])} if found else self.absent


class FindsNothing(Extractor):
    """Looks for something else."""

    pattern = re.compile("^nothing of the kind (.)$")


class InventsZero(Extractor):
    """Gives 0 for what is absent."""

    absent: Mapping[str, float] | None = {"score": 0.0}


class BelievesNan(Extractor):
    """Takes nan for a number."""

    pattern = re.compile(r"^score: (\d+\.\d+|-?inf|nan)\s*$", re.MULTILINE)


class BelievesTheFirst(Extractor):
    """Takes the first score."""

    which = 0


class WantsText(Extractor):
    """Fails on bytes that are no text."""

    def text(self, output: RunOutput) -> str:
        """Return the log."""
        return output.log_path.read_text(encoding="utf-8")


class KeepsNotes(Extractor):
    """Writes into the folder of the run."""

    def text(self, output: RunOutput) -> str:
        """Return the log."""
        (output.folder / "seen").write_text("seen")
        return super().text(output)


class Audit:
    """A right audit: no sockets; a run must leave a log."""

    def findings(self, change: Change) -> Sequence[Violation]:
        """Return what is wrong with a change."""
        if "import socket" in change.after:
            return [Violation(rule="no-sockets", detail="it imports socket")]
        return []

    @hookimpl
    def audit_change(self, change: Change, workspace: Workspace) -> Sequence[Violation]:
        """Audit."""
        self.look(workspace)
        return self.findings(change)

    def look(self, workspace: Workspace) -> None:
        """Look at the workspace."""
        workspace.script_path.read_bytes()

    @hookimpl
    def audit_run(self, output: RunOutput) -> Sequence[Violation]:
        """Audit."""
        return self.judge(output)

    def judge(self, output: RunOutput) -> Sequence[Violation]:
        """Return what is wrong with a run."""
        if output.log_path.exists():
            return []
        return [Violation(rule="log", detail="the run left no log")]


class NoAudit(Elsewhere):
    """No audit."""


class RefusesAll(Audit):
    """Refuses every change."""

    def findings(self, change: Change) -> Sequence[Violation]:
        """Return what is wrong with a change."""
        return [Violation(rule="mood", detail="not today")]


class WantsPython(Audit):
    """Fails on a syntax error."""

    def findings(self, change: Change) -> Sequence[Violation]:
        """Return what is wrong with a change."""
        ast.parse(change.after)
        return super().findings(change)


class CountsFindings(Audit):
    """Finds something else each time."""

    def __init__(self) -> None:
        self._asked = itertools.count()

    def findings(self, change: Change) -> Sequence[Violation]:
        """Return what is wrong with a change."""
        number = next(self._asked)
        return [Violation(rule="count", detail=f"change {number}", severity="warning")]


class Marks(Audit):
    """Writes into the workspace."""

    def look(self, workspace: Workspace) -> None:
        """Look at the workspace."""
        (workspace.path / "audited").write_text("yes")


class WantsALog(Audit):
    """Fails on a run that left no log."""

    def judge(self, output: RunOutput) -> Sequence[Violation]:
        """Return what is wrong with a run."""
        output.log_path.read_bytes()
        return []
