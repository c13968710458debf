"""Writes the pages that are made from the code: cli.md, reference.md, settings.md and sql.md.

Run ``.venv/bin/python docs/generate.py``; a test fails when a page is not what this would write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import click
from attrs import NOTHING, Factory, fields, has, resolve_types

import autoresearch
import autoresearch.testing
from autoresearch.cli import cli
from autoresearch.config import Config, StageConfig
from autoresearch.log import Column, EventTable, View
from autoresearch.presets import presets
from autoresearch.projections.tables import ENVELOPE, people_schema
from autoresearch.settings import flat

HERE = Path(__file__).parent


def cli_page() -> str:
    """Return the help of every command."""
    lines = ["# Command line", "", "Made from the code by `docs/generate.py`.", ""]
    settings = {**cli.context_settings, "max_content_width": 90}
    context = click.Context(cli, info_name="autoresearch", **settings)
    for command, path in _commands(cli, context):
        lines += [f"## `{path.command_path}`", "", "```text", command.get_help(path), "```", ""]
    return "\n".join(lines)


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            inner = command.get_command(context, name)
            assert inner is not None
            child = click.Context(inner, info_name=name, parent=context, max_content_width=90)
            yield from _commands(inner, child)


def settings_page() -> str:
    """Return every setting with its type, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Made from the code by `docs/generate.py`.",
        "",
        "Settings stand in `autoresearch.toml`, or in the table `[tool.autoresearch]` of",
        "`pyproject.toml`. The command line (`--set limits.hours=8`) wins over the environment",
        "(`AUTORESEARCH_LIMITS_HOURS=8`), which wins over the file, which wins over the preset.",
        "`autoresearch config` prints every value and where it came from.",
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
    ]
    default = Config()
    lines += [
        f"| `{name}` | {kind} | `{value!r}` | {doc} |" for name, kind, value, doc in _rows(default)
    ]
    lines += ["", "Each table `[[stages]]`, a step of a [funnel](stages.md), has these:", ""]
    lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {kind} | `{value!r}` | {doc} |"
        for name, kind, value, doc in _rows(StageConfig())
    ]
    for preset in presets().values():
        if preset.settings:
            lines += [
                "",
                f"The preset `{preset.name}` ({preset.summary}) has these defaults instead:",
            ]
            lines += ["", "| setting | default |", "|---|---|"]
            lines += [f"| `{name}` | `{value!r}` |" for name, value in flat(preset.settings)]
    return "\n".join([*lines, ""])


def _rows(value: object, prefix: str = "") -> Iterator[tuple[str, str, object, str]]:
    for item in fields(resolve_types(type(value))):
        inner = getattr(value, item.name)
        if item.type is not None and has(item.type):
            yield from _rows(inner, f"{prefix}{item.name}.")
        else:
            kind = str(item.type).replace("<class '", "").replace("'>", "")
            for module in ("collections.abc.", "typing.", "autoresearch.config."):
                kind = kind.replace(module, "")
            shown = dict(inner) if kind.startswith("Mapping") else inner
            yield f"{prefix}{item.name}", kind, shown, item.metadata["doc"].replace("|", "\\|")


def reference_page() -> str:
    """Return every public class and function, with its fields or its signature."""
    lines = [
        "# Public names",
        "",
        "Made from the code by `docs/generate.py`.",
        "",
        "What `autoresearch` and `autoresearch.testing` export is public and stands on this page;",
        "everything else is private and may change in any version. A plugin needs these names and",
        "the [hooks](hooks.md), a project the [settings](settings.md) and the [tables](sql.md).",
        "",
    ]
    for module in (autoresearch, autoresearch.testing):
        lines += [f"## `{module.__name__}`", "", *_module(module)]
    return "\n".join(lines)


def _module(module: ModuleType) -> Iterator[str]:
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        yield from (f"### `{name}`", "")
        if inspect.isclass(value):
            yield from _class(value)
        elif isinstance(value, FunctionType):
            yield from ("```python", f"{name}{_signature(value)}", "```", "", _prose(value), "")
        else:
            yield from _other(value)


def _other(value: object) -> Iterator[str]:
    """A constant, a mark or a pytest fixture."""
    kind = type(value).__name__.replace("FixtureFunctionDefinition", "pytest fixture")
    told = value.__doc__ if value.__doc__ != type(value).__doc__ else None
    own = inspect.cleandoc(told).partition("\n\n")[0] if told else ""
    yield from (f"`{kind}`. {own}".strip(), "")


def _class(shape: type[Any]) -> Iterator[str]:
    bases = [base.__name__ for base in shape.__bases__ if base not in (object, Protocol)]
    if bases:
        yield from (f"Extends `{'`, `'.join(bases)}`.", "")
    doc = inspect.cleandoc(shape.__doc__ or "")
    yield from (_as_markdown(doc.partition("\nAttributes:\n")[0]), "")
    if issubclass(shape, Enum):
        yield from ("Values: " + ", ".join(f"`{item.value}`" for item in shape) + ".", "")
    elif has(shape):
        yield from _fields(shape, doc.partition("\nAttributes:\n")[2])
    elif "__init__" in vars(shape) and not issubclass(shape, BaseException):
        yield from ("```python", f"{shape.__name__}{_signature(shape.__init__)}", "```", "")
    yield from _members(shape)


