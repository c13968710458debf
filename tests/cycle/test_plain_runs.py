"""What a campaign records of a plain script's run: curves, every named number, how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import autoresearch
from autoresearch import Campaign, RunStatus, events
from autoresearch.testing import make_project

Go = Callable[..., Campaign]


def baseline(tmp_path: Path, script: str) -> Campaign:
    """Run the baseline of a project whose script this is."""
    project = make_project(tmp_path / "project", script=script)
    made = autoresearch.start(project, tag="t1", plugins=("no:script_ideas",))
    made.run(1, plugins=("no:script_ideas",), wait=False)
    return made


def test_every_named_number_is_recorded_with_its_curve(tmp_path: Path) -> None:
    """JSON lines have curves; the last step is among them, however short the run is."""
    made = baseline(
        tmp_path,
        "for i in range(5):\n"
        '    print(\'{"step": %d, "score": %f, "vram_mb": 7}\' % (i, 3 - i))\n'
        "print('params: 12,345,678')\nprint('score: -1')\n",
    )
    run = made.history.experiments[0].runs[0]
    assert run.metrics == {"score": -1.0, "vram_mb": 7.0, "params": 12_345_678.0}
    assert run.observed == {0: 3.0, 1: 2.0, 2: 1.0, 3: 0.0, 4: -1.0}
    seen = [r.event for r in made.log.read() if isinstance(r.event, events.MetricObserved)]
    assert [item.step for item in seen if item.name == "vram_mb"] == [0, 1, 2, 3, 4]


def test_a_crash_after_a_score_is_told_as_that(tmp_path: Path) -> None:
    """The value that was printed is evidence, not the run's score; the error has its own words."""
    made = baseline(
        tmp_path, "print('score: 0.42')\nprint('other: 2')\nraise ValueError('no data')\n"
    )
    run = made.history.experiments[0].runs[0]
    assert run.status is RunStatus.CRASHED
    assert run.metrics == {"other": 2.0}
    assert run.detail == "exit code 1; ValueError: no data; score 0.42 was printed before"
    with made.connect() as sql:
        assert sql.sql("SELECT metric FROM runs").fetchall() == [(None,)]
        assert sql.sql(
            "SELECT count(*) FROM metrics WHERE final AND name = 'score'"
        ).fetchall() == [(0,)]


def test_the_last_words_of_a_script_that_gives_up_are_told(tmp_path: Path) -> None:
    """As argparse and sys.exit end it, with a line and no traceback."""
    made = baseline(tmp_path, "import sys\nprint('loading')\nsys.exit('no data: get it first')\n")
    run = made.history.experiments[0].runs[0]
    assert run.detail == "exit code 1; no data: get it first"


def test_numbers_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    """Of a score in two units the reader believes neither, and the run says why."""
    made = baseline(tmp_path, "print('score: 50%')\nprint('score: 0.5')\n")
    run = made.history.experiments[0].runs[0]
    assert run.detail.startswith("score is printed as 'score: 50%' and as 'score: 0.5'; print one")


def test_a_diverged_run_is_not_silence(tmp_path: Path) -> None:
    """NaN is no score, and the step at which it began stands in the reason."""
    made = baseline(
        tmp_path,
        "for i in range(4):\n    print('step:%d/4 score:%s' % (i, 1 if i < 3 else 'nan'))\n",
    )
    experiment = made.history.experiments[0]
    assert experiment.runs[0].detail == "the score is nan: diverged at step 3"
    assert experiment.decision is not None
    assert "the score is nan: diverged at step 3" in experiment.decision.reason


def test_a_size_that_nothing_asks_for_is_not_mentioned(tmp_path: Path) -> None:
    """Most scripts have no artifact: `artifact=none` in every block would be noise."""
    made = baseline(tmp_path, "print('score: 1')\n")
    assert made.history.experiments[0].analysis is not None
    assert made.history.experiments[0].analysis.result == "score=1.0000"
