"""What the verbs share: the project, settings and campaign they stand in, and how they speak.

The decorators add the options that say which, and hand over what the options stand for. What is
printed is tables, JSON and progress, and never a raw control character.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import click

from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError, telling
from autoresearch.text import block, one_line

if TYPE_CHECKING:
    from autoresearch.log import FileLog
    from autoresearch.plugins import Plugins
    from autoresearch.settings import Loaded

# --- the project, its settings, its campaign --------------------------------------------------

Verb = Callable[..., Any]
_PATH = click.Path(path_type=Path)
_NEW_TAG = "Run tag: the last active one by default; today's date for a new campaign."
_SET = "Set one setting, such as limits.hours=8; may be repeated."
_PLUGIN = "Make a plugin active, load one from a file, or block one; may be repeated."


class Amount(click.FloatRange):
    """A number in a range; of NaN every comparison is false, and infinity is no amount."""

    def convert(self, *given: Any) -> float:
        amount = float(super().convert(*given))
        if not math.isfinite(amount):
            self.fail(f"{given[0]} is not a finite number.", *given[1:])
        return amount


project_option: Callable[[Verb], Verb] = click.option(
    "--project", type=_PATH, default=Path(), help="Folder of the project, or any folder inside it."
)
tag_option: Callable[[Verb], Verb] = click.option(
    "--tag", help="Run tag: the last active one by default."
)
at_option: Callable[[Verb], Verb] = click.option(
    "--at", type=click.IntRange(min=0), help="As of this position of the log."
)
plugin_option: Callable[[Verb], Verb] = click.option(
    "--plugin", "plugins", multiple=True, metavar="NAME|FILE|no:NAME", help=_PLUGIN
)
set_option: Callable[[Verb], Verb] = click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE", help=_SET
)
_OPTIONS: Mapping[str, Callable[..., Any]] = {
    "project": project_option,
    "tag": tag_option,
    "started_tag": click.option("--tag", "started_tag", help=_NEW_TAG),
    "at": at_option,
    "config": click.option("--config", type=_PATH, help="Settings instead of autoresearch.toml."),
    "sets": set_option,
    "plugins": plugin_option,
}
json_option: Callable[[Verb], Verb] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON."
)


def _handing(resolve: Callable[..., Mapping[str, Any]]) -> Callable[[Verb], Verb]:
    """Make a decorator that adds the options that ``resolve`` takes, and hands on its answer."""
    names = tuple(inspect.signature(resolve).parameters)

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**given: Any) -> Any:
            return verb(**resolve(**{name: given.pop(name) for name in names}), **given)

        for name in reversed(names):
            _OPTIONS[name](call)
        return call

    return decorate


@_handing
def with_log(project: Path) -> Mapping[str, Any]:
    """Hand over ``log``, the store of a project that has one."""
    from autoresearch.opening import existing_store

    return {"log": existing_store(root_of(project))}


@_handing
def with_campaign(project: Path, tag: str | None) -> Mapping[str, Any]:
    """Hand over the ``campaign``."""
    from autoresearch.opening import open_campaign

    return {"campaign": open_campaign(project, tag)}


@_handing
def with_history(project: Path, tag: str | None, at: int | None) -> Mapping[str, Any]:
    """Hand over the ``campaign``, and its ``history`` as of a position."""
    from autoresearch.opening import look_at

    campaign = look_at(project, tag)
    check_position(campaign.log, at)
    return {"campaign": campaign, "history": campaign.history if at is None else campaign.at(at)}


@_handing
def with_settings(project: Path, config: Path | None, sets: Sequence[str]) -> Mapping[str, Any]:
    """Hand over ``root``, the top of the project, and its ``loaded`` settings."""
    return {"root": root_of(project), "loaded": settings_at(project, config, sets)}


@_handing
def with_asked(
    project: Path,
    started_tag: str | None,
    config: Path | None,
    sets: Sequence[str],
    plugins: Sequence[str],
) -> Mapping[str, Any]:
    """Hand over ``asked``, the arguments of :func:`autoresearch.start`."""
    asked = {"project": project, "tag": started_tag, "config": config, "plugins": plugins}
    return {"asked": {**asked, "overrides": overrides(sets), "environ": os.environ}}


def root_of(project: Path) -> Path:
    """Return the top of the git checkout around a folder."""
    from autoresearch.git import top_level

    return top_level(project.resolve())


def check_position(log: FileLog, at: int | None) -> None:
    """Refuse a position that the log has not reached: its answer would change later."""
    tip = log.tip().position
    if at is not None and at > tip:
        raise WorkspaceError(f"the log has no position {at} yet; give --at 0 to {tip}")


def settings_at(project: Path, config: Path | None, sets: Sequence[str]) -> Loaded:
    """Return the merged settings of the project."""
    from autoresearch.settings import load

    asked = overrides(sets)
    return load(root_of(project), file=config, environ=os.environ, overrides=asked)


def overrides(sets: Sequence[str]) -> Mapping[str, Any]:
    """Turn ``name=value`` words into settings; values are TOML, and a bare word is a string."""
    found: dict[str, Any] = {}
    for word in sets:
        name, text = pair(word, "--set", like="limits.hours=8")
        try:
            found[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = text
    return found


def pair(
    word: str, option: str, form: str = "NAME=VALUE", *, like: str = "MATRIX_LR=0.02"
) -> tuple[str, str]:
    """Split a word of an option such as ``NAME=VALUE``."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ConfigError(f"{option} {word!r} is not {form}; write it like {like}")
    return name, value


def environment(words: Sequence[str]) -> dict[str, str]:
    """Return the variables that the words of ``--env`` give."""
    return dict(pair(word, "--env") for word in words)


