"""Reads the score of any script from its output: a pattern, or `name=value` and `name: value`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoresearch.config import Config
from autoresearch.errors import ConfigError
from autoresearch.hookspecs import hookimpl
from autoresearch.model import RunOutput

_BLOCK = 1 << 20
# A longer line is a progress bar or a dump; a backtracking pattern on it could take for ever.
_LONGEST_LINE = 20_000
_NUMBER = r"([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?))"


class Plugin:
    """Answers unless the campaign names another plugin that alone reads its metric."""

    def __init__(self) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}

    @hookimpl
    def configure(self, config: Config) -> None:
        """Compile the patterns; ConfigError when the user's has not exactly one group."""
        self._patterns = patterns(config)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the last finite value of each name that was printed, None when there is none."""
        if not self._patterns or not output.log_path.is_file():
            return None
        return read(output.log_path, self._patterns) or None


def patterns(config: Config) -> dict[str, re.Pattern[str]]:
    """Return what to look for: the user's pattern alone, or one for the score and one for size."""
    metric = config.metric
    if metric.pattern:
        return {metric.name: _users(metric.pattern)}
    if metric.reader not in ("", "pattern_metrics"):
        return {}
    return {name: _printed(name) for name in dict.fromkeys((metric.name, metric.size)) if name}


def _users(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"metric.pattern {text!r} is not a pattern: {error}; mend it") from None
    if pattern.groups != 1:
        raise ConfigError(
            f"metric.pattern {text!r} has {pattern.groups} groups, but needs 1; "
            "put the number, and nothing else, in brackets"
        )
    return pattern


def _printed(name: str) -> re.Pattern[str]:
    # The sign before the name keeps `val_loss` from being read as `loss`, and the one behind the
    # number `0,93` and `1,234` from being read as 0 and 1.
    return re.compile(
        rf"(?<![\w.-]){re.escape(name)}[\"']?\s*[=:]\s*{_NUMBER}(?!\.?\w|,\d)", re.IGNORECASE
    )


def read(path: Path, wanted: Mapping[str, re.Pattern[str]]) -> dict[str, float]:
    """Return the last number that each pattern matched; a last number that is not finite is absent.

    Lines are searched one at a time from the end of the file, so a large log costs little when
    the score stands in its last lines.
    """
    last: dict[str, float] = {}
    for line in _lines_backwards(path):
        for name in wanted.keys() - last.keys():
            number = _last_number(wanted[name], line)
            if number is not None:
                last[name] = number
        if len(last) == len(wanted):
            break
    return {name: last[name] for name in wanted if name in last and math.isfinite(last[name])}


def _last_number(pattern: re.Pattern[str], line: str) -> float | None:
    for match in reversed(list(pattern.finditer(line))):
        try:
            return float(match.group(1) or "")
        except ValueError:
            continue
    return None


def _lines_backwards(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        position, rest = file.seek(0, 2), b""
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            lines = (file.read(position - start) + rest).replace(b"\r", b"\n").split(b"\n")
            position, rest = start, lines[0][: _LONGEST_LINE + 1]
            yield from _readable(lines[:0:-1])
        yield from _readable([rest])


def _readable(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        if line and len(line) <= _LONGEST_LINE:
            yield line.decode("utf-8", "replace")
