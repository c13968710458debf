"""Reads the score of any script from its output: a pattern, or `name=value` and `name: value`."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from autoresearch.config import Config
from autoresearch.errors import ConfigError, PluginError
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Change, RunOutput, Violation
from autoresearch.numbers import (
    LEVELS,
    LONGEST_LINE,
    NAMED,
    NUMBER,
    SIZE,
    SIZED,
    WRAPPER,
    named,
    size_in_bytes,
)
from autoresearch.python_source import tree
from autoresearch.text import encoding_of, one_line, without_escapes

_BLOCK = 1 << 20
_LINE_END = re.compile(rb"[\r\n]")
_LINES_COMPARED = 2_000  # lines before the score that are searched for one that contradicts it
_RANK = re.compile(r"\brank\W?\d", re.IGNORECASE)


class Plugin:
    """Answers unless the campaign names another plugin that alone reads its metric."""

    def __init__(self) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._metric = ""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Compile the patterns; ConfigError when the user's has not exactly one group."""
        self._patterns = patterns(config)
        # Where a command of its own evaluates, nothing that the script prints is the score.
        self._metric = "" if config.evaluation.command else config.metric.name

    @hookimpl
    def audit_change(self, change: Change) -> Sequence[Violation] | None:
        """Refuse a script that prints the score as a literal, unless the pristine one does."""
        pattern = self._patterns.get(self._metric)
        if pattern is None:
            return None
        line = _literal_score(change.after, pattern)
        if line is None or _literal_score(change.pristine or change.before, pattern) is not None:
            return None
        detail = f"{self._metric} is printed as a literal; print what the run computed"
        return (Violation(rule="literal_score", detail=detail, line=line),)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the last finite value of each name that was printed, None when there is none."""
        if not self._patterns or not output.log_path.is_file():
            return None
        return read(output.log_path, self._patterns) or None

    @hookimpl
    def explain_no_score(self, output: RunOutput) -> str | None:
        """Say which numbers could not be told apart."""
        try:
            self.extract_metrics(output)
        except PluginError as error:
            return str(error)
        return None


def _literal_score(source: str, pattern: re.Pattern[str]) -> int | None:
    """Return the line of the first call whose arguments, all literals, read as a score."""
    parsed = tree(source)
    if parsed is None:
        return None
    known = _constants(parsed)
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call):
            told = [_literal(item, known) for item in node.args]
            if told and None not in told and pattern.search(" ".join(map(str, told))):
                return node.lineno
    return None


def _constants(script: ast.AST) -> dict[str, str]:
    """The names that one assignment binds to a literal, and nothing else does."""
    bound: Counter[str] = Counter()
    for node in ast.walk(script):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] += 1
        elif isinstance(node, ast.arg):
            bound[node.arg] += 1
    found: dict[str, str] = {}
    for node in ast.walk(script):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = _literal(node.value, found)
            if text is not None and bound[node.targets[0].id] == 1:
                found[node.targets[0].id] = text
    return found


def _literal(node: ast.expr, known: Mapping[str, str]) -> str | None:
    """Return the text that an expression of literals and known names prints, None for another."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.JoinedStr):
        parts = [_literal(item, known) for item in node.values]
        return None if None in parts else "".join(map(str, parts))
    if isinstance(node, ast.FormattedValue):
        return _literal(node.value, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        left, right = _literal(node.left, known), _literal(node.right, known)
        return None if left is None or right is None else re.sub(r"%[\d.]*[a-z]", right, left)
    try:
        return str(ast.literal_eval(node))
    except (ValueError, TypeError):
        return None


def patterns(config: Config) -> dict[str, re.Pattern[str]]:
    """Return what to look for: the user's pattern alone, or one for the score and one for size."""
    metric = config.metric
    if metric.pattern:
        return {metric.name: _users(metric.pattern)}
    if metric.reader not in ("", "pattern_metrics"):
        return {}
    sizes = {metric.size: _printed(metric.size, SIZED, SIZE)} if metric.size else {}
    return {**sizes, metric.name: _printed(metric.name)}


def numbers_in(path: Path, score: str, size: str) -> dict[str, float]:
    """Return the score and the size that a log has, each printed under its name."""
    sizes = {size: _printed(size, SIZED, SIZE)} if size else {}
    return read(path, {**sizes, score: _printed(score)})


def _users(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"metric.pattern {text!r} is not a pattern: {error}; correct it"
        ) from None
    if pattern.groups != 1:
        raise ConfigError(
            f"metric.pattern {text!r} has {pattern.groups} groups, but needs 1; "
            "put the number, and nothing else, in brackets"
        )
    return pattern


def _printed(name: str, number: str = NUMBER, unit: str = "") -> re.Pattern[str]:
    # The sign before the name keeps `val_loss` and `val/loss` from being read as `loss`, and the
    # one behind the number `0,93` and `1,234` from being read as 0 and 1.
    return re.compile(
        rf"(?:(?<!\S)(?P<word>[a-z][a-z_]*)[ \t]+)?(?<!{NAMED}){re.escape(name)}[\"']?"
        rf"\s*[=:]\s*{WRAPPER}{number}{unit}(?P<unit>\s?%)?(?!\.?\w|,\d)",
        re.IGNORECASE,
    )


@frozen
class _Number:
    """A number in a line; ``word`` stands before the name, ``unit`` is a per cent sign or empty."""

    value: float
    word: str
    unit: str
    shown: str


def read(path: Path, wanted: Mapping[str, re.Pattern[str]]) -> dict[str, float]:
    """Return the last number that each pattern matched; a last number that is not finite is absent.

    A bare name counts before one behind a word: `best loss` is `loss` only where there is no other.
    So it does before what a line means without ``=`` and ``:`` behind the name: a cell of a table
    (``| val_loss 1.2 |``), an object in JSON (``val/loss``), two words (``test acc: 0.9``).
    Lines are searched one at a time from the end of the file, so a large log costs little when
    the score stands in its last lines. Raises PluginError for numbers that cannot be told apart.
    """
    last: dict[str, _Number] = {}
    behind: dict[str, _Number] = {}
    left = _LINES_COMPARED
    for line in _lines_backwards(path):
        lowered = line.lower()
        for name, pattern in wanted.items():
            # To look for the name first takes a hundredth of the time that the pattern takes.
            named_there = "unit" not in pattern.groupindex or name.lower() in lowered
            numbers = _numbers(pattern, line) if named_there else []
            bare = [item for item in numbers if not item.word]
            if bare:
                _check(name, line, bare, last.setdefault(name, bare[0]))
            elif numbers:
                behind.setdefault(name, numbers[0])
            elif name not in behind and "unit" in pattern.groupindex and _part(name) in line:
                meant = named(line).numbers.get(name)
                if meant is not None:
                    behind[name] = _Number(meant, "", "", name)
        left -= len(last) == len(wanted)
        if left < 0:
            break
    found = {name: item.value for name, item in {**behind, **last}.items()}
    return {name: found[name] for name in wanted if math.isfinite(found.get(name, math.nan))}


def _part(name: str) -> str:
    return re.split(r"[_/]", name)[-1]


def _numbers(pattern: re.Pattern[str], line: str) -> list[_Number]:
    """Return what a line says, its last number first."""
    found = []
    for match in pattern.finditer(line):
        part = {"number": match[1], **match.groupdict(default="")}
        word = "" if part.get("word", "").upper() in LEVELS else part.get("word", "")
        digits = part["number"] or ""
        if "unit" in part or re.fullmatch(NUMBER, digits, re.IGNORECASE):  # no decimal comma
            digits = digits.replace(",", "")
        try:
            value = float(digits)
        except ValueError:
            continue
        value = size_in_bytes(value, part.get("bytes", ""))
        found.append(_Number(value, word, part.get("unit", "").strip(), one_line(match[0], 60)))
    return found[::-1]


def _check(name: str, line: str, numbers: list[_Number], last: _Number) -> None:
    """Raise PluginError where it is not clear which of several numbers is the score."""
    values = {item.value for item in numbers}
    if len(values) > 1 and len(_RANK.findall(line)) > 1:
        shown = ", ".join(item.shown for item in numbers[::-1])
        raise PluginError(
            f"several ranks print {name} on one line ({shown}); print it from one rank, "
            "or set metric.pattern"
        )
    other = next((item for item in numbers if item.unit != last.unit), None)
    if other is not None:
        raise PluginError(
            f"{name} is printed as {other.shown!r} and as {last.shown!r}; print one unit, or set "
            "metric.pattern"
        )


def _lines_backwards(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4096))
        position, rest = file.seek(0, 2), b""
        if encoding.startswith("utf-16"):  # rare, and a line end may lie on any second byte
            file.seek(0)
            position, rest = 0, file.read().decode(encoding, "replace").encode("utf-8")
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            lines = _LINE_END.split(file.read(position - start) + rest)
            position, rest = start, lines[0][: LONGEST_LINE + 1]
            yield from _readable(lines[:0:-1])
        yield from _readable(_LINE_END.split(rest)[::-1])


def _readable(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        if line and len(line) <= LONGEST_LINE:
            yield without_escapes(line.decode("utf-8", "replace"))
