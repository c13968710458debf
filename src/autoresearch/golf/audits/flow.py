"""Where values go: an abstract run of a script that carries labels instead of values.

Statements are run in order, branches are merged, loops are run twice, and calls of the script's own
functions and classes are followed, hooks included. A value that a test on validation decides about
is labelled as if it were computed from it. What is looked for is told to a watcher; this file only
carries.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Protocol

from attrs import frozen

from autoresearch.golf.audits.script import Script, inside, words

DATA = "data"  # validation tokens, or anything computed from them
PATH = "path"  # the name of a validation shard
METRIC = "metric"  # a number that the evaluation found
MODEL, OPTIMIZER, SETTINGS = "weights", "an optimizer", "settings"  # the thing itself, no copy
Labels = frozenset[str]
Env = dict[str, Labels]
CLEAN: Labels = frozenset()
JUDGED: Labels = frozenset({DATA, METRIC})
LEARNER: Labels = frozenset({MODEL, OPTIMIZER, SETTINGS})

# Attributes and calls that tell of data only how much there is, or of a file only where it lies.
COUNTS = words("shape dtype device ndim nbytes itemsize size scored name stem parent training")
COUNTING = words("numel size dim element_size exists is_file stat nelement")
READERS = (
    "numpy.fromfile", "numpy.memmap", "numpy.load", "numpy.frombuffer", "torch.load", "open",
    "torch.from_file", "mmap.mmap", "io.open", "builtins.open", "torch.UntypedStorage.from_file",
)  # fmt: skip
GROWING = words("append extend insert add update put setdefault appendleft")
# Whether a number is one at all is no choice between models.
_SAFE = words(
    "len isinstance print type hash math.isfinite math.isnan math.isinf torch.isfinite "
    "torch.isnan numpy.isfinite numpy.isnan hasattr id"
)
_REDUCING = words("item sum mean max min norm all any")
# What gives back the thing itself, or parts of it, and no copy.
_PASSING = words(
    "parameters named_parameters state_dict modules named_modules children buffers named_buffers "
    "values items keys get pop to cuda float bfloat16 half eval train requires_grad_ view view_as "
    "flatten reshape detach data unbind compile list dict tuple zip enumerate reversed next iter "
    "getattr vars chain filter get_submodule get_parameter unwrap"
)
_CLOCKS = words(
    "time.perf_counter time.time time.monotonic time.process_time time.perf_counter_ns "
    "time.time_ns time.monotonic_ns"
)
_UNITS = (1000, 1_000_000, 1_000_000_000, 0.001, 0.000001, 1e-9, 100, 60)
_RETURN = "<return>"
_DEPTH = 14
_BUDGET = 150_000  # expressions; a script of 4,000 lines needs about half of it


@frozen
class Event:
    """Something that happens in time.

    A model is trained, scored, copied (``state_dict``) and restored; a clock's ``start`` and
    ``stop``, and what puts it ``back`` or is ``scaled``; ``beside`` is a thread that trains.
    """

    kind: str
    name: str
    node: ast.AST
    inside: bool


class Watcher(Protocol):
    """Is told about calls, stores and cuts while the labels flow past."""

    def call(self, node: ast.Call, receiver: Labels, arguments: Labels, inside: bool) -> None:
        """A call; ``inside`` says whether it happens in the evaluation code."""

    def learns(self, node: ast.AST, what: str, inside: bool) -> None:
        """A value from validation reaches weights, an optimizer or settings."""

    def cut(self, node: ast.Subscript, labels: Labels, inside: bool) -> None:
        """A slice was taken of something labelled."""

    def told(self, node: ast.AST, name: str, value: ast.expr, labels: Labels) -> None:
        """A text or mapping says that ``name`` has a value, outside of the evaluation code."""


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


def _grow(env: dict, name: object, labels: Labels) -> None:  # type: ignore[type-arg]
    env[name] = env.get(name, CLEAN) | labels


def _aliases(labels: Labels) -> Labels:
    """The labels of a thing that its copies and what is computed from it do not have."""
    return frozenset(n for n in labels if n in LEARNER or n.startswith(("obj:", "def:")))


class Flow:
    """One abstract run; ``trusted`` are the names of the evaluation code."""

    def __init__(self, script: Script, trusted: frozenset[str], watcher: Watcher) -> None:
        self.script, self.trusted, self.watcher = script, trusted, watcher
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.methods: dict[tuple[str, str], ast.FunctionDef] = {}
        self.owners: dict[int, str] = {}
        self.kinds: dict[str, str] = {}
        self.shared: set[str] = set()
        self.module: Env = {}
        self.closures: dict[str, Env] = {}  # where a function stood that is passed on by its name
        self.fields: dict[tuple[str, str], Labels] = {}
        self.capped: set[str] = set()  # clocks that are held against something
        self.totals: set[str] = set()  # names and fields that hold what a clock said
        self.truncated = False
        self.folded: dict[ast.AST, bool] = {}
        self.written: dict[ast.AST, str] = {}
        self._index()

    def run(self) -> list[Event]:
        """Run the module, then every function that nobody called; what happened in its order.

        Twice, because what is put into a field late may be read early.
        """
        for _ in range(2):
            self.memo: dict[tuple[object, ...], tuple[Labels, list[Event]]] = {}
            self.active: list[ast.FunctionDef] = []
            self.followed: set[int] = set()
            self.events: list[Event] = []
            self.hooks: list[tuple[ast.expr, Env]] = []
            self.loops: list[list[ast.AST]] = []
            self.control, self.inside, self.budget = CLEAN, False, _BUDGET
            self.block(self.script.tree.body, self.module)
            told = list(self.events)
            for function in self.script.every(ast.FunctionDef):
                if id(function) not in self.followed:
                    owner = self.owners.get(id(function))
                    self.follow(function, [self._instance(owner)] if owner else [], self.module)
        return told

    def _index(self) -> None:
        for node in self.script.every(ast.Global | ast.Nonlocal):  # type: ignore[arg-type]
            self.shared |= set(node.names)
        for function in self.script.every(ast.FunctionDef):
            self.functions.setdefault(function.name, []).append(function)
        for group in self.script.every(ast.ClassDef):
            self.classes[group.name] = group
            for part in group.body:
                if isinstance(part, ast.FunctionDef):
                    self.methods[group.name, part.name] = part
                    self.owners[id(part)] = group.name
            self.kinds[group.name] = self._kind(group)

    def _kind(self, group: ast.ClassDef) -> str:
        bases = [self.script.dotted(b) or ast.unparse(b) for b in group.bases]
        known = [self.kinds.get(base, "") for base in bases]
        if any("Module" in b or b.startswith("torch.nn.") for b in bases) or MODEL in known:
            return MODEL
        if any("Optimizer" in b or b.startswith("torch.optim.") for b in bases):
            return OPTIMIZER
        values = " ".join(ast.unparse(n) for n in group.body if not isinstance(n, ast.FunctionDef))
        return SETTINGS if "environ" in values or "env_" in values else ""

    def _instance(self, name: str) -> Labels:
        return frozenset({f"obj:{name}", self.kinds[name]} - {""})

    # statements

    def block(self, statements: Iterable[ast.stmt], env: Env) -> None:
        """Run statements in order."""
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
        if isinstance(node.op, ast.Sub | ast.Mult) and self._place(node.target) in self.totals:
            self._happens("back", "", node)
        self.bind(node.target, before | self.value(node.value, env), env, adds=True)

    def _do_Return(self, node: ast.Return, env: Env) -> None:  # noqa: N802
        if node.value is not None:
            _grow(env, _RETURN, self.value(node.value, env) | self.control)
        self._leaves(node)

    def _leaves(self, node: ast.stmt, _: Env | None = None) -> None:
        if self.control & JUDGED and not self.inside and self.loops:
            self.loops[-1].append(node)

    _do_Break = _do_Continue = _leaves  # noqa: N815

    def _do_If(self, node: ast.If, env: Env) -> None:  # noqa: N802
        with self._decided(self.value(node.test, env) & JUDGED):
            self._branches(env, node.body, node.orelse)

    @contextmanager
    def _decided(self, labels: Labels) -> Iterator[None]:
        outside, self.control = self.control, self.control | labels
        yield
        self.control = outside

    def _do_For(self, node: ast.For, env: Env) -> None:  # noqa: N802
        with self._looping():
            for _ in range(2):
                labels = self.value(node.iter, env)
                self.bind(node.target, labels, env)
                with self._decided(labels & {METRIC}):
                    self._branches(env, node.body, [])
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
        first = len(self.events)
        self.loops.append([])
        yield
        leaving = self.loops.pop()
        if any(event.kind == "train" for event in self.events[first:]):
            for node in leaving:
                self.watcher.learns(node, "the schedule", self.inside)
        elif self.loops:
            self.loops[-1] += [n for n in leaving if isinstance(n, ast.Return)]

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
        for name in inner.keys() - env.keys():  # settings live in class attributes
            _grow(self.fields, (node.name, name), inner[name])

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
            return
        labels_ = self.value(value, env)
        if isinstance(value, ast.Call) and self.script.dotted(value.func) in _CLOCKS:
            self._happens("start", self._place(target), target)
        elif isinstance(value, ast.Constant) and self._place(target) in self.totals:
            self._happens("back", "", target)
        adds = self._code(target) in self._code(value)
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
                _grow(self.module, target.id, labels)
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
            self.watcher.learns(target, _learner(held), self.inside)
        if isinstance(target, ast.Subscript):
            self._put(target.value, labels, env)
        elif not (passing and labels & JUDGED):
            self._put(target, labels, env)

    def _put(self, target: ast.expr, labels: Labels, env: Env) -> None:
        """Something is added to what a name or a field holds."""
        while isinstance(target, ast.Subscript | ast.Starred):
            target = target.value
        if isinstance(target, ast.Name):
            where = env if target.id in env or target.id not in self.module else self.module
            _grow(where, target.id, labels)
        elif isinstance(target, ast.Attribute):
            for name in self.value(target.value, env):
                if name.startswith("obj:"):
                    _grow(self.fields, (name[4:], target.attr), labels)

    # expressions

    def value(self, node: ast.expr, env: Env) -> Labels:
        """The labels of an expression's value."""
        self.budget -= 1
        if self.budget < 0:
            self.truncated = True
            return CLEAN
        handler: Callable[[ast.expr, Env], Labels] | None
        handler = getattr(self, "_of_" + type(node).__name__, None)
        return handler(node, env) if handler else self._children(node, env)

    def _children(self, node: ast.AST, env: Env) -> Labels:
        parts = (c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr))
        return CLEAN.union(*(self.value(part, env) for part in parts))

    def _of_Constant(self, node: ast.expr, env: Env) -> Labels:  # noqa: N802
        return self._folded(node) | self._children(node, env)

    def _of_BinOp(self, node: ast.BinOp, env: Env) -> Labels:  # noqa: N802
        left, right = self.value(node.left, env), self.value(node.right, env)
        labels = left | right
        if isinstance(node.op, ast.Sub):  # what was begun is read
            for side in (node.left, node.right):
                if isinstance(side, ast.Name | ast.Attribute):
                    self._happens("stop", self._place(side), side)
                    if self._is_clock(node):
                        return frozenset({f"clock:{self._place(side)}"})
        ticks = frozenset(name for name in labels if name.startswith("clock:"))
        if ticks:
            labels -= ticks - self._ticking(node, left & ticks, ticks)
        return self._folded(node) | (labels - _aliases(labels))

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

    def _code(self, node: ast.AST) -> str:
        if node not in self.written:
            self.written[node] = ast.unparse(node)
        return self.written[node]

    def _place(self, node: ast.expr) -> str:
        """One name for a variable of this function, or for a field of any object."""
        text = self._code(node)
        here = self.active[-1].name if self.active else ""
        return text.rsplit(".", 1)[-1] if isinstance(node, ast.Attribute) else f"{here}:{text}"

    def _is_clock(self, node: ast.BinOp) -> bool:
        sides = (node.left, node.right)
        return any(isinstance(s, ast.Call) and self.script.dotted(s.func) in _CLOCKS for s in sides)

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
        return self._folded(node) | (labels - _aliases(labels))

    def _of_Dict(self, node: ast.Dict, env: Env) -> Labels:  # noqa: N802
        labels = CLEAN
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.value(value, env)
            labels |= found | (self.value(key, env) if key is not None else CLEAN)
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and not self.inside:
                self.watcher.told(node, f"{key.value}:", value, found)
        return labels

    def _folded(self, node: ast.expr) -> Labels:
        if node not in self.folded:
            text = self.script.text(node)
            self.folded[node] = isinstance(text, str) and names_validation(text)
        return frozenset({PATH}) if self.folded[node] else CLEAN

    def _of_Compare(self, node: ast.Compare, env: Env) -> Labels:  # noqa: N802
        labels = self._children(node, env)
        self.capped |= {name[6:] for name in labels if name.startswith("clock:")}
        there = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        return CLEAN if there else labels & JUDGED

    def _of_IfExp(self, node: ast.IfExp, env: Env) -> Labels:  # noqa: N802
        chosen = self.value(node.test, env) & JUDGED
        return chosen | self.value(node.body, env) | self.value(node.orelse, env)

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
        owners = [name[4:] for name in held if name.startswith("obj:")]
        found = [self.fields[o, node.attr] for o in owners if (o, node.attr) in self.fields]
        known = {(o, node.attr) for o in owners} & self.methods.keys()
        if found:
            return CLEAN.union(*found)
        if known:  # a property, or a method that is passed on
            first = self.methods[min(known)]
            asked = any("property" in ast.unparse(d) for d in first.decorator_list)
            return self.follow(first, [held], self.module) if asked else held
        if node.attr in COUNTS:
            return CLEAN
        unknown = held - JUDGED if owners else held
        return frozenset(name for name in unknown if not name.startswith("obj:"))

    def _of_Subscript(self, node: ast.Subscript, env: Env) -> Labels:  # noqa: N802
        labels = self.value(node.value, env) | self._folded(node)
        chosen = self.value(node.slice, env) & JUDGED
        if isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load):
            self.watcher.cut(node, labels, self.inside)
        return labels | chosen

    def _of_Yield(self, node: ast.Yield | ast.YieldFrom, env: Env) -> Labels:  # noqa: N802
        if node.value is not None:
            _grow(env, _RETURN, self.value(node.value, env))
        return CLEAN

    _of_YieldFrom = _of_Yield  # noqa: N815

    def _of_Lambda(self, node: ast.Lambda, env: Env) -> Labels:  # noqa: N802
        return self.value(node.body, dict(env))

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
            trained |= any("train" in ast.unparse(test) for test in generator.ifs)
            chosen |= CLEAN.union(*(self.value(test, inner) for test in generator.ifs)) & JUDGED
        parts = [getattr(node, name, None) for name in ("elt", "key", "value")]
        labels = chosen.union(*(self.value(part, inner) for part in parts if part is not None))
        return labels - {PATH} if trained else labels

    _of_ListComp = _of_SetComp = _of_GeneratorExp = _of_DictComp = _comprehension  # noqa: N815

    # calls

    def _of_Call(self, node: ast.Call, env: Env) -> Labels:  # noqa: N802
        method = isinstance(node.func, ast.Attribute)
        receiver = self.value(node.func.value if method else node.func, env)  # type: ignore[attr-defined]
        values = [self.value(argument, env) for argument in node.args]
        named = {k.arg: self.value(k.value, env) for k in node.keywords}
        for keyword in node.keywords:
            if keyword.arg and not self.inside:
                self.watcher.told(node, f"{keyword.arg}:", keyword.value, named[keyword.arg])
        arguments = CLEAN.union(*values, *named.values())
        known = self.inside or (not method and MODEL in receiver and self._in_model())
        self.watcher.call(node, receiver, arguments | self.control & JUDGED, known)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        self._mutates(node, name, receiver, values, arguments, env)
        self._trains(node, name, receiver, arguments)
        self._listens(node, name, env)
        library = self._library(node, name, receiver | arguments)
        if library is not None:
            return library | self._folded(node)
        return self._own(node, name, receiver, values, named, env) | self._folded(node)

    def _mutates(
        self, node: ast.Call, name: str, receiver: Labels, values: list[Labels],
        arguments: Labels, env: Env,
    ) -> None:  # fmt: skip
        """Calls that change what they are called on, or their first argument."""
        reached = (arguments | self.control) & JUDGED
        origin = self.script.dotted(node.func) or ""
        last = origin.rsplit(".", 1)[-1] or name
        in_place = last.endswith("_") and not last.startswith("__") and last[:1].islower()
        if origin in ("setattr", "builtins.setattr", "heapq.heappush", "bisect.insort",
                      "numpy.copyto") or last == "vector_to_parameters" or ((
            in_place or last.startswith("_foreach_")) and origin.startswith("torch.")):  # fmt: skip
            changed, held = node.args[:1], arguments if "vector" in last else values[0]
        elif name in GROWING or name == "load_state_dict" or (in_place and name):
            changed, held = [node.func.value], receiver  # type: ignore[attr-defined]
        elif last in ("save", "dump") and len(values) > 1:  # into a buffer, or a file
            changed, held, arguments = node.args[1:2], CLEAN, values[0]
        else:
            return
        known = name in GROWING and not held & {OPTIMIZER}
        if reached and held & LEARNER and not known:
            self.watcher.learns(node, _learner(held), self.inside)
        for target in changed:
            self._put(target, arguments | self.control, env)

    def _trains(self, node: ast.Call, name: str, receiver: Labels, arguments: Labels) -> None:
        origin = self.script.dotted(node.func)
        both = receiver | arguments
        steps = name == "step" and OPTIMIZER in both
        own = any((n[4:], "backward") in self.methods for n in receiver if n.startswith("obj:"))
        if (name == "backward" and not own) or steps or origin == "torch.autograd.grad":
            self._happens("train", name, node)
            if self.control & JUDGED and not self.inside:
                self.watcher.learns(node, "the schedule", self.inside)
        elif name in ("state_dict", "load_state_dict") and MODEL in receiver:
            self._happens(name, name, node)

    def _listens(self, node: ast.Call, name: str, env: Env) -> None:
        """A hook sees whatever the model reads until it is removed; a thread works beside us."""
        if name.startswith("register_") and name.endswith("hook") and node.args:
            self.hooks.append((node.args[-1], env))
        elif name == "remove" and not node.args:
            self.hooks.clear()
        asked = name or self._code(node.func)
        if asked in ("Thread", "submit", "start_new_thread", "Timer"):
            targets = [*(k.value for k in node.keywords if k.arg == "target"), *node.args[:2]]
            first = len(self.events)
            for target in targets:
                self._called_back(target, CLEAN, env)
            beside = any(e.kind == "train" for e in self.events[first:])
            if beside:
                self._happens("beside", asked, node)

    def _called_back(self, what: ast.expr, labels: Labels, env: Env) -> None:
        if isinstance(what, ast.Call) and what.args and "partial" in ast.unparse(what.func):
            what = what.args[0]
        if isinstance(what, ast.Lambda):
            names = [argument.arg for argument in what.args.args]
            inner = {**env, **dict.fromkeys(names, labels)}
            self.value(what.body, inner)
            for name in env.keys() & inner.keys() - set(names):
                _grow(env, name, inner[name])
        for name in [n.id for n in inside(what, ast.Name)] + [
            n.attr for n in inside(what, ast.Attribute)
        ]:
            for function in self.functions.get(name, [])[:2]:
                owner = self.owners.get(id(function))
                first = [self._instance(owner)] if owner else []
                self.follow(function, [*first, *[labels] * 4], env)

    def _library(self, node: ast.Call, name: str, labels: Labels) -> Labels | None:
        """What a library gives back; None where the function may be the script's own."""
        called = self.script.dotted(node.func)
        if name in COUNTING or called in _SAFE or (called or "").startswith("time."):
            return CLEAN
        if called == "float" or (name in _REDUCING and self.inside):
            return _judged(labels)
        if called in READERS or name in ("read_bytes", "open", "read"):
            return labels | {DATA} if labels & {PATH, DATA} else labels
        if called in ("os.listdir", "os.scandir", "os.walk") or name in ("iterdir", "rglob"):
            return labels | {PATH}
        if called is None:
            return None
        made = called.rsplit(".", 1)[-1]
        if called.startswith("torch.nn.") and made[:1].isupper():
            return labels | {MODEL}
        if called.startswith("torch.optim.") and made[:1].isupper():
            return (labels - _aliases(labels)) | {OPTIMIZER}
        return labels if made in _PASSING else labels - _aliases(labels)

    def _own(
        self, node: ast.Call, name: str, receiver: Labels, values: list[Labels],
        named: dict[str | None, Labels], env: Env,
    ) -> Labels:  # fmt: skip
        everything = receiver.union(*values, *named.values())
        plain = node.func.id if isinstance(node.func, ast.Name) else name
        if plain in self.classes:
            return self._constructed(self.classes[plain], values, named)
        if (not name and MODEL in receiver) or name in ("forward", "__call__"):
            return self._model(node, receiver, values, named)
        owners = [label[4:] for label in receiver if label.startswith("obj:")]
        found = [self.methods[o, name] for o in owners if (o, name) in self.methods]
        method = isinstance(node.func, ast.Attribute)
        if not found:
            bound = [f for f in self.functions.get(plain, []) if (id(f) in self.owners) == method]
            found = [] if method and receiver & LEARNER else bound
        passed = sorted(n[4:] for n in receiver if n.startswith("def:"))
        if passed and not method:  # a parameter that stands for one of the script's functions
            calls = [f for n in passed for f in self.functions[n] if id(f) not in self.owners]
            results = [self.follow(f, values, self.closures[f.name], named) for f in calls[:3]]
            return CLEAN.union(*results)
        if not found or len(found) > 3:
            own = everything if plain in _PASSING else everything - _aliases(everything)
            return own if plain not in _PASSING or not method else own | _aliases(receiver)
        first = [receiver] if method else []
        results = [self.follow(f, [*first, *values], env, named) for f in found]
        return CLEAN.union(*results)

    def _model(
        self, node: ast.Call, receiver: Labels, values: list[Labels],
        named: dict[str | None, Labels],
    ) -> Labels:  # fmt: skip
        """The model is called; what it is called on is scored where that is validation data."""
        arguments = CLEAN.union(*values, *named.values())
        if DATA in arguments:
            self._happens("score", "", node)
            self._hear(arguments & JUDGED)
        labels = arguments - _aliases(arguments)
        for owner in sorted(n[4:] for n in receiver if n.startswith("obj:")):
            forward = self.methods.get((owner, "forward"))
            if forward is not None:
                me = self._instance(owner)
                labels |= self.follow(forward, [me, *values], self.module, named)
        return labels - _aliases(labels)

    def _in_model(self) -> bool:
        """Whether a part of the model calls another: what called the whole was told of."""
        owner = self.owners.get(id(self.active[-1])) if self.active else None
        return owner is not None and self.kinds[owner] == MODEL

    def _hear(self, labels: Labels) -> None:
        hooks, self.hooks = self.hooks, []
        for hook, env in hooks:
            self._called_back(hook, labels, env)
        self.hooks = hooks

    def _constructed(
        self, node: ast.ClassDef, values: list[Labels], named: dict[str | None, Labels]
    ) -> Labels:
        held = self._instance(node.name)
        everything = CLEAN.union(*values, *named.values())
        start = self.methods.get((node.name, "__init__"))
        if start is not None:
            self.follow(start, [held, *values], self.module, named)
        else:  # a dataclass, or a named tuple
            fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)
                      and isinstance(n.target, ast.Name)]  # fmt: skip
            rest = values[-1] if values else CLEAN  # a starred argument fills what is left
            given = [*values, *[rest] * (len(fields) - len(values))] if values else []
            for name, labels in [*zip(fields, given, strict=False), *named.items()]:
                _grow(self.fields, (node.name, name), labels | self.control)
        kept = [v for (owner, _), v in self.fields.items() if owner == node.name]
        return held | (everything.union(*kept) & {DATA, PATH}) if kept else held

    def follow(
        self, function: ast.FunctionDef, values: list[Labels], env: Env,
        named: dict[str | None, Labels] | None = None,
    ) -> Labels:  # fmt: skip
        """Run one of the script's own functions with labelled arguments; what does it return?"""
        self.followed.add(id(function))
        everything = CLEAN.union(*values, *(named or {}).values())
        if function in self.active or len(self.active) >= _DEPTH:
            return everything - _aliases(everything)
        nested = function not in self.script.tree.body and id(function) not in self.owners
        inner = dict(env) if nested else {}
        inner |= _parameters(function, values, named or {})
        inner.pop(_RETURN, None)
        key = (
            id(function), self.inside, self.control,
            *sorted((k, tuple(sorted(v))) for k, v in inner.items() if v),
        )  # fmt: skip
        if key in self.memo:
            labels, events = self.memo[key]
            self.events += events
            if any(event.kind == "score" for event in events):
                self._hear(frozenset({DATA}))
            return labels
        self.memo[key] = everything - _aliases(everything), []
        first = len(self.events)
        labels = self._body(function, inner)
        if nested:  # what a closure added to the lists and tables of its function
            own = {a.arg for a in function.args.args}
            own |= {n.id for n in inside(function, ast.Name) if isinstance(n.ctx, ast.Store)}
            for name in env.keys() & inner.keys() - own - {_RETURN}:
                _grow(env, name, inner[name])
        self.memo[key] = labels, self.events[first:]
        return labels

    def _body(self, function: ast.FunctionDef, inner: Env) -> Labels:
        outside, loops, first = self.inside, self.loops, len(self.events)
        self.active.append(function)
        self.loops = []
        self.inside = outside or function.name in self.trusted
        self.block(function.body, inner)
        self.active.pop()
        scored = any(event.kind == "score" for event in self.events[first:])
        measures, self.inside, self.loops = self.inside and not outside, outside, loops
        result = inner.get(_RETURN, CLEAN)
        return _judged(result) if measures and scored else result

    def _happens(self, kind: str, name: str, node: ast.AST) -> None:
        self.events.append(Event(kind, name, node, self.inside))


def _judged(labels: Labels) -> Labels:
    return (labels - {DATA, PATH}) | {METRIC} if DATA in labels else labels


def _learner(held: Labels) -> str:
    return next(name for name in (MODEL, OPTIMIZER, SETTINGS) if name in held)


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
