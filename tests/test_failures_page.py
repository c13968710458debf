"""The page about failures proves what it says: each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_each_failure_names_a_test_that_exists() -> None:
    """Every row of the table ends with the path and name of a test."""
    page = (ROOT / "docs" / "failures.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        found = NAMED.findall(row.rpartition(" | ")[2])
        assert found, row
        for path, name in found:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
