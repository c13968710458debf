"""A run inside bubblewrap: its own checkout, folder, home, /tmp and processes; the rest to read."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import autoresearch
from autoresearch.config import BoundaryConfig, Config
from autoresearch.errors import ConfigError
from autoresearch.launchers import environment, local
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace
from autoresearch.testing import git, make_project

Finish = Callable[[RunHandle], RunOutput]
Held = Callable[..., RunOutput]

lacks = environment.no_bubblewrap()
works = pytest.mark.skipif(bool(lacks), reason=lacks or "it works")


class Place:
    """A project with a store, data, a file of secrets, and a home folder beside it."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = make_project(self.home / "project")
        self.store = self.project / ".autoresearch"
        self.work = Workspace(
            path=self.store / "t1" / "work" / "1", script="train.py", project=self.project
        )
        self.work.path.mkdir(parents=True)
        (self.work.path / ".git").write_text("gitdir: /nowhere\n")
        (self.store / "t1" / "runs").mkdir()
        (self.store / "t1.jsonl").write_text("the log")
        (self.project / ".env").write_text("KEY=hunter2")
        (self.project / "data").mkdir()
        (self.project / "data" / "tokens.bin").write_text("tokens")
        (self.home / ".ssh").mkdir()
        (self.home / ".ssh" / "id").write_text("hunter2")
        (self.home / ".cache" / "huggingface").mkdir(parents=True)
        (self.home / ".cache" / "huggingface" / "token").write_text("hunter2")
        (self.home / ".cache" / "huggingface" / "model").write_text("weights")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose home is the user's."""
    made = Place(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    return made


@pytest.fixture
def held(place: Place, finish: Finish) -> Iterator[Held]:
    """Run words in a shell inside bubblewrap, as the run `night-N`; settings by name."""
    handles: list[RunHandle] = []

    def run(script: str, env: dict[str, str] | None = None, **settings: Any) -> RunOutput:
        plugin = local.Plugin()
        chosen = {"kind": "bubblewrap", **settings}
        plugin.configure(Config(boundary=BoundaryConfig(**chosen), data=("data",)))
        name = f"night-{len(handles)}"
        request = RunRequest(
            name=name, campaign="night", experiment=1, index=0, command=("sh", "-c", script),
            folder=place.store / "t1" / "runs" / name, env=env or {}, cwd=place.work.path,
        )  # fmt: skip
        handle = plugin.launch_run(request, place.work)
        assert handle is not None
        handles.append(handle)
        return finish(handle)

    yield run
    for handle in handles:
        handle.stop("the test is over")


@works
@pytest.mark.parametrize(
    "path",
    [
        *("home/.ssh/id", "home/project/.env", "home/project/.git/config"),
        *("home/project/.autoresearch/t1.jsonl", "home/.cache/huggingface/token"),
        "home/project/.autoresearch/t1/runs/night-0.control/request.json",
    ],
)
def test_a_held_run_reads_no_secret(held: Held, tmp_path: Path, path: str) -> None:
    """Keys, the repository, the store and the control folder are not there."""
    output = held(f"! grep . {tmp_path / path} && grep . {tmp_path}/home/project/train.py")
    assert output.status is RunStatus.COMPLETED, output.log_path.read_text()
    assert "hunter2" not in output.log_path.read_text()


@works
@pytest.mark.parametrize(
    "path", ["home/project/train.py", "home/project/data/tokens.bin", "home/project/new", "new"]
)
def test_a_held_run_changes_nothing_of_the_user(held: Held, tmp_path: Path, path: str) -> None:
    """The checkout and the data are there to read; what is written elsewhere is its own."""
    before = {file: file.read_text() for file in (tmp_path / "home").glob("project/*.py")}
    held(f"echo x > {tmp_path / path}; git config --global user.name x; echo x > ~/.profile")
    assert before == {file: file.read_text() for file in before}
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "home" / "project" / "new").exists()
    assert (tmp_path / "home" / "project" / "data" / "tokens.bin").read_text() == "tokens"
    assert not list((tmp_path / "home").glob(".gitconfig"))
    assert not list((tmp_path / "home").glob(".profile"))


@works
def test_a_held_run_has_what_it_needs(held: Held, place: Place) -> None:
    """Its checkout and folder to write, data, caches, a home, /tmp, this Python, and its exit."""
    script = f"""
        set -e
        echo x > written; echo x > $AUTORESEARCH_RUN/kept; echo x > /tmp/x; echo x > ~/x
        cat {place.project}/data/tokens.bin ~/.cache/huggingface/model
        echo x > ~/.cache/huggingface/new
        {sys.executable} -c 'import autoresearch, numpy, sys; print(autoresearch.__file__)'
        test -e /dev/null; test -d /dev/shm
        exit 7
    """
    output = held(textwrap.dedent(script))
    assert (output.status, output.exit_code) == (RunStatus.CRASHED, 7), output.log_path.read_text()
    assert (place.work.path / "written").exists()
    assert (output.folder / "kept").exists()
    assert (place.home / ".cache" / "huggingface" / "new").exists()
    assert not Path("/tmp/x").exists()
    assert held("cat /tmp/x ~/x").status is RunStatus.COMPLETED, "the next run finds its caches"


