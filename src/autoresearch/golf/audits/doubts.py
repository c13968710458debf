"""S5: ways in which the model, and not the evaluation, could reach for the score.

They are doubts: an auxiliary loss and a new kernel are honest research, a discount on the loss and
attention to what comes later are not, and no reader of source tells them apart for sure. A mean
over the sequence, a padded convolution or a sorted batch tells every position of the text what
comes after it; the same calls are honest elsewhere. The model tests do tell, so a doubt asks for
them and blocks nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from autoresearch.golf.audits.region import region_nodes
from autoresearch.golf.audits.script import (
    Script,
    added,
    called,
    finding,
    inside,
    line_of,
    names_in,
    shown,
    stores,
    words,
    written,
)
from autoresearch.model import Violation

_WRAPPING = re.compile(r"^(__call__|__getattr__|__torch_function__)$|compile|load_weights|wrap")
# A script that knows how it is judged can be honest only then.
_JUDGES = re.compile(r"MODEL_TEST|canary|autoresearch(?!_result)", re.IGNORECASE)
_LOSSES = ("cross_entropy", "nll_loss", "CrossEntropyLoss")
_MIXING = words(
    "flip cumsum cumprod logcumsumexp cummax conv1d Conv1d conv2d Conv2d fft rfft ifft irfft "
    "sort argsort unfold instance_norm batch_norm group_norm layer_norm BatchNorm1d GroupNorm "
    "InstanceNorm1d LSTM GRU RNN MultiheadAttention TransformerEncoderLayer avg_pool1d max_pool1d "
    "adaptive_avg_pool1d interpolate einsum bmm baddbmm matmul transpose permute movedim swapaxes"
)
_REDUCING = words(
    "mean sum max min amax amin std var norm softmax log_softmax logsumexp median quantile prod"
)
_POSITIONS = (1, -2)  # the axis of the text in (batch, length, width) and in (length, width)
_METHODS = words("forward __call__ _call_impl")

Doubt = tuple[str, int]  # a piece of code, and its line


def audit_doubts(script: Script, pristine: Script) -> Iterator[Violation]:
    """Yield what a change added or took away as warnings; looking for the judge blocks.

    Compared are the statements that see the targets where a loss is computed, the requests for
    causal attention, and shifts that bring later tokens forward.
    """
    for what, find in _COMPARED:
        for code, line in added(find(script), find(pristine), _code):
            yield _doubt(line, f"{what}: {code[:90]}")
    if not _losses(script) and _losses(pristine):
        yield _doubt(1, "the loss is computed another way")
    if len(_calls(pristine, _causal)) > len(_calls(script, _causal)):
        yield _doubt(1, "attention is asked to be causal in fewer places")
    for text, line in added(_mentions(script), _mentions(pristine), _code):
        yield finding("S5", line, f"the script looks for its judge: {text[:60]!r}")


def _code(found: Doubt) -> str:
    return found[0]


def _doubt(line: int, what: str) -> Violation:
    return finding("S5", line, f"{what}: the model tests can judge it", warn=True)


@lru_cache(maxsize=8)
def _losses(script: Script) -> tuple[Doubt, ...]:
    """Statements of the functions that compute a loss, as far as they see a target or give it."""
    measuring = region_nodes(script)
    found = []
    for node in script.every(ast.FunctionDef):
        if node in measuring or not any(map(_is_loss, inside(node, ast.AST))):
            continue
        targets = {argument.arg for argument in node.args.args[2:3]}  # after self and the inputs
        for part in inside(node, ast.AST):
            if isinstance(part, ast.Return) or (_is_simple(part) and _sees(part, targets)):
                found.append((written(part), line_of(part)))
    return tuple(found)


def _is_simple(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr)


def _sees(node: ast.AST, names: set[str]) -> bool:
    return bool(names & names_in(node)) or any(map(_is_loss, inside(node, ast.AST)))


def _is_loss(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and called(node) in _LOSSES


@lru_cache(maxsize=8)
def _mixing(script: Script) -> tuple[Doubt, ...]:
    """The calls and shifted slices of the model that may carry something between positions."""
    return tuple(
        (shown(node), line_of(node))
        for function in _model_code(script)
        for node in inside(function, ast.AST)
        if _mixes(node)
    )


@lru_cache(maxsize=8)
def _patched(script: Script) -> tuple[Doubt, ...]:
    """Assignments that give a class of the script another method from outside."""
    classes = list(script.every(ast.ClassDef))
    names = {c.name for c in classes}
    methods = {f.name for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
    return tuple(
        (shown(node), line_of(node))
        for node in script.every(ast.Attribute)
        if stores(node)
        and node.attr in methods | _METHODS
        and (node.attr in _METHODS or written(node.value) in names)
    )


@lru_cache(maxsize=8)
def _wrappers(script: Script) -> tuple[Doubt, ...]:
    """Hooks, and functions and methods through which whoever calls the model would go."""
    wrapping = (n for n in script.every(ast.FunctionDef) if _WRAPPING.search(n.name))
    return (*_calls(script, _hooks), *((written(n), line_of(n)) for n in wrapping))


def _ahead(script: Script) -> tuple[Doubt, ...]:
    return _calls(script, _looks_ahead)


_COMPARED: tuple[tuple[str, Callable[[Script], tuple[Doubt, ...]]], ...] = (
    ("the loss is computed another way", _losses),
    ("positions of the text may see each other", _mixing),
    ("something stands between model and evaluation", _patched),
    ("later tokens may be brought forward", _ahead),
    ("something stands between model and evaluation", _wrappers),
)


def _calls(script: Script, wanted: Callable[[ast.Call], bool]) -> tuple[Doubt, ...]:
    return tuple((shown(n), line_of(n)) for n in script.every(ast.Call) if wanted(n))


def _hooks(node: ast.Call) -> bool:
    return bool(re.search(r"register_\w*forward\w*hook$", written(node.func)))


def _causal(node: ast.Call) -> bool:
    asked = (k.value for k in node.keywords if k.arg in ("is_causal", "causal"))
    return any(isinstance(value, ast.Constant) and value.value is True for value in asked)


def _looks_ahead(node: ast.Call) -> bool:
    """``x.roll(-1)`` puts the next token where this one was."""
    if not written(node.func).endswith("roll"):
        return False
    arguments = [*node.args, *(k.value for k in node.keywords if k.arg in ("shifts", "shift"))]
    return any(isinstance(a, ast.UnaryOp) and isinstance(a.op, ast.USub) for a in arguments[:2])


def _mentions(script: Script) -> Iterator[Doubt]:
    for node in script.every(ast.Constant):
        text = node.value
        if isinstance(text, str) and node not in script.prose and _JUDGES.search(text):
            yield text, line_of(node)


def _model_code(script: Script) -> Iterator[ast.AST]:
    """The classes of the model, and the script's own functions that they call."""
    queue: list[ast.AST] = [n for n in script.every(ast.ClassDef) if _is_module(n)]
    functions, seen = script.functions, set[str]()
    while queue:
        code = queue.pop()
        yield code
        used = names_in(code) & functions.keys()
        queue += [functions[name] for name in sorted(used - seen)]
        seen |= used


def _is_module(node: ast.ClassDef) -> bool:
    bases = [written(base) for base in node.bases]
    return any("Module" in base or base.startswith("nn.") for base in bases)


def _mixes(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_shift(node.slice)
    if not isinstance(node, ast.Call):
        return False
    name = called(node)
    return name in _MIXING or (name in _REDUCING and _over_positions(node))


def _is_shift(index: ast.expr) -> bool:
    """Whether an index such as ``[:, 1:]`` drops the beginning of the text."""
    second = index.elts[1] if isinstance(index, ast.Tuple) and len(index.elts) > 1 else None
    return isinstance(second, ast.Slice) and second.lower is not None


def _over_positions(node: ast.Call) -> bool:
    named = [k.value for k in node.keywords if k.arg in ("dim", "axis")]
    return any(_axis(value) in _POSITIONS for value in [*named, *node.args])


def _axis(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
