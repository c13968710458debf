"""Every tried source, once, under the sha256 of its text."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from autoresearch.errors import LogError
from autoresearch.log.files import make_folder, replace_file


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
        digest = sha256(data).hexdigest()
        path = self.folder / digest
        if not path.exists():
            try:
                make_folder(self.folder)
                replace_file(path, data)
            except OSError as error:
                raise LogError(
                    f"cannot store source {digest[:12]}: {error.strerror}; make room and retry"
                ) from None
        return digest

    def get(self, digest: str) -> str:
        """Return a text; raises LogError when it is missing or is not what its digest says."""
        try:
            data = (self.folder / digest).read_bytes()
        except OSError as error:
            raise LogError(
                f"source {digest} is not in {self.folder}: {error.strerror}; run verify"
            ) from None
        if sha256(data).hexdigest() != digest:
            raise LogError(f"{self.folder / digest} was changed; restore it from its commit")
        return data.decode()

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and is_digest(digest) and (self.folder / digest).exists()

    def __iter__(self) -> Iterator[str]:
        """Yield the digests of all texts, sorted."""
        if self.folder.is_dir():
            yield from sorted(item.name for item in self.folder.iterdir() if is_digest(item.name))


def is_digest(name: str) -> bool:
    """Return whether a name is that of a stored text: 64 lower-case hex digits."""
    return len(name) == 64 and all(sign in "0123456789abcdef" for sign in name)
