"""S4: validation data is read where the evaluation reads it, and teaches the model nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from autoresearch.golf.audits.flow import DATA, METRIC, PATH, Flow, Labels
from autoresearch.golf.audits.region import evaluation_region
from autoresearch.golf.audits.script import Script, finding, inside, line_of, shown, words
from autoresearch.model import Violation

_CALIBRATING = re.compile(
    r"calib|gptq|(^|_)awq|hessian|quanti[sz]e|smooth_?quant|clip_search|update_bn|^fit(_|$)|distill|"
    r"fine_?tune|pretrain",
    re.IGNORECASE,
)
_MODELS = re.compile(
    r"(^|[._])(model|net|gpt|compiled|network|transformer|lm)(_\w+)?$", re.IGNORECASE
)
_WEIGHTS = re.compile(r"weight|param|bias|\.data\b|(^|_|\.)emb|model|state_dict", re.IGNORECASE)
_WRITING_WEIGHTS = words("copy_ set_ fill_ add_ mul_ lerp_ index_copy_ scatter_")
_COLLECTING = words("append extend insert appendleft")
_WRITING = words("write write_bytes tofile register_buffer")
_WRITING_FILES = words(
    "torch.save numpy.save numpy.savez numpy.savez_compressed pickle.dump pickle.dumps json.dump "
    "zlib.compress lzma.compress bz2.compress marshal.dumps"
)


def audit_validation(script: Script, *, typed: bool) -> Iterator[Violation]:
    """Yield each place where validation data leaves the evaluation or reaches what learns.

    ``typed`` says that the idea is an evaluation change: learning from tokens that were scored
    already is then allowed inside the evaluation code, and only told as a warning.
    """
    watcher = _Sinks(script, typed)
    Flow(script, evaluation_region(script).names, watcher).run()
    yield from watcher.found.values()


class _Sinks:
    """Collects what must not happen to validation data, once for each place."""

    def __init__(self, script: Script, typed: bool) -> None:
        self.script, self.typed = script, typed
        self.functions = {n.name for n in script.every(ast.FunctionDef)}
        self.found: dict[tuple[int, str], Violation] = {}

    def add(self, node: ast.AST, what: str, *, warn: bool = False) -> None:
        detail = f"{what}: {shown(node)}"
        self.found[line_of(node), what] = finding("S4", node, detail, warn=warn)

    def call(self, node: ast.Call, receiver: Labels, arguments: Labels, inside: bool) -> None:
        origin = self.script.dotted(node.func) or ""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        learned = arguments if origin == "torch.autograd.grad" else receiver
        allowed = inside and self.typed
        if name == "backward" or origin == "torch.autograd.grad":
            if learned & {DATA, PATH}:
                self.add(node, "a gradient is taken on validation data", warn=allowed)
            elif METRIC in learned:
                self.add(node, "the validation score enters the training loss", warn=True)
        elif _CALIBRATING.search(name) and arguments & {DATA, PATH}:
            self.add(node, "calibrates on validation data", warn=allowed)
        if DATA not in arguments:
            return
        if name in _WRITING_WEIGHTS and _WEIGHTS.search(ast.unparse(node.func)):
            self.add(node, "validation data is written into weights", warn=allowed)
        elif origin in ("torch.nn.Parameter", "torch.nn.parameter.Parameter"):
            self.add(node, "validation data becomes a parameter", warn=allowed)
        elif not inside:
            self._leaving(node, name, origin)

    def _leaving(self, node: ast.Call, name: str, origin: str) -> None:
        code = ast.unparse(node.func)
        if origin in _WRITING_FILES or name in _WRITING:
            self.add(node, "validation data is kept outside of the evaluation")
        elif name in _COLLECTING and not origin and "." in code.rsplit(".", 1)[0]:
            self.add(node, "validation data is put among other data")
        elif not origin and name not in self.functions and _MODELS.search(code):
            self.add(node, "the model reads validation data outside of the evaluation")

    def measured(self, node: ast.Call, loops: tuple[ast.AST, ...]) -> None:
        code = ast.unparse(node.func)
        if re.search(r"eval|score|validat", code) and any(map(_is_search, loops)):
            self.add(
                node, "settings are tried against the validation score, which calibrates on it"
            )

    def assigned(self, target: ast.expr, labels: Labels, inside: bool) -> None:
        stored = target.value if isinstance(target, ast.Subscript) else target
        if DATA not in labels or not isinstance(stored, ast.Attribute):
            return
        if re.search(r"\.(weight|bias|data)\b", ast.unparse(target)):
            self.add(target, "validation data is written into weights", warn=inside and self.typed)

    def cut(self, node: ast.Subscript, labels: Labels, inside: bool) -> None:
        if not inside and labels & {DATA, PATH}:
            self.add(node, "validation data is cut outside of the evaluation")


def _is_search(loop: ast.AST) -> bool:
    """Whether a loop tries settings and keeps the best; one that trains as it goes is no search."""
    calls = [ast.unparse(call.func) for call in inside(loop, ast.Call)]
    if any(re.search(r"backward|(^|[._])(step|train)", call) for call in calls):
        return False
    compared = inside(loop, ast.Compare)
    orders = (isinstance(op, ast.Lt | ast.Gt | ast.LtE | ast.GtE) for c in compared for op in c.ops)
    return not isinstance(loop, ast.For) or any(orders)
