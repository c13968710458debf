"""The table of built-ins in the documentation is the one in the code."""

import os
from pathlib import Path

from autoresearch import Config
from autoresearch.plugins import Plugins
from autoresearch.plugins.builtins import BUILT_INS

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
HEAD = "| name | state | what it does |\n|---|---|---|\n"


def table(tmp_path: Path) -> str:
    """Return a row for each built-in, in the order of registration."""
    told = {item.name: item for item in Plugins.load(Config(), tmp_path, (), {}).infos()}
    rows = []
    for item in BUILT_INS:
        state = (
            f"preset {item.preset}" if item.preset else "active" if item.default else "available"
        )
        rows.append(f"| `{item.name}` | {state} | {told[item.name].summary} |\n")
    return "".join(rows)


def test_built_ins_are_told_as_they_are(tmp_path):
    """Every built-in has its row; UPDATE_DOCS=1 writes the table."""
    before, _, rows = PAGE.read_text().partition(HEAD)
    if os.environ.get("UPDATE_DOCS"):
        rows = table(tmp_path)
        PAGE.write_text(before + HEAD + rows)
    assert rows == table(tmp_path), "run this test with UPDATE_DOCS=1"
