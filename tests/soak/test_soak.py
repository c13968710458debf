"""The soak, short: a campaign through a dozen faults at every seam."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_short_soak_has_no_violation() -> None:
    """Fifteen experiments with faults by chance: nothing that must hold is broken."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--experiments", "15", "--seed", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "violations: 0" in done.stdout


def test_unknown_seam_is_refused() -> None:
    """A misspelt seam would be a soak without faults."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--faults", "kil"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "kil" in done.stderr
