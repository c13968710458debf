"""Finds, in a parsed script, the literals that look like hyperparameters, and evaluates them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

Value = bool | int | float | str

_HELPER = re.compile(r"^_?(?:get_)?env_(int|float|bool|str)$")
_LOOKUPS = {"os.environ.get", "environ.get", "os.getenv", "getenv"}
_TYPES = {"int", "float", "bool", "str"}
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Pow: lambda a, b: a**b,
}
_LARGEST_POWER = 64  # so that a script cannot keep us busy with 9**9**9


@frozen(kw_only=True)
class Literal:
    """A named literal; ``type`` is what the script converts it to, None when it does not."""

    name: str
    node: ast.expr
    type: str | None
    form: str


def literals(tree: ast.Module) -> Iterator[Literal]:
    """Yield every literal that names a setting, environment look-ups before constants."""
    inside: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in inside:
            found = _call(node)
            if found is not None:
                inside.update(item for item in ast.walk(node) if isinstance(item, ast.expr))
                yield found
    yield from _constants(tree, inside)


def _call(node: ast.Call) -> Literal | None:
    """Return what a call reads from the environment, looking through int(...) and its like."""
    wanted: str | None = None
    while (name := _dotted(node.func)) in _TYPES and len(node.args) == 1:
        wanted = wanted if wanted == "bool" else name
        if not isinstance(node.args[0], ast.Call):
            return None
        node = node.args[0]
    helper = _HELPER.match(name)
    if helper is None and name not in _LOOKUPS:
        return None
    default = _default(node)
    variable = node.args[0] if node.args else None
    if default is None or not isinstance(variable, ast.Constant):
        return None
    kind = helper.group(1) if helper else wanted
    return Literal(name=str(variable.value), node=default, type=kind, form="environment")


def _default(node: ast.Call) -> ast.expr | None:
    if len(node.args) > 1:
        return node.args[1]
    return next((item.value for item in node.keywords if item.arg == "default"), None)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _constants(tree: ast.Module, inside: set[ast.expr]) -> Iterator[Literal]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    stored = _stored_names(tree)
    for body in (tree.body, *(node.body for node in classes)):
        for node in body:
            name, value = _assignment(node)
            if name is None or value is None or value in inside or name.startswith("__"):
                continue
            # A lower-case name that is stored again is a variable of the program, not a setting.
            if body is not tree.body or name.isupper() or stored[name] == 1:
                yield Literal(name=name, node=value, type=None, form="constant")


def _assignment(node: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None, None
    return (target.id if isinstance(target, ast.Name) else None), node.value


def _stored_names(tree: ast.Module) -> dict[str, int]:
    count: dict[str, int] = defaultdict(int)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            count[node.id] += 1
    return count


def evaluate(node: ast.expr) -> Value | None:
    """Return the value of a literal or of plain arithmetic such as ``2**19``, else None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _number(node.left), _number(node.right)
        if (
            left is None
            or right is None
            or (isinstance(node.op, ast.Pow) and abs(right) > _LARGEST_POWER)
        ):
            return None
        try:
            result = _OPERATIONS[type(node.op)](left, right)
        except (ArithmeticError, ValueError):
            return None
        return result if isinstance(result, (int, float)) else None
    return None


def _number(node: ast.expr) -> int | float | None:
    value = evaluate(node)
    return None if isinstance(value, (bool, str)) else value


def typed(raw: Value, wanted: str | None) -> Value | None:
    """Return the value as the script converts it, None when the conversion would fail."""
    try:
        if wanted == "bool":
            return bool(int(raw)) if not isinstance(raw, str) or raw.strip("01") == "" else None
        if wanted == "int":
            return int(raw)
        return float(raw) if wanted == "float" else raw
    except ValueError:
        return None
