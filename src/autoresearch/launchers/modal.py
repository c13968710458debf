"""The launcher ``modal``: the script goes to Modal's GPUs and is found there again by its name."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import Attribute, define, evolve, field, frozen

from autoresearch.config import Config, setting
from autoresearch.durable import digest, replace_file
from autoresearch.errors import AutoresearchError, ConfigError
from autoresearch.frozen import alike
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers import InFolder, Outcome, RunFolder
from autoresearch.launchers.cluster import Elsewhere
from autoresearch.launchers.modal_remote import (
    ModalRemote,
    RemoteAwayError,
    RemoteError,
    RemoteTimeoutError,
    check_token,
    verdict_in,
)
from autoresearch.model import Quote, RunHandle, RunOutput, RunRequest, RunStatus, Workspace

_SPARE_SECONDS = 300.0  # for Modal's own limit: start, data and the last commit of the volume
_LOG_SECONDS = 15.0


def _gpu(_: object, attribute: Attribute[str], value: str) -> None:
    # An empty one would run on the GPUs that the script names, at a recorded price of 0.
    if not re.fullmatch(r"[A-Za-z][\w-]*!?(:[1-9]\d*)?", value):
        raise ConfigError(f"{attribute.name} is {value!r}; write a type and a number, as in H100:8")


@frozen(kw_only=True)
class Settings:
    """The table ``[tool.autoresearch.plugins.modal]``.

    The price is Modal's list price of one H100, $3.95 an hour, as of May 2026 (modal.com/pricing);
    processor and memory come on top of it.
    """

    module: str = setting("modal_train.py", "script that defines the remote function")
    app: str = setting("autoresearch-train", "app name; a digest of the script is appended")
    volume: str = setting("autoresearch-runs", "volume of run logs and verdicts, as in the script")
    claims: str = setting("autoresearch-claims", "dictionary of started runs, as in the script")
    gpu: str = setting("H100:8", "GPU type and number", validator=_gpu)
    usd_per_gpu_second: float = setting(0.001097, "price of one GPU, USD a second")
    prices: str = setting("modal.com/pricing, May 2026", "where that price is from, and of when")
    torch: str = setting("2.9.1", "version of torch in the image")
    data: str = setting("autoresearch-data", "volume of data sets, as in the script")
    train_shards: int = setting(80, "shards that the volume is filled with where it has no data")
    before_seconds: float = setting(
        900.0, "longest time before the first training step, from which the deadline counts"
    )
    first_step: str = setting(
        "", "what matches the line of the first training step; empty: the script's own"
    )
    score_line: str = setting(
        "", "what matches a line after which a killed run is completed; empty: the script's own"
    )
    keep: tuple[str, ...] = setting(
        ("final_model.int8.ptz",), "files of a run to bring here beside its log"
    )
    patience_seconds: float = setting(
        3600.0, "longest wait for a machine or an answer beyond the deadline of a run"
    )
    poll_seconds: float = setting(2.0, "time between two questions to Modal")

    @property
    def all_gpus(self) -> int:
        """How many GPUs a run has."""
        return int(self.gpu.partition(":")[2] or 1)

    @property
    def usd_per_hour(self) -> float:
        """The price of them all, US dollars an hour."""
        return 3600 * self.all_gpus * self.usd_per_gpu_second


class Plugin(Elsewhere[Settings]):
    """Answers requests for the launcher ``modal``."""

    name, Settings = "modal", Settings

    @hookimpl
    def check_launcher(
        self, config: Config, project: Path, tell: Callable[[str], None]
    ) -> Sequence[str] | None:
        """Look for the remote function, the client, a token and the data; fill the volume once."""
        if config.launcher != "modal":
            return None
        chosen = config.settings("modal", Settings)
        try:
            remote = _remote(project, chosen)
            _check_processes(config.command, chosen)
            check_token()
            make_ready(remote, config.data, chosen, tell)
        except (AutoresearchError, RemoteError) as error:
            return (str(error),)
        return ()

    def quote(self, request: RunRequest, chosen: Any) -> Quote:
        """Return Modal's own limit on the function, at the price of the settings."""
        seconds = request.timeout_seconds + chosen.before_seconds + _SPARE_SECONDS
        return evolve(super().quote(request, chosen), seconds=seconds)

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Order a run, or find the one that was ordered under the same name."""
        chosen = self.chosen(request)
        if chosen is None:
            return None
        return launch(request, workspace, _remote(workspace.project, chosen), chosen)


def _remote(project: Path, settings: Settings) -> ModalRemote:
    module = project / settings.module
    if not module.exists():
        raise AutoresearchError(
            f"the launcher 'modal' finds no {module}; put modal_train.py there or set module"
        )
    return alike(ModalRemote, settings, script=module)


def make_ready(
    remote: ModalRemote, wanted: Sequence[str], settings: Settings, tell: Callable[[str], None]
) -> None:
    """Fill the volume with the challenge's data where it has none, and tell a person.

    Modal is asked in any case, so that a person hears of an unreachable one before the night.
    """
    # A folder of data sets has one for each tokenizer, whose name is the last part of its own.
    found = re.search(r"\bdatasets/(\w+_(\w+))", " ".join(wanted))
    try:
        if remote.lacks(found[1] if found else "") and found:
            shards = settings.train_shards
            tell(f"{settings.data} lacks {found[1]}; filling it with {shards} shards takes minutes")
            remote.fill(found[2], shards)
    except RemoteAwayError as error:
        tell(f"{error}; runs wait for it")


def launch(
    request: RunRequest, workspace: Workspace, remote: ModalRemote, settings: Settings
) -> ModalRun:
    """Keep the order, then have it carried out; both at most once for a name."""
    if request.beside:
        settings = evolve(settings, gpu=settings.gpu.partition(":")[0])
    folder = RunFolder.of(request.folder)
    order = folder.order(
        "modal_order.json", request, lambda: order_for(request, workspace, settings)
    )
    run = ModalRun(request.name, folder, order, remote, settings)
    run.poll()
    return run


def order_for(request: RunRequest, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Return what the remote function is told; places of this machine become those over there."""
    _check_processes(request.command, settings)
    there = {str(workspace.script_path): Path(workspace.script).name, sys.executable: "python"}
    source = workspace.read_script()
    lines = {"first_step": settings.first_step, "score_line": settings.score_line}
    return {
        "name": _place(request, request.name),
        "beside": _place(request, request.beside) if request.beside else "",
        "script": Path(workspace.script).name,
        "script_digest": request.script_digest or digest(source),
        "source": source,
        "command": [there.get(word, word) for word in request.command],
        "env": {**request.env, "SEED": str(request.seed), "RUN_ID": request.name},
        "timeout_seconds": request.timeout_seconds,
        "before_seconds": settings.before_seconds,
        **{name: pattern for name, pattern in lines.items() if pattern},
        "max_log_bytes": request.max_log_bytes,
        "keep": list(settings.keep),
        "asked_at": time.time(),
    }


