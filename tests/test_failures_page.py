"""The page of failures names a test for each, and each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_failure_names_a_test_that_exists() -> None:
    """A row whose test was renamed proves nothing any longer."""
    lines = (ROOT / "docs" / "failures.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.M), row
