"""S4, S8 and S9: where validation, the training clock and the score may go, by flow of values.

Nothing that comes from validation tokens or scores reaches weights, an optimizer, settings, the
schedule or a file; to print it and to keep it for printing is free. Training happens while the
clock runs. What is told as the score is what the evaluation found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from autoresearch.golf.audits.flow import Flow
from autoresearch.golf.audits.labels import DATA, JUDGED, METRIC, MODEL, PATH, Event, Labels
from autoresearch.golf.audits.region import evaluation_region
from autoresearch.golf.audits.script import Script, finding, inside, line_of, shown, words
from autoresearch.model import Violation

_WRITING = words("write write_bytes tofile register_buffer")
_WRITING_FILES = words(
    "torch.save numpy.save numpy.savez numpy.savez_compressed pickle.dump pickle.dumps json.dump "
    "zlib.compress lzma.compress bz2.compress marshal.dumps shutil.copy shutil.copyfile os.replace"
)
_TOLD = JUDGED | {PATH}
_SCORE = re.compile(r"(^|\W)val_(bpb|loss)\W{0,3}$")


def audit_validation(script: Script, *, typed: bool) -> Iterator[Violation]:
    """Yield each place where validation data, the clock or the score goes where it must not.

    ``typed`` says that the idea is an evaluation change: learning from tokens that were scored
    already is then allowed inside the evaluation code, and only told as a warning.
    """
    watcher = _Sinks(script, typed)
    flow = Flow(script, evaluation_region(script).names, watcher)
    events = flow.run()
    if not flow.truncated:
        yield from _unclocked(events, flow.capped)
    yield from watcher.found.values()


class _Sinks:
    """Collects what must not happen to validation data, once for each place."""

    def __init__(self, script: Script, typed: bool) -> None:
        self.script, self.typed = script, typed
        self.found: dict[tuple[int, str], Violation] = {}

    def add(self, node: ast.AST, what: str, *, warn: bool = False, rule: str = "S4") -> None:
        detail = f"{what}: {shown(node)}"
        self.found[line_of(node), what] = finding(rule, node, detail, warn=warn)

    def learns(self, node: ast.AST, what: str, inside: bool) -> None:
        self.add(node, f"a value from validation reaches {what}", warn=inside and self.typed)

    def call(self, node: ast.Call, receiver: Labels, arguments: Labels, inside: bool) -> None:
        if (receiver | arguments).isdisjoint(_TOLD):
            return
        origin = self.script.dotted(node.func) or ""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        learned = arguments if origin == "torch.autograd.grad" else receiver
        allowed = inside and self.typed
        if name == "backward" or origin == "torch.autograd.grad":
            own = any(label.startswith("obj:") for label in receiver)
            if learned & (JUDGED | {PATH}) and not own:
                self.add(node, "a gradient is taken on validation data", warn=allowed)
        elif origin in ("torch.nn.Parameter", "torch.nn.parameter.Parameter"):
            if arguments & JUDGED:
                self.add(node, "validation data becomes a parameter", warn=allowed)
        elif METRIC in arguments and "compress" in (name or origin):
            self.add(node, "a value from validation reaches the artifact", warn=allowed)
        elif not inside and (origin in _WRITING_FILES or name in _WRITING):
            if DATA in arguments:
                self.add(node, "validation data is kept outside of the evaluation")
            elif METRIC in arguments and arguments & {MODEL}:
                self.add(node, "the validation score chooses a checkpoint")
        elif not inside and DATA in arguments and MODEL in receiver and not name:
            self.add(node, "the model reads validation data outside of the evaluation")

    def cut(self, node: ast.Subscript, labels: Labels, inside: bool) -> None:
        if not inside and labels & {DATA, PATH}:
            self.add(node, "validation data is cut outside of the evaluation")

    def told(self, node: ast.AST, name: str, value: ast.expr, labels: Labels) -> None:
        if not _SCORE.search(name) or (isinstance(value, ast.Constant) and value.value is None):
            return
        if not labels & JUDGED:
            self.add(node, "a score is told that no evaluation found", rule="S9")
        elif any(
            isinstance(part.op, ast.Mult | ast.Sub) and _constant(part)
            for part in inside(value, ast.BinOp)
        ):
            self.add(node, "a score is changed before it is told", rule="S9")


def _constant(node: ast.BinOp) -> bool:
    return isinstance(node.left, ast.Constant) or isinstance(node.right, ast.Constant)


def _unclocked(events: list[Event], capped: set[str]) -> Iterator[Violation]:
    """Training that the clock which ends it does not see, unless all of it is taken back."""
    outside = [event for event in events if not event.inside]
    trained = next((i for i, e in enumerate(outside) if e.kind == "train"), len(outside))
    clocks = {e.name for e in outside[trained:] if e.kind == "stop"} & capped
    if not clocks:
        return
    unseen: dict[int, ast.AST] = {}  # trained since the clock was last read
    copied: dict[int, ast.AST] = {}  # the same when the weights were copied last
    seen = False
    for event in outside:
        if event.kind == "train":
            unseen[line_of(event.node)] = event.node
        elif event.kind == "beside":
            yield finding("S8", event.node, f"trains beside the clock: {shown(event.node)}")
        elif (event.kind == "back" and (seen or unseen)) or (
            event.kind == "scaled" and event.name in clocks
        ):
            yield finding("S8", event.node, f"the training clock is set: {shown(event.node)}")
        elif event.kind == "stop" and event.name in clocks:
            seen, unseen = seen or bool(unseen), {}
        elif event.kind == "state_dict":
            copied = dict(unseen)
        elif event.kind == "load_state_dict" and not seen:
            unseen = dict(copied)
        elif event.kind == "start" and event.name in clocks:
            yield from _missed(unseen)
            unseen = {}
    yield from _missed(unseen)


def _missed(unseen: dict[int, ast.AST]) -> Iterator[Violation]:
    for node in unseen.values():
        yield finding("S8", node, f"trains while no clock runs: {shown(node)}")
