"""Files of a Hugging Face repository, fetched with the real client into its own cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import ERROR
from pathlib import Path
from typing import Any

import huggingface_hub
from console import DataError
from files import place
from huggingface_hub import constants, errors
from huggingface_hub.utils import logging

# The client's transport is httpx or httpx2, whichever its version builds on.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

logging.set_verbosity(ERROR)  # it retries by itself; people read only our lines

CLIENT_ERRORS = (HTTPError, OSError, ValueError, errors.EntryNotFoundError, errors.XetDownloadError)


class StoppedError(Exception):
    """A transfer was ended because another one failed or the user interrupted."""


@dataclass(frozen=True, slots=True)
class Hub:
    """One dataset repository below one remote root; safe to use from several threads."""

    repository: str
    root: str
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(
        self,
        name: str,
        target: Path,
        check: Callable[[Path], object],
        advance: Callable[[int], None],
    ) -> None:
        """Bring one file below the root to its place, whole and checked, or raise DataError.

        `check` raises DataError for a wrong file. A file that the client had in its cache may
        have been damaged there, so a wrong one is transferred once more before giving up.
        """
        blob = self._cached(name, advance, force=False)
        try:
            check(blob)
        except DataError:
            blob = self._cached(name, advance, force=True)
            self._check_again(name, blob, check)
        place(blob, target)

    def _check_again(self, name: str, blob: Path, check: Callable[[Path], object]) -> None:
        try:
            check(blob)
        except DataError as error:
            raise DataError(
                f"{self.remote(name)} of {self.repository} is wrong where it is published: {error};"
                " take another repository with MATCHED_FINEWEB_REPO_ID or report it there"
            ) from error

    def remote(self, name: str) -> str:
        """Path of a file inside the repository."""
        return f"{self.root}/{name}" if self.root else name

    def _cached(self, name: str, advance: Callable[[int], None], *, force: bool) -> Path:
        remote = self.remote(name)
        try:
            pointer = huggingface_hub.hf_hub_download(
                self.repository,
                remote,
                repo_type="dataset",
                force_download=force,
                tqdm_class=_meter(advance, self.stop),
            )
        except CLIENT_ERRORS as error:
            raise self._explain(remote, error) from error
        return Path(pointer).resolve()

    def _explain(self, remote: str, error: BaseException) -> Exception:
        if isinstance(error, ValueError) and error.__cause__ is not None:
            return self._explain(remote, error.__cause__)
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            return error  # the disk's fault, told as such
        return DataError(self._why(remote, error))

    def _why(self, remote: str, error: BaseException) -> str:
        match error:
            case errors.GatedRepoError():
                return f"{self.repository} asks for access; request it, then run: hf auth login"
            case errors.RepositoryNotFoundError():
                return (
                    f"no dataset repository {self.repository} at {constants.ENDPOINT};"
                    " set MATCHED_FINEWEB_REPO_ID to one that exists"
                )
            case errors.HFValidationError():
                return f"{self.repository!r} is no name; set MATCHED_FINEWEB_REPO_ID to owner/name"
            case errors.RemoteEntryNotFoundError():
                return (
                    f"{self.repository} has no {remote}; set MATCHED_FINEWEB_REMOTE_ROOT_PREFIX"
                    " right, or delete a manifest.json that came from another repository"
                )
            case errors.LocalEntryNotFoundError():
                return f"cannot reach {constants.ENDPOINT}; check the network and run again"
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"transfer of {remote} failed ({first}); run the same command again to go on"


def _meter(advance: Callable[[int], None], stop: threading.Event) -> Any:
    """Make a class that the client takes for a progress bar: it counts, and it can stop."""

    class Meter:
        def __init__(self, *, total: int | None = None, **_style: object) -> None:
            self.n = 0
            self.total = total

        def update(self, count: int = 1) -> None:
            if stop.is_set():
                raise StoppedError
            self.n += count
            advance(count)

        def update_transfer(self, count: int = 1) -> None:
            """Bytes on the wire; those on the disk are counted by `update`."""

        def set_postfix_str(self, text: str, **_style: object) -> None:
            """Speeds are shown by our own progress."""

        set_transfer_postfix_str = set_postfix_str

        def close(self) -> None:
            """Nothing to close."""

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

    return Meter
