"""Values for tests in one call each, and the fixtures that ``autoresearch.testing`` brings.

What a test does not name has a sensible value. The project is a git repository whose training
script takes 50 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoresearch.history import History
from autoresearch.log import MemoryLog
from autoresearch.model import (
    Analysis,
    Candidate,
    Change,
    Decision,
    Experiment,
    Idea,
    Reasoning,
    Run,
    RunOutput,
    RunRequest,
    RunStatus,
    Verdict,
    Workspace,
)
from autoresearch.testing.fakes import LoopbackOpenAI

SOURCE = 'WIDTH = 4\nRATE = 0.5\nprint(f"score: {(WIDTH - 7) ** 2 * 0.01 + RATE:.6f}")\n'


def idea(description: str = "make it wider", **fields: Any) -> Idea:
    """Return an idea; by default one that sets WIDTH to 5 in ``SOURCE``."""
    given: dict[str, Any] = {
        "direction": "width",
        "description": description,
        "hypothesis": "wider models score better",
        "author": "a test",
    }
    if not {"source", "patch", "env"} & fields.keys():
        given["source"] = f"# {description}\n" + SOURCE.replace("WIDTH = 4", "WIDTH = 5")
    return Idea(**{**given, **fields})


def experiment(
    score: float | None = None,
    *,
    verdict: Verdict | str | None = None,
    direction: str = "width",
    status: RunStatus | str | None = None,
    metric: str = "score",
    metrics: Mapping[str, float] | None = None,
    **fields: Any,
) -> Experiment:
    """Return an experiment whose run gave ``score``; None is a run that crashed.

    ``metrics`` are further numbers; ``verdict`` None leaves it undecided.
    """
    number = fields.pop("number", 1)
    numbers = {**({} if score is None else {metric: score}), **(metrics or {})}
    ended = RunStatus(status or (RunStatus.CRASHED if score is None else RunStatus.COMPLETED))
    run = Run(index=0, name=f"test-{number}-0", seed=1337, status=ended, metrics=numbers)
    given = {
        "idea": idea(f"change {number}", direction=direction),
        "reasoning": Reasoning(hypothesis="it helps", evidence="the baseline", risk="none"),
        "runs": (run,),
        "metrics": numbers,
        "analysis": analysis(),
        "decision": verdict and Decision(verdict=verdict, reason="a test says so", author="a test"),
    }
    return Experiment(number=number, **{**given, **fields})


def analysis(**fields: Any) -> Analysis:
    """Return an analysis."""
    given = {
        "result": "score=1.0000 artifact=0.0MB (keep)",
        "versus_expected": "same",
        "why": "it did what it should",
        "lesson": "width matters",
        "author": "a test",
    }
    return Analysis(**{**given, **fields})


def candidate(score: float | None, history: History | None = None, **fields: Any) -> Candidate:
    """Return what a policy judges after ``history``: the next experiment, which scored ``score``.

    ``fields`` are those of :class:`~autoresearch.model.Candidate`.
    """
    past = history or History()
    made = experiment(score, number=past.next_number, metric=past.metric)
    given: dict[str, Any] = {
        "experiment": made,
        "metric": score,
        "artifact_bytes": None,
        "status": RunStatus.CRASHED if score is None else RunStatus.COMPLETED,
        "violations": made.violations,
    }
    made_of = {**given, **fields}
    return Candidate(**{**made_of, "status": RunStatus(made_of["status"])})


def change(before: str = SOURCE, after: str | None = None, **fields: Any) -> Change:
    """Return an applied change of the script; by default one that changes nothing."""
    new = before if after is None else after
    files = {"train.py": new} if new != before else {}
    given = {"idea": idea(source=new), "before": before, "after": new, "files": files}
    return Change(**{**given, "pristine": before, **fields})


def workspace(folder: Path, source: str = SOURCE) -> Workspace:
    """Write a script into ``folder`` and return it as a workspace."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Workspace(path=folder, script="train.py", project=folder)
    made.script_path.write_text(source)
    return made


def run_request(folder: Path, source: str = SOURCE, **fields: Any) -> RunRequest:
    """Return a request to run ``source`` with this Python; the run's folder is in ``folder``."""
    name = fields.pop("name", "test-1-0")
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    script = place / "script.py"
    script.write_text(source)
    given = {
        "name": name,
        "campaign": "test",
        "experiment": 1,
        "index": 0,
        "command": (sys.executable, str(script)),
        "folder": place,
        "timeout_seconds": 60.0,
    }
    return RunRequest(**{**given, **fields})


def run_output(folder: Path, log: str | bytes = "score: 1.07\n", **fields: Any) -> RunOutput:
    """Write a log into ``folder`` and return it as a finished run's output."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.log"
    path.write_bytes(log.encode() if isinstance(log, str) else log)
    given = {"name": "test-1-0", "status": "completed", "log_path": path, "folder": folder}
    return RunOutput(**{**given, "exit_code": 0, "seconds": 1.0, **fields})


# --- fixtures ---------------------------------------------------------------------------------

SCRIPT = '''"""A bowl with its lowest point at WIDTH = 7 and RATE = 0.3, where the score is 1."""

import os

WIDTH = 4
RATE = 0.5

seed = int(os.environ.get("SEED", "1337"))
noise = (seed % 7 - 3) * 1e-5
score = 1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3) + noise
print(f"step: 1 loss: {score + 1:.6f}")
print(f"score: {score:.6f}")
'''

SETTINGS = """preset = "plain"
script = "train.py"

[metric]
name = "score"
better = "lower"
sd = 0.00002

[limits]
timeout_seconds = 30.0
"""


def make_project(
    folder: Path, script: str = SCRIPT, settings: str = SETTINGS, files: Mapping[str, str] = {}
) -> Path:
    """Write and commit a project into ``folder`` and return it; ``files`` are further ones."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"train.py": script, "autoresearch.toml": settings, **files}
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "A Researcher")
    git(folder, "config", "user.email", "researcher@example.org")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git in a test project, free of the machine's own configuration, and return its output."""
    apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **apart},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A temporary git project whose training script prints a score within 50 ms."""
    return make_project(tmp_path / "project")


@pytest.fixture
def memory_log() -> MemoryLog:
    """An empty event log in memory."""
    return MemoryLog()


@pytest.fixture
def openai_server() -> Iterator[LoopbackOpenAI]:
    """A running loopback server of chat completions; append to its ``answers``."""
    with LoopbackOpenAI([]) as server:
        yield server
