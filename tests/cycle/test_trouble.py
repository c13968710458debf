"""What goes wrong around the loop is told once and waited out: it judges and ends nothing."""

from __future__ import annotations

import errno
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import define, field

import autoresearch
from autoresearch import (
    Campaign,
    Candidate,
    Change,
    Decision,
    History,
    Idea,
    RunHandle,
    RunRequest,
    Verdict,
    Violation,
    events,
    hookimpl,
)
from autoresearch.config import Config
from autoresearch.cycle.recorder import (
    SYNC_LATEST,
    SYNC_SECONDS,
    Patience,
    Recorder,
    passes,
    pause_seconds,
)
from autoresearch.errors import BlockedError, LogError, PluginError, WorkspaceError
from autoresearch.evidence import missing_things
from autoresearch.folding import empty
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    FakeLauncher,
    MemoryLog,
    RecordingObserver,
    ScriptedIdeas,
    make_project,
    set_constant,
)
from autoresearch.testing.fakes import FakeRun

BASE = ("no:script_ideas",)


@define
class Time:
    """A clock that runs without waiting, and does something when it has waited so long."""

    after: float = float("inf")
    act: Callable[[], None] = lambda: None
    time: float = 0.0
    slept: list[float] = field(factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept.append(seconds)
        if self.time >= self.after:
            self.after = float("inf")
            self.act()
        if self.time > 1e6:
            raise TimeoutError("waited for ever")
        time.sleep(0.0005)


def begun(project: Path, plugins: tuple[object, ...], **overrides: object) -> Campaign:
    """Start a campaign with the fake launcher; ``limits__usd`` stands for ``limits.usd``."""
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    wanted = {"launcher": "fake", **named}
    return autoresearch.start(project, tag="t1", overrides=wanted, plugins=plugins)


def types(campaign: Campaign) -> list[str]:
    """The types of the campaign's events, in order."""
    return [record.type for record in campaign.log.read(campaign=campaign.tag)]


def wider(*widths: int) -> ScriptedIdeas:
    """Ideas that set WIDTH, one after another."""
    return ScriptedIdeas([set_constant("WIDTH", width) for width in widths])


class Broken(FakeLauncher):
    """A launcher whose first ``failures`` runs of an experiment end for the machine's sake."""

    def __init__(self, experiment: int, failures: int) -> None:
        super().__init__([3.0, 2.0, 1.0])
        self.experiment, self.failures = experiment, failures

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        handle = super().launch_run(request)
        if handle is None or request.experiment != self.experiment:
            return handle
        if request.index < self.failures:
            kept = handle.log_path.parent / "fake.json"
            kept.write_text(
                '{"status": "infra_failed", "exit_code": null, "seconds": 0, "detail": "no token"}'
            )
        return FakeRun(request.name, handle.log_path)


@pytest.mark.parametrize("experiment", [0, 1])
def test_machine_that_fails_for_hours_is_waited_for(project: Path, experiment: int) -> None:
    """Nine failed runs, the baseline's too: one line, one pause, one notice, then the verdict."""
    launcher, observer, said, clock = (
        Broken(experiment, 9),
        RecordingObserver(),
        list[str](),
        Time(),
    )
    plugins = (*BASE, wider(6), launcher, observer)
    made = begun(project, plugins)
    reason = made.run(2, plugins=plugins, tell=said.append, clock=clock)
    assert reason == "as many experiments as asked for are done: 2 in all"
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP, Verdict.KEEP]
    assert len(launcher.started) == 2 + 9
    told = [line for line in said if "no token" in line]
    assert told == [
        f"experiment {experiment}: no token; trying again",
        f"no run of experiment {experiment} could be made: no token (waiting, then trying again)",
    ]
    assert said.count("going on") == 1
    assert (types(made).count("paused"), types(made).count("resumed")) == (1, 1)
    assert [item.kind for item in observer.notices].count("needs_human") == 1
    assert made.history.dead_ends == {}
    assert made.history.paused is None
    assert 5 + 10 + 20 + 40 + 80 + 160 <= clock.time < 1_000


