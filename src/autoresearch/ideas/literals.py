"""Finds the literals that look like settings: in Python, in TOML and in YAML.

A literal has the exact bytes where it stands, so that an edit leaves everything else as it was.
Where a reader of the file might see something else than this one does, nothing is found.
"""

from __future__ import annotations

import ast
import copy
import operator
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from autoresearch.model import Value
from autoresearch.python_source import tree

_HELPER = re.compile(r"^_?(?:get_)?env_(int|float|bool|str)$")
_LOOKUPS = {"os.environ.get", "environ.get", "os.getenv", "getenv"}
_TYPES = {"int", "float", "bool", "str"}
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_LARGEST_POWER = 64  # so that a script cannot keep the generator busy with 9**9**9


@frozen(kw_only=True)
class Literal:
    """A named value at ``start`` to ``end`` (bytes) on ``line`` (from 1).

    ``form`` is ``environment``, ``constant`` or, in a file of settings, ``setting``.
    """

    name: str
    value: Value
    form: str
    line: int
    start: int
    end: int


# --- Python ---------------------------------------------------------------------------------


def in_python(source: str) -> Iterator[Literal]:
    """Yield literals that name a setting, environment look-ups before constants; none if broken."""
    parsed = tree(source)
    if parsed is None:
        return
    # The parser's idea of a line end, which is not that of str.splitlines.
    starts = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", source.encode()))]
    for name, node, wanted, form in _named(parsed):
        raw = evaluate(node)
        value = None if raw is None else typed(raw, wanted)
        if value is None or (form == "constant" and isinstance(value, str)):
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        yield Literal(name=name, value=value, form=form, line=node.lineno, start=start, end=end)


def _named(module: ast.Module) -> Iterator[tuple[str, ast.expr, str | None, str]]:
    """Yield name, literal, the type that the script converts it to, and form."""
    inside: set[ast.expr] = set()
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    for node in calls:
        found = None if node in inside else _call(node)
        if found is not None:
            inside.update(item for item in ast.walk(node) if isinstance(item, ast.expr))
            yield *found, "environment"
    dead = _overridden(module, calls)
    for place in (_constants(module), *map(_options, calls), *map(_keywords, calls)):
        for name, value in place:
            if value not in inside and name not in dead:
                yield from ((*leaf, None, "constant") for leaf in _leaves(name, value))


_MOST_ITEMS = 4  # of a tuple that is a setting, such as two betas, and not a table