@works
def test_a_held_run_sees_its_own_processes_only(held: Held, place: Place) -> None:
    """Neither the loop nor its supervisor is there to be read, stopped or killed."""
    output = held("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill -STOP -1; kill -9 $PPID; exit 0")
    assert "supervisor" not in output.log_path.read_text()
    assert " -m pytest" not in output.log_path.read_text()
    assert output.status is RunStatus.COMPLETED


@works
def test_signals_and_missing_programs_are_told_as_without(held: Held) -> None:
    """A killed run has the signal as its exit code; the launcher's kill ends the whole tree."""
    output = held("kill -SEGV $$")
    assert (output.exit_code, output.detail) == (-11, "killed by SIGSEGV")


@works
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("open('{home}/.ssh/id')", "{home}/.ssh/id is hidden by bubblewrap: name it in data or bo"),
        ("open('{home}/project/x', 'w')", "{home}/project/x can only be read in bubblewrap: name"),
        ("open('{home}/nowhere')", "exit code 1"),
    ],
    ids=["hidden", "read only", "not there"],
)
def test_a_path_that_bubblewrap_keeps_is_named(
    held: Held, place: Place, words: str, said: str
) -> None:
    """A script that runs by hand and crashes here says what to set."""
    output = held(f'{sys.executable} -c "{words.format(home=place.home)}"')
    assert said.format(home=place.home) in output.detail
    assert (said == "exit code 1") == (output.detail == "exit code 1")


