"""Mends trivial crashes of a script: a missing import, a misspelt name or attribute."""

from __future__ import annotations

import re
import sys

from autoresearch.hookspecs import hookimpl
from autoresearch.model import Idea, IdeaKind, Workspace

_NAME = re.compile(r"NameError: name '(\w+)' is not defined(?:\. Did you mean: '(\w+)'\?)?")
_ATTRIBUTE = re.compile(r"AttributeError: .*?attribute '(\w+)'\. Did you mean: '(\w+)'\?")
_LINE = re.compile(r'File "[^"]*", line (\d+)')

# What people call well-known modules; the rest of the standard library goes by its own name.
_ALIASES = {
    "np": "import numpy as np",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "dist": "import torch.distributed as dist",
    "Path": "from pathlib import Path",
    "torch": "import torch",
    "partial": "from functools import partial",
    "defaultdict": "from collections import defaultdict",
    "dataclass": "from dataclasses import dataclass",
}


@hookimpl
def implement_idea(idea: Idea, workspace: Workspace) -> str | None:
    """Answer for ideas of kind ``fix`` whose text, the end of a log, shows a trivial crash."""
    if idea.kind is not IdeaKind.FIX:
        return None
    return mended(workspace.read_script(), f"{idea.description}\n{idea.hypothesis}")


def mended(source: str, log: str) -> str | None:
    """Return the script without the crash that the log shows, or None when it is not trivial."""
    for pattern in (_NAME, _ATTRIBUTE):
        found = pattern.findall(log)
        if found:
            wrong, right = found[-1]
            statement = _import_of(wrong) if pattern is _NAME else None
            if statement is not None:
                return _with_import(source, statement)
            return _renamed(source, wrong, right, _crash_lines(log)) if right else None
    return None


def _import_of(name: str) -> str | None:
    if name in _ALIASES:
        return _ALIASES[name]
    return f"import {name}" if name in sys.stdlib_module_names else None


def _with_import(source: str, statement: str) -> str | None:
    lines = source.splitlines(keepends=True)
    if any(line.strip() == statement for line in lines):
        return None
    first = _first_import(lines)
    return "".join([*lines[:first], statement + "\n", *lines[first:]])


def _first_import(lines: list[str]) -> int:
    """Return the line of the first top-level import that is not from ``__future__``."""
    starts = ("import ", "from ")
    for number, line in enumerate(lines):
        if line.startswith(starts) and not line.startswith("from __future__"):
            return number
    futures = [number for number, line in enumerate(lines) if line.startswith("from __future__")]
    return futures[-1] + 1 if futures else 0


def _crash_lines(log: str) -> list[int]:
    return [int(text) for text in _LINE.findall(log)]


def _renamed(source: str, wrong: str, right: str, where: list[int]) -> str | None:
    lines = source.splitlines(keepends=True)
    word = re.compile(rf"\b{wrong}\b")
    for number in reversed(where):
        if 0 < number <= len(lines) and word.search(lines[number - 1]):
            lines[number - 1] = word.sub(right, lines[number - 1])
            return "".join(lines)
    return None
