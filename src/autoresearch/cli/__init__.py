"""The command line: a thin layer over the library, one file for each group of verbs.

A verb is a line of the table below and a command that is imported when it is used, so that
`--help` and `--version` answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path

import click

from autoresearch.errors import AutoresearchError, brought_by
from autoresearch.presets import preset_verbs
from autoresearch.text import one_line

# What `--help` calls a number whose bounds stand behind it, in place of INTEGER RANGE.
click.IntRange.name, click.FloatRange.name = "integer", "float"
CHECK = "Check a script and its score"
PLUGINS = "From plugins"
# Headings; below each the verbs, with the place of their command and what `--help` says of them.
_TABLE = """\
Run
  demo running:demo
    Show in ten seconds what a campaign does, in a folder of its own
  init running:init
    Check everything and start a campaign, without running it
  run running:run
    Run experiments until a person, a budget or an option stops it
Read
  status reading:status
    Say where a campaign stands: alive or not, waiting for what, best, running, spent
  watch showing:watch
    Watch a campaign: head, best, what runs, the queue, decisions, spending, and the likely end
  show showing:show
    Show one EXPERIMENT whole, or list them all
  diff showing:diff
    Show what EXPERIMENT changed, or how OTHER differs from it
  log showing:log_of
    Print what a run of EXPERIMENT printed, the newest run by default
  checkout showing:checkout
    Write the files of EXPERIMENT into a new FOLDER, as a clone that stands at its commit
  sql store:sql
    Ask the history of a campaign a QUERY in SQL; without one, at a prompt
  project reading:project_file
    Print results.tsv, notes.md or a plugin's file
  report reading:report
    Write the campaign as one HTML file, to read offline or to print
  plot reading:plot
    Draw every score and the best so far into a PNG file
Take part
  idea people:idea
    Queue what you would try next, list the queue, rank it, drop from it
  steer people:steer
    Say where the research should go: TEXT stands in every prompt and in notes.md
  note people:note
    Write TEXT into notes.md, where every generator reads it
  step people:step
    Do the research yourself, one step of the protocol after the other
  program people:program
    Print the instructions for an agent that does research here, made from this campaign
  mcp people:mcp
    Serve the steps as tools, and the memory as resources, to an MCP client on stdin and stdout
  observe people:observe
    Log an experiment that another loop made: DESCRIPTION, or - for lines of JSON on stdin
  stop people:stop
    Let the loop end: after the experiment under way, or at once with --now
  pause people:pause
    Let the loop wait before its next step; a run under way comes to its end
  resume people:resume
    Let a paused or waiting loop go on at once
  quarantine people:quarantine
    List and judge results too good to believe
  accept people:accept
    Keep the result of EXPERIMENT, which was quarantined or discarded
  overrule people:overrule
    Discard the result of EXPERIMENT, which was kept or quarantined
Prove
  verify store:verify
    Check the log, and that everything it names is there and is what it was
  rebuild store:rebuild
    Make the database and every file again from the log
  export showing:export
    Write EXPERIMENT into FOLDER as a record of the challenge, or everything as Parquet
Compare strategies
  import strategies:import_history
    Take over histories that other tools kept, as a campaign of its own
  replay strategies:replay
    Say what another policy would have decided: was this loop fooled?
  simulate strategies:simulate
    Compare strategies in simulated worlds whose truth is known
Extend
  plugins strategies:plugins
    List plugins: built-in, installed, the project's
  config strategies:config
    Print every setting and where its value came from
  new-plugin strategies:new_plugin
    Write a working plugin NAME with its test
"""


def _verbs() -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield each verb with the place of its command, what `--help` says of it, and its heading."""
    heading, lines = "", iter(_TABLE.splitlines())
    for line in lines:
        if line.startswith(" "):
            verb, where = line.split()
            yield verb, (where, next(lines).strip(), heading)
        else:
            heading = line


VERBS = dict(_verbs())
# The verbs of presets, such as metrics, audit and canary.
VERBS |= {name: (verb.command, verb.help, CHECK) for name, verb in preset_verbs().items()}


class Later(click.Command):
    """Stands in for the command of a verb until that is used."""

    def __init__(self, verb: str, where: str, summary: str, group: str) -> None:
        super().__init__(verb, short_help=summary)
        self.where: str = where
        self.group: str = group

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.where.partition(":")
        home = import_module(module if "." in module else f"{__name__}.{module}")
        command: click.Command = getattr(home, attribute)
        return command


