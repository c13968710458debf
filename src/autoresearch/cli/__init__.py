"""The command line: a thin layer over the library, one file for each group of verbs."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from pkgutil import resolve_name

import click

from autoresearch.cli import people, reading, running, store, strategies
from autoresearch.errors import AutoresearchError
from autoresearch.presets import preset_verbs
from autoresearch.text import one_line


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(metadata.version("autoresearch"), prog_name="autoresearch")
def cli() -> None:
    """Run machine-learning research by itself, and prove afterwards what was done.

    A campaign changes one training script, again and again, each time with a reason, and keeps
    what makes its metric better. Start with `autoresearch init`, go on with `autoresearch run`.
    """


for _module in (running, reading, people, store, strategies):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
for _name, _verb in preset_verbs().items():
    _command = resolve_name(_verb.command)
    cli.add_command(_command, _name)


def main() -> None:
    """Run the command line; a problem that a person can mend is one line and exit code 1."""
    _print_anywhere()
    try:
        _add_plugin_commands(sys.argv[1:])
        cli.main(prog_name="autoresearch", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; autoresearch run goes on from here", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        said = f"cannot use {error.filename}: {error.strerror}; mend that and try again"
        click.echo(f"autoresearch: {one_line(said, 2_000)}", err=True)
        sys.exit(1)
    except AutoresearchError as error:
        click.echo(f"autoresearch: {one_line(str(error), 2_000)}", err=True)
        sys.exit(1)


def _print_anywhere() -> None:
    """Let signs that the terminal's encoding lacks be shown as escapes rather than end it all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _add_plugin_commands(arguments: list[str]) -> None:
    """Let plugins add commands, but only where the word is not one of ours: most calls are."""
    word = next((item for item in arguments if not item.startswith("-")), None)
    if word in cli.commands or (word is None and "--help" not in arguments and arguments):
        return
    from autoresearch.cli.project import plugins_here

    active = plugins_here(Path.cwd())
    if active is not None:
        active.register_commands(cli)
