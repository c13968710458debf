"""Labels that stand for values, what is told of them, and what a script consists of."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from attrs import frozen

from autoresearch.golf.audits.script import (
    Script,
    written,
)

DATA = "data"  # validation tokens, or anything computed from them
PATH = "path"  # the name of a validation shard
METRIC = "metric"  # a number that the evaluation found
MODEL, OPTIMIZER, SETTINGS = "weights", "an optimizer", "settings"  # the thing itself, no copy
Labels = frozenset[str]
Env = dict[str, Labels]
CLEAN: Labels = frozenset()
JUDGED: Labels = frozenset({DATA, METRIC})
LEARNER: Labels = frozenset({MODEL, OPTIMIZER, SETTINGS})
_FILE = re.compile(r"[\w./-]{0,60}\.(txt|log|json|jsonl|csv|yaml|pt|pth|npy|npz|pkl|bin|dat|db)")
RETURN = "<return>"  # in an Env: what the function gives back
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
    if "fineweb_val" in text or text.strip("_-./*") in ("val", "validation"):
        return True
    if not any(magic in last for magic in "*?["):
        return last.endswith(".bin") and ("_val_" in last or last.startswith("val_"))
    return fnmatchcase("fineweb_val_000000.bin", last) or fnmatchcase("val", last)


def grow(env: dict, name: object, labels: Labels) -> None:  # type: ignore[type-arg]
    """Add labels to those that a name has."""
    env[name] = env.get(name, CLEAN) | labels


def aliases(labels: Labels) -> Labels:
    """The labels of a thing that its copies and what is computed from it do not have."""
    return frozenset(n for n in labels if n in LEARNER or n.startswith(("obj:", "def:", "file:<")))


def owners_of(labels: Labels, *kinds: str) -> list[str]:
    """The script's own objects that labels stand for, in order; or what else ``kinds`` say."""
    return sorted(name[4:] for name in labels if name.startswith(kinds or ("obj:",)))


def judged(labels: Labels) -> Labels:
    """What an evaluation makes of validation data: a number, and no data any more."""
    return (labels - {DATA, PATH}) | {METRIC} if DATA in labels else labels


def learner(held: Labels) -> str:
    """The word for what learns, for a finding."""
    return next(name for name in (MODEL, OPTIMIZER, SETTINGS) if name in held)