class Verbs(click.Group):
    """A group whose help has every summary whole, under its heading."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command itself, imported now if it was not before."""
        command = super().get_command(ctx, cmd_name)
        return command.load() if isinstance(command, Later) else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings, in the order in which they were added."""
        sections: dict[str, list[tuple[str, str]]] = {}
        others = "Commands" if ctx.parent else PLUGINS
        for name, command in self.commands.items():
            heading = command.group if isinstance(command, Later) else others
            summary = command.get_short_help_str(limit=200).removesuffix(".")
            sections.setdefault(heading, []).append((name, summary))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="autoresearch", prog_name="autoresearch")
def cli() -> None:
    """Run machine-learning research by itself, and prove afterwards what was done.

    A campaign changes one training script, again and again, each time with a reason, and keeps
    what makes its metric better. Start with `autoresearch init`, go on with `autoresearch run`.
    """


for _verb, _row in VERBS.items():
    cli.add_command(Later(_verb, *_row))


def main() -> None:
    """Run the command line; a problem that a person can fix is one line and exit code 1."""
    _print_anywhere()
    try:
        _add_plugin_commands(sys.argv[1:])
        cli.main(prog_name="autoresearch", standalone_mode=False)
        sys.stdout.flush()  # what a closed pipe or a full disk does not take is told here
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt, RuntimeError) as error:
        # DuckDB tells of Ctrl-C in words; Abort is a RuntimeError itself, as is RecursionError.
        by_hand = isinstance(error, click.Abort | KeyboardInterrupt)
        if not by_hand and "interrupt" not in str(error).lower():
            raise
        click.echo("interrupted; autoresearch run goes on from here", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "autoresearch").startswith("autoresearch"):
            raise
        _fail(f"this needs {error.name}; {brought_by(str(error.name))}")
    except OSError as error:
        _drop_output()
        # Of all that can be missing the folder that this was called in alone has no name.
        gone = error.filename is None and error.strerror == os.strerror(errno.ENOENT)
        what = "the current folder" if gone else error.filename
        told = f"cannot use {what}" if what else "cannot go on"
        _fail(f"{told}: {error.strerror or error}; correct that and try again")
    except AutoresearchError as error:
        _fail(str(error))


def _fail(problem: str, code: int = 1) -> None:
    click.echo(f"autoresearch: {one_line(problem, 2_000)}", err=True)
    sys.exit(code)


def _drop_output() -> None:
    """Let the interpreter's end not fail again on what the output did not take."""
    with suppress(OSError, ValueError):  # a test's output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException) -> str:
    """Return a complaint of click's in the words and the form of every other error here."""
    said = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    said = said.replace("a valid integer", "a whole number").replace("a valid float", "a number")
    said = said.replace("'[", "'").replace("]'", "'")
    context = getattr(error, "ctx", None)
    verb = context.command_path if context else "autoresearch"
    return f"{said[:1].lower()}{said[1:]}{' ' if said.endswith('?') else '; '}see {verb} --help"


def _print_anywhere() -> None:
    """Have all three streams; a sign that the terminal's encoding lacks is an escape, no failure.

    A stream that the caller closed leads nowhere, and no file that is opened later takes its place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _add_plugin_commands(arguments: list[str]) -> None:
    """Let plugins add commands, but only for a word that is not built in, and for the help."""
    word = next((item for item in arguments if not item.startswith("-")), None)
    help_asked = not arguments or {"-h", "--help"} & {*arguments}
    if word in cli.commands or (word is None and not help_asked):
        return
    if _may_have_plugins(Path.cwd()):
        from autoresearch.cli.shared import plugins_here

        active = plugins_here(Path.cwd())
        if active is not None:
            active.register_commands(cli)


def _may_have_plugins(folder: Path) -> bool:
    """Whether a plugin that is not built in may be active here, judged without importing any."""
    if os.environ.get("AUTORESEARCH_LOAD_PLUGINS"):
        return True
    root = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
    if root is None:
        return False
    settings = (root / "autoresearch.toml", root / "pyproject.toml")
    named = any(b"active" in path.read_bytes() for path in settings if path.is_file())
    return named or any((root / "plugins").glob("*.py"))