def test_backoff_grows_to_five_minutes() -> None:
    """Each wait is twice the one before, and never over 300 seconds."""
    assert [pause_seconds(count, 5.0) for count in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_without_waiting_it_ends_with_the_reason(project: Path) -> None:
    """wait=False says what is wrong, judges nothing, and the same command works later."""
    launcher = Broken(0, 3)
    plugins = (*BASE, wider(6), launcher)
    made = begun(project, plugins)
    reason = made.run(1, plugins=plugins, wait=False)
    assert reason == "no run of experiment 0 could be made: no token"
    assert made.history.decided == ()
    assert made.history.stopped == reason
    ended = made.run(1, plugins=plugins, wait=False)
    assert ended == "as many experiments as asked for are done: 1 in all"


def test_launcher_that_raises_is_told_once(project: Path) -> None:
    """A launcher's configuration error is one line, however often it is asked."""

    class Unset:
        asked = 0

        @hookimpl
        def launch_run(self, request: RunRequest) -> RunHandle | None:
            self.asked += 1
            if self.asked < 8:
                raise PluginError("no token; run modal token new")
            return FakeLauncher([1.0]).launch_run(request)

    said: list[str] = []
    plugins = (*BASE, Unset())
    made = begun(project, plugins)
    made.run(1, plugins=plugins, tell=said.append, clock=Time())
    assert len([line for line in said if "no token" in line]) == 2
    assert made.history.experiments[0].verdict is Verdict.KEEP
    assert not list(missing_things(made.log))  # what a run that never was had to say is there


def test_reruns_are_counted_without_the_machines_failures(project: Path) -> None:
    """Nine failed runs take nothing from the reruns that a policy may have."""

    class Asks:
        @hookimpl
        def decide(self, candidate: Candidate) -> Decision | None:
            if candidate.experiment.number == 1:
                return Decision(verdict=Verdict.RERUN, reason="once more")
            return None

    plugins = (*BASE, wider(6), Broken(1, 9), Asks())
    made = begun(project, plugins, limits__reruns=2)
    made.run(2, plugins=plugins, clock=Time())
    runs = made.history.experiments[1].runs
    assert [run.status for run in runs].count("completed") == 3
    assert made.history.experiments[1].verdict is Verdict.DISCARD


# --- disk and git -----------------------------------------------------------------------------


def test_which_errors_pass() -> None:
    """Disk, locks and what was made of them pass; a wrong path or a broken log does not."""
    for code in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EAGAIN", "EACCES"):
        assert passes(OSError(getattr(errno, code), "x")), code
    assert passes(BlockedError("locked"))
    assert not passes(OSError(errno.ENOENT, "x"))
    assert not passes(LogError("the log was changed"))
    assert not passes(WorkspaceError("the patch does not apply"))
    with pytest.raises(LogError) as caught:
        _refused_append()
    assert passes(caught.value)


def _refused_append() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise LogError(f"cannot append: {error}") from None


def test_a_step_is_repeated_by_the_innermost_only() -> None:
    """A loop that may not wait gives up after about a minute, once and not for every level."""
    clock, said, tries = Time(), list[str](), list[int]()
    patience = Patience(clock, said.append, endless=False)

    def fail() -> None:
        tries.append(1)
        raise BlockedError("locked")

    with pytest.raises(BlockedError):
        patience.through(lambda: patience.through(fail))
    assert len(tries) == 7
    assert clock.slept == [1, 2, 4, 8, 16, 32]
    assert said == ["locked (waiting, then trying again)"]


def lock_for(path: Path, seconds: float) -> threading.Thread:
    """Hold a lock of git for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    thread = threading.Timer(seconds, lambda: path.unlink(missing_ok=True))
    thread.start()
    return thread


class LocksGit:
    """Leaves locks of git behind while experiment 1 is audited."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    @hookimpl
    def audit_change(self) -> None:
        paths, self.paths = self.paths, ()
        for path in paths:
            lock_for(path, 2.0)


def test_locks_of_git_are_waited_out(project: Path) -> None:
    """A lock in the lab and one in the user's repository, two seconds each: nothing is lost."""
    tag = project / ".git" / "refs" / "heads" / "autoresearch" / "t1.lock"
    lab = project / ".autoresearch" / "t1" / "lab" / ".git"
    locks = LocksGit(tag, lab / "refs" / "autoresearch" / "t1" / "1.lock")
    said: list[str] = []
    plugins = (*BASE, wider(6), FakeLauncher([3.0, 2.0]), locks)
    made = begun(project, plugins)
    made.run(2, plugins=plugins, wait=False, tell=said.append)
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP, Verdict.KEEP]
    assert len([line for line in said if "1.lock" in line and "waiting" in line]) == 1
    assert "it works again; going on" in said
    assert types(made).count("commit_made") == 2
    assert made.log.verify().ok


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A project on a disk of its own, of eight megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here; it needs the right to mount")
    yield make_project(disk / "project", script='WIDTH = 4\nprint(f"score: {WIDTH}")\n')
    subprocess.run(["umount", "-l", str(disk)], check=True)


