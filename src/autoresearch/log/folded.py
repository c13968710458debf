"""What is known outside events.duckdb about what is in it, so that a loss in it is noticed.

DuckDB opens a database whose write-ahead log was cut as if nothing were missing, and ignores bytes
behind its end: neither its rows nor its checksums can say that it is complete.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from attrs import asdict, evolve, frozen

from autoresearch.codec import canonical
from autoresearch.log.files import replace_file
from autoresearch.log.records import GENESIS


@frozen(kw_only=True)
class Folded:
    """The state of events.duckdb after a fold; while ``writing`` only the fold's end is unsure.

    ``position`` and ``hash`` are those of its last event, ``entries`` counts the manifest lines it
    has, ``sources`` its sources, ``size`` its bytes, ``schema`` is the digest of its views.
    """

    position: int = 0
    hash: str = GENESIS
    entries: int = 0
    rejected: int = 0
    sources: int = 0
    size: int = 0
    schema: str = ""
    writing: bool = False

    def to_bytes(self) -> bytes:
        """Return the state as one canonical JSON line with a digest of its own."""
        plain = asdict(self)
        digest = sha256(canonical(plain).encode()).hexdigest()
        return canonical({**plain, "digest": digest}).encode() + b"\n"

    def save(self, path: Path) -> None:
        """Write the state durably."""
        replace_file(path, self.to_bytes())

    def begun(self) -> Folded:
        """Return the state while a fold goes on."""
        return evolve(self, writing=True)


def load_folded(path: Path) -> Folded | None:
    """Return the state of the last fold, or None when there is none that can be read."""
    try:
        data = path.read_bytes()
        plain = json.loads(data)
        plain.pop("digest")
        found = Folded(**plain)
        return found if found.to_bytes() == data else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
