"""A training script as audits see it: its tree, what names stand for, and how to speak of both."""

from __future__ import annotations

import ast
import base64
import binascii
import builtins
import io
import token as kinds
import tokenize
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeVar, cast

from attrs import evolve, field, frozen

from autoresearch.durable import digest
from autoresearch.model import Violation
from autoresearch.python_source import parse

Text = str | bytes
N = TypeVar("N", bound=ast.AST)
T = TypeVar("T")
Kind = type[ast.AST] | tuple[type[ast.AST], ...]
_BUILTINS = frozenset(dir(builtins))
_PLAIN = {"lower", "upper", "strip", "replace", "removeprefix", "removesuffix", "swapcase"}
_FOLD_DEPTH = 40  # a name may stand for itself, and a sum of strings may be deep
_FOLDED = (ast.Name, ast.BinOp, ast.JoinedStr, ast.Subscript, ast.Call)
_ALIAS_ROUNDS = 4  # an alias of an alias of an alias; no honest script goes further


@frozen(eq=False, kw_only=True)
class Script:
    """A parsed script; ``names`` maps a local name to the dotted name that it stands for."""

    source: str
    tree: ast.Module
    names: Mapping[str, str]
    values: Mapping[str, ast.expr]
    prose: frozenset[ast.AST]
    known: dict[ast.AST, str | None] = field(factory=dict)  # what `dotted` found

    def dotted(self, node: ast.AST) -> str | None:
        """Return what an expression stands for, such as ``os.system``; None where it is unknown.

        Aliases, ``getattr`` with a constant name and ``import_module`` with one are seen through.
        """
        if node in self.known:
            return self.known[node]
        found: str | None = None
        if isinstance(node, ast.Name):
            found = self.names.get(node.id) or (node.id if node.id in _BUILTINS else None)
        elif isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            found = f"{base}.{node.attr}" if base else None
        elif isinstance(node, ast.Call):
            found = self._dotted_call(node)
        self.known[node] = found
        return found

    def _dotted_call(self, node: ast.Call) -> str | None:
        origin = self.dotted(node.func)
        if origin in ("importlib.import_module", "__import__", "builtins.__import__"):
            module = self.text(node.args[0]) if node.args else None
            return module if isinstance(module, str) else None
        if origin in ("getattr", "builtins.getattr") and len(node.args) >= 2:
            base, name = self.dotted(node.args[0]), self.text(node.args[1])
            return f"{base}.{name}" if base and isinstance(name, str) else None
        return None

    def text(self, node: ast.AST | None, depth: int = _FOLD_DEPTH) -> Text | None:
        """Return the string or bytes that an expression always gives, or None."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str | bytes) else None
        if depth == 0 or not isinstance(node, _FOLDED):
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

    def every(self, kind: type[N] | tuple[type[N], ...]) -> Sequence[N]:
        """Every node of a kind, in the order of the text."""
        return inside(self.tree, kind)

    @property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """The functions at the top of the script by name."""
        return {n.name: n for n in self.tree.body if isinstance(n, ast.FunctionDef)}

    @property
    def classes(self) -> list[ast.ClassDef]:
        """The classes at the top of the script."""
        return [n for n in self.tree.body if isinstance(n, ast.ClassDef)]


@lru_cache(maxsize=8)
def parse_script(source: str) -> Script:
    """Parse a script; raises ``SyntaxError`` or ``ValueError`` where Python would."""
    tree = parse(source)
    if "async " in source:
        tree = _Awaited().visit(tree)
    _Index(tree)
    values = _single_assignments(tree)
    statements = (node.value for node in inside(tree, ast.Expr))
    prose = (value for value in statements if isinstance(value, ast.Constant))
    script = Script(
        source=source,
        tree=tree,
        names=_imported(tree),
        values=values,
        prose=frozenset(prose),
    )
    for _ in range(_ALIAS_ROUNDS):
        aliases = {name: origin for name, node in values.items() if (origin := script.dotted(node))}
        names = {**aliases, **script.names}
        if names == script.names:
            break
        script = evolve(script, names=names, known={})
    return script


def try_parse(source: str) -> Script | None:
    """Parse a script; None where Python would refuse it."""
    try:
        return parse_script(source)
    except (SyntaxError, ValueError):
        return None


def words(text: str) -> frozenset[str]:
    """A set of names written as a sentence."""
    return frozenset(text.split())


def shown(node: ast.AST, limit: int = 90) -> str:
    """Return a piece of code on one line, short enough for a message."""
    text = " ".join(written(node).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def line_of(node: ast.AST) -> int:
    """The line on which a node begins, counted from 1."""
    return getattr(node, "lineno", 1)


def finding(rule: str, at: ast.AST | int, detail: str, *, warn: bool = False) -> Violation:
    """A finding at a node or a line; one that only warns where ``warn`` says so."""
    line = at if isinstance(at, int) else line_of(at)
    severity = "warning" if warn else "violation"
    return Violation(rule=rule, detail=detail, line=line, severity=severity)


def added(now: Iterable[T], before: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[T]:
    """Yield what is there now and was not before; each former one answers for one of now."""
    left = Counter(map(key, before))
    for item in now:
        if left[key(item)] > 0:
            left[key(item)] -= 1
        else:
            yield item


class _Awaited(ast.NodeTransformer):
    """Takes what waits for what does not: where a value goes is the same, for every audit."""

    def _plain(self, node: ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith) -> ast.AST:
        kind = getattr(ast, type(node).__name__.removeprefix("Async"))
        return self.generic_visit(ast.copy_location(kind(**dict(ast.iter_fields(node))), node))

    visit_AsyncFunctionDef = visit_AsyncFor = visit_AsyncWith = _plain  # noqa: N815

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)  # type: ignore[no-any-return]


# Signs such as ``ast.Add``, of which Python keeps one for all trees.
_SIGNS = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)
_SHARED = frozenset(kind for sign in _SIGNS for kind in sign.__subclasses__())


def _children(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for value in vars(node).values():
        if isinstance(value, list):
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return [child for child in found if type(child) not in _SHARED]


class _Index:
    """The nodes of one tree in the order of the text, so that no piece of it is walked again.

    A node holds its place in it as an attribute, which lives as long as the tree does.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.nodes: list[ast.AST] = []
        self.types: dict[type[ast.AST], list[int]] = {}
        self.kinds: dict[Kind, tuple[list[int], list[ast.AST]]] = {}
        outer: list[int] = []
        stack: list[tuple[ast.AST, int]] = [(tree, 0)]
        while stack:
            node, parent = stack.pop()
            place = len(outer)
            self.nodes.append(node)
            self.types.setdefault(type(node), []).append(place)
            outer.append(parent)
            stack += [(child, place) for child in reversed(_children(node))]
        sizes = [1] * len(outer)
        for place in range(len(outer) - 1, -1, -1):
            vars(self.nodes[place])["_place"] = self, place, place + sizes[place]
            sizes[outer[place]] += sizes[place]

    def of_kind(self, kind: Kind) -> tuple[list[int], list[ast.AST]]:
        """The nodes of a kind with their places."""
        if kind not in self.kinds:
            held = (places for known, places in self.types.items() if issubclass(known, kind))
            places = sorted(chain.from_iterable(held))
            self.kinds[kind] = places, [self.nodes[place] for place in places]
        return self.kinds[kind]


