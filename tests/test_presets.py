"""Presets are named in one place, and what they bring is imported when it is asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch import golf, testing
from autoresearch.config import Config
from autoresearch.plugins.discovery import built_ins
from autoresearch.presets import DEFAULT, default_for, metric_columns, preset_verbs, presets
from autoresearch.projections.tables import people_schema
from autoresearch.projections.views_runs import EXPERIMENTS, RUNS
from autoresearch.settings import load

SOURCE = Path(testing.__file__).parents[1]


def test_no_room_but_its_own_speaks_of_the_challenge() -> None:
    """What only one task needs stands behind its preset's door; a word outside is a leak."""
    words = re.compile("val_bpb|golf|fineweb", re.IGNORECASE)
    files = [p.relative_to(SOURCE) for p in SOURCE.rglob("*.py")]
    outside = [p for p in files if p.parts[0] != "golf" and str(p) != "presets.py"]
    assert len(outside) > 50
    assert [str(p) for p in outside if words.search((SOURCE / p).read_text("utf-8"))] == []


def loaded_by(code: str) -> list[str]:
    """Return the modules of the challenge that a new process has after running some code."""
    tell = "import sys; print(*[m for m in sys.modules if m.startswith('autoresearch.golf')])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import autoresearch", []),
        (
            "from autoresearch.presets import preset_verbs; preset_verbs()",
            ["autoresearch.golf"],
        ),
    ],
)
def test_a_preset_is_loaded_late_and_light(code: str, modules: list[str]) -> None:
    """The library knows a preset by name; its verbs and columns cost no reader and no audit."""
    assert loaded_by(code) == modules


def test_the_challenge_is_the_default_only_where_its_script_is(tmp_path: Path) -> None:
    """A folder without train_gpt.py, or with another one, starts from no task's defaults."""
    assert default_for(tmp_path) == load(tmp_path).config.preset == "plain"
    (tmp_path / "train_gpt.py").write_text("print('loss', 1.0)\n")
    assert default_for(tmp_path) == "plain"
    (tmp_path / "train_gpt.py").write_text("print('val_bpb', 1.0)\n")
    assert load(tmp_path).config.preset == "golf"
    assert load(tmp_path).config.cwd == "{run}"


def test_a_preset_brings_its_plugin_verbs_and_column() -> None:
    """A preset's plugin is a built-in that is active with it; verbs and columns are for all."""
    assert Config().preset == DEFAULT == "plain"
    assert {"plain", "golf"} == presets().keys()
    (plugin,) = [item for item in built_ins() if item.preset == "golf"]
    assert plugin.starts_active(Config(preset="golf"))
    assert not plugin.starts_active(Config(preset="plain"))
    assert {"metrics", "audit", "canary"} == preset_verbs().keys()
    assert list(metric_columns()) == ["val_bpb"]


def test_the_reader_of_logs_is_at_the_door() -> None:
    """The two names that a program needs come from the package itself; others are no names."""
    assert golf.read_log("no score\nhere\n").val_bpb is None
    assert golf.LogReading.__name__ == "LogReading"
    with pytest.raises(AttributeError, match="has no attribute 'read_logs'"):
        golf.read_logs  # noqa: B018


def test_a_metric_with_a_column_of_its_own_stands_behind_metric() -> None:
    """Views have the column of each such metric, and are whole without any."""
    views = {view.name: view for view in people_schema().views}
    for plain in (RUNS, EXPERIMENTS):
        names = [column.name for column in views[plain.name].columns]
        assert names[names.index("metric") + 1] == "val_bpb"
        assert "val_bpb" not in [column.name for column in plain.columns]
        assert "val_bpb" not in plain.query