class Fills:
    """Fills the disk, or takes the right to write to it, before the audit of experiment 1."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.done = False

    @hookimpl
    def audit_change(self) -> None:
        if not self.done:
            self.done = True
            self.act()


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_nothing_for_a_while(small: Path, how: str) -> None:
    """It is told once, waited out, and every fact is in the log exactly once."""
    ballast = small.parent / "ballast"

    def break_it() -> None:
        if how == "full":
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        else:
            # Over itself: what is open for writing would keep the disk as it is.
            mount("mount", "--bind", str(small), str(small))
            mount("mount", "-o", "remount,bind,ro", str(small))

    def repair() -> None:
        if how == "full":
            ballast.unlink()
        else:
            mount("umount", "-l", str(small))

    def mount(*words: str) -> None:
        subprocess.run(words, check=True)

    said, clock = list[str](), Time(after=20.0, act=repair)
    plugins = (*BASE, wider(6), FakeLauncher([3.0, 2.0]), Fills(break_it))
    made = begun(small, plugins)
    made.run(2, plugins=plugins, tell=said.append, clock=clock)
    print("\n".join(said))
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP, Verdict.KEEP]
    assert clock.after == float("inf")
    assert len([line for line in said if "waiting" in line]) <= 2
    assert "it works again; going on" in said
    assert types(made).count("decided") == types(made).count("run_finished") == 2
    assert types(made).count("commit_made") == 2
    assert made.log.verify().ok
    assert "experiment" in (small / "notes.md").read_text().lower()


# --- fairness ---------------------------------------------------------------------------------


class Words:
    """Proposes the same words for ever, which no plugin can turn into code."""

    @hookimpl(tryfirst=True)
    def propose_idea(self) -> Idea:
        return Idea(direction="w", description="make it better", hypothesis="h")


class Refuses:
    """Audits away what has this text in it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @hookimpl
    def audit_change(self, change: Change) -> list[Violation]:
        return [Violation(rule="X", detail="no")] if self.text in change.after else []


def test_refused_author_is_passed_over_for_the_next(project: Path) -> None:
    """Two refusals, then the generator behind it has the turn; nothing is proposed for ever."""
    plugins = (*BASE, wider(6), Words(), FakeLauncher([3.0, 2.0]))
    made = begun(project, plugins)
    reason = made.run(5, plugins=plugins, wait=False)
    assert [item.verdict for item in made.history.experiments] == [Verdict.KEEP, Verdict.KEEP]
    assert types(made).count("idea_dropped") == 4
    assert reason.startswith("no generator has an idea (")
    assert "words: its ideas were refused 2 times" in reason