def _fields(shape: type[Any], doc: str) -> Iterator[str]:
    """A table of the fields; what they mean is in their metadata or in lines ``name: meaning``."""
    said = dict(re.findall(r"^ +(\w+): (.*)$", doc, re.MULTILINE))
    rows = [
        [
            f"`{item.name}`",
            f"`{_annotation(shape, item.name)}`",
            _default(item.default),
            item.metadata.get("doc", said.get(item.name, "")),
        ]
        for item in fields(shape)
        if not item.name.startswith("_")
    ]
    wide = 4 if any(row[3] for row in rows) else 3
    for row in (["field", "type", "default", "meaning"], ["---"] * 4, *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row[:wide]) + " |"
    yield ""


def _members(shape: type[Any]) -> Iterator[str]:
    """Public methods and properties of the class itself, and the checks of a contract."""
    own = {name: value for name, value in vars(shape).items() if not name.startswith("_")}
    checks = [name for name in own if name.startswith("test_")]
    found = []
    for name, value in own.items():
        if isinstance(value, property):
            found.append(f"* `{name}`: {_prose(value)}")
        elif isinstance(value, classmethod | staticmethod):
            found.append(f"* `{name}{_signature(value.__func__)}`: {_prose(value)}")
        elif isinstance(value, FunctionType) and name not in checks:
            found.append(f"* `{name}{_signature(value)}`: {_prose(value)}")
    if checks:
        found.append(f"* {len(checks)} checks, " + ", ".join(f"`{name}`" for name in checks))
    yield from (*found, *([""] if found else []))


class _Raw:
    """Text that a signature shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(function: Any) -> str:
    found = inspect.signature(function)
    shown = [_parameter(item) for item in found.parameters.values()]
    answer = found.return_annotation
    return str(
        found.replace(
            parameters=[item for item in shown if item.name not in ("self", "cls")],
            return_annotation=answer if answer is found.empty else _Raw(_type(answer)),
        )
    )


def _parameter(item: inspect.Parameter) -> inspect.Parameter:
    kind, default = item.annotation, item.default
    if kind is not item.empty:
        kind = _Raw(_type(kind))
    if callable(default) and default is not item.empty:
        default = _Raw(default.__name__)
    return item.replace(annotation=kind, default=default)


def _annotation(shape: type[Any], field: str) -> str:
    """The type of a field as it is written; attrs may have resolved its own copy meanwhile."""
    written = (vars(base).get("__annotations__", {}) for base in shape.__mro__)
    return _type(next(kinds[field] for kinds in written if field in kinds))


def _type(kind: object) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return text.replace("collections.abc.", "").replace("typing.", "")


def _default(value: object) -> str:
    if value is NOTHING:
        return "required"
    if isinstance(value, Factory):
        made = None if value.takes_self else value.factory()
        return f"`{made!r}`" if made is not None and not made else "made from its own defaults"
    if isinstance(value, Enum):
        return f"`{value!s}`"
    return f"`{value.__name__}`" if callable(value) else f"`{value!r}`"


def _prose(value: object) -> str:
    """The first paragraph of a docstring, on one line."""
    first = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
    return _as_markdown(" ".join(first.split()))


def _as_markdown(text: str) -> str:
    """Docstrings speak reStructuredText: two backquotes, and roles before some."""
    return re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")


_TABLES = """\
# SQL tables and columns

Made from the code by `docs/generate.py`.

Ask with `autoresearch sql "…"`, with `autoresearch.connect()` from Python, or with any DuckDB 2.0
or newer on the file `.autoresearch/events.duckdb` (opened read-only it may stay open for hours).
The first two see everything acknowledged so far, the file itself what was synced into it last: a
loop that runs does that for a share of new events, and after ten minutes at the latest.

Times are UTC. A number that a run did not give is NULL, never 0. What the unit column calls
*metric* is in the unit of the campaign's own metric. Names that SQL reserves need quotes
(`"limit"`).

[Twenty-eight questions](sql-questions.md) that people ask have their query there, with what it
answers.

## Tables for people
"""

_EVENTS = """\
## The log itself

`events` has one row for each event, with `position` (place in the total order, from 1),
`event_id`, `campaign`, `stream` and `version` (place within the stream), `type`, `schema_version`,
`recorded_at`, `actor`, `hash`, `previous_hash` (sha256, see [the log](log.md)), `payload` (JSON as
written), and `journal` and `start` (the file and byte of its line). `rejected_events` has what
could not be given a place, with the `reason`. Both refuse UPDATE and DELETE.

## One table for each event type

Beside their own columns all of them have {envelope}.
"""


def sql_page() -> str:
    """Return every table and view with its columns, from their definitions."""
    schema = people_schema()
    envelope = ", ".join(f"`{column.name}` ({column.doc})" for column in ENVELOPE)
    parts = [_TABLES, *map(_section, schema.views), _EVENTS.format(envelope=envelope)]
    parts += [_section(table, ENVELOPE) for table in schema.tables]
    return "\n".join(parts)


def _section(table: EventTable | View, hidden: Iterable[Column] = ()) -> str:
    columns = [column for column in table.columns if column not in hidden]
    return "\n".join([f"### {table.name}\n", f"{table.doc}\n", *_column_rows(columns), ""])


def _column_rows(columns: list[Column]) -> Iterator[str]:
    if not columns:
        return
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in columns:
        yield f"| `{column.name}` | {column.kind} | {column.unit} | {column.doc} |"


PAGES = {
    "cli.md": cli_page,
    "reference.md": reference_page,
    "settings.md": settings_page,
    "sql.md": sql_page,
}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
