"""The files that an idea may change: patterns that say which, one digest that stands for all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from autoresearch.durable import digest
from autoresearch.errors import ConfigError

_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_MEANS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_editable(path: str, patterns: Iterable[str]) -> bool:
    """Return whether a path from the top of the repository matches one of the patterns.

    ``*`` and ``?`` stay within one folder, ``**`` crosses folders.
    """
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


def check_pattern(pattern: str) -> None:
    """Raise ConfigError for a pattern that leads out of the repository or into git's own files."""
    parts = pattern.split("/")
    if not pattern or pattern.startswith("/") or {".", "..", ".git", ".autoresearch"} & set(parts):
        raise ConfigError(
            f"editable holds {pattern!r}; write paths from the top of the repository, "
            "such as model.py or src/**/*.py"
        )


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    made, end = "", 0
    for found in _WILD.finditer(pattern):
        made += re.escape(pattern[end : found.start()]) + _MEANS[found[0]]
        end = found.end()
    return re.compile(made + re.escape(pattern[end:]), re.DOTALL)


def listing(digests: Mapping[str, str]) -> str:
    """Return the text that stands for several files: their paths and sha256, as canonical JSON."""
    return json.dumps(dict(digests), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def tree_digest(digests: Mapping[str, str]) -> str:
    """Return one sha256 for editable files: a single file's own, or that of their `listing`."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return digest(listing(digests))
