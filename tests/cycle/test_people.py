"""A person stops, pauses and resumes a loop, and stops a run that outlived its loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define

import autoresearch
from autoresearch import Campaign, RunHandle, RunOutput, RunRequest, RunStatus, Verdict, hookimpl
from autoresearch.errors import WorkspaceError
from autoresearch.testing import FakeLauncher, ScriptedIdeas, set_constant
from autoresearch.testing.fakes import FakeRun

BASE = ("no:script_ideas",)


class LongRun(FakeRun):
    """A run of experiment 1 that goes on until it is stopped."""

    def poll(self) -> RunOutput | None:
        """Return the end, once there was a stop."""
        folder = self.log_path.parent
        if not (folder / "stopped").exists():
            return None
        return RunOutput(
            name=self.name,
            log_path=self.log_path,
            folder=folder,
            status=RunStatus.STOPPED_EARLY,
            seconds=2.0,
            detail=(folder / "stopped").read_text(),
        )

    def stop(self, reason: str) -> None:
        """End it."""
        (self.log_path.parent / "stopped").write_text(reason)


@define
class Launcher:
    """The first run of experiment 1 never ends by itself; ``meanwhile`` acts when it started."""

    meanwhile: Callable[[], None] = lambda: None
    started: int = 0

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        handle = FakeLauncher([3.0, 2.0]).launch_run(request)
        if handle is None or request.name != "t1-1-0":
            return handle
        self.started += 1
        self.meanwhile()
        return LongRun(request.name, handle.log_path)


@define
class Time:
    """A clock that runs fast, and acts once at a time."""

    at: float = float("inf")
    act: Callable[[], None] = lambda: None
    time: float = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        if self.time >= self.at:
            self.at = float("inf")
            self.act()
        if self.time > 1e5:
            raise TimeoutError("waited for ever")
        time.sleep(0.0005)


def begun(project: Path, launcher: object) -> tuple[Campaign, tuple[object, ...]]:
    """Start a campaign with two ideas."""
    ideas = ScriptedIdeas([set_constant("WIDTH", 6), set_constant("WIDTH", 5)])
    plugins = (*BASE, ideas, launcher)
    overrides = {"launcher": "fake"}
    return autoresearch.start(project, tag="t1", overrides=overrides, plugins=plugins), plugins


def test_stop_now_stops_the_run_and_judges_nothing(project: Path) -> None:
    """The run is stopped through its handle; its experiment is tried again by the next run."""
    launcher, said = Launcher(), list[str]()
    made, plugins = begun(project, launcher)
    launcher.meanwhile = lambda: autoresearch.open_campaign(project).stop(now=True) and None
    assert made.run(plugins=plugins, tell=said.append, clock=Time()).startswith("stopped by ")
    (run,) = made.history.experiments[1].runs
    assert run.status is RunStatus.STOPPED_EARLY
    assert run.interrupted
    assert run.detail.startswith("stopped by ")
    assert made.history.experiments[1].verdict is None
    assert (made.history.stop, made.history.dead_ends) == (None, {})
    assert any("has no verdict, and autoresearch run tries it again" in line for line in said)
    made.run(until=2, plugins=plugins, clock=Time())
    assert [run.name for run in made.history.experiments[1].runs] == ["t1-1-0", "t1-1-1"]
    assert made.history.experiments[1].runs[1].seed == run.seed
    assert made.history.experiments[1].verdict is Verdict.KEEP


def test_stop_lets_the_experiment_come_to_its_verdict(project: Path) -> None:
    """Without --now the run under way is waited for and judged."""

    class Stops(FakeLauncher):
        @hookimpl
        def launch_run(self, request: RunRequest) -> RunHandle | None:
            if request.experiment == 1:
                autoresearch.open_campaign(project).stop()
            return super().launch_run(request)

    made, plugins = begun(project, Stops([3.0, 2.0, 1.0]))
    assert made.run(3, plugins=plugins).startswith("stopped by ")
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP, Verdict.KEEP]
    assert made.history.stopped == f"stopped by {person()}"
    made.run(1, plugins=plugins)
    assert len(made.history.decided) == 3


def person() -> str:
    """Who runs the tests."""
    import getpass

    return getpass.getuser()


class Killed(BaseException):
    """Stands for a kill: the loop says nothing any more."""


def test_run_that_outlived_its_loop_is_stopped(project: Path) -> None:
    """After Ctrl-C the run goes on; stop --now ends it, without a loop and without a verdict."""

    class Interrupts(Time):
        def sleep(self, seconds: float) -> None:
            if made.history.open_run is not None and made.history.open_run.reference:
                raise KeyboardInterrupt
            super().sleep(seconds)

    launcher, said = Launcher(), list[str]()
    made, plugins = begun(project, launcher)
    with pytest.raises(KeyboardInterrupt):
        made.run(plugins=plugins, tell=said.append, clock=Interrupts())
    assert said[-1] == "run t1-1-0 goes on by itself; autoresearch stop --now ends it"
    assert made.history.stopped == "interrupted by a person"
    assert not made.alive
    with pytest.raises(WorkspaceError, match=r"run t1-1-0 goes on; stop it with .* --now"):
        made.stop()
    assert made.stop(now=True, plugins=plugins, clock=Time()).startswith("stopped by ")
    assert made.history.experiments[1].runs[0].interrupted
    assert made.history.open_run is None
    with pytest.raises(WorkspaceError, match="there is nothing to stop"):
        made.stop(now=True)


def test_pause_is_obeyed_between_steps_until_resume(project: Path) -> None:
    """A pause holds the loop, also one that is started anew; resume lets it go on."""
    said: list[str] = []
    made, plugins = begun(project, FakeLauncher([3.0, 2.0]))
    made.pause("the GPU is needed")
    reason = made.run(1, plugins=plugins, wait=False)
    assert reason == f"paused by {person()} (the GPU is needed)"
    clock = Time(at=500.0, act=made.resume)
    made.run(1, plugins=plugins, tell=said.append, clock=clock)
    assert clock.time >= 500.0
    assert len([line for line in said if "paused by" in line]) == 1
    assert len(made.history.decided) == 1
    with pytest.raises(WorkspaceError, match="is not paused"):
        made.resume()
