"""What goes wrong: one function for each fault, by the seam at which it strikes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
from tests.soak.house import TAG, House
from tests.soak.mind import HOSTILE

import autoresearch
from autoresearch import Idea
from autoresearch.errors import AutoresearchError
from autoresearch.testing import git

Fault = Callable[[House, Random], None]
FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Fault], Fault]:
    """Register a fault as ``seam: what happens``."""

    def register(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return register


# --- kill -----------------------------------------------------------------------------------


@fault("kill: SIGKILL of the loop")
def _kill(house: House, chance: Random) -> None:
    house.kill(signal.SIGKILL)


@fault("kill: SIGKILL of the loop and of git")
def _kill_all(house: House, chance: Random) -> None:
    if house.child is None:
        return
    with suppress(psutil.Error):
        below = psutil.Process(house.child.pid).children(recursive=True)
        gits = [process for process in below if process.name() == "git"]
        house.strike_down()
        for process in gits:
            process.kill()
    house.kill(signal.SIGKILL)


@fault("kill: SIGINT")
def _interrupt(house: House, chance: Random) -> None:
    house.kill(signal.SIGINT)


@fault("kill: SIGTERM")
def _terminate(house: House, chance: Random) -> None:
    house.kill(signal.SIGTERM)


@fault("kill: the loop is stopped for a moment")
def _freeze(house: House, chance: Random) -> None:
    if house.child is not None:
        house.child.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.2, 1.0))
        house.child.send_signal(signal.SIGCONT)


# --- disk -----------------------------------------------------------------------------------


@fault("disk: full for a moment")
def _full(house: House, chance: Random) -> None:
    if not os.path.ismount(house.folder):
        _limited(house, chance)
        return
    ballast = house.folder / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        time.sleep(chance.uniform(0.3, 3.0))
    finally:
        ballast.unlink(missing_ok=True)


@fault("disk: no file may grow for a moment")
def _limited(house: House, chance: Random) -> None:
    if house.child is None:
        return
    with suppress(psutil.Error):
        process = psutil.Process(house.child.pid)
        _, hard = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (chance.choice((0, 500, 20_000)), hard))
        time.sleep(chance.uniform(0.3, 2.0))
        process.rlimit(resource.RLIMIT_FSIZE, (hard, hard))


@fault("disk: the store cannot be written for a moment")
def _read_only(house: House, chance: Random) -> None:
    if os.getuid() == 0:
        return _limited(house, chance)
    place = chance.choice((house.store, house.store / "journal", house.store / TAG))
    mode = place.stat().st_mode
    place.chmod(0o500)
    try:
        time.sleep(chance.uniform(0.3, 2.0))
    finally:
        place.chmod(mode)


# --- git ------------------------------------------------------------------------------------


@contextmanager
def _present(path: Path) -> Iterator[None]:
    made = False
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        made = True
    try:
        yield
    finally:
        if made:
            path.unlink(missing_ok=True)


@fault("git: a lock file in the user's repository")
def _user_lock(house: House, chance: Random) -> None:
    refs = (f"heads/autoresearch/{TAG}.lock", f"autoresearch/{TAG}/{house.decided()}.lock")
    plain = ("packed-refs.lock", "HEAD.lock", "index.lock")
    name = chance.choice((*(f"refs/{ref}" for ref in refs), *plain))
    with _present(house.project / ".git" / name):
        time.sleep(chance.uniform(0.3, 3.0))


@fault("git: a lock file in the lab")
def _lab_lock(house: House, chance: Random) -> None:
    number = house.decided()
    mine = (f"worktrees/{number}/index.lock", f"worktrees/{number}/HEAD.lock")
    name = chance.choice((*mine, f"refs/autoresearch/{TAG}/{number}.lock", "packed-refs.lock"))
    path = house.store / TAG / "lab" / ".git" / name
    if name in mine and not path.parent.is_dir():
        return
    with _present(path):
        time.sleep(chance.uniform(0.3, 2.0))


@fault("git: a damaged worktree")
def _worktree(house: House, chance: Random) -> None:
    place = house.store / TAG / "work" / str(house.decided())
    with suppress(OSError):
        chance.choice((
            lambda: (place / ".git").unlink(),
            lambda: (place / ".git").write_text("gitdir: /nowhere\n"),
            lambda: (place / "stray.txt").write_text("not an idea's"),
        ))()  # fmt: skip


# --- launcher -------------------------------------------------------------------------------


@fault("launcher: the supervisor is killed")
def _supervisor(house: House, chance: Random) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = house.supervisors()
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        if found:
            return
        time.sleep(0.01)


@fault("launcher: a run cannot start")
def _no_start(house: House, chance: Random) -> None:
    number = house.decided() + 1
    path = house.store / TAG / "runs" / f"{TAG}-{number}-0.control"
    with _present(path):
        deadline = time.monotonic() + 6
        while house.decided() < number and time.monotonic() < deadline:
            time.sleep(0.05)


# --- mind and plugins -----------------------------------------------------------------------


def _asked(name: str) -> None:
    @fault(f"{name.split()[0] if name.startswith('mind') else 'plugin'}: {name}")
    def _ask(house: House, chance: Random) -> None:
        path = house.trouble / name
        path.touch()
        deadline = time.monotonic() + 4
        while path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        path.unlink(missing_ok=True)


_MIND = ("mind raises", "mind hangs", "mind talks nonsense", "mind has words only")
_OTHERS = ("policy raises", "observer hangs", "observer raises", "extractor raises")
for _name in (*_MIND, *_OTHERS):
    _asked(_name)


# --- hostile text ---------------------------------------------------------------------------


@fault("text: a hostile idea of a plugin")
def _hostile_plugin(house: House, chance: Random) -> None:
    (house.trouble / "hostile idea").touch()
    time.sleep(0.5)


@fault("text: a hostile idea or note of a person")
def _hostile_person(house: House, chance: Random) -> None:
    campaign, text = autoresearch.open_campaign(house.project), chance.choice(HOSTILE)
    idea = Idea(direction=text, description=text, hypothesis=text, env={"WORDS": text})
    for take in (lambda: campaign.add_note(text), lambda: campaign.add_idea(idea)):
        with suppress(AutoresearchError):  # a refusal is an answer; anything else is not
            take()


# --- the user's hands -----------------------------------------------------------------------


def _commit(house: House, ref: str, chance: Random) -> None:
    tip = git(house.project, "rev-parse", ref)
    text = f"Mine {chance.random()}\n\nAutoresearch-Tip: 7:{'0' * 64}"
    made = git(house.project, "commit-tree", "-p", tip, "-m", text, f"{tip}^{{tree}}")
    with suppress(subprocess.CalledProcessError):  # somebody else moved it first: no commit
        git(house.project, "update-ref", ref, made, tip)
        house.user_commits.append(made)


@fault("hands: a commit on main")
def _on_main(house: House, chance: Random) -> None:
    _commit(house, "refs/heads/main", chance)


@fault("hands: a commit on the campaign's branch")
def _on_branch(house: House, chance: Random) -> None:
    _commit(house, f"refs/heads/autoresearch/{TAG}", chance)


@fault("hands: the campaign's branch is checked out for a while")
def _check_out(house: House, chance: Random) -> None:
    with suppress(subprocess.CalledProcessError):
        git(house.project, "checkout", "--quiet", f"autoresearch/{TAG}")
        time.sleep(chance.uniform(0.5, 3.0))
    git(house.project, "checkout", "--quiet", "--force", "main")


@fault("hands: files are deleted and edited")
def _files(house: House, chance: Random) -> None:
    for place in (house.project, house.store / TAG):
        (place / "results.tsv").unlink(missing_ok=True)
        with suppress(OSError), (place / "notes.md").open("a") as file:
            file.write("\n- my own line\n")
    settings = house.project / "autoresearch.toml"
    text = settings.read_text()
    settings.write_text(text + chance.choice(("# mine\n", "\n[metric\n", "nonsense = 1\n")))
    time.sleep(chance.uniform(0.1, 1.0))
    settings.write_text(text)


@fault("hands: ideas and notes from several shells at once")
def _crowd(house: House, chance: Random) -> None:
    value = chance.randint(1, 10**6)
    words = (
        ("note", f"note {value}"),
        ("idea", "add", f"env {value}", "--env", f"EXTRA={value}", "--anyway"),
        ("status",),
    )
    shells = [
        subprocess.Popen(
            [sys.executable, "-m", "autoresearch", *line],
            cwd=house.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for line in words
    ]
    for shell, line in zip(shells, words, strict=True):
        said, _ = shell.communicate(timeout=120)
        if shell.returncode != 0:
            house.add("several shells", f"autoresearch {line[0]} failed: {said[-500:]!r}")
