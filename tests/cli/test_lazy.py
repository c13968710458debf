"""What is not used is not imported, and what is imported is what the tables promise."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click
import pytest

import autoresearch
import autoresearch.cli as package
from autoresearch.cli import VERBS, Verbs, cli

PARTS = {"attrs", "cattrs", "click", "duckdb", "jinja2", "matplotlib", "mcp", "modal", "openai",
         "pluggy", "psutil", "pyrsistent", "rich", "sqlite3", "typing"}  # fmt: skip
HEAVY = PARTS - {"click", "typing"}


def imported_by(code: str, folder: Path) -> set[str]:
    """The modules in memory after running some code in a folder."""
    then = "; import sys, json; print(); print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + then], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing_but_itself(tmp_path: Path) -> None:
    """The door opens without the house: no dependency, and no room."""
    loaded = imported_by("import autoresearch", tmp_path)
    assert not loaded & PARTS
    assert {name for name in loaded if name.startswith("autoresearch")} == {"autoresearch"}


@pytest.mark.parametrize("module", ["supervisor", "far"])
def test_what_a_run_starts_loads_what_it_needs(module: str, tmp_path: Path) -> None:
    """One lives beside every run, one answers each question over ssh: no log, hooks, settings."""
    loaded = imported_by(f"import autoresearch.launchers.{module}", tmp_path)
    assert loaded & PARTS <= {"attrs", "psutil", "pyrsistent", "typing"}
    assert not loaded & {"autoresearch.config", "autoresearch.hookspecs", "autoresearch.history"}


def test_public_names_are_there_when_asked_for() -> None:
    """Every exported name is what a type checker was told, and a misspelt one is an error."""
    source = Path(autoresearch.__file__).read_text()
    for name in autoresearch.__all__:
        value = getattr(autoresearch, name)
        home = getattr(value, "__module__", "") or ""
        assert (
            not home.startswith("autoresearch.")
            or f"from {home} import" in source
            or (home.startswith(("autoresearch.log.", "autoresearch.projections.")))
        ), name
    assert set(autoresearch.__all__) <= set(dir(autoresearch))
    with pytest.raises(AttributeError, match="no attribute 'Ideas'"):
        autoresearch.Ideas  # noqa: B018


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    """Both are answered from the table of verbs, where there is no project with plugins."""
    for word in ("--help", "--version"):
        code = (
            f"import sys; sys.argv = ['autoresearch', {word!r}]\n"
            "from autoresearch.cli import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "pass"
        )
        loaded = imported_by(code, tmp_path)
        assert not loaded & HEAVY
        assert not {name for name in loaded if name.startswith("autoresearch.cli.")}


@pytest.mark.parametrize("verb", VERBS)
def test_table_says_what_the_command_says(verb: str) -> None:
    """The summary in `autoresearch --help` is the first sentence of the verb's own help."""
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.name == verb
    assert command.get_short_help_str(limit=200).removesuffix(".") == VERBS[verb][1]


def test_every_command_is_in_the_table() -> None:
    """No file of verbs has a command that the table forgot."""
    for name in (item.name for item in iter_modules(package.__path__)):
        module = import_module(f"{package.__name__}.{name}")
        own = {item for item in vars(module).values() if isinstance(item, click.Command)}
        inner = {
            cmd for group in own if isinstance(group, Verbs) for cmd in group.commands.values()
        }
        for command in own - inner:
            assert command.name in VERBS, command
            assert VERBS[command.name][0].startswith(f"{name}:")


@pytest.mark.parametrize("words", [(), ("idea",), ("quarantine",)])
@pytest.mark.parametrize("columns", ["60", "200"])
def test_help_shows_summaries_whole(say, monkeypatch, words: tuple[str, ...], columns: str) -> None:
    """No summary ends in dots, however narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", columns)
    said = say(*words, "--help")
    assert said.code == 0
    assert "..." not in said.out.partition("[ARGS]...")[2]
    assert max(map(len, said.out.splitlines())) <= int(columns)


def test_help_lists_the_commands_of_the_projects_plugins(say, project: Path) -> None:
    """A plugin's verb stands in the help under its own heading, and works."""
    (project / "plugins").mkdir()
    (project / "plugins" / "hello.py").write_text(
        "import click\nfrom autoresearch import hookimpl\n\n\n"
        "@hookimpl\ndef register_commands(cli):\n"
        "    @cli.command()\n    def hello():\n        '''Say hello.'''\n"
        "        click.echo('hello there')\n"
    )
    try:
        said = say("--help")
        assert "From plugins:\n  hello  Say hello" in said.out
        assert say("hello").out == "hello there\n"
    finally:
        cli.commands.pop("hello", None)


def test_ctrl_c_while_the_modules_load_is_one_line(tmp_path: Path) -> None:
    """A person who pressed the wrong key sees no traceback."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    command = [sys.executable, "-m", "autoresearch", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted; nothing was begun\n")
