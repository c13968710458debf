"""S5: the code that measures is the code that measured before, unless the idea says otherwise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from attrs import frozen

from autoresearch.durable import digest
from autoresearch.golf.audits.digest import code_digest
from autoresearch.golf.audits.tree import Script, line_of, shown
from autoresearch.model import Violation

BEGIN = re.compile(r"^\s*#\s*-+\s*evaluation:\s*begin\s*-+\s*$")
END = re.compile(r"^\s*#\s*-+\s*evaluation:\s*end\s*-+\s*$")
# What measures in a script without marks: the starter's own three functions and their relatives.
_MEASURING = re.compile(
    r"^_?(eval|evaluate|validate)(_|$)|^(load|get)_val|_luts?$|byte_(lut|table)"
)
# Of what the evaluation code calls, this reads or checks tokens; the rest builds and packs the
# model, which research may change.
_HELPING = re.compile(
    r"shard|token|(^|_)val(_|$)|digest|sha256|artifact_file|tolerance", re.IGNORECASE
)


@frozen(kw_only=True)
class Region:
    """The evaluation code of a script: pieces by name, each with its digest and first line.

    ``names`` are its own functions and classes, ``calls`` all other names that it reads.
    """

    pieces: Mapping[str, str]
    lines: Mapping[str, int]
    marked: bool
    names: frozenset[str]
    calls: frozenset[str]

    @property
    def digest(self) -> str:
        """One sha256 over all pieces, in the order of their names; empty where there are none."""
        if not self.pieces:
            return ""
        text = "\n".join(f"{name} {digest}" for name, digest in sorted(self.pieces.items()))
        return digest(text)


@lru_cache(maxsize=8)
def evaluation_region(script: Script) -> Region:
    """Find the evaluation code: what stands between the marks, and the helpers that it calls.

    Without marks it is the functions whose names say that they measure. Comments, blank lines and
    documentation do not count; classes do not either: the model may change.
    """
    span = _marked_lines(script.source)
    members = [node for node in script.tree.body if _is_member(node, span)]
    helpers = _helpers(script.tree, members)
    pieces = {_name(node): code_digest(script, node) for node in [*members, *helpers]}
    lines = {_name(node): line_of(node) for node in [*members, *helpers]}
    names = frozenset(n.name for n in members if isinstance(n, ast.FunctionDef | ast.ClassDef))
    used = frozenset(name for node in [*members, *helpers] for name in _used(node))
    return Region(
        pieces=pieces, lines=lines, marked=span is not None, names=names, calls=used - names
    )


def audit_region(script: Script, pristine: Script | None, *, typed: bool) -> Iterator[Violation]:
    """Yield each difference from the pristine evaluation code.

    ``typed`` says that the idea is an evaluation change: differences are then only warnings, which
    say that the model tests have to judge it.
    """
    if pristine is not None:
        region = evaluation_region(script)
        severity = "warning" if typed else "violation"
        for line, detail in _differences(region, evaluation_region(pristine)):
            yield Violation(rule="S5", detail=_advice(detail, typed), line=line, severity=severity)


def region_nodes(script: Script, region: Region) -> set[int]:
    """The ``id`` of every node inside the evaluation code and its helpers."""
    members = (m for m in script.tree.body if region.lines.get(_name(m)) == line_of(m))
    return {id(n) for member in members for n in ast.walk(member)}


def _advice(detail: str, typed: bool) -> str:
    if typed:
        return f"{detail}: the model tests have to judge it before its score is believed"
    return (
        f'{detail}: give the idea the kind "evaluation" if that is meant, and run the model tests'
    )


def _differences(region: Region, before: Region) -> Iterator[tuple[int, str]]:
    if before.marked and not region.marked:
        yield 1, "the marks around the evaluation code are gone"
        return
    for name in sorted(before.pieces.keys() - region.pieces.keys()):
        yield 1, f"evaluation code removed: {name}"
    for name in sorted(region.pieces.keys() - before.pieces.keys()):
        yield region.lines[name], f"evaluation code added: {name}"
    for name in sorted(region.pieces.keys() & before.pieces.keys()):
        if region.pieces[name] != before.pieces[name]:
            yield region.lines[name], f"evaluation code changed: {name}"


def _marked_lines(source: str) -> tuple[int, int] | None:
    lines = source.split("\n")
    begin = next((i for i, line in enumerate(lines, 1) if BEGIN.match(line)), None)
    end = next((i for i, line in enumerate(lines, 1) if END.match(line)), None)
    return (begin, end) if begin is not None and end is not None and begin < end else None


def _is_member(node: ast.stmt, span: tuple[int, int] | None) -> bool:
    if span is not None:
        return span[0] < node.lineno < span[1]
    return isinstance(node, ast.FunctionDef) and bool(_MEASURING.search(node.name))


def _helpers(tree: ast.Module, members: list[ast.stmt]) -> list[ast.stmt]:
    """Functions and constants of the script that the evaluation code uses, and theirs in turn."""
    known = {
        _name(node): node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign) and node not in members
    }
    found: list[ast.stmt] = []
    queue = list(members)
    while queue:
        for name in sorted(_used(queue.pop())):
            node = known.pop(name, None) if _HELPING.search(name) else None
            if node is not None:
                found.append(node)
                queue.append(node)
    return found


def _used(node: ast.AST) -> set[str]:
    """Names read by a piece of code, the type annotations left out."""
    names: set[str] = set()
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.Name):
                names.add(child.id)
            elif isinstance(child, ast.AST):
                names |= _used(child)
    return names


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else shown(node)
