"""Plugins for tests: ideas by script, runs without processes, an observer that only remembers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.log import Recorded
from autoresearch.model import (
    Analysis,
    Candidate,
    Decision,
    Experiment,
    Idea,
    Notice,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Verdict,
)

Scripted = Idea | Callable[[str], Idea]


class ScriptedIdeas:
    """An idea generator that proposes a given list in its order, each idea once.

    An item may be a function from the script at head to an idea, see :func:`set_constant`. What
    was proposed is read from the History, so a resumed campaign goes on where it was.
    """

    def __init__(self, ideas: Iterable[Scripted]) -> None:
        self.ideas: tuple[Scripted, ...] = tuple(ideas)

    @hookimpl
    def propose_idea(self, history: History, source: str) -> Idea | None:
        """Return the first idea that was neither tried nor dropped."""
        dropped = {getattr(event, "idea", None) for event in history.rejected}
        for item in self.ideas:
            idea = item if isinstance(item, Idea) else item(source)
            if idea.id not in history.tried and idea.id not in dropped:
                return idea
        return None


def set_constant(name: str, value: object, **fields: str) -> Callable[[str], Idea]:
    """Return a scripted idea that rewrites the line ``name = ...`` of the script at head."""

    def propose(source: str) -> Idea:
        lines = source.splitlines(keepends=True)
        changed = [
            f"{name} = {value!r}\n" if line.startswith(f"{name} = ") else line for line in lines
        ]
        given: dict[str, Any] = {
            "direction": name.lower(),
            "description": f"{name} = {value!r}",
            "hypothesis": f"{name} = {value!r} scores better",
        }
        return Idea(source="".join(changed), **{**given, **fields})

    return propose


@frozen
class FakeRun:
    """A run that is over as soon as it was started; all of it stands in its folder."""

    name: str
    log_path: Path
    reference: str = "fake"

    def poll(self) -> RunOutput | None:
        """Return what the launcher wrote down."""
        kept = json.loads((self.log_path.parent / "fake.json").read_text())
        return RunOutput(
            name=self.name, log_path=self.log_path, folder=self.log_path.parent, **kept
        )

    def stop(self, reason: str) -> None:
        """Do nothing: the run is over."""


class FakeLauncher:
    """A launcher in this process: ``FakeLauncher([1.10, 1.08, None])`` gives experiment 1 1.08.

    A number is printed as ``metric: number``, text is the whole log, None is a crash; experiments
    beyond the list repeat the last. It answers to ``launcher = "fake"``; ``started`` lists the
    runs that it really started.
    """

    def __init__(self, results: Sequence[float | str | None], metric: str = "score") -> None:
        self.results: tuple[float | str | None, ...] = tuple(results)
        self.metric: str = metric
        self.started: list[str] = []

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        """Write the run's log, once for every name."""
        if request.launcher != "fake":
            return None
        handle = FakeRun(request.name, request.folder / "run.log")
        if not handle.log_path.exists():
            self.started.append(request.name)
            self._write(request)
        return handle

    def _write(self, request: RunRequest) -> None:
        result = self.results[min(request.experiment, len(self.results) - 1)]
        log = result if isinstance(result, str) else f"{self.metric}: {result}\n"
        status, code = (RunStatus.COMPLETED, 0)
        if result is None:
            log, status, code = "ZeroDivisionError: division by zero\n", RunStatus.CRASHED, 1
        request.folder.mkdir(parents=True, exist_ok=True)
        kept = {"status": status.value, "exit_code": code, "seconds": 1.0}
        (request.folder / "fake.json").write_text(json.dumps(kept))
        (request.folder / "run.log").write_text(log)


@frozen
class RecordingObserver:
    """An observer that remembers: ``events`` and ``notices`` are lists in their order."""

    events: list[Recorded] = field(factory=list)
    notices: list[Notice] = field(factory=list)

    @hookimpl
    def event_recorded(self, event: Recorded) -> None:
        """Remember an event."""
        self.events.append(event)

    @hookimpl
    def notify(self, notice: Notice) -> None:
        """Remember a notice."""
        self.notices.append(notice)

    @property
    def types(self) -> tuple[str, ...]:
        """The type names of what was seen, in order."""
        return tuple(event.type for event in self.events)


class KeepBetter:
    """The smallest decision policy: what scores better than the best is kept."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Compare with the best kept score."""
        best = history.best_metric
        if candidate.metric is None:
            return Decision(verdict=Verdict.CRASH, reason="no score")
        if best is None or history.better(candidate.metric, best):
            return Decision(verdict=Verdict.KEEP, reason=f"better than {best}")
        return Decision(verdict=Verdict.DISCARD, reason=f"not better than {best}")


class PlainAnalysis:
    """The smallest analysis: it says what the run gave."""

    @hookimpl
    def analyze_run(self, experiment: Experiment) -> Analysis:
        """Fill the four lines."""
        return Analysis(
            result=f"metrics {dict(experiment.metrics)}",
            versus_expected="not predicted",
            why="this fake does not think",
            lesson=f"{experiment.idea.direction} was tried",
        )


class FixedMetrics:
    """A metric extractor that gives the same numbers for every completed run."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        self.metrics: dict[str, float] = dict(metrics)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the numbers, none for a run that did not complete."""
        return self.metrics if output.status is RunStatus.COMPLETED else None


class ScriptedSource:
    """An implementer that turns every idea without code into one given source."""

    def __init__(self, source: str) -> None:
        self.source: str = source

    @hookimpl
    def implement_idea(self) -> str:
        """Return the source."""
        return self.source
