"""Search/replace blocks: applied exactly where they fit once, with the nearest passages where not.

Line ends of the file are kept whatever the answer uses, and so is the line end after a passage:
models often leave it out, and the next line would be glued to the last one of the edit.
"""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
from collections.abc import Iterable, Mapping

from attrs import frozen

from autoresearch.errors import PluginError
from autoresearch.python_source import tree
from autoresearch.text import block

_NEAREST = 2  # passages that are shown for a miss
_WORTH_SHOWING = 0.35  # similarity, 0 to 1, under which a passage would only mislead


class EditError(PluginError):
    """An edit does not fit; the message says what does, fit to be sent back."""


@frozen
class Edit:
    """One block: ``search`` stands once in ``file`` (empty: the script)."""

    search: str
    replace: str
    file: str = ""


def edited(files: Mapping[str, str], edits: Iterable[Edit], script: str) -> dict[str, str]:
    """Return all files with the edits made one after the other; EditError where one misses."""
    after = dict(files)
    for edit in edits:
        path = edit.file or script
        if path not in after:
            raise EditError(
                f"file {path[:80]!r} may not be changed; use one of {', '.join(sorted(files))}"
            )
        after[path] = _replaced(after[path], edit, path)
    return after


def _replaced(text: str, edit: Edit, path: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    search, replace = _with_ends(edit.search, end), _with_ends(edit.replace, end)
    if not search.strip():
        raise EditError("a search text is empty; copy the passage that is to be replaced")
    count = text.count(search)
    if count == 0 and search.endswith(end) and text.endswith(search.removesuffix(end)):
        search, count = search.removesuffix(end), 1  # the file's last line has no end
        replace = replace.removesuffix(end)
    if count == 0:
        raise EditError(_missed(text, search, path))
    if count > 1:
        lines = [str(text.count("\n", 0, at) + 1) for at in _places(text, search)]
        raise EditError(
            f"search text {edit.search[:80]!r} occurs {count} times in {path} (lines "
            f"{', '.join(lines[:6])}); add lines around it until it occurs once"
        )
    if search.endswith(end) and replace and not replace.endswith(end):
        replace += end
    return text.replace(search, replace)


def _with_ends(text: str, end: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", end)


def _places(text: str, search: str) -> list[int]:
    found: list[int] = []
    at = text.find(search)
    while at >= 0 and len(found) < 10:
        found.append(at)
        at = text.find(search, at + 1)
    return found


def _missed(text: str, search: str, path: str) -> str:
    """Say that a passage is not there, and show those most like it with their lines."""
    lines, wanted = text.splitlines(), search.splitlines()
    height = len(wanted)
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2("\n".join(line.strip() for line in wanted))
    rated = []
    for start in range(max(1, len(lines) - height + 1)):
        matcher.set_seq1("\n".join(line.strip() for line in lines[start : start + height]))
        if matcher.real_quick_ratio() > _WORTH_SHOWING and matcher.quick_ratio() > _WORTH_SHOWING:
            rated.append((matcher.ratio(), -start))
    told = f"search text {search[:80]!r} occurs 0 times in {path}"
    best = [
        (ratio, -start) for ratio, start in sorted(rated, reverse=True) if ratio > _WORTH_SHOWING
    ]
    if not best:
        return f"{told}; copy text that occurs once"
    shown = []
    for _, start in best[:_NEAREST]:
        passage = "\n".join(lines[start : start + height])
        shown.append(f"line {start + 1}:\n{block(passage, 1_500)}")
    return f"{told}; the nearest passages are\n" + "\n".join(shown)


def same_code(before: str, after: str) -> bool:
    """Return whether two Python texts differ in comments, blank lines or layout at most."""
    old, new = tree(before), tree(after)
    return old is not None and new is not None and ast.dump(old) == ast.dump(new)


def changed_lines(before: str, after: str) -> frozenset[str]:
    """Return the lines of code that ``after`` has and ``before`` has not, without layout."""
    return frozenset(_bare(after)) - frozenset(_bare(before))


def _bare(text: str) -> list[str]:
    """Return the lines of a text without comments and white space at their ends."""
    lines = text.splitlines()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and token.start[0] <= len(lines):
                row = token.start[0] - 1
                lines[row] = lines[row][: token.start[1]]
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass
    return [line.strip() for line in lines if line.strip()]
