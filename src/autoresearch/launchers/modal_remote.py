"""What the launcher ``modal`` asks of Modal, in six calls; the client is imported when needed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from attrs import frozen

from autoresearch.durable import digest
from autoresearch.errors import AutoresearchError, needs
from autoresearch.launchers.environment import clean_environment
from autoresearch.model import RunStatus

T = TypeVar("T")
_DEPLOY_SECONDS = 1800.0
_ANSWER_SECONDS = 25.0
_NO_TOKEN = "modal has no valid token; run `modal token new` and start again"


class RemoteError(Exception):
    """Modal could not do it; the text says why, and what a person can do where one can."""


class RemoteAwayError(RemoteError):
    """Modal could not be asked now; the call may well go on, so ask again later."""


class RemoteEndedError(RemoteError):
    """The call is over for certain, and there is no verdict that can be read."""


class RemoteTimeoutError(RemoteEndedError):
    """The call ran past the limit that Modal itself enforces."""


@frozen(kw_only=True)
class ModalRemote:
    """Modal itself, through its client; the app is deployed on first use, once for each text.

    Every method may raise RemoteError. Only RemoteEndedError is the end of a call.
    """

    script: Path
    app: str
    volume: str
    claims: str
    data: str
    torch: str

    def claimed(self, name: str) -> dict[str, str] | None:
        """Return who carries out a run, if anyone: ``call`` and ``script_digest``.

        A call enters itself in this dictionary before it does anything.
        """
        with _explained():
            claims = client().Dict.from_name(self.claims, create_if_missing=True)
            found = claims.get(name)
        return {"call": found} if isinstance(found, str) else found  # text: an earlier script

    def spawn(self, order: str, gpu: str, timeout_seconds: float) -> str:
        """Start the call for an order and return its id, without waiting for it."""
        limit = round(timeout_seconds)
        return self._deployed(
            "train",
            lambda train: str(train.with_options(gpu=gpu, timeout=limit).spawn(order).object_id),
        )

    def verdict(self, call: str) -> str | None:
        """Return what a call returned, or None while it goes on.

        A pending one raises the builtin TimeoutError.
        """
        with _explained(explain_call):
            try:
                return str(client().FunctionCall.from_id(call).get(timeout=0))
            except TimeoutError:
                return None

    def cancel(self, call: str) -> None:
        """Cancel, and take the container along: the training process ignores gentler ways."""
        with _explained():
            client().FunctionCall.from_id(call).cancel(terminate_containers=True)

    def read(self, path: str) -> bytes | None:
        """Return a kept file, whole, or None if there is none."""
        with _explained():
            try:
                volume = client().Volume.from_name(self.volume, create_if_missing=True)
                return b"".join(volume.read_file(path))
            except (FileNotFoundError, client().exception.NotFoundError):
                return None

    def lacks(self, name: str) -> bool:
        """Look into the volume, in a thread: the client tries for a minute without a word."""
        found: list[bool | Exception] = []

        def look() -> None:
            try:
                volume = client().Volume.from_name(self.data, create_if_missing=True)
                there = {Path(entry.path).name for entry in volume.listdir("datasets")}
                found.append(name not in there or f"{name}.partial" in there)
            except (FileNotFoundError, client().exception.NotFoundError):
                found.append(True)
            except Exception as error:
                found.append(error)

        asking = Thread(target=look, daemon=True)
        asking.start()
        asking.join(_ANSWER_SECONDS)
        if not found:
            raise RemoteAwayError(f"modal does not answer within {_ANSWER_SECONDS:g} seconds")
        if isinstance(found[0], Exception):
            raise explain(found[0]) from found[0]
        return found[0]

    def fill(self, variant: str, train_shards: int) -> None:
        """Call the function of the script that does it."""
        self._deployed("prepare_data", lambda prepare: prepare.remote(variant, train_shards))

    @property
    def deployment(self) -> str:
        """The app's name with a digest of what was deployed: a new text never meets an old one."""
        return f"{self.app}-{digest(self.script.read_bytes() + self.torch.encode())[:10]}"

    def _deployed(self, name: str, use: Callable[[Any], T]) -> T:
        """Use a function of the script, which is deployed first if this text of it is not yet."""
        with _explained():
            try:
                return use(client().Function.from_name(self.deployment, name))
            except client().exception.NotFoundError:
                self._deploy()
            return use(client().Function.from_name(self.deployment, name))

    def _deploy(self) -> None:
        command = [sys.executable, "-m", "modal", "deploy", "--name", self.deployment]
        own = {key: value for key, value in os.environ.items() if key.startswith("MODAL_")}
        own["AUTORESEARCH_TORCH"] = self.torch
        try:
            ended = subprocess.run(
                [*command, str(self.script)],
                env=clean_environment(os.environ, own),
                capture_output=True,
                text=True,
                timeout=_DEPLOY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RemoteError(
                f"modal deploy took over {_DEPLOY_SECONDS:g} seconds; try it by hand"
            ) from error
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip()).splitlines() or ["nothing"]
            raise RemoteError(f"modal deploy failed: {said[-1]}; try it by hand")


