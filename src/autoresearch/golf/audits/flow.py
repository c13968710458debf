"""Where validation data goes: an abstract run of a script that carries labels instead of values.

Statements are run in order, branches are merged, loops are run twice, and calls of the script's own
functions are followed. What is looked for (the sinks) is told to a watcher; this file only carries.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Protocol

from autoresearch.golf.audits.script import Script, words

DATA = "data"  # validation tokens, or anything computed from them
PATH = "path"  # the name of a validation shard
METRIC = "metric"  # a number that the evaluation returned
Labels = frozenset[str]
Env = dict[str, Labels]
CLEAN: Labels = frozenset()

# Attributes and calls that tell of data only how much there is, or of a file only where it lies.
COUNTS = words("shape dtype device ndim nbytes itemsize scored name stem parent")
COUNTING = words("numel size dim element_size exists is_file stat nelement")
READERS = (
    "numpy.fromfile", "numpy.memmap", "numpy.load", "numpy.frombuffer", "torch.load", "open",
    "torch.from_file", "mmap.mmap", "io.open", "builtins.open", "torch.UntypedStorage.from_file",
)  # fmt: skip
GROWING = words("append extend insert add update copy_ put setdefault put_")


class Watcher(Protocol):
    """Is told about every call, assignment and cut while the labels flow past."""

    def call(self, node: ast.Call, receiver: Labels, arguments: Labels, inside: bool) -> None:
        """A call; ``inside`` says whether it happens in the evaluation code."""

    def measured(self, node: ast.Call, loops: tuple[ast.AST, ...]) -> None:
        """The evaluation was called on validation data, inside these loops, the outermost first."""

    def assigned(self, target: ast.expr, labels: Labels, inside: bool) -> None:
        """A value was stored."""

    def cut(self, node: ast.Subscript, labels: Labels, inside: bool) -> None:
        """A slice was taken of something labelled."""


def names_validation(text: str) -> bool:
    """Whether a string names, or as a pattern also matches, the validation split."""
    if len(text) > 300 or "\n" in text:
        return False
    last = text.rsplit("/", 1)[-1]
    if "fineweb_val" in text or text in ("val", "validation"):
        return True
    if not any(magic in last for magic in "*?["):
        return last.endswith(".bin") and ("_val_" in last or last.startswith("val_"))
    return fnmatchcase("fineweb_val_000000.bin", last) or fnmatchcase("val", last)


_RETURN = "<return>"
_DEPTH = 10
_BUDGET = 60_000  # expressions; a script of 4,000 lines needs about half of it


def _grow(env: Env, name: str, labels: Labels) -> None:
    env[name] = env.get(name, CLEAN) | labels


class Flow:
    """One abstract run; ``trusted`` are the names of the evaluation code."""

    def __init__(self, script: Script, trusted: frozenset[str], watcher: Watcher) -> None:
        self.script, self.trusted, self.watcher = script, trusted, watcher
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.methods: set[int] = set()
        self.module: Env = {}
        self.attributes: set[str] = set()
        self.memo: dict[tuple[object, ...], Labels] = {}
        self.active: list[ast.FunctionDef] = []
        self.followed: set[int] = set()
        self.inside = False
        self.loops: list[ast.AST] = []
        self.budget = _BUDGET
        self._index()

    def run(self) -> None:
        """Run the module, then every function that nobody called."""
        self.block(self.script.tree.body, self.module)
        for definitions in self.functions.values():
            for function in definitions:
                if id(function) not in self.followed:
                    self.follow(function, [], self.module)

    def _index(self) -> None:
        for function in self.script.every(ast.FunctionDef):
            self.functions.setdefault(function.name, []).append(function)
        for node in self.script.every(ast.ClassDef):
            self.classes[node.name] = node
            self.methods |= {id(n) for n in node.body if isinstance(n, ast.FunctionDef)}

    # statements

    def block(self, statements: Iterable[ast.stmt], env: Env) -> None:
        for statement in statements:
            handler = getattr(self, "_do_" + type(statement).__name__, None)
            if handler is not None:
                handler(statement, env)
            elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self.value(child, env)

    def _do_Assign(self, node: ast.Assign, env: Env) -> None:  # noqa: N802
        for target in node.targets:
            self._bind_value(target, node.value, env)

    def _do_AnnAssign(self, node: ast.AnnAssign, env: Env) -> None:  # noqa: N802
        if node.value is not None:
            self._bind_value(node.target, node.value, env)

    def _do_AugAssign(self, node: ast.AugAssign, env: Env) -> None:  # noqa: N802
        before = self.value(node.target, env)
        self.bind(node.target, before | self.value(node.value, env), env)

    def _do_Return(self, node: ast.Return, env: Env) -> None:  # noqa: N802
        if node.value is not None:
            _grow(env, _RETURN, self.value(node.value, env))

    def _do_If(self, node: ast.If, env: Env) -> None:  # noqa: N802
        self.value(node.test, env)
        self._branches(env, node.body, node.orelse)

    def _do_For(self, node: ast.For, env: Env) -> None:  # noqa: N802
        self.loops.append(node)
        for _ in range(2):
            self.bind(node.target, self.value(node.iter, env), env)
            self._branches(env, node.body, [])
        self.loops.pop()
        self.block(node.orelse, env)

    def _do_While(self, node: ast.While, env: Env) -> None:  # noqa: N802
        for _ in range(2):
            self.value(node.test, env)
            self._branches(env, node.body, [])
        self.block(node.orelse, env)

    def _do_With(self, node: ast.With, env: Env) -> None:  # noqa: N802
        for item in node.items:
            labels = self.value(item.context_expr, env)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, labels, env)
        self.block(node.body, env)

    def _do_Try(self, node: ast.Try, env: Env) -> None:  # noqa: N802
        self._branches(env, node.body, *[handler.body for handler in node.handlers])
        self.block([*node.orelse, *node.finalbody], env)

    def _do_ClassDef(self, node: ast.ClassDef, env: Env) -> None:  # noqa: N802
        inner = dict(env)
        self.block(node.body, inner)
        # Settings live in class attributes and are read from instances everywhere.
        self.attributes |= {k for k, v in inner.items() if v and env.get(k) != v}

    def _branches(self, env: Env, *bodies: Iterable[ast.stmt]) -> None:
        ends = []
        for body in bodies:
            ends.append(dict(env))
            self.block(body, ends[-1])
        for end in ends:
            for name, labels in end.items():
                _grow(env, name, labels)

    def _bind_value(self, target: ast.expr, value: ast.expr, env: Env) -> None:
        pairs = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        if pairs and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            labels = [self.value(part, env) for part in value.elts]  # type: ignore[attr-defined]
            for part, label in zip(target.elts, labels, strict=True):  # type: ignore[attr-defined]
                self.bind(part, label, env)
        else:
            self.bind(target, self.value(value, env), env)

    def bind(self, target: ast.expr, labels: Labels, env: Env) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.bind(part, labels, env)
            return
        self.watcher.assigned(target, labels, self.inside)
        if isinstance(target, ast.Name):
            env[target.id] = labels
        elif isinstance(target, ast.Attribute):
            env[ast.unparse(target)] = labels
        elif isinstance(target, ast.Subscript | ast.Starred):
            self._put(target.value, labels, env)

    def _put(self, target: ast.expr, labels: Labels, env: Env) -> None:
        while isinstance(target, ast.Subscript):
            target = target.value
        if labels:
            _grow(env, ast.unparse(target), labels)

    # expressions

    def value(self, node: ast.expr, env: Env) -> Labels:
        """The labels of an expression's value."""
        self.budget -= 1
        if self.budget < 0:
            return CLEAN
        handler: Callable[[ast.expr, Env], Labels] | None
        handler = getattr(self, "_of_" + type(node).__name__, None)
        return handler(node, env) if handler else self._children(node, env)

    def _children(self, node: ast.AST, env: Env) -> Labels:
        parts = (c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr))
        return CLEAN.union(*(self.value(part, env) for part in parts))

    def _of_Constant(self, node: ast.expr, env: Env) -> Labels:  # noqa: N802
        return self._folded(node) | self._children(node, env)

    _of_JoinedStr = _of_BinOp = _of_Constant  # noqa: N815

    def _folded(self, node: ast.expr) -> Labels:
        text = self.script.text(node)
        return frozenset({PATH}) if isinstance(text, str) and names_validation(text) else CLEAN

    def _of_Compare(self, node: ast.Compare, env: Env) -> Labels:  # noqa: N802
        return self._children(node, env) - {PATH, DATA}

    def _of_Name(self, node: ast.Name, env: Env) -> Labels:  # noqa: N802
        return env.get(node.id, self.module.get(node.id, CLEAN))

    def _of_Attribute(self, node: ast.Attribute, env: Env) -> Labels:  # noqa: N802
        path = ast.unparse(node)
        if path in env:
            return env[path]
        if node.attr in COUNTS:
            self.value(node.value, env)
            return CLEAN
        known = frozenset({PATH}) if node.attr in self.attributes else CLEAN
        return known | self.value(node.value, env)

    def _of_Subscript(self, node: ast.Subscript, env: Env) -> Labels:  # noqa: N802
        labels = self.value(node.value, env) | self._folded(node)
        self.value(node.slice, env)
        if isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load):
            self.watcher.cut(node, labels, self.inside)
        return labels

    def _of_Yield(self, node: ast.Yield | ast.YieldFrom, env: Env) -> Labels:  # noqa: N802
        if node.value is not None:
            _grow(env, _RETURN, self.value(node.value, env))
        return CLEAN

    _of_YieldFrom = _of_Yield  # noqa: N815

    def _of_Lambda(self, node: ast.Lambda, env: Env) -> Labels:  # noqa: N802
        return self.value(node.body, dict(env))

    def _comprehension(self, node: ast.expr, env: Env) -> Labels:
        inner, trained = dict(env), False
        for generator in node.generators:  # type: ignore[attr-defined]
            self.bind(generator.target, self.value(generator.iter, inner), inner)
            # A listing of the folder that keeps only names with "train" in them is clean.
            trained |= any("train" in ast.unparse(test) for test in generator.ifs)
        parts = [getattr(node, name, None) for name in ("elt", "key", "value")]
        self.loops.append(node)
        labels = CLEAN.union(*(self.value(part, inner) for part in parts if part is not None))
        self.loops.pop()
        return labels - {PATH} if trained else labels

    _of_ListComp = _of_SetComp = _of_GeneratorExp = _of_DictComp = _comprehension  # noqa: N815

    def _of_Call(self, node: ast.Call, env: Env) -> Labels:  # noqa: N802
        method = isinstance(node.func, ast.Attribute)
        receiver = self.value(node.func.value, env) if method else self.value(node.func, env)  # type: ignore[attr-defined]
        values = [self.value(argument, env) for argument in node.args]
        named = {k.arg: self.value(k.value, env) for k in node.keywords}
        arguments = CLEAN.union(*values, *named.values())
        self.watcher.call(node, receiver, arguments, self.inside)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in GROWING and method:
            self._put(node.func.value, arguments, env)  # type: ignore[attr-defined]
        library = self._library(node, name, receiver | arguments)
        if library is not None:
            return library | self._folded(node)
        return self._own(node, receiver, values, named, env) | self._folded(node)

    def _library(self, node: ast.Call, name: str, labels: Labels) -> Labels | None:
        """What a library gives back; None where the function may be the script's own."""
        called = self.script.dotted(node.func)
        if name in COUNTING or called in ("len", "range", "isinstance", "print", "type", "hash"):
            return CLEAN
        if called == "float" or (name == "item" and self.inside):
            return frozenset({METRIC}) if labels & {DATA, METRIC} else CLEAN
        if called in READERS or name in ("read_bytes", "open", "read"):
            return labels | {DATA} if labels & {PATH, DATA} else labels
        if called in ("os.listdir", "os.scandir", "os.walk") or name in ("iterdir", "rglob"):
            return labels | {PATH}
        return labels if called is not None else None

    def _own(
        self,
        node: ast.Call,
        receiver: Labels,
        values: list[Labels],
        named: dict[str | None, Labels],
        env: Env,
    ) -> Labels:
        everything = receiver.union(*values, *named.values())
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in self.classes:
            return everything | self._constructed(self.classes[name], values, named)
        if name in self.trusted and DATA in everything and not self.inside:
            self.watcher.measured(node, tuple(self.loops))
        method = isinstance(node.func, ast.Attribute)
        found = [f for f in self.functions.get(name, []) if (id(f) in self.methods) == method]
        if not found or len(found) > 3:
            return everything
        first = [receiver] if method else []
        results = [self.follow(f, [*first, *values], env, named) for f in found]
        return CLEAN.union(*results) | (receiver & {DATA})

    def _constructed(
        self, node: ast.ClassDef, values: list[Labels], named: dict[str | None, Labels]
    ) -> Labels:
        labels = CLEAN
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                labels |= self.follow(statement, [CLEAN, *values], self.module, named)
        return labels

    def follow(
        self,
        function: ast.FunctionDef,
        values: list[Labels],
        env: Env,
        named: dict[str | None, Labels] | None = None,
    ) -> Labels:
        """Run one of the script's own functions with labelled arguments; what does it return?"""
        self.followed.add(id(function))
        everything = CLEAN.union(*values, *(named or {}).values())
        if function in self.active or len(self.active) >= _DEPTH:
            return everything
        nested = function not in self.script.tree.body and id(function) not in self.methods
        inner = dict(env) if nested else {}
        inner |= _parameters(function, values, named or {})
        inner.pop(_RETURN, None)
        key = (id(function), self.inside, *sorted((k, v) for k, v in inner.items() if v))
        if key not in self.memo:
            self.memo[key] = everything
            self.memo[key] = self._body(function, inner)
        return self.memo[key]

    def _body(self, function: ast.FunctionDef, inner: Env) -> Labels:
        outside = self.inside
        self.active.append(function)
        self.inside = outside or function.name in self.trusted
        self.block(function.body, inner)
        self.active.pop()
        self.inside = outside
        stored = [v for k, v in inner.items() if k.startswith("self.")]
        result = inner.get(_RETURN, CLEAN)
        if function.name == "__init__":
            return result.union(*stored)
        measures = function.name in self.trusted and not outside
        if measures and not function.name.lstrip("_").startswith(("load", "get", "read")):
            return frozenset({METRIC}) if result else CLEAN
        return result


def _parameters(
    function: ast.FunctionDef, values: list[Labels], named: dict[str | None, Labels]
) -> Env:
    names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
    env: Env = dict.fromkeys([*names, *(a.arg for a in function.args.kwonlyargs)], CLEAN)
    env |= dict(zip(names, values, strict=False))
    rest = CLEAN.union(*values[len(names) :])
    if function.args.vararg is not None:
        env[function.args.vararg.arg] = rest
    for name, labels in named.items():
        if name is not None and name in env:
            env[name] = labels
        elif function.args.kwarg is not None:
            _grow(env, function.args.kwarg.arg, labels)
    return env