class Ground:
    """What a run over a script knows: its functions and classes, and what their fields hold."""

    def __init__(self, script: Script, trusted: frozenset[str], watcher: Watcher) -> None:
        self.script, self.trusted, self.watcher = script, trusted, watcher
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.methods: dict[tuple[str, str], ast.FunctionDef] = {}
        self.owners: dict[int, str] = {}
        self.nameless: dict[ast.AST, str] = {}  # lambdas and partials
        self.kinds: dict[str, str] = {}
        self.shared: set[str] = set()
        self.module: Env = {}
        self.closures: dict[str, Env] = {}  # where a function stood that is passed on by its name
        self.fields: defaultdict[str, Env] = defaultdict(dict)
        self.capped: set[str] = set()  # clocks that are held against something
        self.totals: set[str] = set()  # names and fields that hold what a clock said
        self.files: Env = {}  # what the script wrote into files, by their names
        self.outside = CLEAN  # what it put into the environment
        self.sent = CLEAN  # what it sent to generators
        self.made: dict[ast.AST, ast.expr] = {}  # calls and names that nobody wrote
        self.truncated = False
        self.folded: dict[ast.AST, Labels] = {}
        self.manners: dict[ast.AST, Labels] = {}
        self._index()

    def begin(self) -> None:
        """Forget what happened, and keep what fields and names hold."""
        self.memo: dict[tuple[object, ...], tuple[Labels, list[Labels], list[Event]]] = {}
        self.filled: list[Labels] = []  # what the function that ended last put into its arguments
        self.active: list[ast.FunctionDef] = []
        self.followed: set[int] = set()
        self.events: list[Event] = []
        self.hooks: list[tuple[ast.expr, Env]] = []
        self.loops: list[list[ast.AST]] = []
        self.control, self.inside, self.budget = CLEAN, False, _BUDGET
        self.trying = False  # whether what is raised is caught, and the script goes on
        self.left = dict.fromkeys(("loop", "function", "try"), CLEAN)  # what decided on the rest

    def _index(self) -> None:
        shared: Sequence[ast.Global | ast.Nonlocal] = self.script.every((ast.Global, ast.Nonlocal))
        self.shared |= {name for told in shared for name in told.names}
        for function in self.script.every(ast.FunctionDef):
            self.functions.setdefault(function.name, []).append(function)
        calls: Sequence[ast.Lambda | ast.Call] = self.script.every((ast.Lambda, ast.Call))
        for number, node in enumerate(calls):
            made = (node.args, node.body) if isinstance(node, ast.Lambda) else self._partial(node)
            if made is not None:
                name = self.nameless[node] = f"<nameless {number}>"
                body: list[ast.stmt] = [ast.Return(made[1])]
                self.functions[name] = [ast.FunctionDef(name, made[0], body, decorator_list=[])]
        for group in self.script.every(ast.ClassDef):
            self.classes[group.name] = group
            for part in group.body:
                if isinstance(part, ast.FunctionDef):
                    sets = any(written(d).endswith(".setter") for d in part.decorator_list)
                    self.methods[group.name, part.name + ".setter" * sets] = part
                    self.owners[id(part)] = group.name
            bases = {written(base) for base in (*group.bases, *(k.value for k in group.keywords))}
            for (owner, name), method in list(self.methods.items()):
                if owner in bases:
                    self.methods.setdefault((group.name, name), method)
            self.kinds[group.name] = self._kind(group)

    def _partial(self, node: ast.Call) -> tuple[ast.arguments, ast.expr] | None:
        """``partial(f, a)`` as ``lambda *rest, **more: f(a, *rest, **more)``."""
        if self.script.dotted(node.func) != "functools.partial" or not node.args:
            return None
        rest, more = ast.Name("<rest>", ast.Load()), ast.Name("<more>", ast.Load())
        given = [*node.args[1:], ast.Starred(rest, ast.Load())]
        call = ast.Call(node.args[0], given, [*node.keywords, ast.keyword(None, more)])
        names = ast.arguments([], [], ast.arg(rest.id), [], [], ast.arg(more.id), [])
        return names, ast.copy_location(call, node)

    def _kind(self, group: ast.ClassDef) -> str:
        bases = [self.script.dotted(b) or written(b) for b in group.bases]
        known = [self.kinds.get(base, "") for base in bases]
        if any("Module" in b or b.startswith("torch.nn.") for b in bases) or MODEL in known:
            return MODEL
        if any("Optimizer" in b or b.startswith("torch.optim.") for b in bases):
            return OPTIMIZER
        values = " ".join(written(n) for n in group.body if not isinstance(n, ast.FunctionDef))
        return SETTINGS if "environ" in values or "env_" in values else ""

    def _instance(self, name: str) -> Labels:
        return frozenset({f"obj:{name}", self.kinds[name]} - {""})

    def _place(self, node: ast.expr) -> str:
        """One name for a variable of this function, or for a field of any object."""
        text = written(node)
        here = self.active[-1].name if self.active else ""
        return text.rsplit(".", 1)[-1] if isinstance(node, ast.Attribute) else f"{here}:{text}"

    def _folded(self, node: ast.expr) -> Labels:
        if node not in self.folded:
            text = self.script.text(node)
            named = isinstance(text, str) and names_validation(text)
            labels = frozenset({PATH}) if named else CLEAN
            own = isinstance(text, str) and _FILE.fullmatch(text)
            self.folded[node] = labels | {f"file:{text!s}"} if own else labels
        return self.folded[node]

    def _happens(self, kind: str, name: str, node: ast.AST) -> None:
        self.events.append(Event(kind, name, node, self.inside))