def _place(request: RunRequest, name: str) -> str:
    """Name a run in a workspace that campaigns of other projects share, with equal tags."""
    return f"{name}-{digest(request.campaign_id)[:8]}" if request.campaign_id else name


def _check_processes(command: tuple[str, ...], settings: Settings) -> None:
    """Refuse a torchrun that would crash, or leave GPUs idle that are paid for."""
    asked = re.search(r"--nproc[_-]per[_-]node[= ](\d+)", " ".join(command))
    if asked and int(asked[1]) != settings.all_gpus:
        raise AutoresearchError(
            f"the command starts {asked[1]} processes, but gpu is {settings.gpu!r}; "
            "make them the same number"
        )


@define
class ModalRun(InFolder):
    """A run on Modal; what is known of it stands in its control folder, the rest is asked for.

    Once the id of its call is known, only that call's definite end, or a cancelling that Modal
    confirmed, ends the run: not being able to ask is no end.
    """

    name: str
    folder: RunFolder
    order: Mapping[str, Any]
    remote: ModalRemote
    settings: Settings
    clock: Callable[[], float] = time.time
    _next_look: float = field(default=0.0, init=False)
    _next_log: float = field(default=0.0, init=False)

    @property
    def reference(self) -> str:
        """The id of the function call, as Modal's own pages show it."""
        return self._call() or ""

    @property
    def usd_per_hour(self) -> float:
        """The price of its GPUs, US dollars an hour."""
        return self.settings.usd_per_hour

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None; asks Modal every few seconds."""
        outcome = self.folder.read_outcome()
        if outcome is None and self.clock() >= self._next_look:
            self._next_look = self.clock() + self.settings.poll_seconds
            outcome = self._look()
        return self.folder.output(self.name, outcome) if outcome else None

    def stop(self, reason: str) -> None:
        """Cancel the call and its machine; where Modal cannot be asked now, each poll tries."""
        if self.poll() is None:
            self.folder.ask_to_stop(reason)
            self._next_look = 0.0
            self.poll()

    def _look(self) -> Outcome | None:
        try:
            outcome = self._ask()
        except RemoteAwayError as error:
            outcome = self._overdue(str(error))
        except OSError:
            return None  # on a full disk here everything stays at Modal, and is asked for again
        if outcome is not None:
            with suppress(OSError):
                self.folder.write_outcome(outcome)
        return outcome

    def _ask(self) -> Outcome | None:
        reason = self.folder.stop_reason()
        if reason is not None:
            return self._stopped(reason)
        try:
            call = self._call() or self._start()
            verdict = self.remote.verdict(call)
            if verdict is not None:
                return self._conclude(verdict_in(verdict))
        except RemoteAwayError:
            raise
        except RemoteError as error:
            return self._kept() or self._failed(error)
        if self.clock() >= self._next_log:
            self._next_log = self.clock() + _LOG_SECONDS
            with suppress(RemoteError):
                self._fetch("run.log")
        return self._overdue("no verdict came")

    def _start(self) -> str:
        """Spawn the call unless one entered itself under this name; harmless if done twice."""
        claim = self.remote.claimed(self.order["name"])
        if claim is None:
            order = json.dumps(dict(self.order))
            call = self.remote.spawn(order, self.settings.gpu, self._limit)
        else:
            self._check(claim)
            call = claim["call"]
        self._note(call)
        return call

    def _conclude(self, facts: dict[str, Any]) -> Outcome | None:
        """Seal a verdict once its evidence is here; a duplicate leads to the call to follow."""
        if facts["status"] == "duplicate":
            self._note(facts["call_id"])
            return None
        if facts["status"] == "refused":
            raise RemoteError(facts["detail"])
        self._check(facts)
        for name in ("run.log", *self.settings.keep):
            self._fetch(name)
        status, seconds = RunStatus(facts["status"]), facts["seconds"]
        if status is RunStatus.INFRA_FAILED:  # a GPU was paid for, whatever was run on it
            seconds = seconds or self._spent()
        return self._outcome(status, facts["detail"], seconds, facts["exit_code"])

    def _kept(self) -> Outcome | None:
        """Look for a verdict in the volume: results of calls are forgotten after seven days."""
        try:
            found = self.remote.read(f"{self.order['name']}/outcome.json")
            return self._conclude(verdict_in(found)) if found else None
        except RemoteAwayError:
            if self._call():
                raise  # it may be there
            return None
        except RemoteError:
            return None

    def _failed(self, error: RemoteError) -> Outcome:
        with suppress(RemoteError):
            self._fetch("run.log")
        if isinstance(error, RemoteTimeoutError):
            return self._outcome(RunStatus.TIMED_OUT, str(error), self._limit)
        return self._outcome(RunStatus.INFRA_FAILED, str(error), self._spent())

    def _stopped(self, reason: str) -> Outcome:
        """Cancel what runs; the price is counted from the order, so at most."""
        try:
            call = self._cancel()
        except RemoteError as error:
            raise RemoteAwayError(str(error)) from error
        with suppress(RemoteError):
            self._fetch("run.log")
        # Modal itself ends a call at its limit; what it waited for a machine before is free.
        spent = min(self.clock() - self.order["asked_at"], self._limit)
        return self._outcome(RunStatus.STOPPED_EARLY, reason, spent if call else 0.0)

    def _overdue(self, why: str) -> Outcome | None:
        """End a run that nothing was heard of; with a known call only once it is cancelled."""
        limit = self._limit + self.settings.patience_seconds
        if self.clock() < self.order["asked_at"] + limit:
            return None
        detail = f"gave up after {limit:g} seconds: {why}"
        try:
            self._cancel()
        except RemoteError as error:
            if self._call():
                return None
            detail += f"; it may still run, look on modal.com: {error}"
        return self._outcome(RunStatus.INFRA_FAILED, detail, self._spent())

    def _cancel(self) -> str:
        """Cancel the call that carries out the run, and return its id; empty where none does."""
        call = self._call() or (self.remote.claimed(self.order["name"]) or {}).get("call", "")
        if call:
            self.remote.cancel(call)
        return call

    @property
    def _limit(self) -> float:
        """Modal's own limit on the function, seconds."""
        before = self.order.get("before_seconds", 0)
        return float(self.order["timeout_seconds"] + before + _SPARE_SECONDS)

    def _spent(self) -> float:
        """Return the seconds since the call was spawned, at most to Modal's own limit."""
        found = self.folder.read("modal_call.json")
        if found is None:
            return 0.0
        since = self.clock() - found.get("at", self.order["asked_at"])
        return float(min(since, self._limit))

    def _outcome(
        self, status: RunStatus, detail: str, seconds: float = 0.0, code: int | None = None
    ) -> Outcome:
        seconds = max(seconds, 0.0)  # a clock may have been set back
        gpu_seconds = seconds * self.settings.all_gpus
        cost = gpu_seconds * self.settings.usd_per_gpu_second
        return Outcome(
            status=status,
            detail=detail,
            exit_code=code,
            seconds=round(seconds, 3),
            gpu_seconds=round(gpu_seconds, 3),
            cost_usd=round(cost, 6),
        )

    def _check(self, facts: dict[str, Any]) -> None:
        """Raise RemoteError if what is there under this name belongs to another script."""
        known, asked = facts.get("script_digest", ""), self.order.get("script_digest", "")
        try:
            self.folder.check_digest(self.name, known, asked)
        except AutoresearchError as error:
            raise RemoteError(str(error)) from error

    def _fetch(self, name: str) -> None:
        """Bring a kept file here, if there is one."""
        data = self.remote.read(f"{self.order['name']}/{name}")
        if data is not None:
            place = self.folder.control if name == "run.log" else self.folder.path
            replace_file(place / name, data)

    def _note(self, call: str) -> None:
        self.folder.write("modal_call.json", {"call": call, "at": self.clock()})

    def _call(self) -> str | None:
        found = self.folder.read("modal_call.json")
        return str(found["call"]) if found else None