def _leaves(name: str, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the values of a dictionary, a ``dict(...)`` and a short tuple under dotted names."""
    if isinstance(value, ast.Dict):
        for key, item in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield from _leaves(f"{name}.{key.value}", item)
    elif isinstance(value, ast.Call) and _dotted(value.func) == "dict":
        for keyword in value.keywords:
            if keyword.arg is not None:
                yield from _leaves(f"{name}.{keyword.arg}", keyword.value)
    elif isinstance(value, ast.Tuple) and len(value.elts) <= _MOST_ITEMS:
        for index, item in enumerate(value.elts):
            yield f"{name}.{index}", item
    else:
        yield name, value


def _options(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the default of an option of argparse or click under the name that the script reads."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("add_argument", "option"):
        return
    words = [w.value for w in node.args if isinstance(w, ast.Constant) and isinstance(w.value, str)]
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    long = next((word for word in words if word.startswith("--")), None)
    if long is not None and "default" in given:
        dest = given.get("dest")
        told = dest.value if isinstance(dest, ast.Constant) else long
        yield str(told).lstrip("-").replace("-", "_"), given["default"]


def _keywords(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a class is made with, such as ``Adam(..., lr=0.1)``, as ``Adam.lr``."""
    name = _dotted(node.func).rpartition(".")[2]
    if name[:1].isupper():
        yield from ((f"{name}.{item.arg}", item.value) for item in node.keywords if item.arg)


def _overridden(module: ast.Module, calls: Sequence[ast.Call]) -> frozenset[str]:
    """Return the defaults of classes for which every call of the class gives another value.

    What is read and still changes nothing is learned from the one run that moves it.
    """
    made: dict[str, list[set[str]]] = defaultdict(list)
    for call in calls:
        made[_dotted(call.func)].append({item.arg for item in call.keywords if item.arg})
    classes = (node.name for node in module.body if isinstance(node, ast.ClassDef))
    return frozenset().union(*(set.intersection(*made[name]) for name in classes if name in made))


def _call(node: ast.Call) -> tuple[str, ast.expr, str | None] | None:
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
    keywords = [item.value for item in node.keywords if item.arg == "default"]
    default = next(iter([*node.args[1:2], *keywords]), None)
    variable = node.args[0] if node.args else None
    if default is None or not isinstance(variable, ast.Constant):
        return None
    return str(variable.value), default, helper.group(1) if helper else wanted


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _constants(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    stored = Counter(
        node.id
        for node in ast.walk(module)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for body in (module.body, *(node.body for node in classes)):
        for node in body:
            name, value = _assignment(node)
            if name is None or value is None or name.startswith("__"):
                continue
            # A lower-case name that is stored again is a variable of the program, not a setting.
            if body is not module.body or name.isupper() or stored[name] == 1:
                yield name, value


def _assignment(node: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None, None
    return (target.id if isinstance(target, ast.Name) else None), node.value


def evaluate(node: ast.expr) -> Value | None:
    """Return the value of a literal or of plain arithmetic such as ``2**19``, else None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATIONS:
        return None
    left, right = _number(node.left), _number(node.right)
    too_large = isinstance(node.op, ast.Pow) and abs(right or 0) > _LARGEST_POWER
    if left is None or right is None or too_large:
        return None
    try:
        result = _OPERATIONS[type(node.op)](left, right)
    except (ArithmeticError, ValueError):
        return None
    return result if isinstance(result, (int, float)) else None


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
    except (ValueError, OverflowError):
        return None


# --- TOML -----------------------------------------------------------------------------------

_TOML_TABLE = re.compile(r"\s*\[\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*\]\s*(?:#.*)?", re.ASCII)
_TOML_VALUE = re.compile(
    r"\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=\s*"
    r"([-+]?\d[\d_]*(?:\.[\d_]+)?(?:[eE][-+]?\d+)?|true|false)\s*(?:#.*)?",
    re.ASCII,
)
_LARGEST_FILE = 32_000  # characters: each literal is proved by reading the whole file once


def toml(text: str) -> dict[str, Any] | None:
    """Return a TOML document, None when it is broken."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def toml_with(document: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return a copy of a document with the values at dotted names replaced; None if one is absent.

    Only numbers and flags within tables are replaced.
    """
    made: dict[str, Any] = copy.deepcopy(dict(document))
    for name, value in values.items():
        *path, last = name.split(".")
        table: Any = made
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or not isinstance(table.get(last), (bool, int, float)):
            return None
        table[last] = value
    return made


def in_toml(text: str) -> Iterator[Literal]:
    """Yield numbers and flags of tables under their dotted names.

    A candidate counts when writing another value in its place changes that name and no other: so
    a line within a text of several lines, for one, is never taken for a setting.
    """
    document = toml(text)
    if document is None or len(text) > _LARGEST_FILE:
        return
    table: str | None = ""
    for line, start, words in _lines(text):
        if words.lstrip().startswith("["):
            header = _TOML_TABLE.fullmatch(words)
            table = re.sub(r"\s", "", header[1]) + "." if header else None
            continue
        found = _TOML_VALUE.fullmatch(words)
        if found is None or table is None:
            continue
        name = table + re.sub(r"\s", "", found[1])
        value = tomllib.loads(f"x = {found[2]}")["x"] if toml(f"x = {found[2]}") else None
        if value is None:
            continue
        other: Value = not value if isinstance(value, bool) else type(value)(8 if value == 7 else 7)
        place = start + found.start(2), start + found.end(2)
        shown = str(other).lower()
        probed = toml(text[: place[0]] + shown + text[place[1] :])
        if probed is not None and probed == toml_with(document, {name: other}):
            yield _setting(text, name, value, line, place)


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield number (from 1), first character and words of each line, without its end."""
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        yield number, start, line.removesuffix("\r")
        start += len(line) + 1


def _setting(text: str, name: str, value: Value, line: int, place: tuple[int, int]) -> Literal:
    start = len(text[: place[0]].encode())
    end = start + len(text[place[0] : place[1]].encode())
    return Literal(name=name, value=value, form="setting", line=line, start=start, end=end)


# --- YAML -----------------------------------------------------------------------------------

# What readers of YAML 1.1 and 1.2 agree on; 3e-4 is text to some, but text that is a number.
_YAML_NUMBER = re.compile(
    r"[-+]?(?:(?P<int>0|[1-9]\d*)|\d+\.\d*(?:[eE][-+]\d+)?|\d+[eE]-\d+)|\.\d+", re.ASCII
)
_YAML_FLAGS = {"true": True, "True": True, "false": False, "False": False}
_YAML_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
# Line ends that only some readers know.
_YAML_UNSURE = re.compile(r"[\t\x00\x0b\x0c\x85\u2028\u2029\ufeff]|\r(?!\n)")


def in_yaml(text: str) -> Iterator[Literal]:
    """Yield numbers and flags of nested ``key: value`` mappings under their dotted names.

    Sequences, flow collections, anchors, tags and texts are passed over; a file that names a value
    twice, has several documents, or cannot be read is left alone altogether.
    """
    import yaml  # here, since most projects have no such file

    if len(text) > _LARGEST_FILE or _YAML_UNSURE.search(text):
        return
    try:
        found = list(_yaml(text, yaml.compose(text, yaml.SafeLoader)))
    except (yaml.YAMLError, RecursionError):
        return
    if len({name for name, _, _ in found}) < len(found):
        return
    for name, node, words in found:
        value = _yaml_value(words)
        if value is not None:
            place = node.start_mark.index, node.end_mark.index
            yield _setting(text, name, value, node.start_mark.line + 1, place)


def _yaml(text: str, mapping: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield the name, the node and the words of what a block mapping holds, all the way in."""
    if getattr(mapping, "flow_style", None) is not False or not isinstance(mapping.value[0], tuple):
        return
    for key, node in mapping.value:
        name, words = (text[x.start_mark.index : x.end_mark.index] for x in (key, node))
        if _YAML_NAME.fullmatch(name):
            yield f"{path}{name}", node, words
            if not words.startswith(("&", "!")):
                yield from _yaml(text, node, f"{path}{name}.")


def _yaml_value(words: str) -> Value | None:
    if words in _YAML_FLAGS:
        return _YAML_FLAGS[words]
    number = _YAML_NUMBER.fullmatch(words)
    if number is None:
        return None
    return int(number[0]) if number["int"] else float(number[0])
