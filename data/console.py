"""What the data scripts say: one line for an error, progress for anything slow."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 2.0  # progress written to a file stays short
INTERRUPTED = 130


class DataError(Exception):
    """Something that the person at the keyboard can mend; its text is the one line they see."""


def run(main: Callable[[], None]) -> int:
    """Run a script's main function and turn its errors into one line and an exit code.

    Returns 0, 1 for what a person can mend, 130 when interrupted.
    """
    try:
        main()
    except DataError as error:
        return _complain(str(error), 1)
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return _complain(f"{reason}{place}; check path, permissions and free space, run again", 1)
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to go on", INTERRUPTED)
    return 0


def _complain(line: str, code: int) -> int:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return code


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    print(line, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes are done; yields the function, safe from any thread,
    that adds to them.

    A terminal gets a bar, anything else a line every two seconds.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(label, total).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


class _Lines:
    """Progress for a pipe or a file: at most one line every two seconds."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            say(f"{self._label}: {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB")
