"""Prints each hook call when ``AUTORESEARCH_TRACE_PLUGINS=1``: who, what came of it, how long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from autoresearch.text import one_line

SWITCH = "AUTORESEARCH_TRACE_PLUGINS"


class Span:
    """One call that is going on; ``result`` is set by whoever makes the call."""

    result: Any = None


class Trace:
    """Writes one line for each hook call; silent unless it was switched on."""

    def __init__(self, environ: Mapping[str, str], stream: TextIO | None = None) -> None:
        self._on = environ.get(SWITCH, "") not in ("", "0")
        self._stream = stream

    @contextmanager
    def call(self, plugin: str, hook: str) -> Iterator[Span]:
        """Time one call; the line is written even when the call raises."""
        span, begun = Span(), time.perf_counter()
        try:
            yield span
        except BaseException as error:
            span.result = error
            raise
        finally:
            if self._on:
                self._write(plugin, hook, span.result, time.perf_counter() - begun)

    def _write(self, plugin: str, hook: str, result: Any, seconds: float) -> None:
        shown = one_line(repr(result), 100)
        # Looked up late: the stream of the process may have been replaced since the start.
        stream = self._stream or sys.stderr
        print(f"trace {seconds * 1000:9.3f} ms  {hook} {plugin} -> {shown}", file=stream)
