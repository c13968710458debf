"""The files of one run, through which its supervisor and any number of handles agree."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from autoresearch.durable import replace_file
from autoresearch.model import RunOutput, RunStatus

_RESERVE_BYTES = 16_384


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen(kw_only=True)
class Spec:
    """What a supervisor is told to run."""

    name: str
    command: tuple[str, ...] = field(converter=_strings)
    env: Mapping[str, str]
    timeout_seconds: float
    max_log_bytes: int


@frozen(kw_only=True)
class Outcome:
    """How a run ended, as `outcome.json` says it; seconds are wall clock."""

    status: RunStatus = field(converter=RunStatus)
    detail: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    cost_usd: float = 0.0


@frozen
class RunFolder:
    """The folder of one run; files appear whole or not at all, and `outcome.json` once."""

    path: Path

    @property
    def log(self) -> Path:
        """Standard output and standard error of the run, together."""
        return self.path / "run.log"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself had to say: empty unless something is wrong with it."""
        return self.path / "supervisor.log"

    def write_spec(self, spec: Spec) -> None:
        """Keep what is to be run."""
        self.write("request.json", asdict(spec))

    def read_spec(self) -> Spec | None:
        """Return what was to be run here, or None for a fresh folder."""
        found = self.read("request.json")
        return Spec(**found) if found else None

    def write_supervisor(self, facts: Mapping[str, Any]) -> None:
        """Keep who runs it; from now on nobody may start it again."""
        self.write("supervisor.json", facts)

    def read_supervisor(self) -> dict[str, Any] | None:
        """Return who runs or ran it, or None if it was never started."""
        return self.read("supervisor.json")

    def ask_to_stop(self, reason: str) -> None:
        """Ask the supervisor to end the run."""
        self.write("stop.json", {"reason": reason})

    def stop_reason(self) -> str | None:
        """Return why the run is to stop, or None."""
        found = self.read("stop.json")
        return str(found["reason"]) if found else None

    def write_outcome(self, outcome: Outcome) -> None:
        """Keep how it ended, if need be in the room that `reserve` set aside for that."""
        facts = asdict(outcome)
        try:
            self.write("outcome.json", facts)
        except OSError:
            (self.path / ".reserve").unlink(missing_ok=True)
            self.write("outcome.json", facts)
        (self.path / ".reserve").unlink(missing_ok=True)

    def read_outcome(self) -> Outcome | None:
        """Return how it ended, or None."""
        found = self.read("outcome.json")
        return Outcome(**found) if found else None

    def output(self, name: str, outcome: Outcome) -> RunOutput:
        """Return `outcome` as the rest of the product wants it."""
        facts = asdict(outcome, recurse=False)
        return RunOutput(name=name, log_path=self.log, folder=self.path, **facts)

    def reserve(self) -> None:
        """Set room aside, so that a full disk can still be reported."""
        with (self.path / ".reserve").open("wb") as file:
            file.write(b"\0" * _RESERVE_BYTES)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Give True while this process alone may decide about the run, False if another does.

        The supervisor holds it for its whole life; the kernel lets go of it when that life ends,
        however it ends, so that a held lock means a living supervisor.
        """
        with (self.path / "supervisor.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def write(self, name: str, facts: Mapping[str, Any]) -> None:
        """Replace the file `name` by `facts`, as JSON."""
        replace_file(self.path / name, (json.dumps(facts, sort_keys=True) + "\n").encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the facts in the file `name`, or None if there is no such file."""
        try:
            text = (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        facts: dict[str, Any] = json.loads(text)
        return facts
