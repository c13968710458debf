"""The Parameter Golf challenge: everything that only it needs, reached through its preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoresearch.golf.reading import LogReading, read_log

__all__ = ["LogReading", "read_log"]


def __getattr__(name: str) -> Any:
    """Import the reader when it is asked for: the preset beside it has to stay light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autoresearch.golf import reading

    return getattr(reading, name)
