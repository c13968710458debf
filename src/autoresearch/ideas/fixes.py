"""Fixes trivial crashes without a model: a misspelt name, a missing import, nothing cleverer.

The traceback says which line and which name; Python itself suggests the spelling. What needs more
thought is left to another plugin, or to the verdict.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from attrs import frozen

from autoresearch.hookspecs import hookimpl
from autoresearch.model import Idea, IdeaKind, Workspace
from autoresearch.python_source import fault

_RANK = re.compile(r"^\[(?:rank|default)\d+\]:\s?", re.MULTILINE)
_FRAME = re.compile(r'^ *File ".*", line (\d+), in .*\n +(\S.*)$', re.MULTILINE)
_NAME = re.compile(r"^NameError: (?:free variable|name) '(\w+)'(.*)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^AttributeError: .* has no attribute '(\w+)'(.*)$", re.MULTILINE)
_MEANT = re.compile(r"Did you mean: '(?:self\.)?(\w+)'\?")

# What scripts call these without thinking; the last word of each line is the name it defines.
_USUAL_IMPORTS = (
    "import numpy as np",
    "import torch.nn.functional as F",
    "import torch.distributed as dist",
    "from torch import nn",
    "from torch import Tensor",
    "from pathlib import Path",
    "from collections import Counter",
    "from collections import defaultdict",
    "from collections import deque",
    "from dataclasses import dataclass",
    "from functools import partial",
)


@frozen
class _Crash:
    name: str
    meant: str | None
    line: int | None
    is_attribute: bool


class Plugin:
    """Answers only for a crash; the log's last words are the idea's hypothesis."""

    @hookimpl
    def implement_idea(self, idea: Idea, workspace: Workspace) -> str | None:
        """Return the repaired script, None when the crash is not trivial."""
        if idea.kind is not IdeaKind.FIX:
            return None
        return repaired(workspace.read_script(), idea.hypothesis)


def repaired(source: str, log: str) -> str | None:
    """Return the script without the crash that the log ends in, None when nothing trivial helps."""
    crash = _read(_RANK.sub("", log), source)
    if crash is None:
        return None
    for candidate in _candidates(source, crash):
        if candidate != source and fault(candidate) is None:
            return candidate
    return None


def _read(log: str, source: str) -> _Crash | None:
    """Return the last name that a traceback of this script complains about."""
    names = [(match, False) for match in _NAME.finditer(log)]
    found = names + [(match, True) for match in _ATTRIBUTE.finditer(log)]
    if not found:
        return None
    match, is_attribute = max(found, key=lambda item: item[0].start())
    meant = _MEANT.search(match[2])
    return _Crash(
        match[1], meant[1] if meant else None, _line(log[: match.start()], source), is_attribute
    )


def _line(traceback: str, source: str) -> int | None:
    """Return the innermost line that stands in the script as the traceback shows it."""
    lines = source.splitlines()
    for number, shown in reversed(_FRAME.findall(traceback)):
        index = int(number) - 1
        if index < len(lines) and lines[index].strip() == shown.strip():
            return index
    return None


def _candidates(source: str, crash: _Crash) -> Iterator[str]:
    if not crash.is_attribute:
        line = _import_of(crash.name, source)
        if line is not None:
            yield _with_import(source, line)
    if crash.meant is not None and crash.line is not None:
        yield _respelt(source, crash, crash.meant)


def _import_of(name: str, source: str) -> str | None:
    if name in sys.stdlib_module_names:
        return f"import {name}"
    for line in _USUAL_IMPORTS:
        package = line.split()[1].partition(".")[0]
        known = package in sys.stdlib_module_names or re.search(rf"\bimport {package}\b", source)
        # A package that the script does not use yet may not be installed where it runs.
        if line.split()[-1] == name and known:
            return line
    return None


def _with_import(source: str, line: str) -> str:
    """Put an import before the first one that is not from the future, else after the docstring."""
    lines = source.splitlines(keepends=True)
    at = _first_statement(source)
    return "".join([*lines[:at], f"{line}\n", *lines[at:]])


def _first_statement(source: str) -> int:
    body = ast.parse(source).body
    for node in body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not is_text and not is_future:
            decorators: list[ast.expr] = getattr(node, "decorator_list", [])
            return min([node.lineno, *(item.lineno for item in decorators)]) - 1
    return len(source.splitlines())


def _respelt(source: str, crash: _Crash, meant: str) -> str:
    """Replace the name in the code of its line; the same word in a text or comment stays."""
    number = (crash.line or 0) + 1
    lines = source.encode().splitlines(keepends=True)
    ends = sorted(_ends(ast.parse(source), crash, number), reverse=True)
    for end in ends:
        line = lines[number - 1]
        start = end - len(crash.name.encode())
        lines[number - 1] = line[:start] + meant.encode() + line[end:]
    return b"".join(lines).decode()


def _ends(tree: ast.AST, crash: _Crash, number: int) -> Iterator[int]:
    """Yield the bytes of a line at which the name ends."""
    for node in ast.walk(tree):
        if crash.is_attribute:
            hit = isinstance(node, ast.Attribute) and node.attr == crash.name
        else:
            hit = isinstance(node, ast.Name) and node.id == crash.name
        if hit and getattr(node, "end_lineno", None) == number:
            yield int(getattr(node, "end_col_offset", 0))
