"""Every tried source, once, under the sha256 of its text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoresearch.durable import digest, make_folder, replace_file
from autoresearch.errors import LogError


class SourceStore:
    """Texts in the folder ``sources`` of a store; a text never changes and is never removed."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "sources"

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
        if self.folder.is_dir():
            yield from sorted(item.name for item in self.folder.iterdir() if is_digest(item.name))


def is_digest(name: str) -> bool:
    """Return whether a name is that of a stored text: 64 lower-case hex digits."""
    return len(name) == 64 and all(sign in "0123456789abcdef" for sign in name)
