"""The tutorial is run step by step: its files are written, its commands give what it shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-plugin.md"
STEP = re.compile(
    r"^`(?P<file>[^`\n]+)`:\n\n```(?:python|toml)\n(?P<text>.*?)^```$|^```console\n(?P<session>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def sections() -> dict[str, str]:
    """Return the text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output that is shown below it."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def pattern(shown: str) -> str:
    """Return what the output must match: dots stand for anything, a line of them for lines."""
    return ".*".join(re.escape(piece) for piece in shown.strip().split("..."))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory):
    """Runs commands in an empty folder, as somebody would who has just installed autoresearch."""
    home = tmp_path_factory.mktemp("tutorial")
    folder, site = home / "project", home / "site"
    folder.mkdir()
    apart = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "COLUMNS": "160",
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        # pip installs beside the environment of these tests, and asks no package index.
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    for role in ("AUTHOR", "COMMITTER"):
        apart |= {f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.org"}

    def run(command: str) -> str:
        kept = {key: text for key, text in os.environ.items() if "AUTORESEARCH" not in key}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**kept, **apart},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        refused = done.stdout.startswith("autoresearch: ")
        assert done.returncode == (1 if refused else 0), f"$ {command}\n{done.stdout}"
        return done.stdout

    run.folder = folder
    return run


@pytest.mark.parametrize("title", sections())
def test_each_section_does_what_it_says(shell, title):
    """Files are written where the page says, and every command prints what is shown."""
    for step in STEP.finditer(sections()[title]):
        if step["file"]:
            path = shell.folder / step["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["text"])
            continue
        for command, shown in commands(step["session"]):
            printed = shell(command)
            assert re.search(pattern(shown), printed, re.DOTALL), f"$ {command}\n{printed}"


def test_it_takes_under_30_lines():
    """The project, a policy, its contract test and a campaign are under 30 lines together."""
    lines = 0
    for step in STEP.finditer(sections()["In under 30 lines"]):
        if step["file"]:
            lines += len(step["text"].splitlines())
        else:
            lines += len(list(commands(step["session"])))
    assert lines < 30


def test_the_plugin_begins_with_8_lines():
    """The title of the page is true."""
    first = next(
        step for step in STEP.finditer(PAGE.read_text()) if step["file"] == "plugins/margin.py"
    )
    assert len(first["text"].splitlines()) == 8