def test_waiting_grows_although_ideas_are_dropped(project: Path) -> None:
    """In ten minutes a generator of useless ideas leaves a handful of facts, not thousands."""
    clock = Time(after=600.0, act=lambda: made.stop())
    plugins = (*BASE, Words(), FakeLauncher([3.0]))
    made = begun(project, plugins)
    assert made.run(plugins=plugins, clock=clock).startswith("stopped by ")
    assert 2 <= types(made).count("idea_dropped") <= 16
    assert types(made).count("paused") == 1


class Mind:
    """Turns words into code once ``up``; until then it fails."""

    def __init__(self) -> None:
        self.up = False
        self.asked = 0

    @hookimpl
    def implement_idea(self, idea: Idea) -> str:
        self.asked += 1
        if not self.up:
            raise ConnectionError("503")
        return 'WIDTH = 9\nprint(f"score: {sum(range(WIDTH))}")\n'


def queue_words(made: Campaign) -> None:
    """Queue an idea that a person has in words."""
    made.add_idea(Idea(direction="w", description="make it wider", hypothesis="h"))


def test_words_wait_for_a_mind_that_failed(project: Path) -> None:
    """An outage costs nobody's idea: it stays queued, and is tried once the mind is back."""
    mind = Mind()

    def back() -> None:
        mind.up = True

    plugins = (*BASE, mind, FakeLauncher([3.0, 2.0]))
    made = begun(project, plugins)
    queue_words(made)
    reason = made.run(2, plugins=plugins, wait=False)
    assert [item.description for item in made.history.ranked_queue] == ["make it wider"]
    assert "1 idea waits in words for a plugin: one that failed to answer again" in reason
    assert mind.asked == 1
    made.run(until=2, plugins=plugins, clock=Time(after=30.0, act=back))
    assert made.history.experiments[1].idea.description == "make it wider"
    assert made.history.experiments[1].verdict is Verdict.KEEP
    assert len(made.history.queue) == 0
    with made.connect() as connection:
        states = connection.execute("select state from ideas where idea <> 'baseline'").fetchall()
    assert states == [("tried",)]


def test_words_wait_while_there_is_no_mind(project: Path) -> None:
    """Without a plugin that writes code they are asked about once a session, and kept."""
    plugins = (*BASE, wider(6), FakeLauncher([3.0, 2.0]))
    made = begun(project, plugins)
    queue_words(made)
    made.run(3, plugins=plugins, wait=False)
    assert [item.idea.description for item in made.history.experiments[1:]] == ["WIDTH = 6"]
    assert [item.waits_for for item in made.history.ranked_queue] == ["plugin"]
    assert types(made).count("idea_dropped") == 1


# --- no idea ----------------------------------------------------------------------------------


def test_no_idea_says_what_was_looked_for(tmp_path: Path) -> None:
    """A bounded run on a script without numbers ends by itself, and says who wanted what."""
    project = make_project(tmp_path / "plain", script="print('score: 1.0')\n")
    made = begun(project, (FakeLauncher([1.0]),))
    reason = made.run(6, plugins=(FakeLauncher([1.0]),))
    assert reason == (
        "no generator has an idea (queue_ideas: the queue is empty; add to it with autoresearch "
        "idea add; script_ideas: no movable number in train.py, such as a constant LEARNING_RATE "
        "= 0.1); add one with autoresearch idea add --patch FILE"
    )


def test_generator_that_is_down_is_waited_for(project: Path) -> None:
    """A generator that fails may have an idea later, so that a bounded run waits for it."""

    class Down:
        up = False

        @hookimpl
        def propose_idea(self, source: str, history: History) -> Idea | None:
            if not self.up:
                raise ConnectionError("503")
            idea = set_constant("WIDTH", 6)(source)
            return None if idea.id in history.tried else idea

    down, said = Down(), list[str]()

    def back() -> None:
        down.up = True

    plugins = (*BASE, down, FakeLauncher([3.0, 2.0]))
    made = begun(project, plugins)
    made.run(2, plugins=plugins, tell=said.append, clock=Time(after=100.0, act=back))
    assert made.history.experiments[1].verdict is Verdict.KEEP
    assert len([line for line in said if "plugin down failed" in line]) == 1
    assert made.history.failures["down"] > 2


