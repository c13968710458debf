"""What stands for a run whose launcher failed, so that the loop can try again and go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from autoresearch.model import RunOutput, RunRequest, RunStatus
from autoresearch.plugins.failures import PluginFailure
from autoresearch.text import one_line


@frozen
class NotLaunched:
    """A handle to a run that did not start: it is over at once, as the machine's fault."""

    request: RunRequest
    detail: str

    @property
    def reference(self) -> str:
        """Nothing to find again."""
        return ""

    @property
    def log_path(self) -> Path:
        """A file of its own: a later start under the same name must find its log untouched."""
        return self.request.folder / "not-launched.log"

    def poll(self) -> RunOutput:
        """Return the failure; the log says it too."""
        self.request.folder.mkdir(parents=True, exist_ok=True)
        self.log_path.write_text(self.detail + "\n", encoding="utf-8")
        return RunOutput(
            name=self.request.name,
            status=RunStatus.INFRA_FAILED,
            log_path=self.log_path,
            folder=self.request.folder,
            detail=self.detail,
        )

    def stop(self, reason: str) -> None:
        """Do nothing: nothing runs."""


def not_launched(request: RunRequest, failures: Sequence[PluginFailure]) -> NotLaunched:
    """Return the handle for launchers that failed, with their errors."""
    errors = "; ".join(f"launcher {item.plugin}: {item.error}" for item in failures)
    return NotLaunched(request, one_line(errors, 500))
