"""A run that changes what is not its own is seen: told in a line, and recorded as a fact."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoresearch
from autoresearch.events import CheckoutChanged
from autoresearch.git import Git
from autoresearch.testing import make_project

QUIET = ("no:script_ideas",)


def run(project: Path, kind: str = "none") -> tuple[dict[str, list[str]], list[str]]:
    """Run the baseline; return what was recorded as changed, by kind, and the lines told."""
    told: list[str] = []
    overrides = {"boundary.kind": kind}
    campaign = autoresearch.start(project, tag="t1", overrides=overrides, plugins=QUIET)
    campaign.run(1, plugins=QUIET, wait=False, tell=told.append)
    events = [item.event for item in campaign.log.read(after=1)]
    found = {item.what: list(item.paths) for item in events if isinstance(item, CheckoutChanged)}
    assert campaign.history.experiments[0].verdict is not None
    return found, [line for line in told if "changed during the run" in line]


def made(tmp_path: Path, deed: str) -> Path:
    """Make a project whose script does something in it before it prints its score."""
    script = f"""
import os, pathlib, subprocess
project = pathlib.Path({str(tmp_path / "project")!r})
{deed}
print("score: 1.0")
"""
    return make_project(tmp_path / "project", script=script, files={"other.py": "x = 1\n"})


@pytest.mark.parametrize(
    ("deed", "what", "path"),
    [
        ("(project / 'other.py').write_text('x = 2')", "the checkout", "other.py"),
        ("(project / 'other.py').unlink()", "the checkout", "other.py"),
        ("(project / 'conftest.py').write_text('')", "the checkout", "conftest.py"),
        ("open(project / '.git/config', 'a').write('# x')", "git configuration", ".git/config"),
        ("(project / '.git/refs/heads/leak').write_text('x')", "refs", ".git/refs/heads/leak"),
        (
            "[os.truncate(f, 10) for f in project.glob('.autoresearch/journal/u*.jsonl')]",
            "the store",
            ".autoresearch/journal/u1@",
        ),
        (
            "[f.write_text('x') for f in project.glob('.autoresearch/sources/*')]",
            "the sources",
            ".autoresearch/sources/",
        ),
        (
            "open(project / '.autoresearch/t1/lab/.git/config', 'a').write('[filter \"x\"]')",
            "the lab",
            ".autoresearch/t1/lab/.git/config",
        ),
    ],
    ids=["changed", "deleted", "new", "configuration", "ref", "store", "sources", "lab"],
)
def test_what_a_run_changed_is_recorded(tmp_path: Path, deed: str, what: str, path: str) -> None:
    """Once, with the kind of thing and the files, and with one line for the person."""
    project = made(tmp_path, deed)
    if what == "the store":
        autoresearch.start(project, tag="u1", plugins=QUIET)
    found, told = run(project)
    assert list(found) == [what]
    assert any(path in name for name in found[what])
    assert len(told) == 1
    assert told[0].startswith(f"experiment 0: {what} changed during the run: ")


def test_a_run_that_keeps_to_its_own_changes_nothing(tmp_path: Path) -> None:
    """What it writes into its folder, and what the loop writes meanwhile, is no such fact."""
    project = made(tmp_path, "open('model.bin', 'w').write('x'); open('train.log', 'w')")
    assert run(project) == ({}, [])


def test_looking_starts_no_filter(tmp_path: Path) -> None:
    """A filter that the run put into the user's configuration is told, and not run by the loop."""
    deed = f"""
with open(project / ".git/config", "a") as file:
    file.write('[filter "x"]\\n\\tclean = touch {tmp_path}/ran\\n')
    file.write('[core]\\n\\tfsmonitor = touch {tmp_path}/ran\\n')
(project / ".git/info").mkdir(exist_ok=True)
(project / ".git/info/attributes").write_text("* filter=x")
(project / "other.py").write_text("x = 3")
"""
    project = made(tmp_path, deed)
    found, _ = run(project)
    assert set(found) == {"the checkout", "git configuration"}
    assert not (tmp_path / "ran").exists()


def test_looking_costs_two_processes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before and one after; none where bubblewrap keeps the run out."""
    asked: list[str] = []
    start = Git._start

    def counted(self: Git, arguments: tuple[str, ...], stdin: str | None) -> object:
        asked.append(arguments[0])
        return start(self, arguments, stdin)

    monkeypatch.setattr(Git, "_start", counted)
    run(made(tmp_path, ""))
    before_init = asked.index("clone")
    # The third is retention's, which keeps what the run wrote into its checkout.
    assert asked[before_init:].count("ls-files") == 3