def text_of(file: BinaryIO, *, any_bytes: bool = False) -> str:
    """Return the text that a person gave, line ends and all."""
    with telling(f"cannot read {file.name}", "give UTF-8 text"):
        return file.read().decode("utf-8", "replace" if any_bytes else "strict")


def plugins_here(folder: Path) -> Plugins | None:
    """Return the plugins of the project around a folder; None where there is no usable one."""
    from autoresearch.plugins import Plugins

    try:
        return Plugins.load(settings_at(folder, None, ()).config, root_of(folder))
    except AutoresearchError:
        return None


# --- tables, JSON, progress -------------------------------------------------------------------

TICK_SECONDS = 10.0
GAP = 2  # blanks between two columns
WORD = 20  # letters of a word that a column has room for


def warn(text: str) -> None:
    """Tell what looks wrong and does not end the command."""
    click.echo(f"warning: {one_line(text, 500)}", err=True)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values below each other; what is None has no line."""
    wide = max(map(len, facts), default=0) + 1
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name + ':':<{max(wide, 13)}} {one_line(str(value), 300)}")


def print_json(value: Any) -> None:
    """Print one JSON document; a number that is not finite, which JSON lacks, becomes null."""
    click.echo(json.dumps(_finite(value), indent=2, default=_plain, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float | Decimal) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else str(value)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON objects with the columns as keys; of equals: a, a_1."""
    if as_json:
        before = [columns[:index].count(name) for index, name in enumerate(columns)]
        keys = [f"{name}_{n}" if n else name for name, n in zip(columns, before, strict=True)]
        print_json([dict(zip(keys, values, strict=True)) for values in rows])
    else:
        print_table(columns, rows)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table that fits the terminal; text from outside is made harmless.

    Numbers are right-aligned and never broken, words only beyond 20 letters. Where these have no
    room beside each other, each row is a block of its own. A pipe has all the room there is, unless
    COLUMNS says how much.
    """
    values = [tuple(row) for row in rows]
    shown = [[cell(value) for value in row] for row in values]
    numeric = [all(_is_number(row[index]) for row in values) for index in range(len(columns))]
    least = [
        max(len(name), *(_widest(row[index], numeric[index]) for row in shown), 1)
        for index, name in enumerate(columns)
    ]
    room = _room()
    if room is not None and sum(least) + GAP * (len(least) - 1) > room:
        _print_records(columns, shown)
    else:
        _print_grid(columns, shown, numeric, least, room)


def _print_records(columns: Sequence[str], shown: Iterable[Sequence[str]]) -> None:
    """Print each row as lines of its own: as a table it would be too wide."""
    wide = max(map(len, columns))
    for row in shown:
        for name, text in zip(columns, row, strict=True):
            click.echo(f"{name:<{wide}}  {text}".rstrip())
        click.echo()


def _print_grid(
    columns: Sequence[str],
    shown: Iterable[Sequence[str]],
    numeric: Iterable[bool],
    least: Iterable[int],
    room: int | None,
) -> None:
    """Print a table, each column at least so wide; numbers stand at the right."""
    # Imported here: nothing but a table needs it, and the answer to --help must not wait for it.
    from rich import box, console, measure, table
    from rich.text import Text

    grid = table.Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, right, width in zip(columns, numeric, least, strict=True):
        side: Any = "right" if right else "left"
        grid.add_column(Text(name), justify=side, overflow="fold", no_wrap=right, min_width=width)
    for row in shown:
        grid.add_row(*map(Text, row))
    out = console.Console(width=room or 1_000_000, highlight=False)
    if room is None:
        out.width = measure.Measurement.get(out, out.options, grid).maximum
    with out.capture() as drawn:
        out.print(grid)
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _widest(text: str, numeric: bool) -> int:
    """Return the room that a cell needs at the least: a number, or the longest of its words."""
    return len(text) if numeric else min(max(map(len, text.split()), default=0), WORD)


def _room() -> int | None:
    """Return how wide the output may be; None: as wide as it likes."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return None


def cell(value: Any) -> str:
    """Return a value as one harmless line for a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) < 1e9 else f"{value:g}"
    return one_line(str(value), 300)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal))


class Teller:
    """Tells what goes on: every line once; a tick replaces the one before on a terminal.

    At the end of a ``with`` the last tick is taken away.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last_tick = 0.0
        self._ticking = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def tell(self, text: str) -> None:
        """Print text for good."""
        self.clear()
        self._print(f"{time.strftime('%H:%M:%S')} {block(text)}")

    def _print(self, text: str, *, nl: bool = True) -> None:
        """Print; a terminal that is gone, or a full disk behind a pipe, does not end the loop."""
        try:
            click.echo(text, nl=nl)
        except BrokenPipeError:
            raise
        except OSError:
            return

    def tick(self, text: str) -> None:
        """Show progress; where the output is no terminal, a line every ten seconds."""
        if self._terminal:
            # A tick that is wider than the terminal would leave its first line standing.
            room = min(100, shutil.get_terminal_size().columns - 3)
            self._print(f"\r\x1b[2K  {one_line(text, max(room, 1))}", nl=False)
            self._ticking = True
        elif time.monotonic() - self._last_tick >= TICK_SECONDS:
            self._last_tick = time.monotonic()
            self._print(f"{time.strftime('%H:%M:%S')} {one_line(text, 160)}")

    def clear(self) -> None:
        """Take the last tick away, so that what comes next starts on a line of its own."""
        if self._ticking:
            self._print("\r\x1b[2K", nl=False)
            self._ticking = False
