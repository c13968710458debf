"""S9 and S10: the lines that tell the score stay and say what the evaluation found.

Their values come from the evaluation and from nowhere else; flags switched while training, which
compiled code may not see, are named.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from attrs import evolve, frozen

from autoresearch.golf.audits.region import evaluation_region, region_nodes
from autoresearch.golf.audits.script import (
    Script,
    finding,
    inside,
    line_of,
    names_in,
    shown,
    stores,
    words,
    written,
)
from autoresearch.model import Violation

SCORE = ("autoresearch_result", "final_int8_zlib_roundtrip_exact")
# Text without which a log has no score, or no size, or no proof of the whole validation split.
TOLD = ("model_params:", "val_bpb:", *SCORE)
# Facts that only the evaluation may state; a script may add facts of its own beside them.
MEASURED = words(
    "schema script_stage val_loss val_bpb val_tokens val_bytes reload_val_bpb artifact_bytes "
    "code_bytes model_bytes val_digest tokenizer_digest code_digest artifact_digest"
)
_SCOPES = (ast.FunctionDef, ast.ClassDef)
Fact = tuple[object, str]  # key and code


def audit_prints(
    script: Script, pristine: Script | None, *, typed: bool = False
) -> Iterator[Violation]:
    """Yield score lines that are gone, rewritten, or fed from elsewhere than the evaluation.

    ``typed`` says that the idea is an evaluation change, which may write them another way; gone
    they may not be.
    """
    if pristine is None:
        if not _statements(script, "val_bpb"):
            yield finding("S9", 1, "prints no val_bpb: a run without a score tells nothing")
        return
    for text in TOLD:
        if _statements(pristine, text) and not _statements(script, text):
            yield finding("S9", 1, f"the line {text!r} is printed no more")
    for found in (*_forged_lines(script, pristine), *_forged_values(script, pristine)):
        yield evolve(found, severity="warning") if typed else found


def audit_flags(script: Script) -> Iterator[Violation]:
    """Yield class attributes switched inside a loop: compiled code may never see the switch."""
    if not any(script.dotted(n.func) == "torch.compile" for n in script.every(ast.Call)):
        return
    classes = {n.name for n in script.every(ast.ClassDef)}
    loops = script.every((ast.For, ast.While))
    parts = {id(part): part for loop in loops for part in inside(loop, ast.Attribute)}
    for node in parts.values():
        if stores(node) and isinstance(node.value, ast.Name) and node.value.id in classes:
            detail = f"{shown(node)} is switched while training: compiled code may not notice"
            yield finding("S10", node, detail, warn=True)


@lru_cache(maxsize=32)
def _statements(script: Script, text: str) -> dict[str, int]:
    """The smallest statements that contain a text, as code, with their lines."""
    holding = (
        n for n in script.every(ast.Constant) if isinstance(n.value, str) and text in n.value
    )
    lines = [line_of(n) for n in holding if n not in script.prose]
    return {
        written(node): line_of(node)
        for node in (script.every(ast.stmt) if lines else ())
        if any(node.lineno <= line <= (node.end_lineno or node.lineno) for line in lines)
        and any(text in value for value in _own_strings(script, node))
    }


def _own_strings(script: Script, node: ast.stmt) -> Iterator[str]:
    """Strings in the statement itself, those of statements inside it and prose left out."""
    stack: list[ast.AST] = [node]
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
                detail = f"the score line {text!r} is written another way: {code[:80]}"
                yield finding("S9", line, detail)


@frozen(eq=False)
class _Scope:
    """One function that tells the score, the names that the telling reads, and the tellings."""

    node: ast.AST
    name: str
    names: frozenset[str]
    tellings: tuple[ast.AST, ...]


def _forged_values(script: Script, pristine: Script) -> Iterator[Violation]:
    """Yield each value of a score line that is bound, changed or passed in a new way."""
    before = {scope.name: scope for scope in _scopes(pristine)}
    trusted = _functions(script)
    for scope in _scopes(script):
        known = before.get(scope.name)
        if known is None:
            yield finding("S9", scope.node, "the score is told in another place than before")
            continue
        told = {written(node) for node in known.tellings}
        for node in scope.tellings:
            if written(node) not in told:
                yield finding("S9", node, f"the score line is written another way: {shown(node)}")
        bound = {written(node) for node, _ in _bindings(known)}
        stated = {fact for _, value in _bindings(known) for fact in _facts(value)}
        for node, value in _bindings(scope):
            if written(node) not in bound and not _is_honest(value, trusted, stated):
                detail = f"a value of the score line comes from elsewhere: {shown(node)}"
                yield finding("S9", node, detail)


@lru_cache(maxsize=8)
def _scopes(script: Script) -> tuple[_Scope, ...]:
    """Functions outside of the evaluation code that tell the score, and the module itself."""
    measuring, tellers = region_nodes(script), _tellers(script)
    calls = (call for call in script.every(ast.Call) if call not in measuring)
    telling = {call for call in calls if _tells(call, tellers)}
    found = []
    for node in script.every((ast.FunctionDef, ast.Module)):
        if node in measuring or telling.isdisjoint(inside(node, ast.Call)):
            continue
        tellings = tuple(part for part in _own_nodes(node) if part in telling)
        if tellings:
            names = frozenset[str]().union(*map(names_in, tellings)) - tellers
            name = node.name if isinstance(node, ast.FunctionDef) else "the module"
            found.append(_Scope(node, name, names, tellings))
    return tuple(found)


def _functions(script: Script) -> frozenset[str]:
    """The functions of the evaluation code; its classes can be filled with anything."""
    return frozenset(script.functions) & evaluation_region(script).names


def _tellers(script: Script) -> frozenset[str]:
    """Functions of the evaluation code that write the final line from their arguments."""
    functions = (n for n in script.tree.body if isinstance(n, ast.FunctionDef))
    told = {n.name for n in functions if _has_text(n, SCORE[:1])}
    return _functions(script) & told


def _has_text(node: ast.AST, texts: tuple[str, ...]) -> bool:
    strings = (n.value for n in inside(node, ast.Constant))
    return any(isinstance(s, str) and any(text in s for text in texts) for s in strings)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that belong to no function inside it."""
    inner = (n for n in inside(node, _SCOPES) if n is not node)
    others = {part for n in inner for part in inside(n, ast.AST) if part is not n}
    return (part for part in inside(node, ast.AST) if part is not node and part not in others)


