"""Where values go: an abstract run of a script that carries labels instead of values.

Statements are run in order, branches are merged, loops are run twice, and calls of the script's own
functions and classes are followed, hooks included. A value that a test on validation decides about
is labelled as if it were computed from it. What is looked for is told to a watcher: nothing is
judged here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from autoresearch.golf.audits.carrying import Carrier
from autoresearch.golf.audits.labels import (
    CLEAN,
    DATA,
    JUDGED,
    LEARNER,
    METRIC,
    MODEL,
    OPTIMIZER,
    PATH,
    RETURN,
    Env,
    Event,
    Labels,
    aliases,
    grow,
    judged,
    learner,
    owners_of,
)
from autoresearch.golf.audits.script import (
    called,
    inside,
    stores,
    words,
    written,
)

# Calls that tell of data only how much there is or which, of a file only where it lies.
COUNTING = words("numel size dim element_size exists is_file stat nelement hexdigest")
READERS = (
    "numpy.fromfile", "numpy.memmap", "numpy.load", "numpy.frombuffer", "torch.load", "open",
    "torch.from_file", "mmap.mmap", "io.open", "builtins.open", "torch.UntypedStorage.from_file",
)  # fmt: skip
GROWING = words(
    "append extend insert add update put put_nowait setdefault appendleft set send push set_result"
)
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
_TRAINING = words("backward step state_dict load_state_dict")
_BESIDE = words(
    "Thread submit start_new_thread Timer signal.signal atexit.register apply_async "
    "run_in_executor call_later weakref.finalize"
)
_WRITING = words("print write write_text write_bytes writelines dump dumps save savez tofile")
_READING = words(
    "getvalue getbuffer read read_text read_bytes readline readlines load loads open fromfile"
)
_FILLING = words(
    "setattr builtins.setattr object.__setattr__ operator.setitem heapq.heappush bisect.insort "
    "numpy.copyto"
)
# Which of its arguments a call changes, where it changes anything.
_CHANGED = {"first": slice(1), "all": slice(1), "receiver": slice(0), "second": slice(1, 2)}
_SENDING = words("send throw asend athrow")
_KINDS = ("def", "obj")
_STARRED = 8  # values that a starred argument may stand for
_CALLED_BACK = 4  # values that a hook or a thread may be given
_DEPTH = 14


class Flow(Carrier):
    """One abstract run; ``trusted`` are the names of the evaluation code."""

    def run(self) -> list[Event]:
        """Run the module, then every function that nobody called; what happened in its order.

        Twice, because what is put into a field late may be read early.
        """
        for _ in range(2):
            self.begin()
            self.block(self.script.tree.body, self.module)
            told = list(self.events)
            for function in self.script.every(ast.FunctionDef):
                if id(function) not in self.followed:
                    owner = self.owners.get(id(function))
                    self.follow(function, [self._instance(owner)] if owner else [], self.module)
        return told

    def _of_Call(self, node: ast.Call, env: Env) -> Labels:  # noqa: N802
        method = isinstance(node.func, ast.Attribute)
        receiver = self.value(node.func.value if method else node.func, env)  # type: ignore[attr-defined]
        values = self._arguments(node, env)
        named = {k.arg: self.value(k.value, env) for k in node.keywords}
        for keyword in node.keywords:
            if keyword.arg and not self.inside:
                self.watcher.told(node, f"{keyword.arg}:", keyword.value, named[keyword.arg])
        arguments = CLEAN.union(*values, *named.values())
        known = self.inside or (not method and MODEL in receiver and self._in_model())
        self.watcher.call(node, receiver, arguments | self.control & JUDGED, known)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        manners = self._manners(node, name)
        for changed in manners & _CHANGED.keys():
            self._mutates(node, changed, receiver, values, arguments, env)
        if "trains" in manners:
            self._trains(node, name, receiver, arguments)
        if "listens" in manners:
            self._listens(node, name, env)
        receiver |= self._kept(node, receiver | arguments)
        if node in self.nameless:  # a partial, which is called later
            self.closures[self.nameless[node]] = env
            return frozenset({f"def:{self.nameless[node]}"}) | arguments - aliases(arguments)
        looked = self._looked_up(node, env)
        if looked is not None:
            return looked
        library = self._library(node, name, receiver | arguments)
        if library is not None:
            self._hands_on(node, arguments, env)
            return library | self._folded(node)
        return self._own(node, name, receiver, values, named, env) | self._folded(node)

    def _arguments(self, node: ast.Call, env: Env) -> list[Labels]:
        """The labels of what a call is given in order; a star stands for what is known of it."""
        values: list[Labels] = []
        for i, part in enumerate(node.args):
            if not isinstance(part, ast.Starred):
                values.append(self.value(part, env))
            elif passed := [env[key] for key in _places(part.value) if key in env]:
                values += passed
            else:  # it may be any number of values, so that the rest may be anywhere
                rest = CLEAN.union(*(self.value(other, env) for other in node.args[i:]))
                return values + [rest - aliases(rest)] * _STARRED
        return values

    def _manners(self, node: ast.Call, name: str) -> frozenset[str]:
        """What a call may do besides giving something back, by its name: the same in each run."""
        if node not in self.manners:
            origin = self.script.dotted(node.func) or ""
            changed = _changed(origin, origin.rsplit(".", 1)[-1] or name, name)
            trains = name in _TRAINING or origin == "torch.autograd.grad"
            hears = name == "remove" or (name.startswith("register_") and name.endswith("hook"))
            spoken = {name or written(node.func), origin}
            listens = hears or name == "map" or not spoken.isdisjoint(_BESIDE)
            words = (changed, "trains" if trains else "", "listens" if listens else "")
            self.manners[node] = frozenset(words) - {""}
        return self.manners[node]

    def _kept(self, node: ast.Call, labels: Labels) -> Labels:
        """What comes back from a file or the environment that a score was written to."""
        origin, last = self.script.dotted(node.func) or "", called(node)
        if origin.startswith("os.environ.") or origin in ("os.getenv", "os.putenv"):
            self.outside |= labels & JUDGED
            return self.outside
        if last in _SENDING:
            self.sent |= labels & JUDGED
        names = [name for name in labels if name.startswith("file:")]
        if last == "print":  # only into a file that is in memory: a text may name another one
            names = [name for name in names if name.startswith("file:<")]
        for name in names if last in _WRITING and not self.inside else ():
            grow(self.files, name, labels & {METRIC})
        return CLEAN.union(*(self.files.get(n, CLEAN) for n in names if last in _READING))

    def _looked_up(self, node: ast.Call, env: Env) -> Labels | None:
        """``getattr`` and ``setattr`` with a name that is known mean an attribute."""
        origin, given = (self.script.dotted(node.func) or "").removeprefix("builtins."), node.args
        if isinstance(node.func, ast.Attribute) and node.func.attr == "__setattr__":
            origin, given = "setattr", given if len(given) == 3 else [node.func.value, *given]
        name = self.script.text(given[1]) if len(given) > 1 else None
        if origin not in ("getattr", "setattr") or not (
            isinstance(name, str) and name.isidentifier()
        ):
            return None
        meant = ast.copy_location(ast.Attribute(given[0], str(name), ast.Load()), node)
        more = CLEAN.union(*(self.value(part, env) for part in given[2:]))
        if origin == "getattr":
            return self.value(meant, env) | more
        self.bind(meant, more, env)
        return CLEAN

    def _hands_on(self, node: ast.Call, given: Labels, env: Env) -> None:
        """A library may call what it is given, at any time, with whatever else it is given."""
        if not (given | self.control) & JUDGED:
            return
        first, plain = len(self.events), given - aliases(given)
        self._each(given, [plain] * _STARRED, env)
        for i, part in enumerate(node.args):
            if self.script.dotted(part) in _FILLING:
                self.value(ast.copy_location(ast.Call(part, node.args[i + 1 :], []), node), env)
        del self.events[first:]

    def _targets(
        self, labels: Labels, *kinds: str
    ) -> Iterator[tuple[ast.FunctionDef, list[Labels]]]:
        """The script's own code that runs where something is called, and what it gets first."""
        for kind, _, name in (label.partition(":") for label in sorted(labels)):
            owner, _, last = (name, "", "__call__") if kind == "obj" else name.rpartition(".")
            if kind in kinds and (owner, last) in self.methods:
                yield self.methods[owner, last], [self._instance(owner)]
            elif kind in kinds and kind == "def":
                own = (f for f in self.functions.get(name, []) if id(f) not in self.owners)
                yield from ((function, []) for function in own)

    def _mutates(
        self, node: ast.Call, changed: str, receiver: Labels, values: list[Labels],
        arguments: Labels, env: Env,
    ) -> None:  # fmt: skip
        """Calls that change what they are called on, or one of their arguments."""
        reached = (arguments | self.control) & JUDGED
        target: list[ast.expr] = node.args[_CHANGED[changed]]
        held = values[0] if values else CLEAN
        if changed == "receiver":
            target, held = [node.func.value], receiver  # type: ignore[attr-defined]
        elif changed == "all":
            held = arguments
        elif changed == "second":  # into a buffer, or a file
            held, arguments = CLEAN, held
        table = "vars(" in written(node.func) or "__dict__" in written(node.func)
        known = changed == "receiver" and called(node) in GROWING and not table
        known = known and not held & {OPTIMIZER}
        if reached and held & LEARNER and not known:
            self.watcher.learns(node, learner(held), self.inside)
        for part in target:
            self._put(part, arguments | self.control, env)

    def _trains(self, node: ast.Call, name: str, receiver: Labels, arguments: Labels) -> None:
        origin = self.script.dotted(node.func)
        both = receiver | arguments
        steps = name == "step" and OPTIMIZER in both
        own = any((owner, "backward") in self.methods for owner in owners_of(receiver))
        if (name == "backward" and not own) or steps or origin == "torch.autograd.grad":
            self._happens("train", name, node)
            if self.control & JUDGED and not self.inside:
                self.watcher.learns(node, "the schedule", self.inside)
        elif name in ("state_dict", "load_state_dict") and MODEL in receiver:
            self._happens(name, name, node)

    def _listens(self, node: ast.Call, name: str, env: Env) -> None:
        """A hook sees whatever the model reads until it is removed; a thread works beside us."""
        if name.endswith("hook") and node.args:
            self.hooks.append((node.args[-1], env))
            if JUDGED & self._called_back(node.args[-1], CLEAN, env):
                self.watcher.learns(node, "weights", self.inside)
        elif name == "remove" and not node.args:
            self.hooks.clear()
        asked = name or written(node.func)
        if "hook" not in asked and asked != "remove":
            targets = [*(k.value for k in node.keywords if k.arg == "target"), *node.args[:2]]
            first = len(self.events)
            for target in targets:
                self._called_back(target, CLEAN, env)
            beside = any(e.kind == "train" for e in self.events[first:])
            if beside:
                self._happens("beside", asked, node)

    def _called_back(self, what: ast.expr, labels: Labels, env: Env) -> Labels:
        """What a function gives back that somebody else calls."""
        return self._each(self.value(what, env), [labels] * _CALLED_BACK, env)

    def _each(self, functions: Labels, values: list[Labels], env: Env) -> Labels:
        """Call each of the functions that labels stand for, and return what they give back."""
        given = CLEAN
        for function, before in self._targets(functions, "def"):
            where = self.closures.get(function.name, env)
            given |= self.follow(function, [*before, *values], where)
        return given

    def _library(self, node: ast.Call, name: str, labels: Labels) -> Labels | None:
        """What a library gives back; None where the function may be the script's own."""
        called = self.script.dotted(node.func)
        if name in COUNTING or called in _SAFE or (called or "").startswith("time."):
            return CLEAN
        if called == "float" or (name in _REDUCING and self.inside):
            return judged(labels)
        labels -= aliases(labels) if called in READERS else CLEAN
        if called in READERS or name in ("read_bytes", "open", "read"):
            return labels | {DATA} if labels & {PATH, DATA} else labels
        if called in ("io.StringIO", "io.BytesIO"):
            return labels | {f"file:<{node.lineno}>"}
        if called in ("os.listdir", "os.scandir", "os.walk") or name in ("iterdir", "rglob"):
            return labels | {PATH}
        if called is None:
            return None
        made = called.rsplit(".", 1)[-1]
        if called.startswith("torch.nn.") and made[:1].isupper():
            return labels | {MODEL}
        if called.startswith("torch.optim.") and made[:1].isupper():
            return (labels - aliases(labels)) | {OPTIMIZER}
        return labels if made in _PASSING else labels - aliases(labels)

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
        places = [(owner, name) for owner in owners_of(receiver)]
        found = [self.methods[place] for place in places if place in self.methods]
        method = isinstance(node.func, ast.Attribute)
        if not found:
            bound = [f for f in self.functions.get(plain, []) if (id(f) in self.owners) == method]
            found = [] if method and receiver & LEARNER else bound
        # A name or a field that stands for some of the script's functions.
        passed = [*self._targets(self._field(receiver, name) if method else receiver, *_KINDS)]
        held = [receiver] * method
        if passed:
            with self._decided(CLEAN if method else receiver & JUDGED):
                return CLEAN.union(*(
                    self._run(f, first or held * _is_method(f), node, values,
                              self.closures.get(f.name, env), named, env)
                    for f, first in passed[:3]
                ))  # fmt: skip
        if not found or len(found) > 3:
            self._hands_on(node, everything, env)
            own = everything if plain in _PASSING else everything - aliases(everything)
            return own if plain not in _PASSING or not method else own | aliases(receiver)
        return CLEAN.union(*(
            self._run(f, held * _is_method(f), node, values, env, named, env) for f in found
        ))  # fmt: skip

    def _run(
        self, function: ast.FunctionDef, first: list[Labels], node: ast.Call, values: list[Labels],
        where: Env, named: dict[str | None, Labels], env: Env,
    ) -> Labels:  # fmt: skip
        """Follow a call; what the function put into its arguments, those hold afterwards."""
        labels = self.follow(function, [*first, *values], where, named)
        for part, filled in zip(node.args, self.filled[len(first) :], strict=False):
            if filled:
                self._put(part, filled, env)
        return labels

    def _model(
        self, node: ast.Call, receiver: Labels, values: list[Labels],
        named: dict[str | None, Labels],
    ) -> Labels:  # fmt: skip
        """The model is called; what it is called on is scored where that is validation data."""
        arguments = CLEAN.union(*values, *named.values())
        if DATA in arguments:
            self._happens("score", "", node)
            self._hear(arguments & JUDGED)
        labels = arguments - aliases(arguments)
        for owner in owners_of(receiver):
            forward = self.methods.get((owner, "forward"))
            if forward is not None:
                me = self._instance(owner)
                labels |= self.follow(forward, [me, *values], self.module, named)
        return labels - aliases(labels)

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
                grow(self.fields[node.name], name, labels | self.control)
        kept = self.fields[node.name].values()
        return held | (everything.union(*kept) & {DATA, PATH}) if kept else held

    def follow(
        self, function: ast.FunctionDef, values: list[Labels], env: Env,
        named: dict[str | None, Labels] | None = None,
    ) -> Labels:  # fmt: skip
        """Run one of the script's own functions with labelled arguments; what does it return?"""
        self.followed.add(id(function))
        self.filled = []
        everything = CLEAN.union(*values, *(named or {}).values())
        if function in self.active or len(self.active) >= _DEPTH:
            return everything - aliases(everything)
        owner = self.owners.get(id(function), "")
        nested = (self.classes[owner] if owner else function) not in self.script.tree.body
        env = self.closures.get(owner, {}) if owner else env
        inner = dict(env) if nested else {}
        inner |= _parameters(function, values, named or {}, self._defaults(function.args, env))
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        # A list that is a default is the same list in each call.
        defaults = [*zip(names[::-1], function.args.defaults[::-1], strict=False)]
        lasting = {n for n, d in defaults if isinstance(d, ast.List | ast.Dict | ast.Set)}
        lasting -= set(names[: len(values)])
        for name in lasting:
            grow(inner, name, self.fields[function.name].get(name, CLEAN))
        inner.pop(RETURN, None)
        key = (
            id(function), self.inside, self.control,
            *sorted((k, tuple(sorted(v))) for k, v in inner.items() if v),
        )  # fmt: skip
        if key in self.memo:
            labels, self.filled, events = self.memo[key]
            self.events += events
            if any(event.kind == "score" for event in events):
                self._hear(frozenset({DATA}))
            return labels
        self.memo[key] = everything - aliases(everything), [], []
        first = len(self.events)
        labels = self._body(function, inner)
        own = {n.id for n in inside(function, ast.Name) if stores(n)}
        self.filled = [CLEAN if n in own else (inner[n] - v) & JUDGED
                       for n, v in zip(names, values, strict=False)]  # fmt: skip
        if nested:  # what a closure added to the lists and tables of its function
            own |= set(names)
            for name in env.keys() & inner.keys() - own - {RETURN}:
                grow(env, name, inner[name])
        for name in lasting:
            grow(self.fields[function.name], name, inner[name] & JUDGED)
        self.memo[key] = labels, self.filled, self.events[first:]
        return labels

    def _body(self, function: ast.FunctionDef, inner: Env) -> Labels:
        outside, loops, first = self.inside, self.loops, len(self.events)
        left, self.left = self.left, dict.fromkeys(self.left, CLEAN)
        self.active.append(function)
        self.loops = []
        self.inside = outside or function.name in self.trusted
        self.block(function.body, inner)
        self.active.pop()
        scored = any(event.kind == "score" for event in self.events[first:])
        measures, self.inside, self.loops = self.inside and not outside, outside, loops
        self.left = left
        result = inner.get(RETURN, CLEAN)
        return judged(result) if measures and scored else result


