"""What launchers share: the files of a run, by which its supervisor and its handles agree."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import Attribute, asdict, field, frozen

from autoresearch.durable import replace_file
from autoresearch.errors import AutoresearchError
from autoresearch.model import NOT_LAUNCHED, RunOutput, RunRequest, RunStatus

_RESERVE_BYTES = 16_384


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _amount(_: object, attribute: Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} is {value}, but must be 0 or more")


@frozen(kw_only=True)
class Spec:
    """What a supervisor is told to run."""

    name: str
    command: tuple[str, ...] = field(converter=_strings)
    env: Mapping[str, str]
    timeout_seconds: float
    max_log_bytes: int
    script_digest: str = ""
    cwd: str = ""  # empty: the run's folder
    held: bool = False  # the command is bubblewrap's
    devices: tuple[str, ...] = field(default=(), converter=_strings)  # GPUs to choose from
    gpus: int = 0  # how many of them it gets, and has to wait for


@frozen(kw_only=True)
class Outcome:
    """How a run ended, as `outcome.json` says it; seconds are wall clock.

    Raises ValueError for an amount that is negative or not finite, or an unknown status.
    """

    status: RunStatus = field(converter=RunStatus)
    detail: str = ""
    exit_code: int | None = None
    seconds: float = field(default=0.0, validator=_amount)
    gpu_seconds: float = field(default=0.0, validator=_amount)
    cost_usd: float = field(default=0.0, validator=_amount)


@frozen
class RunFolder:
    """The two folders of a run: `path`, where it works, and `control`, of which it is not told.

    Files appear whole or not at all, and `outcome.json` once.
    """

    path: Path
    control: Path

    @classmethod
    def of(cls, path: Path) -> RunFolder:
        """Return the folders of the run that works in `path`."""
        path = path.absolute()
        control = path.with_name(f"{path.name}.control")
        # Earlier versions kept all in the run's own folder; what they started is still read.
        old = not control.exists() and any(
            (path / name).exists() for name in ("request.json", "modal_order.json")
        )
        return cls(path, path if old else control)

    def make(self) -> None:
        """Create both; the environment in the control folder is for no one else to read."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.control.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Delete both, so that a run of the name starts anew."""
        for folder in (self.path, self.control):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        """Standard output and standard error of the run, together."""
        return self.control / "run.log"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself had to say: empty unless something is wrong with it."""
        return self.control / "supervisor.log"

    def check_digest(self, name: str, known: str, asked: str) -> None:
        """Raise AutoresearchError if the run was started with another script than is asked for."""
        if known and asked and known != asked:
            raise AutoresearchError(
                f"the run {name!r} was started with script {known[:12]}, not with {asked[:12]}; "
                "use another tag, or give back the script"
            )

    def order(
        self, file: str, request: RunRequest, make: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what was ordered under the request's name, made and kept the first time.

        Raises AutoresearchError if that was another script.
        """
        self.make()
        known = self.read(file)
        if known is None:
            known = dict(make())
            self.write(file, known)
        self.check_digest(request.name, known.get("script_digest", ""), request.script_digest)
        return known

    def write_spec(self, spec: Spec) -> None:
        """Keep what is to be run."""
        self.write("request.json", asdict(spec))

    def read_spec(self) -> Spec | None:
        """Return what was to be run here, or None for a fresh folder."""
        found = self.read("request.json")
        return Spec(**found) if found else None

    def ask_to_stop(self, reason: str) -> None:
        """Say that the run is to stop; who owns it reads that as :meth:`stop_reason`."""
        self.write("stop.json", {"reason": reason})

    def stop_reason(self) -> str | None:
        """Return why the run is to stop, or None."""
        found = self.read("stop.json")
        return str(found["reason"]) if found else None

    def write_outcome(self, outcome: Outcome) -> None:
        """Keep how it ended, if need be in the space that `reserve` set aside for that."""
        facts = asdict(outcome)
        try:
            self.write("outcome.json", facts)
        except OSError:
            (self.control / ".reserve").unlink(missing_ok=True)
            self.write("outcome.json", facts)
        (self.control / ".reserve").unlink(missing_ok=True)

    def read_outcome(self) -> Outcome | None:
        """Return how it ended, or None; what no supervisor writes is a failure of the machine."""
        try:
            found = self.read("outcome.json")
            return Outcome(**found) if found else None
        except (ValueError, TypeError) as error:
            detail = f"outcome.json of the run cannot be believed: {error}; run it again"
            return Outcome(status=RunStatus.INFRA_FAILED, detail=detail)

    def output(self, name: str, outcome: Outcome) -> RunOutput:
        """Return `outcome` as the rest of the product wants it."""
        facts = asdict(outcome, recurse=False)
        return RunOutput(name=name, log_path=self.log, folder=self.path, **facts)

    def reserve(self) -> None:
        """Set space aside, so that a full disk can still be reported."""
        with (self.control / ".reserve").open("wb") as file:
            file.write(b"\0" * _RESERVE_BYTES)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Give True while this process alone may decide about the run, False if another does.

        The supervisor holds it for its whole life; the kernel lets go of it when that life ends,
        however it ends, so that a held lock means a living supervisor.
        """
        with (self.control / "supervisor.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def write(self, name: str, facts: Mapping[str, Any]) -> None:
        """Replace the control file `name` by `facts`, as JSON."""
        replace_file(self.control / name, (json.dumps(facts, sort_keys=True) + "\n").encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the facts in the control file `name`, or None if there is no such file."""
        try:
            text = (self.control / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        facts: dict[str, Any] = json.loads(text)
        return facts


def log_in(path: Path) -> Path:
    """Return where the output of the run that worked in `path` is, whichever launcher ran it."""
    usual = path / "run.log"
    places = (RunFolder.of(path).log, usual, path / NOT_LAUNCHED)
    return next((log for log in places if log.exists()), usual)


class InFolder:
    """What the handles have in common of runs that keep all they know in a control folder."""

    folder: RunFolder

    @property
    def log_path(self) -> Path:
        """Where the output goes while the run goes on; that of another machine arrives late."""
        return self.folder.log
