"""The SQL views that a log's database carries; the log knows only their names and texts."""

from __future__ import annotations

from hashlib import sha256

from attrs import field, frozen


@frozen(kw_only=True)
class View:
    """A view over the table ``events`` and over views before it; ``sql`` is its SELECT."""

    name: str
    sql: str


@frozen
class Schema:
    """The views in the order in which they are made."""

    views: tuple[View, ...] = field(default=(), converter=tuple)

    @property
    def digest(self) -> str:
        """A sha256 over all views: a database with another one gets its views anew."""
        text = "\0".join(f"{view.name}\0{view.sql}" for view in self.views)
        return sha256(text.encode()).hexdigest()
