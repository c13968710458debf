"""S9 and S10: the lines that tell the score stay, and flags switched while training are named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from attrs import evolve

from autoresearch.golf.audits.forgery import SCORE, audit_forgery
from autoresearch.golf.audits.tree import Script, line_of, shown
from autoresearch.model import Violation

# Text without which a log has no score, or no size, or no proof of the whole validation split.
TOLD = ("model_params:", "val_bpb:", *SCORE)


def audit_prints(
    script: Script, pristine: Script | None, *, typed: bool = False
) -> Iterator[Violation]:
    """Yield score lines that are gone, written anew, or fed from elsewhere than the evaluation.

    ``typed`` says that the idea is an evaluation change, which may write them another way; gone
    they may not be.
    """
    if pristine is None:
        if not _statements(script, "val_bpb"):
            yield _s9(1, "prints no val_bpb: a run without a score tells nothing")
        return
    for text in TOLD:
        if _statements(pristine, text) and not _statements(script, text):
            yield _s9(1, f"the line {text!r} is printed no more")
    for finding in (*_forged_lines(script, pristine), *audit_forgery(script, pristine)):
        yield evolve(finding, severity="warning") if typed else finding


def audit_flags(script: Script) -> Iterator[Violation]:
    """Yield class attributes switched inside a loop: compiled code may never see the switch."""
    classes = {n.name for n in script.walk() if isinstance(n, ast.ClassDef)}
    compiled = any(
        isinstance(n, ast.Call) and script.dotted(n.func) == "torch.compile" for n in script.walk()
    )
    loops = [n for n in script.walk() if isinstance(n, ast.For | ast.While)] if compiled else []
    seen: set[int] = set()
    for node in (part for loop in loops for part in ast.walk(loop)):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in classes and id(node) not in seen:
            seen.add(id(node))
            detail = f"{shown(node)} is switched while training: compiled code may not notice"
            yield Violation(rule="S10", detail=detail, line=line_of(node), severity="warning")


def _s9(line: int, detail: str) -> Violation:
    return Violation(rule="S9", detail=detail, line=line)


@lru_cache(maxsize=32)
def _statements(script: Script, text: str) -> dict[str, int]:
    """The smallest statements that contain a text, as code, with their lines."""
    found: dict[str, int] = {}
    lines = [line_of(n) for n in script.walk() if _is_text(n, text) and n not in script.prose]
    for node in script.walk() if lines else ():
        if not isinstance(node, ast.stmt) or not _covers(node, lines):
            continue
        if any(text in value for value in _own_strings(script, node)):
            found[ast.unparse(node)] = line_of(node)
    return found


def _is_text(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text in node.value


def _covers(node: ast.stmt, lines: list[int]) -> bool:
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for line in lines)


def _own_strings(script: Script, node: ast.stmt) -> Iterator[str]:
    """Strings in the statement itself, those of statements inside it and prose left out."""
    stack: list[ast.AST] = [c for c in ast.iter_child_nodes(node) if not isinstance(c, ast.stmt)]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.Constant):
            if isinstance(part.value, str) and part not in script.prose:
                yield part.value
        else:
            stack += [c for c in ast.iter_child_nodes(part) if not isinstance(c, ast.stmt)]


def _forged_lines(script: Script, pristine: Script) -> Iterator[Violation]:
    for text in SCORE:
        before = _statements(pristine, text)
        for code, line in _statements(script, text).items():
            if before and code not in before:
                yield _s9(line, f"the score line {text!r} is written another way: {code[:80]}")