def _is_method(function: ast.FunctionDef) -> bool:
    """Whether a function gets what it is called on: its first name says so."""
    return [a.arg for a in function.args.args[:1]] in (["self"], ["cls"])


def _changed(origin: str, last: str, name: str) -> str:
    """What a call changes, a word of ``_CHANGED``, or nothing."""
    in_place = last.endswith("_") and not last.startswith("__") and last[:1].islower()
    if last == "vector_to_parameters":
        return "all"
    if origin in _FILLING or (
        (in_place or last.startswith("_foreach_")) and origin.startswith("torch.")
    ):
        return "first"
    if name in GROWING or name == "load_state_dict" or (in_place and name):
        return "receiver"
    return "second" if last in ("save", "dump") else ""


def _places(rest: ast.expr) -> list[str]:
    """Names in an Env for each of the values that ``*rest`` holds."""
    return [f"*{rest.id}{i}" for i in range(20)] if isinstance(rest, ast.Name) else []


def _parameters(
    function: ast.FunctionDef, values: list[Labels], named: dict[str | None, Labels], missing: Env
) -> Env:
    names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
    env: Env = dict.fromkeys([*names, *(a.arg for a in function.args.kwonlyargs)], CLEAN)
    env |= missing
    env |= dict(zip(names, values, strict=False))
    rest = CLEAN.union(*values[len(names) :])
    if function.args.vararg is not None:
        env[function.args.vararg.arg] = rest
        env |= zip(_places(ast.Name(function.args.vararg.arg)), values[len(names) :], strict=False)
    for name, labels in named.items():
        if name is not None and name in env:
            env[name] = labels
        elif function.args.kwarg is not None:
            grow(env, function.args.kwarg.arg, labels)
        for other in env.keys() - set(names[: len(values)]) if name is None else ():
            grow(env, other, labels - aliases(labels))
    return env
