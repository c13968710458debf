"""Every tried source, once, under the sha256 of its text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from autoresearch.durable import digest, make_folder, replace_file
from autoresearch.errors import LogError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class SourceStore:
    """Texts in the folder ``sources`` of a store; a text never changes and is never removed."""

    def __init__(self, root: Path) -> None:
        self.folder: Path = root / "sources"

    def put(self, text: str) -> str:
        """Store a text durably and return its digest: 64 hex digits.

        Raises LogError when the disk does not take it, or when it is not Unicode text.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise LogError(f"a source has {error.reason} at {error.start}; replace it") from None
        name = digest(data)
        path = self.folder / name
        if not path.exists():
            try:
                make_folder(self.folder)
                replace_file(path, data)
            except OSError as error:
                raise LogError(
                    f"cannot store source {name[:12]}: {error.strerror}; free some space and retry"
                ) from None
        return name

    def get(self, name: str) -> str:
        """Return a text; raises LogError when it is missing or is not what its digest says."""
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise LogError(
                f"source {name} is not in {self.folder}: {error.strerror}; run verify"
            ) from None
        if digest(data) != name:
            raise LogError(f"{self.folder / name} was changed; restore it from its commit")
        return data.decode()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and is_digest(name) and (self.folder / name).exists()

    def __iter__(self) -> Iterator[str]:
        """Yield the digests of all texts, sorted."""
        yield from sorted(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        # Asked at every sync, so it is one listing and no more for each of thousands of names.
        try:
            return [name for name in os.listdir(self.folder) if is_digest(name)]
        except FileNotFoundError:
            return []


def is_digest(name: str) -> bool:
    """Return whether a name is that of a stored text: 64 lower-case hex digits."""
    return _DIGEST.fullmatch(name) is not None
