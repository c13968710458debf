"""Stores to break, and the option that says how many processes are killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch import events
from autoresearch.log import FileLog, Schema, open_log
from autoresearch.projections.tables import SOURCES, event_table

# Few tables make quick tests; what the log does with a table does not depend on how many there are.
SCHEMA = Schema((event_table("change_applied"), event_table("note_added")), (SOURCES,))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=200, help="processes killed in the kill test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a store that does not exist yet."""
    return tmp_path / ".autoresearch"


@pytest.fixture
def said() -> list[str]:
    """What the store told a person."""
    return []


@pytest.fixture
def reopen(root: Path, said: list[str]) -> Callable[[], FileLog]:
    """Opens the store as another process would."""
    return lambda: open_log(root, SCHEMA, said.append)


@pytest.fixture
def store(reopen: Callable[[], FileLog]) -> FileLog:
    """An empty store."""
    return reopen()


@pytest.fixture
def filled(store: FileLog) -> FileLog:
    """A synced store of two streams with six notes and a source."""
    with store.writer("a") as first, store.writer("b", actor="bob") as second:
        for n in range(4):
            first.append(events.NoteAdded(text=f"first {n}", author="ann"))
        second.append(events.NoteAdded(text="second 0", author="bob"))
        second.append(events.NoteAdded(text="second 1", author="bob"))
    store.sources.put("print('hello')\n")
    assert store.sync()
    return store