@works
def test_bubblewrap_that_fails_is_no_crash_of_the_script(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine failed, which is no verdict on the idea; a script that says the same crashed."""
    assert held("echo ready; echo bwrap: x; exit 1").status is RunStatus.CRASHED
    fake = tmp_path / "bin" / "bwrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'bwrap: Can not mount' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    output = held("true")
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail == "bwrap: Can not mount; repair that, or set boundary.kind to none"


@works
def test_network_can_be_taken_away(held: Held) -> None:
    """network = false leaves nothing but the loopback of the run's own."""
    assert held("cat /proc/net/dev", network=False).log_path.read_text().count(":") == 1


@works
def test_an_idea_cannot_ask_for_a_place(held: Held, place: Place) -> None:
    """What an idea puts into the environment of its run opens no folder."""
    for name in ("WANTED", "TORCH_HOME", "XDG_CACHE_HOME", "CUDA_HOME", "VIRTUAL_ENV"):
        output = held(f"cat ${name}/id", env={name: f"{place.home}/.ssh"})
        assert output.status is RunStatus.CRASHED, name
    assert held("cat $AUTORESEARCH_RUN/../../../t1.jsonl").status is RunStatus.CRASHED


@works
def test_a_link_in_the_home_of_runs_leads_nowhere(held: Held, place: Place, tmp_path: Path) -> None:
    """What one run leaves in the home it shares with the next is not followed when that is made."""
    victim = tmp_path / "home" / "victim"
    victim.mkdir()
    held("true")
    own = place.store / "t1" / "runs" / ".home"
    for root in (own / ".cache", place.store / "t1" / "runs" / ".tmp" / "pytest-of-root"):
        shutil.rmtree(root, ignore_errors=True)
        root.symlink_to(f"/oldroot{victim}")
    output = held("cat ~/.cache/huggingface/model")
    assert output.status is RunStatus.COMPLETED, output.log_path.read_text()
    assert not list(victim.iterdir())
    shutil.rmtree(own / ".cache")
    (own / ".cache").write_text("in the way")
    assert held("cat ~/.cache/huggingface/model").status is RunStatus.COMPLETED


@works
def test_further_paths_are_opened_by_setting(held: Held, place: Place) -> None:
    """boundary.reads and boundary.writes name what else a run needs."""
    for name in ("read", "write"):
        (place.home / name).mkdir()
    script = f"ls {place.home}/read && touch {place.home}/write/x && ! touch {place.home}/read/x"
    output = held(script, reads=(f"{place.home}/read",), writes=(f"{place.home}/write",))
    assert output.status is RunStatus.COMPLETED, output.log_path.read_text()
    assert (place.home / "write" / "x").exists()


@works
def test_the_git_file_of_the_checkout_stays(held: Held, place: Place) -> None:
    """It could lead the loop to another repository."""
    held("echo gitdir: /tmp > .git; rm -f .git; mv .git x")
    assert (place.work.path / ".git").read_text() == "gitdir: /nowhere\n"


def test_what_is_in_force_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a few words, with the reason where it is nothing."""
    said = environment.boundary_in_force
    assert said(Config(launcher="modal")) == "that of the launcher modal"
    assert said(Config(boundary=BoundaryConfig(kind="none"))) == "none (boundary.kind)"
    monkeypatch.setattr(environment, "no_bubblewrap", lambda: "")
    assert said(Config()) == "bubblewrap"
    assert said(Config(boundary=BoundaryConfig(network=False))) == "bubblewrap, without network"
    monkeypatch.setattr(environment, "no_bubblewrap", lambda: "bwrap is not installed")
    assert said(Config()) == "none (bwrap is not installed)"


def test_bubblewrap_that_has_to_be_is_not_left_out(
    monkeypatch: pytest.MonkeyPatch, held: Held
) -> None:
    """Where it cannot be used, nothing runs, and the line says what to do."""
    monkeypatch.setattr(environment, "no_bubblewrap", lambda: "bwrap is not installed")
    with pytest.raises(ConfigError, match=r"boundary.kind is bubblewrap, but bwrap is not inst"):
        held("true")
    assert held("true", kind="auto").status is RunStatus.COMPLETED
    wanted = Config(preset="plain", boundary=BoundaryConfig(kind="bubblewrap"))
    said = local.Plugin().check_launcher(wanted, Path())
    assert said is not None
    assert [line.partition(";")[0] for line in said] == [
        "boundary.kind is bubblewrap, but bwrap is not installed"
    ]


def test_bubblewrap_is_tried_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bwrap that is installed and does not work is as none, with its own words as the reason."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = environment.no_bubblewrap.__wrapped__()
    assert said == "bwrap does not work here: bwrap: No permissions to create new namespace"
    fake.unlink()
    assert environment.no_bubblewrap.__wrapped__() == "bwrap is not installed"


HOSTILE = """
import json, os, subprocess, time
from pathlib import Path

print("score: 1.0", flush=True)
for name in ("origin", "TARGET"):
    subprocess.run(["git", "push", "-q", name, "HEAD:refs/heads/leak"], capture_output=True)
    subprocess.run(["git", "-C", "PROJECT", "push", "-q", name, "HEAD:refs/heads/leak"],
                   capture_output=True)
for file in Path("/proc").glob("[0-9]*/environ"):
    try:
        if b"hunter2" in file.read_bytes():
            print("KEY SEEN", flush=True)
    except OSError:
        pass
forged = json.dumps({"status": "completed", "exit_code": 0, "seconds": 1, "cost_usd": -5})
for root in (Path.cwd(), Path(os.environ["AUTORESEARCH_RUN"]).parent, Path("PROJECT")):
    for folder in (root, *root.glob("**/")):
        try:
            (folder / "outcome.json").write_text(forged)
        except OSError:
            pass
time.sleep(1.5)
"""


@pytest.mark.parametrize("kind", ["none", pytest.param("bubblewrap", marks=works)])
def test_a_hostile_script_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It pushes, looks for keys, forges its outcome and sleeps on: score, time and cost are real.

    As root without bubblewrap other processes can be read, and a remote in a folder that is named
    by its path can be written: that is what docs/security.md says is not held.
    """
    monkeypatch.setenv("SOME_KEY", "hunter2")
    remote = tmp_path / "remote.git"
    remote.mkdir()
    git(remote, "init", "-q", "--bare")
    script = HOSTILE.replace("PROJECT", str(tmp_path / "project"))
    script = script.replace("TARGET", str(remote) if kind == "bubblewrap" else "nowhere")
    if kind == "none":  # plain: by the name that git finds from the run's own folder
        script = "\n".join(line for line in script.splitlines() if '"-C"' not in line)
        script = script.replace("                   capture_output=True)\n", "")
    project = make_project(tmp_path / "project", script=script)
    git(project, "remote", "add", "origin", str(remote))
    overrides = {"boundary.kind": kind}
    campaign = autoresearch.start(
        project, tag="t1", overrides=overrides, plugins=("no:script_ideas",)
    )
    campaign.run(1, plugins=("no:script_ideas",), wait=False)
    baseline = campaign.history.experiments[0]
    assert campaign.history.score(baseline) == 1.0
    assert baseline.runs[0].seconds >= 1.5
    assert campaign.history.spent.usd == 0.0
    assert git(remote, "for-each-ref") == ""
    if kind == "bubblewrap" or os.geteuid() != 0:
        log = next((project / ".autoresearch" / "t1" / "runs").glob("*.control/run.log"))
        assert "KEY SEEN" not in log.read_text()


ASKING = """
import subprocess
print("head:", subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip())
print("remotes:", subprocess.check_output(["git", "remote"], text=True).strip(), "|")
print("status:", subprocess.check_output(["git", "status", "--short"], text=True).strip(), "|")
print("score: 1.0")
"""


@pytest.mark.parametrize("kind", ["none", pytest.param("bubblewrap", marks=works)])
def test_git_in_a_run_tells_the_commit_of_the_experiment(tmp_path: Path, kind: str) -> None:
    """As by hand: a trainer that notes its commit works, and finds no remote."""
    project = make_project(tmp_path / "project", script=ASKING)
    git(project, "remote", "add", "origin", "https://example.org/x")
    overrides = {"boundary.kind": kind}
    campaign = autoresearch.start(
        project, tag="t1", overrides=overrides, plugins=("no:script_ideas",)
    )
    campaign.run(1, plugins=("no:script_ideas",), wait=False)
    log = next((project / ".autoresearch" / "t1" / "runs").glob("*.control/run.log")).read_text()
    assert f"head: {campaign.history.experiments[0].commit}" in log, log
    assert "remotes:  |" in log
    assert "status:  |" in log
