"""The contract of event logs fails logs that are wrong, each by the property that they break."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import duckdb
import pytest
from log_contract import EventLogContract

from autoresearch.log import GENESIS, MemoryLog, Recorded, Tip
from autoresearch.log.memory import MemoryWriter


class ForgetsTheLast(MemoryLog):
    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        return iter(list(super().read(after, until, campaign))[:-1])


class ReadsBackwards(MemoryLog):
    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        return reversed(list(super().read(after, until, campaign)))


class ReadsAgain(MemoryLog):
    def read(
        self, after: int = 0, until: int | None = None, campaign: str | None = None
    ) -> Iterator[Recorded]:
        return super().read(max(0, after - 1), until, campaign)


class RepeatsIds(MemoryLog):
    def find(self, event_id: str) -> Recorded | None:
        return None


class LetsEverybodyWrite(MemoryLog):
    def take(self, stream: str, actor: str) -> None:
        pass


class KeepsItsTip(MemoryLog):
    def tip(self) -> Tip:
        return Tip(super().tip().position, GENESIS)


class ShowsTheFuture(MemoryLog):
    def connect(
        self, at: int | None = None, *, external: bool = False
    ) -> duckdb.DuckDBPyConnection:
        return super().connect()


class KeepsHalfABatch(MemoryLog):
    def writer(self, campaign: str, stream: str | None = None, actor: str = "loop") -> MemoryWriter:
        class OneByOne(MemoryWriter):
            def append_many(self, events):  # type: ignore[no-untyped-def]
                return tuple(self.append(event) for event in events)

        return OneByOne(self, campaign, stream or campaign, actor)


def broken(kind: type[MemoryLog]) -> set[str]:
    """Return the names of the contract's tests that a log does not pass."""
    failed = set()
    for name, test in inspect.getmembers(EventLogContract, inspect.isfunction):
        if name.startswith("test_") and list(inspect.signature(test).parameters) == ["self", "log"]:
            try:
                test(EventLogContract(), kind())
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed


def test_a_right_log_passes() -> None:
    """A log without a fault passes every test of the contract."""
    assert broken(MemoryLog) == set()


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (ForgetsTheLast, "test_reads_back_what_was_appended"),
        (ReadsBackwards, "test_the_order_never_changes"),
        (ReadsAgain, "test_reads_a_part"),
        (RepeatsIds, "test_the_same_event_id_is_appended_once"),
        (LetsEverybodyWrite, "test_a_stream_has_one_writer"),
        (KeepsItsTip, "test_the_tip_moves_with_every_event"),
        (ShowsTheFuture, "test_sql_as_of_a_position"),
        (KeepsHalfABatch, "test_refuses_what_cannot_be_recorded"),
    ],
)
def test_a_wrong_log_fails(kind: type[MemoryLog], test: str) -> None:
    """Each fault is caught by the test that is there for it."""
    assert test in broken(kind)
