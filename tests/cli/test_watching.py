"""A person looks on: in a terminal of 80 columns, in a notebook, and at a picture."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner
from rich.console import Console

import autoresearch
from autoresearch.cli import cli, showing
from autoresearch.cli.showing import estimated_end
from autoresearch.report import bounds
from autoresearch.testing import experiment, history, idea, make_project

TMUX = shutil.which("tmux")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a campaign of two experiments."""
    project = make_project(tmp_path_factory.mktemp("watch") / "project")
    autoresearch.start(project, tag="t1").run(2, wait=False)
    return project


def test_one_screen_fits_eighty_columns(project: Path) -> None:
    """Head, best, decisions, spending and the end, without a colour where none is wanted."""
    env = {"COLUMNS": "80", "NO_COLOR": "1"}
    out = CliRunner().invoke(cli, ["watch", "--once", "--project", str(project)], env=env).output
    assert all(word in out for word in ("head", "best", "spent", "never by itself", "keep"))
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_a_long_line_leaves_the_names_whole(project: Path, monkeypatch) -> None:
    """What the loop waits for may be long; the column of names keeps its width."""
    monkeypatch.setattr(showing, "loop_in_words", lambda _: "waiting for " + "a word " * 60)
    console = Console(width=80)
    with console.capture() as drawn:
        console.print(showing.screen(autoresearch.open_campaign(project), 80))
    names = [line.split(" ")[0] for line in drawn.get().splitlines()]
    assert {"head", "best", "spent", "ends", "loop"} <= {*names}


def test_keys_pause_and_quit_in_a_terminal(project: Path) -> None:
    """p pauses the campaign, r lets it go on, q ends the watching and leaves a sane terminal."""
    main, other = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "autoresearch",
        "watch",
        "--every",
        "0.2",
        "--project",
        str(project),
    ]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(words, stdin=other, stdout=other, stderr=other, env=env)
    campaign, shown = autoresearch.open_campaign(project), b""

    def press(key: bytes, until) -> None:
        nonlocal shown
        os.write(main, key)
        deadline = time.monotonic() + 60
        while not until() and time.monotonic() < deadline:
            if select.select([main], [], [], 0.1)[0]:
                shown += os.read(main, 65_536)
        assert until(), shown.decode(errors="replace")[-2000:]

    try:
        press(b"", lambda: b"uit watching" in shown)
        press(b"p", lambda: campaign.history.paused is not None)
        press(b"r", lambda: campaign.history.paused is None)
        press(b"q", lambda: process.poll() is not None)
    finally:
        process.kill()
        process.wait()
        os.close(main)
        os.close(other)
    assert process.returncode == 0
    assert b"campaign t1" in shown


@pytest.mark.skipif(TMUX is None, reason="needs tmux (apt-get install tmux)")
def test_it_fills_a_terminal_of_eighty_columns(project: Path, tmp_path: Path) -> None:
    """Through tmux: what a person sees is whole and aligned, and q gives the terminal back."""

    def tmux(*words: str) -> str:
        command = [str(TMUX), "-S", str(tmp_path / "socket"), "-f", os.devnull, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def shown(until: str) -> list[str]:
        deadline = time.monotonic() + 60
        while until not in (seen := tmux("capture-pane", "-p")) and time.monotonic() < deadline:
            time.sleep(0.1)
        return seen.splitlines()

    words = [sys.executable, "-m", "autoresearch", "watch", "--project", str(project)]
    try:
        tmux("new-session", "-d", "-x", "80", "-y", "24", "sh")
        tmux("send-keys", f"{shlex.join(words)}; echo it is over", "Enter")
        lines = shown("uit watching")
        assert lines[0] == "campaign t1: score, 2 experiments"
        names = [line[:5].strip() for line in lines[1:6]]
        assert names == ["head", "best", "spent", "ends", "loop"]
        assert [line.split()[1] for line in lines[6:8]] == ["keep", "keep"]
        tmux("send-keys", "q")
        assert "it is over" in shown("\nit is over")
    finally:
        tmux("kill-server")


def test_the_end_is_estimated_from_the_pace(project: Path) -> None:
    """Half of the experiments took an hour: the other half takes another."""
    campaign = autoresearch.open_campaign(project)
    limits = evolve(campaign.config.limits, experiments=4, hours=1000.0)
    campaign.config = evolve(campaign.config, limits=limits)
    began = datetime.fromisoformat(campaign.history.decided[0].started_at).astimezone(UTC)
    said = estimated_end(campaign, campaign.history, began + timedelta(hours=1))
    assert said == "in about 60 min, by limits.experiments (2 of 4)"


def test_values_are_short_in_a_notebook(project: Path) -> None:
    """Neither a campaign nor its history fills the screen, and texts are escaped."""
    campaign = autoresearch.open_campaign(project)
    assert len(repr(campaign.history)) < 200
    assert "2 experiments" in repr(campaign.history)
    assert campaign._repr_html_().count("<tr>") == 3
    odd = history([1.1, experiment(1.0, idea=idea("<b>"))])
    assert "<b>" not in odd._repr_html_()


def test_the_notebook_of_the_docs_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its cells, in order, in a project with a campaign."""
    monkeypatch.chdir(project)
    cells = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    ran = [exec("".join(c["source"]), names) for c in cells if c["cell_type"] == "code"]
    assert len(ran) >= 4


@pytest.mark.parametrize("against", ["experiments", "hours", "gpu_hours", "usd"])
def test_picture_has_crashes_and_every_axis(project: Path, tmp_path: Path, against: str) -> None:
    """One line writes it; the axis is time or cost where that is asked for."""
    out = tmp_path / "picture.png"
    words = ["plot", "--project", str(project), "--out", str(out), "--against", against]
    assert CliRunner().invoke(cli, words).exception is None
    assert out.read_bytes()[:4] == b"\x89PNG"
    figure = autoresearch.open_campaign(project).plot(against)
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text()]
    extents = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for n, a in enumerate(extents) for b in extents[:n])


def test_an_outlier_does_not_flatten_the_gains() -> None:
    """The scale is that of the bests and of what lies near them."""
    past = history([1.10, 1.09, 1.11, 1.095, 1.08, 900.0, None, 1.085])
    low, high = bounds(past) or (0.0, 0.0)
    assert low < 1.08
    assert 1.11 < high < 1.3
