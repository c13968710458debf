"""A run on Modal: what is known of it stands in its folder, the rest is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from autoresearch.durable import replace_file
from autoresearch.launchers.folder import Outcome, RunFolder
from autoresearch.launchers.modal_order import Settings
from autoresearch.launchers.modal_remote import (
    Remote,
    RemoteAwayError,
    RemoteCrashError,
    RemoteError,
    RemoteTimeoutError,
    status_of,
)
from autoresearch.model import RunOutput, RunStatus

_SPARE_SECONDS = 300.0  # for Modal's own limit: start, data and the last commit of the volume
_LOG_SECONDS = 15.0


@define
class ModalRun:
    """A run on Modal; what is known of it stands in its folder, the rest is asked for."""

    name: str
    folder: RunFolder
    remote: Remote
    settings: Settings
    clock: Callable[[], float] = time.time
    _next_look: float = field(default=0.0, init=False)
    _next_log: float = field(default=0.0, init=False)

    @property
    def reference(self) -> str:
        """The id of the function call, as Modal's own pages show it."""
        return self._call() or ""

    @property
    def log_path(self) -> Path:
        """Where the run's output arrives, a quarter of a minute late."""
        return self.folder.log

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None; asks Modal every few seconds."""
        outcome = self.folder.read_outcome()
        if outcome is None and self.clock() >= self._next_look:
            self._next_look = self.clock() + self.settings.poll_seconds
            outcome = self._look()
            if outcome is not None:
                self._remember(outcome)
        return self.folder.output(self.name, outcome) if outcome else None

    def stop(self, reason: str) -> None:
        """Cancel the call and its machine; the price is counted from the order, so at most."""
        if self.poll() is not None:
            return
        seconds = self.clock() - self._order()["asked_at"]
        detail = reason + self._cancel()
        self._fetch("run.log")
        self._remember(self._outcome(RunStatus.STOPPED_EARLY, detail, seconds))

    def _remember(self, outcome: Outcome) -> None:
        # On a full disk the verdict stays at Modal, and the next poll asks for it again.
        with suppress(OSError):
            self.folder.write_outcome(outcome)

    def _look(self) -> Outcome | None:
        try:
            call = self._call() or self._start()
            verdict = self.remote.verdict(call)
        except RemoteAwayError as error:
            return self._overdue(str(error))
        except RemoteError as error:
            return self._kept() or self._failed(error)
        if verdict is not None:
            return self._conclude(status_of(verdict))
        if self.clock() >= self._next_log:
            self._next_log = self.clock() + _LOG_SECONDS
            self._fetch("run.log")
        return self._overdue("no verdict came")

    def _start(self) -> str:
        """Spawn the call unless one entered itself under this name; harmless if done twice."""
        order = self._order()
        call = self.remote.claimed(self.name)
        if call is None:
            limit = order["timeout_seconds"] + _SPARE_SECONDS
            call = self.remote.spawn(json.dumps(order), self.settings.gpu, limit)
        self.folder.write("modal_call.json", {"call": call})
        return call

    def _conclude(self, facts: dict[str, Any]) -> Outcome | None:
        if facts["status"] == "duplicate":  # another call of ours was quicker: follow that one
            self.folder.write("modal_call.json", {"call": facts["call_id"]})
            return None
        for name in ("run.log", *self.settings.keep):
            self._fetch(name)
        return self._outcome(
            RunStatus(facts["status"]), facts["detail"], facts["seconds"], facts["exit_code"]
        )

    def _kept(self) -> Outcome | None:
        """Look for a verdict in the volume: results of calls are forgotten after seven days."""
        try:
            found = self.remote.read(f"{self.name}/outcome.json")
            return self._conclude(status_of(found)) if found else None
        except RemoteError:
            return None

    def _failed(self, error: RemoteError) -> Outcome:
        self._fetch("run.log")
        if isinstance(error, RemoteTimeoutError):
            limit = self._order()["timeout_seconds"] + _SPARE_SECONDS
            return self._outcome(RunStatus.TIMED_OUT, str(error), limit)
        crashed = isinstance(error, RemoteCrashError)
        return self._outcome(RunStatus.CRASHED if crashed else RunStatus.INFRA_FAILED, str(error))

    def _overdue(self, why: str) -> Outcome | None:
        order = self._order()
        limit = order["timeout_seconds"] + _SPARE_SECONDS + self.settings.patience_seconds
        if self.clock() < order["asked_at"] + limit:
            return None
        detail = f"gave up after {limit:g} seconds: {why}{self._cancel()}"
        return self._outcome(RunStatus.INFRA_FAILED, detail)

    def _cancel(self) -> str:
        """End the call, kept or only claimed; returns what to add to the detail."""
        try:
            if call := self._call() or self.remote.claimed(self.name):
                self.remote.cancel(call)
        except RemoteError as error:
            return f"; it may still run, look on modal.com: {error}"
        return ""

    def _outcome(
        self, status: RunStatus, detail: str, seconds: float = 0.0, code: int | None = None
    ) -> Outcome:
        gpu_seconds = seconds * self.settings.gpus
        cost = gpu_seconds * self.settings.usd_per_gpu_second
        return Outcome(
            status=status,
            detail=detail,
            exit_code=code,
            seconds=round(seconds, 3),
            gpu_seconds=round(gpu_seconds, 3),
            cost_usd=round(cost, 6),
        )

    def _fetch(self, name: str) -> None:
        """Bring a kept file here; one that cannot be had now stays away."""
        try:
            data = self.remote.read(f"{self.name}/{name}")
        except RemoteError:
            return
        if data is not None:
            replace_file(self.folder.path / name, data)

    def _call(self) -> str | None:
        found = self.folder.read("modal_call.json")
        return str(found["call"]) if found else None

    def _order(self) -> dict[str, Any]:
        found = self.folder.read("modal_order.json")
        assert found is not None, "written before the handle exists"
        return found