def inside(node: ast.AST, kind: type[N] | tuple[type[N], ...]) -> Sequence[N]:
    """Every node of a kind in a piece of code, the piece itself among them."""
    place = vars(node).get("_place")
    if place is None:  # a piece that no script has
        return [part for part in ast.walk(node) if isinstance(part, kind)]
    index, first, past = place
    places, nodes = index.of_kind(kind)
    return cast(list[N], nodes[bisect_left(places, first) : bisect_left(places, past)])


def written(node: ast.AST) -> str:
    """A piece of code as Python writes it, without layout."""
    known: str | None = vars(node).get("_code")
    if known is None:
        known = vars(node)["_code"] = ast.unparse(node)
    return known


def names_in(node: ast.AST) -> set[str]:
    """The plain names in a piece of code."""
    return {name.id for name in inside(node, ast.Name)}


def stores(node: ast.AST) -> bool:
    """Whether something is stored into an expression."""
    return isinstance(getattr(node, "ctx", None), ast.Store)


def called(node: ast.Call) -> str:
    """The last part of what a call names: ``step`` for ``optimizer.step()``."""
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
    return name or written(node.func).rsplit(".", 1)[-1]


def _imported(tree: ast.Module) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in inside(tree, (ast.Import, ast.ImportFrom)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _single_assignments(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that one plain assignment binds and nothing else does."""
    bound: Counter[str] = Counter()
    values: dict[str, ast.expr] = {}
    for node in inside(tree, (ast.Name, ast.arg, ast.Assign, ast.AnnAssign)):
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
    return isinstance(node, ast.Slice) and written(node) == "::-1"


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
    if isinstance(node, ast.Call) and written(node.func) == "map" and len(node.args) == 2:
        function, items = node.args
        letters: list[ast.expr] = [ast.Call(function, [e], []) for e in getattr(items, "elts", [])]
        node = ast.List(elts=letters)
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    parts = [script.text(element, depth) for element in node.elts]
    return separator.join(str(p) for p in parts) if all(isinstance(p, str) for p in parts) else None


_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, kinds.ENDMARKER}


def code_digest(script: Script, node: ast.stmt) -> str:
    """Digest of the words of a piece of code: the same however it is laid out or commented."""
    first = min([d.lineno for d in getattr(node, "decorator_list", [])], default=node.lineno)
    last = node.end_lineno or node.lineno
    text = "\n".join(script.source.split("\n")[first - 1 : last]) + "\n"
    silent = frozenset(
        (line_of(prose) - first + 1, getattr(prose, "col_offset", 0))
        for prose in script.prose
        if first <= line_of(prose) <= last
    )
    return _digest(text, silent)


@lru_cache(maxsize=512)  # a change leaves most pieces as they were
def _digest(text: str, silent: frozenset[tuple[int, int]]) -> str:
    return digest("\x1f".join(_words(text, silent)))


def _words(text: str, silent: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Tokens that matter. Python 3.12 splits f-strings into tokens, so they are taken whole."""
    start = getattr(kinds, "FSTRING_START", -1)
    end = getattr(kinds, "FSTRING_END", -2)
    lines = text.split("\n")
    depth, opened, after_prose = 0, (1, 0), False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == start:
            opened, depth = (token.start, depth + 1) if depth == 0 else (opened, depth + 1)
        elif token.type == end:
            depth -= 1
            if depth == 0:
                yield _slice(lines, opened, token.end)
        elif token.start in silent or (after_prose and token.type == kinds.NEWLINE):
            after_prose = token.start in silent
        elif depth == 0 and token.type not in _SILENT:
            yield kinds.tok_name[token.type] if not token.string.strip() else token.string


def _slice(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "\n".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])
