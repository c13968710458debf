"""Writes the reference pages that are made from the code: cli.md, settings.md and sql.md.

Run ``.venv/bin/python docs/generate.py``; a test fails when a page is not what this would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from attrs import fields, has, resolve_types

from autoresearch.cli import cli
from autoresearch.config import Config
from autoresearch.projections.sql_page import sql_page

HERE = Path(__file__).parent


def cli_page() -> str:
    """Return the help of every command."""
    lines = ["# Command line", "", "Made from the code by `docs/generate.py`.", ""]
    context = click.Context(cli, info_name="autoresearch", max_content_width=90)
    for command, path in _commands(cli, context):
        lines += [f"## `{path.command_path}`", "", "```text", command.get_help(path), "```", ""]
    return "\n".join(lines)


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            inner = command.commands[name]
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
    return "\n".join([*lines, ""])


def _rows(value: object, prefix: str = "") -> Iterator[tuple[str, str, object, str]]:
    for item in fields(resolve_types(type(value))):
        inner = getattr(value, item.name)
        if item.type is not None and has(item.type):
            yield from _rows(inner, f"{prefix}{item.name}.")
        else:
            kind = str(item.type).replace("<class '", "").replace("'>", "")
            kind = kind.replace("collections.abc.", "").replace("typing.", "")
            shown = dict(inner) if kind.startswith("Mapping") else inner
            yield f"{prefix}{item.name}", kind, shown, item.metadata["doc"].replace("|", "\\|")


PAGES = {"cli.md": cli_page, "settings.md": settings_page, "sql.md": sql_page}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
