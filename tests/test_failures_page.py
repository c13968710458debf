"""The page of failures names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = (ROOT / "docs" / "failures.md").read_text().splitlines()
NAMED = sorted({found for row in ROWS for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)})


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_named_test_exists(file: str, test: str) -> None:
    """Each row is proved by a function of that name in that file."""
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_four_cells_and_a_test() -> None:
    """Failure, what happens, what the person sees, and the test that proves it."""
    rows = [row for row in ROWS if row.startswith("|")][2:]
    assert len(rows) >= 10
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4, row
        assert all(cells), row
        assert "`tests/" in cells[3], row
