"""S7 and S8: a changed script still takes the runner's settings and keeps the training clock."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from autoresearch.golf.audits.digest import code_digest
from autoresearch.golf.audits.tree import Script, line_of, shown
from autoresearch.model import Violation

RUNNERS = {
    "seed": "S7", "data_path": "S8", "tokenizer_path": "S8", "max_wallclock_seconds": "S8",
}  # fmt: skip
"""Settings that the runner gives, with the rule that a script breaks which sets them itself."""


def audit_lost(script: Script, pristine: Script) -> Iterator[Violation]:
    """What the pristine script did to be measured, and the changed one does no more."""
    now, before = _texts(script), _texts(pristine)
    for name, rule in RUNNERS.items():
        if name.upper() in before and name.upper() not in now:
            yield Violation(rule=rule, detail=f"{name.upper()} is not read any more", line=1)
    if _seeded(script) < _seeded(pristine):
        yield Violation(rule="S7", detail="a generator does not get the runner's seed", line=1)
    known = _clocks(pristine)
    for name, node in _clocks(script).items():
        if name in known and code_digest(script, node) != code_digest(pristine, known[name]):
            detail = f"the training clock is changed: {name}"
            yield Violation(rule="S8", detail=detail, line=line_of(node))
    yield from _unclocked(script, pristine)


def _texts(script: Script) -> set[object]:
    return {n.value for n in script.walk() if isinstance(n, ast.Constant) and n not in script.prose}


def _clocks(script: Script) -> dict[str, ast.ClassDef]:
    classes = [n for n in script.tree.body if isinstance(n, ast.ClassDef)]
    return {n.name: n for n in classes if "clock" in n.name.lower()}


def _seeded(script: Script) -> int:
    return sum(
        bool(re.search(r"^(torch\.manual_seed|random\.seed|numpy\.random\.seed)$", called))
        and "seed" in ast.unparse(ast.Tuple(elts=node.args))
        for node in script.walk()
        if isinstance(node, ast.Call) and (called := script.dotted(node.func) or "")
    )


def _unclocked(script: Script, pristine: Script) -> Iterator[Violation]:
    """Training that no clock sees: outside of the loop, kept from the warm-up, set back."""
    before = {n.name: n for n in pristine.walk() if isinstance(n, ast.FunctionDef)}
    for node in (n for n in script.walk() if isinstance(n, ast.FunctionDef)):
        old = before.get(node.name)
        if old is None:
            continue
        if "warm" in node.name and _count(node, "load_state_dict") < _count(old, "load_state_dict"):
            detail = f"what {node.name} trained is not taken back"
            yield Violation(rule="S8", detail=detail, line=line_of(node))
        ends = _count(old, "save_and_score") and not _count(old, "step") + _count(old, "backward")
        if ends and _count(node, "step") + _count(node, "backward"):
            detail = f"{node.name} trains outside of the clock"
            yield Violation(rule="S8", detail=detail, line=line_of(node))
    for target in (n for n in script.walk() if isinstance(n, ast.Attribute)):
        if isinstance(target.ctx, ast.Store) and re.search(
            r"(^|[._])clock\.\w+$", ast.unparse(target)
        ):
            detail = f"the training clock is set: {shown(target)}"
            yield Violation(rule="S8", detail=detail, line=line_of(target))


def _count(node: ast.AST, name: str) -> int:
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Call))
    return sum(ast.unparse(call.func).rsplit(".", 1)[-1] == name for call in calls)
