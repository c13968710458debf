"""The SQL views of the store, and the one call that opens a store with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoresearch.log import FileLog, Schema, open_log
from autoresearch.log.store import to_stderr


def open_store(root: Path, notify: Callable[[str], None] = to_stderr) -> FileLog:
    """Open the store folder ``root`` (a project's ``.autoresearch``) with the people's tables."""
    return open_log(root, Schema(), notify)
