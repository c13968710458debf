"""The digest of a piece of code: of its words, so that layout, comments and prose do not count."""

from __future__ import annotations

import ast
import hashlib
import io
import token as kinds
import tokenize
from collections.abc import Iterator

from autoresearch.golf.audits.tree import Script, line_of

_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, kinds.ENDMARKER}


def code_digest(script: Script, node: ast.stmt) -> str:
    """Digest of the words of a piece of code: the same however it is laid out or commented."""
    first = min([d.lineno for d in getattr(node, "decorator_list", [])], default=node.lineno)
    last = node.end_lineno or node.lineno
    text = "\n".join(script.source.split("\n")[first - 1 : last]) + "\n"
    silent = {
        (line_of(prose) - first + 1, getattr(prose, "col_offset", 0))
        for prose in script.prose
        if first <= line_of(prose) <= last
    }
    return hashlib.sha256("\x1f".join(_words(text, silent)).encode()).hexdigest()


def _words(text: str, silent: set[tuple[int, int]]) -> Iterator[str]:
    """Tokens that matter. Python 3.12 splits f-strings into tokens, so they are taken whole."""
    start = getattr(kinds, "FSTRING_START", -1)
    end = getattr(kinds, "FSTRING_END", -2)
    lines = text.split("\n")
    depth, begun, after_prose = 0, (1, 0), False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == start:
            begun, depth = (token.start, depth + 1) if depth == 0 else (begun, depth + 1)
        elif token.type == end:
            depth -= 1
            if depth == 0:
                yield _slice(lines, begun, token.end)
        elif token.start in silent or (after_prose and token.type == kinds.NEWLINE):
            after_prose = token.start in silent
        elif depth == 0 and token.type not in _SILENT:
            yield kinds.tok_name[token.type] if not token.string.strip() else token.string


def _slice(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "\n".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])
