"""S6: no data smuggled in as literals: long strings, long lists of numbers, blobs in comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from autoresearch.golf.audits.tree import Script, line_of
from autoresearch.model import Violation

MAX_LITERAL_BYTES = 4_096  # the limit of the challenge's reviewers for one constant
MAX_NUMBERS = 1_000  # at two bytes a token this would already hold 2 kB of validation text
MAX_NUMBERS_TOGETHER = 4_000
_BLOB = re.compile(r"[^\s]{120,}")  # prose and code break sooner; base64, hex and base85 do not


def audit_literals(script: Script) -> Iterator[Violation]:
    """Yield literals that could hold a piece of the validation text or of somebody's model."""
    inner = _inner_parts(script)
    blobs = numbers = 0
    last = 1
    for node in script.walk():
        if node in inner:
            continue
        size = _text_size(script, node)
        if size > MAX_LITERAL_BYTES:
            yield _found(node, f"a literal of {size} bytes, more than {MAX_LITERAL_BYTES}")
        count = _numbers(node)
        if count > MAX_NUMBERS:
            yield _found(node, f"a literal with {count} numbers, more than {MAX_NUMBERS}")
        elif count > 16:
            numbers, last = numbers + count, line_of(node)
        yield from _long_number(node)
        blobs += _blob_size(node)
    if numbers > MAX_NUMBERS_TOGETHER:
        yield _at(last, f"lists with {numbers} numbers together, more than {MAX_NUMBERS_TOGETHER}")
    if blobs > MAX_LITERAL_BYTES:
        yield _at(1, f"strings that are no words: {blobs} bytes together")
    yield from _comments(script.source)


def _found(node: ast.AST, what: str) -> Violation:
    return _at(line_of(node), what)


def _at(line: int, what: str) -> Violation:
    return Violation(rule="S6", detail=f"{what}: code must not carry data", line=line)


def _inner_parts(script: Script) -> set[ast.AST]:
    """Parts of a larger literal, which is counted as a whole."""
    parts: set[ast.AST] = set()
    for node in script.walk():
        if node in parts:
            continue
        if isinstance(node, ast.BinOp | ast.List | ast.Tuple | ast.Set | ast.Dict | ast.JoinedStr):
            parts.update(child for child in ast.walk(node) if child is not node)
    return {p for p in parts if not isinstance(p, ast.Call | ast.Lambda)}


def _text_size(script: Script, node: ast.AST) -> int:
    if node in script.prose:
        return 0  # its blobs are counted by _blob_size
    if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.BinOp):
        return sum(
            _size(child.value) for child in ast.walk(node) if isinstance(child, ast.Constant)
        )
    text = node.value if isinstance(node, ast.Constant) else None
    if text is None and isinstance(node, ast.Call | ast.JoinedStr | ast.Subscript):
        text = script.text(node)
    return _size(text)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    return len(value) if isinstance(value, bytes) else 0


def _numbers(node: ast.AST) -> int:
    if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return 0
    constants = (child.value for child in ast.walk(node) if isinstance(child, ast.Constant))
    return sum(isinstance(value, int | float | complex) for value in constants)


def _long_number(node: ast.AST) -> Iterator[Violation]:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        size = node.value.bit_length() // 8
        if size > 256:
            yield _found(node, f"a number of {size} bytes")


def _blob_size(node: ast.AST) -> int:
    if not isinstance(node, ast.Constant):
        return 0
    if isinstance(node.value, bytes):
        return len(node.value) if len(node.value) >= 120 else 0
    return _blobs(node.value) if isinstance(node.value, str) else 0


def _blobs(text: str) -> int:
    return sum(len(match.group().encode("utf-8", "replace")) for match in _BLOB.finditer(text))


def _comments(source: str) -> Iterator[Violation]:
    """A script can read its own comments, so they can carry data as well."""
    size, last = 0, 1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (blob := _blobs(token.string.strip("#=-~* "))):
            size, last = size + blob, token.start[0]
    if size > MAX_LITERAL_BYTES:
        yield _at(last, f"comments that are no words: {size} bytes together")
