"""S9: what the score lines tell comes from the evaluation, and from nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from attrs import frozen

from autoresearch.golf.audits.region import evaluation_region, region_nodes
from autoresearch.golf.audits.tree import Script, line_of, shown, words
from autoresearch.model import Violation

SCORE = ("autoresearch_result", "final_int8_zlib_roundtrip_exact")
# Facts that only the evaluation may state; a script may add facts of its own beside them.
MEASURED = words(
    "schema script_stage val_loss val_bpb val_tokens val_bytes reload_val_bpb artifact_bytes "
    "code_bytes model_bytes val_digest tokenizer_digest code_digest artifact_digest"
)


@frozen(eq=False)
class _Scope:
    """One function that tells the score, the names that the telling reads, and the tellings."""

    node: ast.AST
    name: str
    names: frozenset[str]
    tellings: tuple[ast.AST, ...]


def audit_forgery(script: Script, pristine: Script) -> Iterator[Violation]:
    """Yield each value of a score line that is bound, changed or passed in a new way."""
    before = {scope.name: scope for scope in _known_scopes(pristine)}
    trusted = _functions(script)
    for scope in _scopes(script):
        known = before.get(scope.name)
        if known is None:
            yield _found(scope.node, "the score is told in another place than before")
            continue
        told = {ast.unparse(node) for node in known.tellings}
        for node in scope.tellings:
            if ast.unparse(node) not in told:
                yield _found(node, "the score line is written another way")
        bound = {ast.unparse(node) for node, _ in _bindings(known)}
        stated = {fact for _, value in _bindings(known) for fact in _facts(value)}
        for node, value in _bindings(scope):
            if ast.unparse(node) not in bound and not _is_honest(value, trusted, stated):
                yield _found(node, "a value of the score line comes from elsewhere")


def _found(node: ast.AST, what: str) -> Violation:
    detail = what if isinstance(node, ast.FunctionDef | ast.Module) else f"{what}: {shown(node)}"
    return Violation(rule="S9", detail=detail, line=line_of(node))


@lru_cache(maxsize=8)
def _known_scopes(script: Script) -> tuple[_Scope, ...]:
    return tuple(_scopes(script))


def _scopes(script: Script) -> Iterator[_Scope]:
    """Functions outside of the evaluation code that tell the score, and the module itself."""
    region = evaluation_region(script)
    inside = region_nodes(script, region)
    tellers = _tellers(script, _functions(script))
    functions = [n for n in script.walk() if isinstance(n, ast.FunctionDef) and id(n) not in inside]
    for node in [*functions, script.tree]:
        own = [part for part in _own_nodes(node) if id(part) not in inside]
        tellings = tuple(part for part in own if _tells(part, tellers))
        if tellings:
            names = {n.id for t in tellings for n in ast.walk(t) if isinstance(n, ast.Name)}
            name = node.name if isinstance(node, ast.FunctionDef) else "the module"
            yield _Scope(node, name, frozenset(names - tellers), tellings)


def _functions(script: Script) -> frozenset[str]:
    """The functions of the evaluation code; its classes can be filled with anything."""
    names = evaluation_region(script).names
    return frozenset(
        n.name for n in script.tree.body if isinstance(n, ast.FunctionDef) and n.name in names
    )


def _tellers(script: Script, trusted: frozenset[str]) -> frozenset[str]:
    """Functions of the evaluation code that write the final line from their arguments."""
    return frozenset(
        node.name
        for node in script.tree.body
        if isinstance(node, ast.FunctionDef) and node.name in trusted and _has_text(node, SCORE[:1])
    )


def _has_text(node: ast.AST, texts: tuple[str, ...]) -> bool:
    strings = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return any(isinstance(s, str) and any(text in s for text in texts) for s in strings)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that belong to no function inside it."""
    stack = list(ast.iter_child_nodes(node))
    while stack:
        part = stack.pop()
        yield part
        if not isinstance(part, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            stack += ast.iter_child_nodes(part)


def _tells(node: ast.AST, tellers: frozenset[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id in tellers:
        return True
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return any(_has_text(a, SCORE) and not isinstance(a, ast.Call) for a in arguments)


def _bindings(scope: _Scope) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """What stores into the names that the telling reads, with the stored value."""
    for node in _own_nodes(scope.node):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if {
                n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)
            } & scope.names:
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
        return ast.unparse(node.func.value)
    if ast.unparse(node.func) in ("setattr", "object.__setattr__") and node.args:
        return ast.unparse(node.args[0])
    return None


def _facts(value: ast.AST | None) -> Iterator[tuple[object, str]]:
    """The facts of a dict display, as key and code."""
    if isinstance(value, ast.Dict):
        for key, fact in zip(value.keys, value.values, strict=True):
            yield (key.value if isinstance(key, ast.Constant) else None), ast.unparse(fact)


def _is_honest(
    value: ast.AST | None, trusted: frozenset[str], stated: set[tuple[object, str]]
) -> bool:
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
