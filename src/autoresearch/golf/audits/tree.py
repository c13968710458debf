"""A training script as audits see it: its tree, what each name stands for, and its constants."""

from __future__ import annotations

import ast
import base64
import binascii
import builtins
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from attrs import evolve, frozen

Text = str | bytes
_BUILTINS = frozenset(dir(builtins))
_PLAIN = {"lower", "upper", "strip", "replace", "removeprefix", "removesuffix", "swapcase"}
_FOLD_DEPTH = 40  # a name may stand for itself, and a sum of strings may be deep
_ALIAS_ROUNDS = 4  # an alias of an alias of an alias; nobody honest goes further


@frozen(eq=False, kw_only=True)
class Script:
    """A parsed script; ``names`` maps a local name to the dotted name that it stands for."""

    source: str
    tree: ast.Module
    names: Mapping[str, str]
    values: Mapping[str, ast.expr]
    nodes: tuple[ast.AST, ...]
    prose: frozenset[ast.AST]

    def dotted(self, node: ast.AST) -> str | None:
        """Return what an expression stands for, such as ``os.system``; None where nobody knows.

        Aliases, ``getattr`` with a constant name and ``import_module`` with one are seen through.
        """
        if isinstance(node, ast.Name):
            return self.names.get(node.id) or (node.id if node.id in _BUILTINS else None)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return self._dotted_call(node) if isinstance(node, ast.Call) else None

    def _dotted_call(self, node: ast.Call) -> str | None:
        called = self.dotted(node.func)
        if called in ("importlib.import_module", "__import__", "builtins.__import__"):
            module = self.text(node.args[0]) if node.args else None
            return module if isinstance(module, str) else None
        if called in ("getattr", "builtins.getattr") and len(node.args) >= 2:
            base, name = self.dotted(node.args[0]), self.text(node.args[1])
            return f"{base}.{name}" if base and isinstance(name, str) else None
        return None

    def text(self, node: ast.AST | None, depth: int = _FOLD_DEPTH) -> Text | None:
        """Return the string or bytes that an expression always gives, or None."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str | bytes) else None
        if node is None or depth == 0:
            return None
        if isinstance(node, ast.Name) and node.id in self.values:
            return self.text(self.values[node.id], depth - 1)
        return _folded(self, node, depth - 1)

    def resolve(self, node: ast.expr) -> ast.expr:
        """Return the expression that a name was assigned once, or the expression itself."""
        seen = 0
        while isinstance(node, ast.Name) and node.id in self.values and seen < _ALIAS_ROUNDS:
            node, seen = self.values[node.id], seen + 1
        return node

    def walk(self) -> Iterator[ast.AST]:
        """Every node of the tree."""
        return iter(self.nodes)


@lru_cache(maxsize=8)
def parse_script(source: str) -> Script:
    """Parse a script; raises ``SyntaxError`` or ``ValueError`` where Python would."""
    tree = ast.parse(source)
    nodes = tuple(ast.walk(tree))
    values = _single_assignments(nodes)
    script = Script(
        source=source,
        tree=tree,
        names=_imported(nodes),
        values=values,
        nodes=nodes,
        prose=frozenset(_docstrings(nodes)),
    )
    for _ in range(_ALIAS_ROUNDS):
        aliases = {name: origin for name, node in values.items() if (origin := script.dotted(node))}
        names = {**aliases, **script.names}
        if names == script.names:
            break
        script = evolve(script, names=names)
    return script


def words(text: str) -> frozenset[str]:
    """A set of names written as a sentence."""
    return frozenset(text.split())


def shown(node: ast.AST, limit: int = 90) -> str:
    """Return a piece of code on one line, short enough for a message."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def line_of(node: ast.AST) -> int:
    """The line on which a node begins, counted from 1."""
    return getattr(node, "lineno", 1)


def _docstrings(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _imported(nodes: Iterable[ast.AST]) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _single_assignments(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Names that one plain assignment binds and nothing else does."""
    bound: Counter[str] = Counter()
    values: dict[str, ast.expr] = {}
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] += 1
        elif isinstance(node, ast.arg):
            bound[node.arg] += 1
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            values[node.target.id] = node.value
    return {name: value for name, value in values.items() if bound[name] == 1}


def _folded(script: Script, node: ast.AST, depth: int) -> Text | None:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = script.text(node.left, depth), script.text(node.right, depth)
        if isinstance(left, str) and isinstance(right, str):
            return left + right
        return left + right if isinstance(left, bytes) and isinstance(right, bytes) else None
    if isinstance(node, ast.JoinedStr):
        parts = [script.text(_inner(part), depth) for part in node.values]
        return "".join(p for p in parts if isinstance(p, str)) if None not in parts else None
    if isinstance(node, ast.Subscript) and _is_reversal(node.slice):
        text = script.text(node.value, depth)
        return text[::-1] if text is not None else None
    return _folded_call(script, node, depth) if isinstance(node, ast.Call) else None


def _inner(part: ast.expr) -> ast.expr:
    return part.value if isinstance(part, ast.FormattedValue) else part


def _is_reversal(node: ast.AST) -> bool:
    return isinstance(node, ast.Slice) and ast.unparse(node) == "::-1"


def _folded_call(script: Script, node: ast.Call, depth: int) -> Text | None:
    if script.dotted(node.func) == "chr" and len(node.args) == 1:
        return _letter(node.args[0])
    arguments = [script.text(argument, depth) for argument in node.args]
    if isinstance(node.func, ast.Attribute):
        text = script.text(node.func.value, depth)
        if node.func.attr == "decode" and isinstance(text, bytes):
            return text.decode("utf-8", "replace")
        if node.func.attr in _PLAIN and isinstance(text, str) and None not in arguments:
            return _plain(text, node.func.attr, arguments)
        if node.func.attr == "join" and isinstance(text, str) and len(node.args) == 1:
            return _joined(script, text, node.args[0], depth)
    encoded = arguments[0] if arguments else None
    if encoded is None:
        return None
    try:
        if script.dotted(node.func) == "base64.b64decode":
            return base64.b64decode(encoded)
        if script.dotted(node.func) == "bytes.fromhex" and isinstance(encoded, str):
            return bytes.fromhex(encoded)
    except (binascii.Error, ValueError):
        return None
    return None


def _letter(node: ast.expr) -> str | None:
    code = node.value if isinstance(node, ast.Constant) else None
    return chr(code) if isinstance(code, int) and 0 <= code < 0x110000 else None


def _plain(text: str, name: str, arguments: list[Text | None]) -> str | None:
    if not all(isinstance(argument, str) for argument in arguments):
        return None
    try:
        return str(getattr(text, name)(*arguments))
    except TypeError:
        return None


def _joined(script: Script, separator: str, node: ast.expr, depth: int) -> str | None:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "map" and len(node.args) == 2:
        function, items = node.args
        letters: list[ast.expr] = [ast.Call(function, [e], []) for e in getattr(items, "elts", [])]
        node = ast.List(elts=letters)
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    parts = [script.text(element, depth) for element in node.elts]
    return separator.join(str(p) for p in parts) if all(isinstance(p, str) for p in parts) else None
