"""What a person sees of a loop: alive, waiting, paused, died; and how it ends when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import autoresearch
from autoresearch.testing import make_project

Say = Callable[..., Any]
SLOW = "import time\nprint('score: 1.0', flush=True)\ntime.sleep(120)\n"
FAILING = """from autoresearch import hookimpl

@hookimpl
def review_idea():
    raise ValueError("a mistake of mine")
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A project whose script takes two minutes."""
    return make_project(tmp_path / "slow", script=SLOW)


@pytest.fixture
def loop(slow: Path) -> Iterator[subprocess.Popen[str]]:
    """A loop of it in a process of its own, with a run under way."""
    command = [sys.executable, "-m", "autoresearch", "run", "--tag", "t1"]
    process = subprocess.Popen(
        command, cwd=slow, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for(lambda: started(slow))
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        if autoresearch.open_campaign(slow).history.open_run is not None:
            verb(slow, "stop", "--now")


def started(project: Path) -> bool:
    """Whether the run of the baseline was started."""
    if not (project / ".autoresearch" / "journal").is_dir():
        return False
    try:
        opened = autoresearch.open_campaign(project).history.open_run
    except autoresearch.errors.AutoresearchError:
        return False
    return opened is not None and opened.reference is not None


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within a minute")


def verb(project: Path, *words: str) -> str:
    """Run a verb in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "autoresearch", *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def status(project: Path) -> dict[str, Any]:
    """What `status --json` says of the loop."""
    told: dict[str, Any] = json.loads(verb(project, "status", "--json"))["loop"]
    return told


def test_alive_and_died(slow: Path, loop: subprocess.Popen[str]) -> None:
    """A loop is alive with its process and last step; killed, it died at the time of that step."""
    told = status(slow)
    assert (told["alive"], told["pid"], told["died_at"]) == (True, loop.pid, None)
    assert told["last_step"] in ("run_started", "metric_observed")
    loop.kill()
    loop.wait()
    told = status(slow)
    assert (told["alive"], told["died_at"]) == (False, told["last_at"])
    assert told["died_at"]
    said = verb(slow, "status")
    assert f"died at {told['died_at'][:19]}Z (process {loop.pid} on " in said
    assert "go on with autoresearch run" in said
    assert "stopped by" in verb(slow, "stop", "--now")
    assert "not running" in verb(slow, "status")
    assert "there is nothing to stop" in verb(slow, "stop", "--now")


def test_stop_now_ends_a_loop_in_another_process(slow: Path, loop: subprocess.Popen[str]) -> None:
    """The loop stops its run and itself; nothing was judged."""
    assert "the run under way is stopped now" in verb(slow, "stop", "--now")
    said, _ = loop.communicate(timeout=60)
    assert loop.returncode == 0
    assert "stopped: by " in said
    history = autoresearch.open_campaign(slow).history
    assert history.decided == ()
    assert history.experiments[0].runs[0].interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_loop_and_say_what_goes_on(
    slow: Path, loop: subprocess.Popen[str], number: signal.Signals
) -> None:
    """Ctrl-C and its like: exit code 130, the end recorded, and the run's further way told."""
    os.kill(loop.pid, number)
    said, _ = loop.communicate(timeout=60)
    assert loop.returncode == 130, said
    assert "run t1-0-0 goes on by itself; autoresearch stop --now ends it" in said
    assert "Traceback" not in said
    reason = autoresearch.open_campaign(slow).history.stopped
    by_signal = f"ended by {number.name}"
    assert reason == ("interrupted by a person" if number is signal.SIGINT else by_signal)


def test_status_says_what_it_waits_for(say: Say, project: Path) -> None:
    """A pause and its reason, and who asked for it, in words and in JSON."""
    say("init", "--tag", "t1")
    assert "paused" not in say("status").out
    assert "go on with autoresearch resume" in say("pause", "--why", "the GPU is needed").out
    campaign = autoresearch.open_campaign(project)
    with campaign.log.writer("t1"):
        loop = json.loads(say("status", "--json").out)["loop"]
        assert (loop["alive"], loop["pid"]) == (True, os.getpid())
        assert (loop["waiting_for"], bool(loop["paused_by"])) == ("the GPU is needed", True)
        assert f"since {loop['waiting_since'][:19]}Z: the GPU is needed" in say("status").out
    assert "paused by" in say("run", "--experiments", "1", "--no-wait").out
    assert say("resume").code == 0
    assert "is not paused" in say("resume").err


def test_whether_the_loop_lives_is_known_by_its_lock(say: Say, project: Path) -> None:
    """Neither another process with its number nor a clock that was set misleads."""
    say("init", "--tag", "t1")
    lock = project / ".autoresearch" / "locks" / "t1.stream.lock"
    holder = {"actor": "loop", "host": os.uname().nodename, "pid": os.getpid(), "since": "then"}
    lock.write_text(json.dumps({**holder, "started": 12.5}))
    assert "died at " in say("status").out
    with autoresearch.open_campaign(project).log.writer("t1"):
        lock.write_text(json.dumps({**holder, "pid": 2**40, "started": 12.5}))
        assert f"alive (process {2**40} " in say("status").out
    lock.write_text(json.dumps({**holder, "host": "elsewhere", "started": 12.5}))
    assert "alive (process " in say("status").out


def test_failing_plugins_are_counted(say: Say, project: Path) -> None:
    """The first failure is a line of run; status and the summary have the number."""
    (project / "plugins").mkdir()
    (project / "plugins" / "bad.py").write_text(FAILING)
    said = say("run", "--tag", "t1", "--experiments", "3", "--no-wait").out
    assert said.count("a mistake of mine") == 1
    assert "plugins failed 2 times (bad 2)" in said
    assert json.loads(say("status", "--json").out)["failures"] == {"bad": 2}
    assert "failures:     bad 2" in say("status").out


def test_strict_ends_with_code_1(say: Say, project: Path) -> None:
    """strict = true: one line with the plugin's error, and exit code 1."""
    (project / "plugins").mkdir()
    (project / "plugins" / "bad.py").write_text(FAILING)
    said = say("run", "--tag", "t1", "--set", "strict=true", "--experiments", "3")
    assert said.code == 1
    assert "plugin bad failed in review_idea: ValueError: a mistake of mine" in said.err


def test_run_without_ideas_ends_by_itself(say: Say, project: Path) -> None:
    """A bounded run ends with exit code 0 and says what was looked for."""
    (project / "train.py").write_text("print('score: 1.0')\n")
    subprocess.run(["git", "commit", "-qam", "no numbers"], cwd=project, check=True)
    said = say("run", "--tag", "t1", "--experiments", "6")
    assert said.code == 0
    assert "stopped: no generator has an idea (queue_ideas: the queue is empty" in said.out
    assert "script_ideas: no movable number in train.py" in said.out
