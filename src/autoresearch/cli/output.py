"""How the command line speaks: tables, JSON, progress, and never a raw control character."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoresearch.text import block, one_line

TICK_SECONDS = 10.0


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
    if isinstance(value, Decimal):
        return float(value)
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print a table; numbers are right-aligned, text from outside is made harmless."""
    shown = [[cell(value) for value in row] for row in rows]
    numeric = [_is_numeric(index, shown) for index in range(len(columns))]
    table = Table(
        title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(text) for text in row))
    console().print(table)


def console() -> Console:
    """Return a console on standard output; in a pipe it is wide, so that no cell is folded."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=False)


def cell(value: Any) -> str:
    """Return a value as one harmless line for a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) < 1e9 else f"{value:g}"
    return one_line(str(value), 300)


def _is_numeric(index: int, rows: list[list[str]]) -> bool:
    texts = [row[index] for row in rows if row[index]]
    return bool(texts) and all(_number(text) for text in texts)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Teller:
    """Tells what goes on: every line once; a tick replaces the one before on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last_tick = 0.0
        self._ticking = False

    def tell(self, text: str) -> None:
        """Print text for good."""
        self.clear()
        stamp = time.strftime("%H:%M:%S")
        click.echo(f"{stamp} {block(text)}")

    def tick(self, text: str) -> None:
        """Show progress; where the output is no terminal, a line every ten seconds."""
        if self._terminal:
            # A tick that is wider than the terminal would leave its first line standing.
            room = min(100, shutil.get_terminal_size().columns - 3)
            click.echo(f"\r\x1b[2K  {one_line(text, max(room, 1))}", nl=False)
            self._ticking = True
        elif time.monotonic() - self._last_tick >= TICK_SECONDS:
            self._last_tick = time.monotonic()
            click.echo(f"{time.strftime('%H:%M:%S')} {one_line(text, 160)}")

    def clear(self) -> None:
        """Take the last tick away, so that what comes next starts on a line of its own."""
        if self._ticking:
            click.echo("\r\x1b[2K", nl=False)
            self._ticking = False
