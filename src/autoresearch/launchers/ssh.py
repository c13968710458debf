"""The launcher ``ssh``: runs go to a list of hosts, which share no disk with this machine."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from attrs import Attribute, define, evolve, field, frozen

from autoresearch.config import Config, setting
from autoresearch.durable import digest
from autoresearch.errors import AutoresearchError, ConfigError
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers import InFolder, Outcome, RunFolder
from autoresearch.launchers.cluster import Elsewhere
from autoresearch.launchers.far import order_for
from autoresearch.model import Quote, RunHandle, RunOutput, RunRequest, RunStatus, Workspace
from autoresearch.text import one_line

_NO_CONNECTION = 255  # what ssh itself exits with
_ASK_SECONDS = 60.0


class HostAwayError(AutoresearchError):
    """A host could not be asked; what runs there may well go on."""


def _hosts(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for host in value:
        if not host or host.startswith("-") or any(letter.isspace() for letter in host):
            raise ConfigError(f"{attribute.name} has {host!r}; write hosts as ssh takes them")


@frozen(kw_only=True)
class Settings:
    """The table ``[tool.autoresearch.plugins.ssh]``; ports, users and keys stand in ~/.ssh/config.

    A host needs this release of autoresearch; nothing of the project has to be there.
    """

    hosts: tuple[str, ...] = setting((), "where runs go, as ssh takes them", validator=_hosts)
    python: str = setting("python3", "Python on the hosts that has autoresearch")
    folder: str = setting("~/.autoresearch-runs", "folder on the hosts for their runs")
    options: tuple[str, ...] = setting(
        ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"), "options of ssh"
    )
    usd_per_hour: float = setting(0.0, "price of a host while a run is on it, USD an hour")
    prices: str = setting("", "where that price is from, and of when")
    all_gpus = 0  # what a host has is known there
    patience_seconds: float = setting(3600.0, "longest wait for a host that does not answer")
    poll_seconds: float = setting(2.0, "time between two questions to a host")


class Plugin(Elsewhere[Settings]):
    """Answers requests for the launcher ``ssh``."""

    name, Settings = "ssh", Settings

    def __init__(self) -> None:
        super().__init__()
        self._started: list[SshRun] = []

    @hookimpl
    def check_launcher(self, config: Config) -> Sequence[str] | None:
        """Ask every host whether it has this release of autoresearch."""
        if config.launcher != "ssh":
            return None
        hosts = config.settings("ssh", Settings).hosts
        if not hosts:
            return ("the launcher 'ssh' has no hosts; set plugins.ssh.hosts",)
        return [told for host in hosts if (told := self._missing(host))]

    def _missing(self, host: str) -> str:
        try:
            _ask(self._settings, host, ["look", f"{self._settings.folder}/none", "0"])
        except AutoresearchError as error:
            return f"{error}; it needs {self._settings.python} with this release of autoresearch"
        return ""

    def quote(self, request: RunRequest, chosen: Any) -> Quote:
        """Return the deadline at the price of a host."""
        return evolve(super().quote(request, chosen), gpus=self._config.runs.gpus)

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Keep the order and send it to the host with the fewest runs; or find it there."""
        chosen = self.chosen(request)
        if chosen is None:
            return None
        folder = RunFolder.of(request.folder)
        order = folder.order(
            "ssh_order.json", request, lambda: self._order(request, workspace, chosen.hosts)
        )
        run = SshRun(request.name, folder, order, chosen)
        self._started.append(run)
        run.start()
        return run

    def _order(
        self, request: RunRequest, workspace: Workspace, hosts: Sequence[str]
    ) -> dict[str, Any]:
        """Return what is to be run, where: the GPUs of a host are shared by the runs on it."""
        runs = self._config.runs
        runs = evolve(runs, parallel=-(-runs.parallel // max(1, len(hosts))))
        if request.beside:
            runs = evolve(runs, gpus=1)
        self._started = [item for item in self._started if item.poll() is None]
        busy = [item.host for item in self._started]
        return {
            **order_for(request, workspace, self._config.pass_env, runs),
            "place": _place(request),
            "host": min(hosts, key=busy.count),
            "checkout": str(workspace.path.absolute()),
            "asked_at": time.time(),
        }


def _place(request: RunRequest) -> str:
    """Name the run's folder on a host that runs of other projects share."""
    identity = f"{request.campaign_id} {request.folder.absolute()}"
    return f"{request.name}-{digest(identity)[:10]}"


@define
class SshRun(InFolder):
    """A run on a host; what is known of it stands in its control folder, the rest is asked for."""

    name: str
    folder: RunFolder
    order: Mapping[str, Any]
    settings: Settings
    clock: Callable[[], float] = time.time
    _next_look: float = field(default=0.0, init=False)
    _asking: Thread | None = field(default=None, init=False, repr=False)

    @property
    def host(self) -> str:
        """Where it is."""
        return str(self.order["host"])

    @property
    def reference(self) -> str:
        """The host and the process there; empty before it was started."""
        found = self.folder.read("ssh_started.json")
        return f"{self.host} {found['reference']}" if found else ""

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over and its files are here, else None."""
        outcome = self.folder.read_outcome()
        asking = self._asking is not None and self._asking.is_alive()
        if outcome is None and not asking and self.clock() >= self._next_look:
            self._next_look = self.clock() + self.settings.poll_seconds
            # A connection takes its time, and the loop has other runs to watch.
            self._asking = Thread(target=self._look, daemon=True)
            self._asking.start()
        return self.folder.output(self.name, outcome) if outcome else None

    def stop(self, reason: str) -> None:
        """End the run with all its children; while the host is away, each poll tries again."""
        if self.poll() is None:
            self.folder.ask_to_stop(reason)
            if self._asking is not None:
                self._asking.join()
            if self.folder.read_outcome() is None:
                self._look()

    def start(self) -> None:
        """Send the order, unless that was done; where the host is away, each poll tries again."""
        if self.folder.read_outcome() is None:
            self._look()

    def _look(self) -> None:
        try:
            if self.folder.read("ssh_started.json") is None:
                if (reason := self.folder.stop_reason()) is not None:
                    self._seal(RunStatus.STOPPED_EARLY, reason)
                    return
                self._start()
            if (reason := self.folder.stop_reason()) is not None:
                self._ask("stop", one_line(reason, 300))
            self._bring()
        except HostAwayError as error:
            self._overdue(str(error))
        except AutoresearchError as error:
            self._seal(RunStatus.INFRA_FAILED, str(error))
        except OSError:
            return  # on a full disk here everything stays over there, and is asked for again

    def _start(self) -> None:
        data = io.BytesIO()
        text = json.dumps(dict(self.order)).encode()
        with tarfile.open(fileobj=data, mode="w") as archive:
            member = tarfile.TarInfo("order.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
            for name, place in (("work", Path(self.order["checkout"])), ("run", self.folder.path)):
                if place.is_dir():
                    archive.add(place, arcname=name, filter=_that_travels)
        found, _ = self._ask("start", data=data.getvalue())
        self.folder.write("ssh_started.json", found)

    def _bring(self) -> None:
        """Fetch new output; once the run is over its files too, and only then its outcome."""
        while True:
            have = self.folder.log.stat().st_size if self.folder.log.exists() else 0
            found, data = self._ask("look", str(have))
            if data:
                self.folder.log.touch()
                with self.folder.log.open("r+b") as file:  # at its place, whoever else asks
                    file.seek(have)
                    file.write(data)
            if not data or have + len(data) >= found["log_bytes"]:
                break
        if found["outcome"] is None:
            return
        _, data = self._ask("fetch")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(self.folder.path, filter="data")
        self.folder.log.touch()
        outcome = Outcome(**found["outcome"])
        price = outcome.seconds / 3600 * self.settings.usd_per_hour
        self.folder.write_outcome(evolve(outcome, cost_usd=round(price, 6)))

    def _overdue(self, why: str) -> None:
        limit = self.order["timeout_seconds"] + self.settings.patience_seconds
        if self.clock() >= self.order["asked_at"] + limit:
            self._seal(RunStatus.INFRA_FAILED, f"gave up after {limit:g} seconds: {why}")

    def _seal(self, status: RunStatus, detail: str) -> None:
        self.folder.write_outcome(Outcome(status=status, detail=detail))

    def _ask(self, verb: str, *rest: str, data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        place = f"{self.settings.folder}/{self.order['place']}"
        return _ask(self.settings, self.host, [verb, place, *rest], data)


def _that_travels(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out git's own, and links to data that only this machine has."""
    away = member.issym() and member.linkname.startswith("/")
    return None if away or Path(member.name).name == ".git" else member


def _ask(
    settings: Settings, host: str, words: Sequence[str], data: bytes = b""
) -> tuple[dict[str, Any], bytes]:
    """Ask the far end on a host; HostAwayError where there was no answer."""
    command = f"{settings.python} -m autoresearch.launchers.far {shlex.join(words)}"
    try:
        ended = subprocess.run(
            ["ssh", *settings.options, host, command],
            input=data, capture_output=True, timeout=_ASK_SECONDS + len(data) / 1e6, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostAwayError(f"{host} does not answer") from None
    except OSError as error:
        raise AutoresearchError(f"cannot start ssh: {error.strerror}; install it") from None
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
    if ended.returncode == _NO_CONNECTION:
        raise HostAwayError(f"{host} cannot be reached: {one_line(said[-1], 200)}")
    if ended.returncode:
        raise AutoresearchError(f"{host} cannot run it: {one_line(said[-1], 200)}")
    line, _, rest = ended.stdout.partition(b"\n")
    found: dict[str, Any] = json.loads(line)
    if "error" in found:
        raise AutoresearchError(f"{host}: {one_line(found['error'], 300)}")
    return found, rest