# --- limits -----------------------------------------------------------------------------------


class KeepsAll:
    """Keeps whatever there is."""

    @hookimpl
    def decide(self) -> Decision:
        return Decision(verdict=Verdict.KEEP, reason="a test wants it")


@pytest.mark.parametrize(
    ("limits", "log", "verdict", "reason"),
    [
        ({"metric__implausible_gain": 0.5}, "score: 0.1\n", "quarantine", "too good to believe"),
        ({"limits__artifact_bytes": 1000}, "score: 2\nartifact_bytes: 5400\n", "discard", "5,400"),
    ],
)
def test_limits_hold_whatever_a_policy_says(
    project: Path, limits: dict[str, object], log: str, verdict: str, reason: str
) -> None:
    """A policy that keeps everything cannot keep what is too large or too good to believe."""
    launcher = FakeLauncher(["score: 3.0\nartifact_bytes: 500\n", log])
    plugins = (*BASE, wider(6), launcher, KeepsAll(), Sizes())
    made = begun(project, plugins, **limits)
    made.run(2, plugins=plugins, wait=False)
    decision = made.history.experiments[1].decision
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.author == "protocol"
    assert "keeps_all wanted to keep it, but" in decision.reason
    assert reason in decision.reason


class Sizes:
    """Reads the size that a fake run prints."""

    @hookimpl
    def extract_metrics(self, output: autoresearch.RunOutput) -> dict[str, float]:
        found = output.log_path.read_text().partition("artifact_bytes: ")[2]
        return {"artifact_bytes": float(found)} if found else {}


# --- strict -----------------------------------------------------------------------------------


def test_strict_stops_at_the_first_failure(project: Path) -> None:
    """strict = true ends the loop with the plugin's error; otherwise it is one line and a count."""

    class Fails:
        @hookimpl
        def review_idea(self) -> None:
            raise ValueError("a mistake")

    said: list[str] = []
    plugins = (*BASE, wider(6, 5), Fails(), FakeLauncher([3.0, 2.0, 1.0]))
    made = begun(project, plugins, strict=True)
    with pytest.raises(PluginError, match=r"plugin fails failed in review_idea: .*strict = true"):
        made.run(3, plugins=plugins, tell=said.append)
    assert len(made.history.decided) == 1
    assert len([line for line in said if "a mistake" in line]) == 1


def test_tables_are_written_for_a_share_of_new_facts_or_after_a_while(tmp_path: Path) -> None:
    """What a sync writes grows with the tables, so a long campaign must not sync for each fact."""

    class Counting(MemoryLog):
        synced = 0

        def sync(self) -> bool:
            self.synced += 1
            return True

    log, clock = Counting(), Time()
    config = Config(preset="plain", launcher="local")
    with log.writer("c") as writer:
        plugins = Plugins.load(config, tmp_path, [])
        recorder = Recorder(log, writer, plugins, empty("c"), patience=Patience(clock, print))

        def after(facts: int, seconds: float) -> int:
            for _ in range(facts):
                writer.append(events.NoteAdded(text="seen", author="me"))
            recorder.refresh()
            before = log.synced
            clock.sleep(seconds)
            recorder.sync()
            return log.synced - before

        assert after(320, 0.0) == 1  # what the process before left
        assert after(45, SYNC_SECONDS) == 0
        assert after(1, 0.0) == 1  # 46 of 366, an eighth
        assert after(100, SYNC_SECONDS / 2) == 0
        assert after(0, SYNC_SECONDS) == 1
        assert after(1, SYNC_LATEST - 1) == 0
        assert after(0, 1.0) == 1
        assert after(0, 0.0) == 0
        recorder.sync(at_once=True)
        plugins.close()
    assert log.synced == 5