def _tells(node: ast.Call, tellers: frozenset[str]) -> bool:
    if isinstance(node.func, ast.Name) and node.func.id in tellers:
        return True
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return any(_has_text(a, SCORE) and not isinstance(a, ast.Call) for a in arguments)


def _bindings(scope: _Scope) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """What stores into the names that the telling reads, with the stored value."""
    for node in _own_nodes(scope.node):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(names_in(target) & scope.names for target in targets):
                changed = isinstance(node, ast.AugAssign)
                yield node, None if changed else _stored(targets[0], node.value)
        elif isinstance(node, ast.Call) and _changes(node) in scope.names:
            yield node, node


def _stored(target: ast.expr, value: ast.expr | None) -> ast.AST | None:
    """A value, or for ``facts[key] = value`` the dict that would say the same."""
    if isinstance(target, ast.Subscript) and value is not None:
        return ast.Dict(keys=[target.slice], values=[value])
    return None if isinstance(target, ast.Attribute) else value


def _changes(node: ast.Call) -> str | None:
    """The name that a call like ``facts.update()`` or ``setattr(score, ...)`` changes."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("update", "setdefault"):
        return written(node.func.value)
    if written(node.func) in ("setattr", "object.__setattr__") and node.args:
        return written(node.args[0])
    return None


def _facts(value: ast.AST | None) -> Iterator[Fact]:
    """The facts of a dict display, as key and code."""
    if isinstance(value, ast.Dict):
        for key, fact in zip(value.keys, value.values, strict=True):
            yield (key.value if isinstance(key, ast.Constant) else None), written(fact)


def _is_honest(value: ast.AST | None, trusted: frozenset[str], stated: set[Fact]) -> bool:
    """A call of the evaluation and nothing around it, or facts that it does not state."""
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name):
            return value.func.id in trusted
        keys = [k.arg for k in value.keywords]
        return not value.args and None not in keys and not MEASURED & set(keys)
    if isinstance(value, ast.Dict):
        facts = [fact for fact in _facts(value) if fact not in stated]
        return all(key is not None and key not in MEASURED for key, _ in facts)
    return False
