"""S5: where a model might let a position see a later one; whether it does, the model tests tell.

A mean over the sequence, a padded convolution or a sorted batch tells every position of the text
what comes after it. The same calls are honest elsewhere, so an added one only asks for the tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from autoresearch.golf.audits.tree import Script, line_of, shown, words

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


@lru_cache(maxsize=8)
def mixing(script: Script) -> tuple[tuple[str, int], ...]:
    """The calls and shifted slices of the model that may carry something between positions."""
    return tuple(
        (shown(node), line_of(node))
        for function in _model_code(script)
        for node in ast.walk(function)
        if _mixes(node)
    )


@lru_cache(maxsize=8)
def patched_methods(script: Script) -> tuple[tuple[str, int], ...]:
    """Assignments that give a class of the script another method from outside."""
    classes = [n for n in script.walk() if isinstance(n, ast.ClassDef)]
    names = {c.name for c in classes}
    methods = {f.name for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
    return tuple(
        (shown(node), line_of(node))
        for node in script.walk()
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr in methods | _METHODS
        and (node.attr in _METHODS or ast.unparse(node.value) in names)
    )


def _model_code(script: Script) -> Iterator[ast.AST]:
    """The classes of the model, and the script's own functions that they call."""
    functions = {n.name: n for n in script.tree.body if isinstance(n, ast.FunctionDef)}
    queue: list[ast.AST] = [n for n in script.walk() if _is_module(n)]
    seen: set[str] = set()
    while queue:
        code = queue.pop()
        yield code
        called = {n.id for n in ast.walk(code) if isinstance(n, ast.Name)} & functions.keys()
        queue += [functions[name] for name in sorted(called - seen)]
        seen |= called


def _is_module(node: ast.AST) -> bool:
    bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
    return any("Module" in base or base.startswith("nn.") for base in bases)


def _mixes(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_shift(node.slice)
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func).rsplit(".", 1)[-1]
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
