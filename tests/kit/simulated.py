"""A launcher whose runs take their time by a clock that skips the waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from autoresearch import RunOutput, RunRequest, RunStatus, Workspace, hookimpl


@define
class Fast:
    """A clock that skips what is slept; ``act`` is called once, at ``at``."""

    skipped: float = 0.0
    at: float = float("inf")
    act: Callable[[], object] = lambda: None
    began: float = field(factory=time.monotonic)

    def now(self) -> float:
        """Return the seconds since it was made, those that were skipped among them."""
        return time.monotonic() - self.began + self.skipped

    def sleep(self, seconds: float) -> None:
        """Skip."""
        self.skipped += seconds
        if self.now() >= self.at:
            self.at = float("inf")
            self.act()


@define
class SimulatedRun:
    """A run that is over when the clock says so."""

    request: RunRequest
    launcher: Simulated
    ends: float
    score: float
    stopped: str = ""

    @property
    def reference(self) -> str:
        """Anything."""
        return "simulated"

    @property
    def log_path(self) -> Path:
        """Where the score stands."""
        return self.request.folder / "run.log"

    def poll(self) -> RunOutput | None:
        """Return the output once its time is over."""
        if not self.stopped and self.launcher.clock.now() < self.ends:
            return None
        self.launcher.flying.discard(self.request.name)
        stopped = RunStatus.STOPPED_EARLY if self.stopped else RunStatus.COMPLETED
        return RunOutput(
            name=self.request.name,
            status=stopped,
            log_path=self.log_path,
            folder=self.request.folder,
            seconds=self.launcher.seconds(self.request),
            gpu_seconds=self.launcher.gpus * self.launcher.seconds(self.request),
            cost_usd=self.launcher.usd_per_hour / 3600 * self.launcher.seconds(self.request),
            detail=self.stopped,
        )

    def stop(self, reason: str) -> None:
        """End it now."""
        self.stopped = reason


@define
class Simulated:
    """A launcher in this process: ``score`` of a run, and its ``seconds`` by the clock."""

    clock: Fast
    score: Callable[[RunRequest, str], float]
    seconds: Callable[[RunRequest], float]
    started: list[str] = field(factory=list)
    flying: set[str] = field(factory=set)
    most: int = 0
    runs: dict[str, SimulatedRun] = field(factory=dict)
    gpus: int = 0
    usd_per_hour: float = 0.0

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> SimulatedRun | None:
        """Start a run, once for every name."""
        if request.launcher != "simulated":
            return None
        if request.name not in self.runs:
            self.started.append(request.name)
            self.flying.add(request.name)
            self.most = max(self.most, len(self.flying))
            score = self.score(request, workspace.read_script())
            ends = self.clock.now() + self.seconds(request)
            self.runs[request.name] = SimulatedRun(request, self, ends, score)
            request.folder.mkdir(parents=True, exist_ok=True)
            (request.folder / "run.log").write_text(f"score: {score}\n")
        return self.runs[request.name]