def client() -> Any:
    """Return the module `modal`; raises AutoresearchError where it is not installed."""
    with needs("modal"):
        import modal
    return modal


def check_token() -> None:
    """Raise AutoresearchError where the client is not installed or knows no token."""
    known = client().config.config
    if not (known.get("token_id") and known.get("token_secret")):
        raise AutoresearchError(_NO_TOKEN)


# What the client raises when it could not ask, or Modal could not answer; by name, because the
# client has had more of them with every version.
_AWAY = (
    *("ConnectionError", "ServiceError", "ClientClosed", "ResourceExhaustedError"),
    *("InternalError", "DataLossError", "TimeoutError"),
)


def explain(error: Exception) -> RemoteError:
    """Turn what Modal's client raised into one of our kinds, with one line."""
    known = client().exception
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, known.AuthError):
        return RemoteError(_NO_TOKEN)
    away = tuple(getattr(known, name) for name in _AWAY if hasattr(known, name))
    if isinstance(error, (*away, OSError)):
        return RemoteAwayError(f"modal does not answer: {said}")
    return RemoteError(f"modal failed ({type(error).__name__}): {said}")


def explain_call(error: Exception) -> RemoteError:
    """Tell the end of a call from a question that failed.

    The function in modal_train.py raises nothing, so an OSError arose here, on the way; whatever
    else is not the client's own came from over there.
    """
    known = client().exception
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, known.FunctionTimeoutError):
        return RemoteTimeoutError("ended by Modal's own limit on the function")
    ends = (known.OutputExpiredError, known.InternalFailure, known.RemoteError)
    if isinstance(error, (*ends, known.ExecutionError)):
        return RemoteEndedError(f"modal failed ({type(error).__name__}): {said}")
    if not isinstance(error, (known.Error, OSError)):
        return RemoteEndedError(f"the remote function raised {type(error).__name__}: {said}")
    return RemoteAwayError(str(explain(error)))


@contextmanager
def _explained(how: Callable[[Exception], RemoteError] = explain) -> Iterator[None]:
    """Raise what Modal's client raises inside the block as one of our kinds."""
    try:
        yield
    except (RemoteError, AutoresearchError):
        raise
    except Exception as error:
        raise how(error) from error


def verdict_in(text: str | bytes) -> dict[str, Any]:
    """Read a verdict; raises RemoteEndedError for text that is not one."""
    try:
        found = json.loads(text)
        status, seconds = str(found["status"]), float(found.get("seconds", 0.0))
        if status not in {*RunStatus, "duplicate", "refused"}:
            raise ValueError(f"unknown status {status!r}")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}, but must be 0 or more")
        return {"exit_code": None, "detail": "", **found, "seconds": seconds}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RemoteEndedError(
            f"the verdict of the remote function cannot be read: {error}"
        ) from error
