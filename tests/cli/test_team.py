"""A team on one store: two coordinators export, and the page's SQL reads them together."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
from click.testing import CliRunner
from thinned import LONG

import autoresearch
from autoresearch.cli import cli
from autoresearch.testing import FakeLauncher, make_project

SCRIPT = "RATE = 0.1\nWIDTH = 4\nprint(1)\n"
SETTINGS = 'preset = "plain"\nlauncher = "fake"\n[metric]\nname = "score"\nsd = 0.01\n'
PAGE = Path(__file__).parents[2] / "docs" / "team.md"


@LONG
def test_two_coordinators_feed_one_store(tmp_path: Path) -> None:
    """Under one tag on two machines; of each writer the newest export counts, whole."""
    team = tmp_path / "team"
    for writer, scores in (("alpha", [1.0, 0.9, 0.95]), ("beta", [1.0, 0.8])):
        project = make_project(tmp_path / writer, script=SCRIPT, settings=SETTINGS)
        plugins = (FakeLauncher(scores),)
        campaign = autoresearch.start(project, tag="mar18", plugins=plugins)
        for at in {2, len(scores)}:
            campaign.run(at - len(campaign.history.experiments), plugins=plugins, wait=False)
            place = team / f"writer={writer}" / f"made=2026031{at}T000000Z"
            told = CliRunner().invoke(
                cli, ["export", "--parquet", str(place), "--project", str(project)]
            )
            assert told.exit_code == 0, told.output
    answers = asked(team)
    best, directions, spent = answers
    assert [(row[0], row[1], row[3]) for row in best][:2] == [
        ("beta", "mar18", 0.8),
        ("alpha", "mar18", 0.9),
    ]
    assert sum(row[1] for row in directions) == 3
    assert spent[0][:2] == ("alpha", 3)
    assert spent[1][:2] == ("beta", 2)


def asked(team: Path) -> list[list[tuple[object, ...]]]:
    """Return the answers of every SELECT of the page, with the folder in the place of its own."""
    connection = duckdb.connect()
    found = []
    for block in re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL):
        for statement in filter(str.strip, block.replace("/team/", f"{team}/").split(";")):
            answer = connection.execute(statement).fetchall()
            found += [answer] * statement.lstrip().startswith("SELECT")
    return found
