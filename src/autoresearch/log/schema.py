"""The tables and views that a log's database carries beside its events.

The log knows their names and texts, not their meaning: what they say about experiments is written
where experiments are known.
"""

from __future__ import annotations

from hashlib import sha256

from attrs import frozen


@frozen(kw_only=True)
class Column:
    """A column for people: its SQL ``kind``, its unit and meaning, and how it is computed.

    ``sql`` is an expression over the columns of ``events``, or over those of a view's query.
    """

    name: str
    kind: str
    doc: str
    unit: str = ""
    sql: str = ""


@frozen(kw_only=True)
class EventTable:
    """A typed table with one row for each event of a type, filled at every fold."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def select(self, source: str, condition: str = "true") -> str:
        """Return the SELECT that makes the rows from a table of events."""
        columns = ", ".join(f'{column.sql} AS "{column.name}"' for column in self.columns)
        return f"SELECT {columns} FROM {source} WHERE type = '{self.name}' AND {condition}"


@frozen(kw_only=True)
class View:
    """A view over the tables and over the views before it; ``query`` yields its columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    query: str

    @property
    def sql(self) -> str:
        """The SELECT of the view: its columns cast to their kinds.

        TRY_CAST, so that one number beyond its kind is NULL and leaves the view readable.
        """
        columns = ", ".join(
            f'TRY_CAST({column.sql or column.name} AS {column.kind}) AS "{column.name}"'
            for column in self.columns
        )
        return f"SELECT {columns} FROM ({self.query})"


@frozen
class Schema:
    """The typed tables of the event types, and the views in the order in which they are made."""

    tables: tuple[EventTable, ...] = ()
    views: tuple[View, ...] = ()

    @property
    def digest(self) -> str:
        """A sha256 over all definitions: a database with another one gets its tables anew."""
        texts = [f"{table.name}\0{table.select('events')}" for table in self.tables]
        texts += [f"{view.name}\0{view.sql}" for view in self.views]
        return sha256("\0".join(texts).encode()).hexdigest()
