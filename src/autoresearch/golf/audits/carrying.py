"""Statements and expressions: how labels pass through them, by name, field and branch."""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from autoresearch.golf.audits.labels import (
    CLEAN,
    JUDGED,
    LEARNER,
    METRIC,
    PATH,
    RETURN,
    Env,
    Ground,
    Labels,
    Watcher,
    aliases,
    grow,
    learner,
    owners_of,
)
from autoresearch.golf.audits.script import Script, inside, names_in, stores, words, written

# Attributes that tell of data only how much there is, or of a file only where it lies.
COUNTS = words("shape dtype device ndim nbytes itemsize size scored name stem parent training")
CLOCKS = words(
    "time.perf_counter time.time time.monotonic time.process_time time.perf_counter_ns "
    "time.time_ns time.monotonic_ns"
)
_SIGN = re.compile(
    r"__[ri]?(add|sub|mul|matmul|truediv|floordiv|mod|pow|and|or|xor|[lr]shift)__|"
    r"__(lt|le|gt|ge|eq|ne|contains)__"
)
_UNITS = (1000, 1_000_000, 1_000_000_000, 0.001, 0.000001, 1e-9, 100, 60)


class Carrier(Ground, ABC):
    """Runs the statements of a script in order; calls are followed by who extends it."""

    @abstractmethod
    def follow(
        self, function: ast.FunctionDef, values: list[Labels], env: Env,
        named: dict[str | None, Labels] | None = None,
    ) -> Labels:  # fmt: skip
        """Run one of the script's own functions with labelled arguments; what does it return?"""

    def __init__(self, script: Script, trusted: frozenset[str], watcher: Watcher) -> None:
        super().__init__(script, trusted, watcher)
        kinds = {kind: f"_of_{kind.__name__}" for kind in ast.expr.__subclasses__()}
        self.handlers: dict[type[ast.AST], Callable[[Any, Env], Labels]] = {
            kind: getattr(self, name) for kind, name in kinds.items() if hasattr(self, name)
        }

    def block(self, statements: Iterable[ast.stmt], env: Env) -> None:
        """Run statements in order."""
        for statement in statements:
            handler = getattr(self, "_do_" + type(statement).__name__, self._children)
            first = len(self.events)
            with self._decided(CLEAN.union(*self.left.values())):
                handler(statement, env)
            if self.trying:  # what follows is reached because nothing was raised
                self.left["try"] |= self._raised(first)

    def _raised(self, first: int) -> Labels:
        return frozenset(e.name for e in self.events[first:] if e.kind == "raise" and not e.inside)

    def _do_Assign(self, node: ast.Assign, env: Env) -> None:  # noqa: N802
        for target in node.targets:
            self._bind_value(target, node.value, env)

    def _do_AnnAssign(self, node: ast.AnnAssign, env: Env) -> None:  # noqa: N802
        self.value(node.annotation, env)
        if node.value is not None:
            self._bind_value(node.target, node.value, env)

    def _do_AugAssign(self, node: ast.AugAssign, env: Env) -> None:  # noqa: N802
        before = self._operated(self.value(node.target, env), self.value(node.value, env))
        if isinstance(node.op, ast.Sub | ast.Mult) and self._place(node.target) in self.totals:
            self._happens("back", "", node)
        self.bind(node.target, before | self.value(node.value, env), env, adds=True)

    def _do_Return(self, node: ast.Return, env: Env) -> None:  # noqa: N802
        if node.value is not None:
            grow(env, RETURN, self.value(node.value, env) | self.control)
        self._leaves(node)

    def _leaves(self, node: ast.stmt, _: Env | None = None) -> None:
        """What comes after it in its loop or function runs because it was not reached."""
        if self.control & JUDGED and not self.inside:
            self.left["function" if isinstance(node, ast.Return) else "loop"] |= self.control
            if self.loops:
                self.loops[-1].append(node)

    _do_Break = _do_Continue = _leaves  # noqa: N815

    def _do_If(self, node: ast.If, env: Env) -> None:  # noqa: N802
        with self._decided(self.value(node.test, env) & JUDGED):
            self._branches(env, node.body, node.orelse)

    def _do_Match(self, node: ast.Match, env: Env) -> None:  # noqa: N802
        labels = self.value(node.subject, env)
        held = (found for o in owners_of(labels) for found in self.fields[o].values())
        labels = labels.union(*held)
        for case in node.cases:
            for part in inside(case.pattern, (ast.MatchAs, ast.MatchStar, ast.MatchMapping)):
                if name := getattr(part, "name", None) or getattr(part, "rest", None):
                    grow(env, name, labels)
            labels |= self.value(case.guard, env) if case.guard else CLEAN
        with self._decided(labels & JUDGED):
            self._branches(env, *(case.body for case in node.cases), [])

    @contextmanager
    def _decided(self, labels: Labels) -> Iterator[None]:
        outside, self.control = self.control, self.control | labels
        yield
        self.control = outside

    def _do_For(self, node: ast.For, env: Env) -> None:  # noqa: N802
        with self._looping():
            for _ in range(2):
                labels = self.value(node.iter, env)
                labels |= self._special("__iter__", labels) | self._special("__next__", labels)
                self.bind(node.target, labels | self.left["loop"], env)
                with self._decided(labels & {METRIC}):
                    self._branches(env, node.body, [])
                for part in _changed_items(node):  # what an item got, what it is in has
                    for source in inside(node.iter, (ast.Name, ast.Attribute)):
                        self._put(source, env.get(part, CLEAN) & JUDGED, env)
            self.block(node.orelse, env)

    def _do_While(self, node: ast.While, env: Env) -> None:  # noqa: N802
        with self._looping():
            for _ in range(2):
                with self._decided(self.value(node.test, env) & JUDGED):
                    self._branches(env, node.body, [])
            self.block(node.orelse, env)

    @contextmanager
    def _looping(self) -> Iterator[None]:
        """A loop that trains must not end, nor pass over a step, because of a score."""
        first, left = len(self.events), self.left["loop"]
        self.loops.append([])
        yield
        leaving, self.left["loop"] = self.loops.pop(), left
        if any(event.kind == "train" for event in self.events[first:]):
            for node in leaving:
                self.watcher.learns(node, "the schedule", self.inside)
        elif self.loops:
            self.loops[-1] += [n for n in leaving if isinstance(n, ast.Return)]

    def _do_With(self, node: ast.With, env: Env) -> None:  # noqa: N802
        entered = []
        for item in node.items:
            entered.append(self.value(item.context_expr, env))
            labels = entered[-1] | self._special("__enter__", entered[-1])
            if item.optional_vars is not None:
                self.bind(item.optional_vars, labels, env)
        self.block(node.body, env)
        for labels in reversed(entered):
            self._special("__exit__", labels)

    def _special(self, name: str, held: Labels, *values: Labels) -> Labels:
        """Call a method that Python calls by itself, of the script's own objects."""
        names = (name, name.replace("__", "__a", 1))
        places = [(o, n) for o in owners_of(held) for n in names]
        given = [
            self.follow(self.methods[place], [self._instance(place[0]), *values], self.module)
            for place in places
            if place in self.methods
        ]
        return CLEAN.union(*given)

    def _field(self, held: Labels, name: str) -> Labels:
        """What a field of the script's own objects and functions holds."""
        owners = owners_of(held, "obj:", "def:")
        return CLEAN.union(*(self.fields[o].get(name, CLEAN) for o in owners if o in self.fields))

    def _operated(self, *sides: Labels) -> Labels:
        """What an operator gives, with what the script's own classes make of it."""
        labels = CLEAN.union(*sides)
        owners = owners_of(labels)
        names = sorted({name for o, name in self.methods if o in owners and _SIGN.match(name)})
        return labels.union(*(self._special(name, labels, labels) for name in names))

    def _do_Try(self, node: ast.Try, env: Env) -> None:  # noqa: N802
        first, left, trying = len(self.events), self.left["try"], self.trying
        self.trying |= not all(_gives_up(handler.body[-1]) for handler in node.handlers)
        self._branches(env, node.body, [])
        self.left["try"], self.trying = left, trying
        happened = self.events[first:]
        raised = frozenset(e.name for e in happened if e.kind == "raise")
        if any(inside(part, ast.Yield) for part in node.body):
            raised |= self.sent
        with self._decided(raised):
            for handler in node.handlers:
                if handler.name:
                    env[handler.name] = raised
            self._branches(env, *(handler.body for handler in node.handlers), [])
        if raised and any(e.kind == "train" for e in happened) and not self.inside:
            for handler in node.handlers:
                if not _gives_up(handler.body[-1]):
                    self.watcher.learns(handler, "the schedule", self.inside)
        self.block([*node.orelse, *node.finalbody], env)

    _do_TryStar = _do_Try  # noqa: N815

    def _do_Raise(self, node: ast.Raise, env: Env) -> None:  # noqa: N802
        said = self.value(node.exc, env) if node.exc else CLEAN
        for part in node.exc.args if isinstance(node.exc, ast.Call) else ():
            said |= self.value(part, env)
        for name in sorted((said | self.control) & JUDGED):
            self._happens("raise", name, node)

    def _do_Assert(self, node: ast.Assert, env: Env) -> None:  # noqa: N802
        for name in sorted((self.value(node.test, env) | self.control) & JUDGED):
            self._happens("raise", name, node)

    def _do_Delete(self, node: ast.Delete, env: Env) -> None:  # noqa: N802
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                chosen = self.value(target.slice, env)
                self._special("__delitem__", self.value(target.value, env), chosen)

    def _do_ClassDef(self, node: ast.ClassDef, env: Env) -> None:  # noqa: N802
        given = [self.value(keyword.value, env) for keyword in node.keywords]
        inner = dict(env)
        self.closures[node.name] = inner
        self.block(node.body, inner)
        for name in inner.keys() - env.keys():  # settings live in class attributes
            grow(self.fields[node.name], name, inner[name])
        self._special("__init_subclass__", self._instance(node.name), *given)
        self._decorated(node, env)

    def _decorated(self, node: ast.ClassDef | ast.FunctionDef, env: Env) -> None:
        """What stands over a function or class is called with it, and may give back another."""
        for part in reversed(node.decorator_list):
            if part not in self.made:
                name = ast.copy_location(ast.Name(node.name, ast.Load()), node)
                self.made[part] = ast.copy_location(ast.Call(part, [name], []), part)
            labels = self.value(self.made[part], env)
            if other := {label for label in labels if label.startswith("def:")}:
                env[node.name] = frozenset(other)

    _do_FunctionDef = _decorated  # noqa: N815

    def _branches(self, env: Env, *bodies: Iterable[ast.stmt]) -> None:
        ends = []
        for body in bodies:
            ends.append(dict(env))
            self.block(body, ends[-1])
        for end in ends:
            for name, labels in end.items():
                grow(env, name, labels)

    def _bind_value(self, target: ast.expr, value: ast.expr, env: Env) -> None:
        pairs = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        if pairs and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            labels = [self.value(part, env) for part in value.elts]  # type: ignore[attr-defined]
            for part, label in zip(target.elts, labels, strict=True):  # type: ignore[attr-defined]
                self.bind(part, label, env)
            return
        labels_ = self.value(value, env)
        if isinstance(value, ast.Call) and self.script.dotted(value.func) in CLOCKS:
            self._happens("start", self._place(target), target)
        elif isinstance(value, ast.Constant) and self._place(target) in self.totals:
            self._happens("back", "", target)
        adds = written(target) in written(value)
        shrinks = isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub | ast.Mult)
        if adds and shrinks and self._place(target) in self.totals:
            self._happens("back", "", target)
        self.bind(target, labels_, env, adds=adds)

    def bind(self, target: ast.expr, labels: Labels, env: Env, *, adds: bool = False) -> None:
        """Store labels into a target; ``adds`` says that what was there counts on."""
        labels |= self.control
        if any(name.startswith("clock:") for name in labels):
            self.totals.add(self._place(target))
        if isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.bind(part, labels, env)
        elif isinstance(target, ast.Name):
            env[target.id] = labels
            if target.id in self.shared:
                grow(self.module, target.id, labels)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, labels, env)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            held = self.value(target.value, env)
            if isinstance(target, ast.Subscript):
                labels |= self.value(target.slice, env) & JUDGED
            self._stored(target, held, labels, env, adds)

    def _stored(
        self, target: ast.Attribute | ast.Subscript, held: Labels, labels: Labels, env: Env,
        adds: bool,
    ) -> None:  # fmt: skip
        # While it is scored a model may remember its last activations: the next ones replace them.
        passing = self.inside and isinstance(target, ast.Attribute) and not adds
        if labels & JUDGED and held & LEARNER and not passing:
            self.watcher.learns(target, learner(held), self.inside)
        if isinstance(target, ast.Subscript):
            self._special("__setitem__", held, CLEAN, labels)
            if self.script.dotted(target.value) == "os.environ":
                self.outside |= labels & JUDGED
            self._put(target.value, labels, env)
            return
        self._special(f"{target.attr}.setter", held, labels)
        self._special("__set__", self._field(held, target.attr), CLEAN, labels)
        self._special("__setattr__", held, CLEAN, labels)
        if not (passing and labels & JUDGED):
            self._put(target, labels, env)

    def _put(self, target: ast.expr, labels: Labels, env: Env) -> None:
        """Something is added to what a name or a field holds."""
        while isinstance(target, ast.Subscript | ast.Starred):
            target = target.value
        if isinstance(target, ast.Name):
            where = env if target.id in env or target.id not in self.module else self.module
            grow(where, target.id, labels)
        elif isinstance(target, ast.Attribute):
            for owner in owners_of(self.value(target.value, env), "obj:", "def:"):
                grow(self.fields[owner], target.attr, labels)

    def value(self, node: ast.expr, env: Env) -> Labels:
        """The labels of an expression's value."""
        self.budget -= 1
        if self.budget < 0:
            self.truncated = True
            return CLEAN
        handler = self.handlers.get(type(node))
        return handler(node, env) if handler else self._children(node, env)

    def _children(self, node: ast.AST, env: Env) -> Labels:
        parts = (c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr))
        return CLEAN.union(*(self.value(part, env) for part in parts))

    def _of_Constant(self, node: ast.expr, _: Env) -> Labels:  # noqa: N802
        return self._folded(node)

    def _of_BinOp(self, node: ast.BinOp, env: Env) -> Labels:  # noqa: N802
        left, right = self.value(node.left, env), self.value(node.right, env)
        labels = self._operated(left, right)
        if isinstance(node.op, ast.Sub):  # what was begun is read
            for side in (node.left, node.right):
                if isinstance(side, ast.Name | ast.Attribute):
                    self._happens("stop", self._place(side), side)
                    if self._is_clock(node):
                        return frozenset({f"clock:{self._place(side)}"})
        ticks = frozenset(name for name in labels if name.startswith("clock:"))
        if ticks:
            labels -= ticks - self._ticking(node, left & ticks, ticks)
        return self._folded(node) | (labels - aliases(labels))

    def _ticking(self, node: ast.BinOp, left: Labels, ticks: Labels) -> Labels:
        """What is still a clock's time: a sum, or the same in another unit, and nothing else."""
        factors = [s.value for s in (node.left, node.right) if isinstance(s, ast.Constant)]
        if isinstance(node.op, ast.Add):
            return ticks
        if isinstance(node.op, ast.Sub):  # what is left of the cap
            self.capped |= {name[6:] for name in ticks - left}
            return left
        if isinstance(node.op, ast.Mult | ast.Div) and factors and factors[0] in _UNITS:
            return ticks
        if isinstance(node.op, ast.Mult) and factors:
            self._happens("scaled", min(ticks)[6:], node)
            return ticks
        return CLEAN

    def _is_clock(self, node: ast.BinOp) -> bool:
        sides = (node.left, node.right)
        return any(isinstance(s, ast.Call) and self.script.dotted(s.func) in CLOCKS for s in sides)

    def _of_JoinedStr(self, node: ast.JoinedStr, env: Env) -> Labels:  # noqa: N802
        text, labels = "", CLEAN
        for part in node.values:
            found = self.value(part, env)
            labels |= found
            if isinstance(part, ast.FormattedValue):
                if not self.inside:
                    self.watcher.told(node, text, part.value, found | self.control)
            elif isinstance(part, ast.Constant):
                text = str(part.value)
        return self._folded(node) | (labels - aliases(labels))

    def _of_Dict(self, node: ast.Dict, env: Env) -> Labels:  # noqa: N802
        labels = CLEAN
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.value(value, env)
            labels |= found | (self.value(key, env) if key is not None else CLEAN)
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and not self.inside:
                self.watcher.told(node, f"{key.value}:", value, found)
        return labels

    def _of_Compare(self, node: ast.Compare, env: Env) -> Labels:  # noqa: N802
        labels = self._operated(self._children(node, env))
        self.capped |= {name[6:] for name in labels if name.startswith("clock:")}
        there = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        return CLEAN if there else labels & JUDGED

    def _of_IfExp(self, node: ast.IfExp, env: Env) -> Labels:  # noqa: N802
        chosen = self.value(node.test, env) & JUDGED
        with self._decided(chosen):
            return chosen | self.value(node.body, env) | self.value(node.orelse, env)

    def _of_BoolOp(self, node: ast.BoolOp, env: Env) -> Labels:  # noqa: N802
        labels = CLEAN
        for part in node.values:  # the first ones decide whether the last one is called
            with self._decided(labels & JUDGED):
                labels |= self.value(part, env)
        return labels

    def _of_Name(self, node: ast.Name, env: Env) -> Labels:  # noqa: N802
        shared = self.module.get(node.id, CLEAN) if node.id in self.shared else CLEAN
        if node.id in self.classes and node.id not in env:
            return self._instance(node.id)
        if node.id in self.functions and node.id not in env:
            self.closures[node.id] = env
            return frozenset({f"def:{node.id}"})
        return shared | env.get(node.id, self.module.get(node.id, CLEAN))

    def _of_Attribute(self, node: ast.Attribute, env: Env) -> Labels:  # noqa: N802
        held = self.value(node.value, env)
        owners = owners_of(held, "obj:", "def:")
        found = [self.fields[o][node.attr] for o in owners if node.attr in self.fields[o]]
        known = {(o, node.attr) for o in owners} & self.methods.keys()
        if found:
            return CLEAN.union(*found)
        if known:  # a property, or a method that is passed on
            first = self.methods[min(known)]
            asked = any("property" in written(d) for d in first.decorator_list)
            if asked:
                return self.follow(first, [held], self.module)
            return held | {f"def:{owner}.{node.attr}" for owner, _ in known}
        if node.attr in COUNTS:
            return CLEAN
        if looked := self._special("__getattr__", held):
            return looked
        unknown = held - JUDGED if owners else held
        return frozenset(name for name in unknown if not name.startswith("obj:"))

    def _of_Subscript(self, node: ast.Subscript, env: Env) -> Labels:  # noqa: N802
        labels = self.value(node.value, env) | self._folded(node)
        if self.outside and self.script.dotted(node.value) == "os.environ":
            labels |= self.outside
        chosen = self.value(node.slice, env) & JUDGED
        labels |= self._special("__getitem__", labels, chosen)
        if isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load):
            self.watcher.cut(node, labels, self.inside)
        return labels | chosen

    def _of_Yield(self, node: ast.Yield | ast.YieldFrom, env: Env) -> Labels:  # noqa: N802
        labels = self.value(node.value, env) if node.value is not None else CLEAN
        grow(env, RETURN, labels)
        return self.sent | (labels if isinstance(node, ast.YieldFrom) else CLEAN)

    _of_YieldFrom = _of_Yield  # noqa: N815

    def _of_Lambda(self, node: ast.Lambda, env: Env) -> Labels:  # noqa: N802
        self.closures[self.nameless[node]] = env
        own = {f"def:{self.nameless[node]}"}
        return self.value(node.body, {**env, **self._defaults(node.args, env)}) | own

    def _defaults(self, arguments: ast.arguments, env: Env) -> Env:
        """What parameters have that are not given."""
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        pairs = [*zip(names[::-1], arguments.defaults[::-1], strict=False)]
        named = zip((a.arg for a in arguments.kwonlyargs), arguments.kw_defaults, strict=True)
        return {name: self.value(value, env) for name, value in (*pairs, *named) if value}

    def _of_NamedExpr(self, node: ast.NamedExpr, env: Env) -> Labels:  # noqa: N802
        labels = self.value(node.value, env)
        self.bind(node.target, labels, env)
        return labels

    def _comprehension(self, node: ast.expr, env: Env) -> Labels:
        inner, trained, chosen = dict(env), False, CLEAN
        for generator in node.generators:  # type: ignore[attr-defined]
            labels = self.value(generator.iter, inner)
            self.bind(generator.target, labels, inner)
            # A listing of the folder that keeps only names with "train" in them is clean.
            trained |= any("train" in written(test) for test in generator.ifs)
            chosen |= CLEAN.union(*(self.value(test, inner) for test in generator.ifs)) & JUDGED
            chosen |= labels & {METRIC}
        parts = [getattr(node, name, None) for name in ("elt", "key", "value")]
        with self._decided(chosen):
            labels = chosen.union(*(self.value(part, inner) for part in parts if part is not None))
        own = {name for g in node.generators for name in names_in(g.target)}  # type: ignore[attr-defined]
        for name in inner.keys() - own:  # what it did to the names around it
            grow(env, name, inner[name])
        return labels - {PATH} if trained else labels

    _of_ListComp = _of_SetComp = _of_GeneratorExp = _of_DictComp = _comprehension  # noqa: N815


def _gives_up(node: ast.stmt) -> bool:
    """Whether a handler ends the script: it raises, leaves, or gives back an exit status."""
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, int)
    leaves = isinstance(node, ast.Expr) and written(node).startswith(("sys.exit(", "exit("))
    return leaves or isinstance(node, ast.Raise)


def _changed_items(node: ast.For) -> set[str]:
    """The names that a loop gives its items, where the body stores into one of them."""
    items = names_in(node.target)
    places = (p for part in node.body for p in inside(part, (ast.Subscript, ast.Attribute)))
    held = (getattr(place, "value", None) for place in places if stores(place))
    return {name.id for name in held if isinstance(name, ast.Name)} & items
