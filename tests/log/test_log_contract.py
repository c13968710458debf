"""Every event log of ours keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from log_contract import EventLogContract

from autoresearch.log import EventLog, MemoryLog, open_log


class TestMemoryLog(EventLogContract):
    @pytest.fixture
    def log(self) -> EventLog:
        return MemoryLog()


class TestFileLog(EventLogContract):
    @pytest.fixture
    def log(self, tmp_path: Path) -> EventLog:
        return open_log(tmp_path / "store", notify=pytest.fail)
