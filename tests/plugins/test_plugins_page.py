"""The table of built-ins in the documentation is the one in the code."""

import os
from pathlib import Path

from autoresearch import Config
from autoresearch.plugins import Plugins
from autoresearch.plugins.discovery import built_ins

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
HEAD = "| name | state | what it does |\n|---|---|---|\n"


def rows(tmp_path: Path) -> list[tuple[str, str, str]]:
    """Return name, state and summary of each built-in, in the order of registration."""
    told = {item.name: item for item in Plugins.load(Config(), tmp_path, (), {}).infos()}
    found = []
    for item in built_ins():
        default = "active" if item.default else "available"
        state = f"preset {item.preset}" if item.preset else default
        found.append((f"`{item.name}`", state, told[item.name].summary))
    return found


def test_built_ins_are_told_as_they_are(tmp_path):
    """Every built-in has its row with its state; UPDATE_DOCS=1 writes the table."""
    text = PAGE.read_text()
    if os.environ.get("UPDATE_DOCS"):
        lines = [f"| {' | '.join(row)} |\n" for row in rows(tmp_path)]
        text = text.partition(HEAD)[0] + HEAD + "".join(lines)
        PAGE.write_text(text)
    shown = [line.strip("| ").split(" | ") for line in text.partition(HEAD)[2].splitlines()]
    assert [row[:2] for row in shown] == [list(row[:2]) for row in rows(tmp_path)]
    assert all(row[2].endswith(".") for row in shown)
