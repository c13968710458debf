"""A campaign of five experiments with a launcher, killed in the middle and finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import autoresearch
from autoresearch.testing import make_project

SCRIPT = """
import os
import time
WIDTH = 4
with open(os.environ["STARTS"], "a") as file:
    file.write(os.environ["RUN_ID"] + "\\n")
time.sleep(1.0)
open("model.bin", "wb").write(b"1" * 10)
print("score:", 1.0 + WIDTH)
"""
FILE = """preset = "plain"
launcher = "{launcher}"
cwd = "{{run}}"
env = {{ STARTS = "{starts}" }}
[runs]
parallel = 2
[metric]
name = "score"
sd = 0.01
[boundary]
kind = "none"
{more}
"""


def finish_with_a_kill(
    folder: Path,
    launcher: str,
    settings: str = "",
    stages: str = "",
    files: Mapping[str, str] | None = None,
) -> autoresearch.Campaign:
    """Check that every run is started once, decided, and has its artifact here."""
    starts = folder / "starts"
    table = f"[plugins.{launcher}]\n{settings}" if settings else stages
    written = FILE.format(launcher=launcher, starts=starts, more=table)
    project = make_project(folder / "project", script=SCRIPT, settings=written, files=files or {})
    autoresearch.start(project, tag="t1")
    _run(project, starts)
    campaign = autoresearch.open_campaign(project)
    counts = Counter(starts.read_text().split())
    assert set(counts.values()) == {1}, counts
    assert set(counts) == {run.name for item in campaign.history.experiments for run in item.runs}
    assert len(campaign.history.decided) == 5
    for item in campaign.history.experiments:
        run = item.runs[-1]
        assert run.status is autoresearch.RunStatus.COMPLETED
        place = campaign.lab.folder / "runs" / run.name
        assert (place / "model.bin").read_bytes() == b"1" * 10
    assert campaign.log.verify().ok
    return campaign


def _run(project: Path, starts: Path) -> None:
    command = [sys.executable, "-m", "autoresearch", "run", "--until", "5", "--no-wait"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL) as loop:
        deadline = time.monotonic() + 120
        while not starts.exists() or len(starts.read_text().split()) < 3:
            assert loop.poll() is None, "the loop ended early"
            assert time.monotonic() < deadline, "no third run was started"
            time.sleep(0.05)
        os.kill(loop.pid, signal.SIGKILL)
    assert autoresearch.open_campaign(project).history.in_flight
    done = subprocess.run(
        command, cwd=project, check=False, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
