"""Files and tables that are pure functions of the log."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from autoresearch.history import History


@runtime_checkable
class Projection(Protocol):
    """A file that can be thrown away and made again from the log, byte for byte."""

    @property
    def file_name(self) -> str:
        """Name of the file, without a folder."""

    def render(self, history: History) -> str:
        """Return the whole text of the file; the same history gives the same text."""
