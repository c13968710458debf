"""What stays on the disk of what runs wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoresearch
from autoresearch import Campaign, Idea, events
from autoresearch.testing import ScriptedIdeas, make_project, set_constant
from autoresearch.testing.builders import SETTINGS

SCRIPT = """import os
WIDTH = 4
os.makedirs("out", exist_ok=True)
with open("out/model.bin", "wb") as file:
    file.write(b"x" * 2_000_000)
with open("config.json", "w") as file:
    file.write("{}")
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2:.6f}")
"""


def run(tmp_path: Path, script: str = SCRIPT, settings: str = "", *ideas: Idea) -> Campaign:
    """Run a baseline, a gain and two losses, each with a checkpoint of 2 MB."""
    project = make_project(tmp_path / "project", script=script, settings=settings + SETTINGS)
    changes = [set_constant("WIDTH", width) for width in (6, 1, 2)]
    plugins = (ScriptedIdeas(changes), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(4, plugins=plugins, wait=False)
    return made


def left(made: Campaign) -> dict[str, list[str]]:
    """Return the files in the folder of each run."""
    runs = made.lab.folder / "runs"
    return {
        folder.name: sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        for folder in runs.glob("t1-*-?")
    }  # fmt: skip


BOTH = ["config.json", "out/model.bin"]


@pytest.mark.parametrize(
    ("setting", "whole"),
    [("", {1, 3}), ('retention = "all"\n', {0, 1, 2, 3}), ('retention = "none"\n', set())],
)
def test_large_files_stay_as_the_setting_says(
    tmp_path: Path, setting: str, whole: set[int]
) -> None:
    """By default those of the best and the last run; small files and outputs of all of them."""
    made = run(tmp_path, settings=setting)
    assert left(made) == {f"t1-{n}-0": BOTH if n in whole else ["config.json"] for n in range(4)}
    told = [r.event for r in made.log.read() if isinstance(r.event, events.RetentionApplied)]
    assert {item.experiment for item in told} == {0, 1, 2, 3} - whole
    assert {(item.files, item.bytes_freed) for item in told} <= {(("out/model.bin",), 2_000_000)}
    assert made.log.verify().ok


def test_links_lead_nothing_out_and_lose_nothing(tmp_path: Path) -> None:
    """A run that links to a file of the user's keeps neither a hold on it nor deletes it."""
    precious = tmp_path / "precious.bin"
    precious.write_bytes(b"p" * 3_000_000)
    script = SCRIPT + (
        f"os.symlink({str(tmp_path)!r}, 'away')\nos.symlink({str(precious)!r}, 'out/link.bin')\n"
    )
    made = run(tmp_path, script=script, settings='cwd = "{run}"\n')
    assert precious.stat().st_size == 3_000_000
    assert (made.lab.folder / "runs" / "t1-0-0" / "config.json").exists()
    assert not (made.lab.folder / "runs" / "t1-0-0" / "out" / "model.bin").exists()
