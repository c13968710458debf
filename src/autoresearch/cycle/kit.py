"""What every step of the cycle has at hand."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle.recorder import Recorder
from autoresearch.errors import WorkspaceError
from autoresearch.history import History
from autoresearch.log import SourceStore
from autoresearch.plugins import Plugins
from autoresearch.projections import Projection
from autoresearch.workspace import Lab

Tell = Callable[[str], None]


class Clock:
    """Time as the loop knows it; a test passes its own."""

    def now(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@frozen(kw_only=True)
class Kit:
    """The parts that the steps of a campaign share; ``tell`` says in one line what is going on."""

    config: Config
    plugins: Plugins
    recorder: Recorder
    lab: Lab
    sources: SourceStore
    clock: Clock
    projections: tuple[Projection, ...]
    tell: Tell
    tick: Tell

    @property
    def history(self) -> History:
        """The newest History."""
        return self.recorder.history

    def head_commit(self) -> str:
        """Return the kept commit that the next idea builds on."""
        history = self.history
        if history.head is not None:
            return history.experiments[history.head].commit
        assert history.started is not None
        return history.started.base_commit

    def head_env(self) -> dict[str, str]:
        """Return the environment overrides that the kept line has gathered."""
        head = self.history.head
        return {} if head is None else dict(self.history.experiments[head].env)

    def script_at(self, commit: str) -> str:
        """Return the text of the script in a commit of the lab."""
        return self.lab.script_at(commit)

    def record_costs(self) -> None:
        """Record what plugins spent on language models since the last time."""
        current = self.history.current
        for cost in self.plugins.report_costs():
            self.recorder.record(
                events.CostIncurred(
                    kind="tokens",
                    source=cost.source,
                    experiment=current.number if current else None,
                    seconds=0.0,
                    tokens_in=cost.tokens_in,
                    tokens_out=cost.tokens_out,
                    usd=cost.usd,
                )
            )

    def project_files(self) -> tuple[Path, ...]:
        """Write every projection, in the campaign's folder and where the user works."""
        written = []
        for projection in self.projections:
            text = projection.render(self.history)
            for folder in (self.lab.folder, self.lab.project):
                write_text(folder / projection.file_name, text)
            written.append(self.lab.folder / projection.file_name)
        return tuple(written)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")  # campaigns share a project
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise WorkspaceError(f"cannot write {path}: {reason}; make room or rights") from None


def digest(text: str) -> str:
    """Return the sha256 of a text in UTF-8, as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
