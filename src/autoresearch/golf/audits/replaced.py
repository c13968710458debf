"""S5: nothing that the evaluation code uses is put in place of what it was written against."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from autoresearch.golf.audits.region import Region, evaluation_region, region_nodes
from autoresearch.golf.audits.tree import Script, line_of, shown, words
from autoresearch.model import Violation

# The score goes through these; replacing one changes the score and leaves the region alone.
_TRUSTED = (
    "math.",
    "builtins.",
    "json.",
    "time.",
    "numpy.",
    "sentencepiece.",
    "hashlib.",
    "struct.",
    "torch.Tensor.",
    "torch.distributed.",
)
_TRUSTED_NAMES = words(
    "sys.stdout sys.stderr os.path.getsize os.stat torch.nn.functional.cross_entropy "
    "torch.nn.functional.log_softmax torch.nn.functional.nll_loss torch.log_softmax "
    "torch.logsumexp torch.softmax torch.nn.functional.softmax torch.zeros torch.stack "
    "torch.tensor torch.from_numpy torch.inference_mode torch.load torch.save"
)
_BUILTINS = frozenset(dir(builtins))


def audit_replaced(script: Script, pristine: Script | None, *, typed: bool) -> Iterator[Violation]:
    """Yield each name or library function that the evaluation would find changed.

    ``typed`` says that the idea is an evaluation change, which makes them warnings.
    """
    severity = "warning" if typed else "violation"
    region = evaluation_region(script)
    found = list(_replacements(script, region))
    if pristine is not None:
        found += _other_origins(script, pristine, region)
    for line, detail in found:
        yield Violation(rule="S5", detail=detail, line=line, severity=severity)


def _replacements(script: Script, region: Region) -> Iterator[tuple[int, str]]:
    inside = region_nodes(script, region)
    protected = region.names | region.pieces.keys()
    defined: set[str] = set()
    for node in script.walk():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name in defined and node.name in region.names:
                yield line_of(node), f"evaluation code replaced: {node.name} is defined again"
            defined.add(node.name)
        elif id(node) not in inside:
            yield from _replaced(script, node, protected)
    yield from _shadowed(script, region)


def _replaced(
    script: Script, node: ast.AST, protected: frozenset[str]
) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        if node.id in protected:
            yield line_of(node), f"evaluation code replaced: {node.id} is assigned"
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        if isinstance(node.value, ast.Name) and node.value.id in protected:
            yield line_of(node), f"evaluation code replaced: {shown(node)} is assigned"
        elif _is_trusted(script.dotted(node) or ""):
            yield line_of(node), f"library function replaced: {shown(node)}"
    elif isinstance(node, ast.Call) and script.dotted(node.func) in ("setattr", "builtins.setattr"):
        target = script.dotted(node.args[0]) if node.args else None
        if node.args and ast.unparse(node.args[0]) in protected:
            yield line_of(node), f"evaluation code replaced: {shown(node)}"
        elif target and (_is_trusted(f"{target}.x") or target == "torch.nn.functional"):
            yield line_of(node), f"library function replaced: {shown(node)}"
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        called = script.dotted(node.value.func) if isinstance(node.value, ast.Call) else None
        if called in ("globals", "builtins.globals"):
            yield line_of(node), f"a global name is replaced: {shown(node)}"


def _is_trusted(name: str) -> bool:
    return name in _TRUSTED_NAMES or name.startswith(_TRUSTED)


def _shadowed(script: Script, region: Region) -> Iterator[tuple[int, str]]:
    """Built-in functions that the evaluation uses, bound anew where it would see them."""
    used = region.calls & _BUILTINS
    for node in script.tree.body:
        names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _is_stored(n)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
        for name in sorted(used & set(names)):
            yield line_of(node), f"the evaluation would use another {name}"
    for part in script.walk():
        for name in sorted(used & set(part.names)) if isinstance(part, ast.Global) else ():
            yield line_of(part), f"the evaluation would use another {name}"


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _other_origins(script: Script, pristine: Script, region: Region) -> Iterator[tuple[int, str]]:
    """Imported names that stand for something else than before: ``import fake as math``."""
    for name in sorted(region.calls & script.names.keys() & pristine.names.keys()):
        now, then = script.names[name], pristine.names[name]
        if now != then:
            yield 1, f"in the evaluation {name} stood for {then} and would stand for {now}"
