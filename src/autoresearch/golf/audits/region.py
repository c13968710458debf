"""S5: the code that measures is the code that measured before, unless the idea says otherwise.

Nor is anything that it uses put in place of what it was written against.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from attrs import frozen

from autoresearch.durable import digest
from autoresearch.golf.audits.script import (
    Script,
    code_digest,
    finding,
    inside,
    line_of,
    shown,
    stores,
    words,
    written,
)
from autoresearch.model import Violation

BEGIN = re.compile(r"^\s*#\s*-+\s*evaluation:\s*begin\s*-+\s*$")
END = re.compile(r"^\s*#\s*-+\s*evaluation:\s*end\s*-+\s*$")
# What measures in a script without marks: the starter's own three functions and their relatives.
_MEASURING = re.compile(
    r"^_?(eval|evaluate|validate)(_|$)|^(load|get)_val|_luts?$|byte_(lut|table)"
)
# Of what the evaluation code calls, this reads or checks tokens; the rest builds and packs the
# model, which research may change.
_HELPING = re.compile(
    r"shard|token|(^|_)val(_|$)|digest|sha256|artifact_file|tolerance", re.IGNORECASE
)
# The score goes through these; replacing one changes the score and leaves the region alone.
_TRUSTED = (
    "math.", "builtins.", "json.", "time.", "numpy.", "sentencepiece.", "hashlib.", "struct.",
    "torch.Tensor.", "torch.distributed.", "pathlib.", "os.path.", "io.", "zlib.", "lzma.", "glob.",
)  # fmt: skip
_TRUSTED_NAMES = words(
    "sys.stdout sys.stderr os.stat os.lstat os.fstat os.listdir os.scandir os.walk "
    "torch.nn.functional.cross_entropy "
    "torch.nn.functional.log_softmax torch.nn.functional.nll_loss torch.log_softmax "
    "torch.logsumexp torch.softmax torch.nn.functional.softmax torch.zeros torch.stack "
    "torch.tensor torch.from_numpy torch.inference_mode torch.load torch.save"
)
_BUILTINS = frozenset(dir(builtins))
Place = tuple[int, str]  # a line, and what is wrong there


@frozen(kw_only=True)
class Region:
    """The evaluation code of a script: pieces by name, each with its digest and first line.

    ``names`` are its own functions and classes, ``calls`` all other names that it reads.
    """

    pieces: Mapping[str, str]
    lines: Mapping[str, int]
    code: Mapping[str, ast.stmt]
    marked: bool
    names: frozenset[str]
    calls: frozenset[str]

    @property
    def digest(self) -> str:
        """One sha256 over all pieces, in the order of their names; empty where there are none."""
        if not self.pieces:
            return ""
        text = "\n".join(f"{name} {piece}" for name, piece in sorted(self.pieces.items()))
        return digest(text)


@lru_cache(maxsize=8)
def evaluation_region(script: Script) -> Region:
    """Find the evaluation code: what stands between the marks, and the helpers that it calls.

    Without marks it is the functions whose names say that they measure. Comments, blank lines and
    documentation do not count; classes do not either: the model may change.
    """
    span = _marked_lines(script.source)
    members = [node for node in script.tree.body if _is_member(node, span)]
    code = [*members, *_helpers(script.tree, members)]
    names = frozenset(n.name for n in members if isinstance(n, ast.FunctionDef | ast.ClassDef))
    return Region(
        pieces={_name(node): code_digest(script, node) for node in code},
        lines={_name(node): line_of(node) for node in code},
        code={_name(node): node for node in code},
        marked=span is not None,
        names=names,
        calls=frozenset(name for node in code for name in _used(node)) - names,
    )


def audit_region(script: Script, pristine: Script | None, *, typed: bool) -> Iterator[Violation]:
    """Yield each difference from the pristine evaluation code.

    ``typed`` says that the idea is an evaluation change: differences are then only warnings, which
    say that the model tests have to judge it.
    """
    if pristine is None:
        return
    advice = 'give the idea the kind "evaluation" if that is meant, and run the model tests'
    if typed:
        advice = "the model tests have to judge it before its score is believed"
    before, models = evaluation_region(pristine), _models(script) | _models(pristine)
    for line, detail in _differences(evaluation_region(script), before, models):
        yield finding("S5", line, f"{detail}: {advice}", warn=typed)


@lru_cache(maxsize=8)
def region_nodes(script: Script) -> frozenset[ast.AST]:
    """Every node inside the evaluation code and its helpers."""
    lines = evaluation_region(script).lines
    members = (m for m in script.tree.body if lines.get(_name(m)) == line_of(m))
    return frozenset(n for member in members for n in inside(member, ast.AST))


def _models(script: Script) -> set[str]:
    return {c.name for c in script.classes if any("Module" in written(b) for b in c.bases)}


class _Free(ast.NodeTransformer):
    """Takes out what research may choose here: annotations, the codec, names of models."""

    def __init__(self, models: set[str]) -> None:
        self.models = models

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("Model") if node.id in self.models else ast.Name(node.id)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        packs = isinstance(node.func, ast.Attribute) and node.func.attr in (
            "compress",
            "decompress",
        )
        if packs and node.args:
            return ast.Call(ast.Name(node.func.attr), [self.visit(node.args[0])], [])  # type: ignore[attr-defined]
        return self.generic_visit(node)


def _plain(node: ast.stmt, models: set[str]) -> str:
    return ast.unparse(_Free(models).visit(copy.deepcopy(node)))


def _differences(region: Region, before: Region, models: set[str]) -> Iterator[Place]:
    if before.marked and not region.marked:
        yield 1, "the marks around the evaluation code are gone"
        return
    for name in sorted(before.pieces.keys() - region.pieces.keys()):
        yield 1, f"evaluation code removed: {name}"
    for name in sorted(region.pieces.keys()):
        if name not in before.pieces:
            yield region.lines[name], f"evaluation code added: {name}"
        elif region.pieces[name] != before.pieces[name] and (
            _plain(region.code[name], models) != _plain(before.code[name], models)
        ):
            yield region.lines[name], f"evaluation code changed: {name}"


def _marked_lines(source: str) -> tuple[int, int] | None:
    lines = source.split("\n")
    begin = next((i for i, line in enumerate(lines, 1) if BEGIN.match(line)), None)
    end = next((i for i, line in enumerate(lines, 1) if END.match(line)), None)
    return (begin, end) if begin is not None and end is not None and begin < end else None


def _is_member(node: ast.stmt, span: tuple[int, int] | None) -> bool:
    if span is not None:
        return span[0] < node.lineno < span[1]
    return isinstance(node, ast.FunctionDef) and bool(_MEASURING.search(node.name))


def _helpers(tree: ast.Module, members: list[ast.stmt]) -> list[ast.stmt]:
    """Functions and constants of the script that the evaluation code uses, and theirs in turn."""
    known = {
        _name(node): node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign) and node not in members
    }
    found: list[ast.stmt] = []
    queue = list(members)
    while queue:
        for name in sorted(_used(queue.pop())):
            node = known.pop(name, None) if _HELPING.search(name) else None
            if node is not None:
                found.append(node)
                queue.append(node)
    return found


def _used(node: ast.AST) -> set[str]:
    """Names read by a piece of code, the type annotations left out."""
    noting = inside(node, (ast.arg, ast.AnnAssign, ast.FunctionDef))
    notes = [getattr(part, "returns", getattr(part, "annotation", None)) for part in noting]
    said = {name for note in notes if note is not None for name in inside(note, ast.Name)}
    return {name.id for name in inside(node, ast.Name) if name not in said}


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign):
        return written(node.targets[0])
    return written(node.target) if isinstance(node, ast.AnnAssign) else shown(node)


def audit_replaced(script: Script, pristine: Script | None, *, typed: bool) -> Iterator[Violation]:
    """Yield each name or library function that the evaluation would find changed.

    ``typed`` says that the idea is an evaluation change, which makes them warnings.
    """
    region = evaluation_region(script)
    found = [*_replacements(script, region), *_shadowed(script, region)]
    if pristine is not None:
        found += _other_origins(script, pristine, region)
    for line, detail in found:
        yield finding("S5", line, detail, warn=typed)


def _replacements(script: Script, region: Region) -> Iterator[Place]:
    measuring = region_nodes(script)
    protected = region.names | region.pieces.keys()
    defined: set[str] = set()
    for node in script.every(ast.AST):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if node.name in defined and node.name in region.names:
                yield line_of(node), f"evaluation code replaced: {node.name} is defined again"
            defined.add(node.name)
        elif node not in measuring:
            what = _replaced(script, node, protected)
            if what is not None:
                yield line_of(node), what


def _replaced(script: Script, node: ast.AST, protected: frozenset[str]) -> str | None:
    if isinstance(node, ast.Call):
        return _set(script, node, protected)
    if not stores(node):
        return None
    if isinstance(node, ast.Name) and node.id in protected:
        return f"evaluation code replaced: {node.id} is assigned"
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id in protected:
            return f"evaluation code replaced: {shown(node)} is assigned"
        if _is_trusted(script.dotted(node) or ""):
            return f"library function replaced: {shown(node)}"
    held = node.value if isinstance(node, ast.Subscript) else None
    origin = script.dotted(held.func) if isinstance(held, ast.Call) else None
    if origin in ("globals", "builtins.globals"):
        return f"a global name is replaced: {shown(node)}"
    return None


def _set(script: Script, node: ast.Call, protected: frozenset[str]) -> str | None:
    if script.dotted(node.func) not in ("setattr", "builtins.setattr") or not node.args:
        return None
    if written(node.args[0]) in protected:
        return f"evaluation code replaced: {shown(node)}"
    target = script.dotted(node.args[0])
    if target and (_is_trusted(f"{target}.x") or target == "torch.nn.functional"):
        return f"library function replaced: {shown(node)}"
    return None


def _is_trusted(name: str) -> bool:
    return name in _TRUSTED_NAMES or name.startswith(_TRUSTED)


def _shadowed(script: Script, region: Region) -> Iterator[Place]:
    """Built-in functions that the evaluation uses, bound again where it would see them."""
    used = region.calls & _BUILTINS
    bound: list[tuple[ast.AST, set[str]]] = []
    for node in script.tree.body:
        names = {n.id for n in inside(node, ast.Name) if stores(n)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = {node.name}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
        bound.append((node, names))
    bound += [(part, set(part.names)) for part in script.every(ast.Global)]
    for place, names in bound:
        for name in sorted(used & names):
            yield line_of(place), f"the evaluation would use another {name}"


def _other_origins(script: Script, pristine: Script, region: Region) -> Iterator[Place]:
    """Imported names that stand for something else than before: ``import fake as math``."""
    for name in sorted(region.calls & script.names.keys() & pristine.names.keys()):
        now, then = script.names[name], pristine.names[name]
        if now != then:
            yield 1, f"in the evaluation {name} stood for {then} and would stand for {now}"
