"""S5: the statement that computes the loss, through which the score may go."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from autoresearch.golf.audit_tree import Script, line_of
from autoresearch.model import Violation


def audit_loss(script: Script, pristine: Script) -> Iterator[Violation]:
    """Warn where the statement that computes the loss changed: the score may go through it.

    An auxiliary loss is honest research, and a discount on the loss is not; no reader of source can
    tell them apart for sure, but the model tests can.
    """
    before = {code for code, _ in _losses(pristine)}
    for code, line in _losses(script):
        if code not in before:
            detail = f"the loss is computed another way, the model tests can judge it: {code[:90]}"
            yield Violation(rule="S5", detail=detail, line=line, severity="warning")


def _losses(script: Script) -> Iterator[tuple[str, int]]:
    for node in script.walk():
        if isinstance(node, ast.FunctionDef) and any(_is_loss(n) for n in ast.walk(node)):
            for part in ast.walk(node):
                if isinstance(part, ast.Return) or _assigns_loss(part):
                    yield ast.unparse(part), line_of(part)


def _assigns_loss(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(_is_loss(n) for n in ast.walk(node))


def _is_loss(node: ast.AST) -> bool:
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return called.rsplit(".", 1)[-1] in ("cross_entropy", "nll_loss", "CrossEntropyLoss")
