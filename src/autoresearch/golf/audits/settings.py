"""S7 and S8: the seed comes from the runner, and no default buys time or spares validation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from attrs import frozen

from autoresearch.golf.audits.tree import Script, line_of, shown
from autoresearch.model import Violation

MAX_WALLCLOCK_SECONDS = 600.0  # rule 2 of the challenge
_READERS = re.compile(r"(^|\.|_)(getenv|get|setdefault|env|env_\w+|get_env\w*)$")
_SPARING = re.compile(
    r"^(SKIP_(FINAL_)?(EVAL|VAL)|NO_(EVAL|VAL)|(MAX|NUM|LIMIT|CROP)_?(VAL|EVAL)_?(TOKENS|DOCS|SHARDS|"
    r"SEQS|BATCHES|STEPS)?|(VAL|EVAL)_(TOKENS|TOKEN_LIMIT|LIMIT|MAX\w*|FRACTION|SUBSET|CROP|DOCS|"
    r"NUM_TOKENS|NUM_DOCS|NUM_BATCHES|ITERS|ONLY_FIRST))$"
)
_OFF = {"", "0", "0.0", "false", "none", "no", "-1", "1.0"}  # a fraction of 1.0 spares nothing
_SEEDING = re.compile(
    r"^(torch\.(cuda\.|random\.)?(manual_seed(_all)?|seed)|random\.seed|(np|numpy)\.random\.seed|"
    r"(set_seed|seed_everything|seed_all)\w*)$"
)
_STARTING = re.compile(r"^(main|run|train|build|make|init)(_|$)")


@frozen(kw_only=True)
class Setting:
    """One default: the environment name (or the upper-cased class attribute), value and line."""

    name: str
    value: str | None
    line: int
    number: float | None = None


def read_settings(script: Script) -> dict[str, Setting]:
    """Read every default of the script; the first one of a name counts."""
    found: dict[str, Setting] = {}
    for node in script.walk():
        if isinstance(node, ast.Call) and (setting := _from_call(script, node)):
            found.setdefault(setting.name, setting)
    for node in script.tree.body:
        if isinstance(node, ast.ClassDef) and "hyperparam" in node.name.lower():
            for name, value in _class_values(node):
                found.setdefault(name.upper(), _setting(script, name.upper(), value))
    return found


def audit_settings(script: Script, pristine: Script | None) -> Iterator[Violation]:
    """Yield defaults that buy training time or spare validation, and any choice of a seed."""
    settings = read_settings(script)
    before = read_settings(pristine) if pristine is not None else {}
    yield from _wallclock(settings)
    for name, setting in settings.items():
        if _SPARING.match(name) and (setting.value or "").lower() not in _OFF:
            yield _s8(setting.line, f"{name} is {setting.value} by default: validation is whole")
    yield from _validation_files(script)
    yield from _written_environment(script)
    yield from _seed_default(settings, before)
    yield from _seed_search(script)


def _s8(line: int, detail: str) -> Violation:
    return Violation(rule="S8", detail=detail, line=line)


def _s7(node: ast.AST, detail: str, severity: str = "violation") -> Violation:
    return Violation(rule="S7", detail=detail, line=line_of(node), severity=severity)


def _from_call(script: Script, node: ast.Call) -> Setting | None:
    name = script.text(node.args[0]) if node.args else None
    if not isinstance(name, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
        return None
    if not _READERS.search(ast.unparse(node.func)) or len(node.args) < 2:
        return None
    return _setting(script, name, node.args[1], line_of(node))


def _setting(script: Script, name: str, value: ast.expr, line: int = 0) -> Setting:
    text = script.text(value)
    if not isinstance(text, str):
        resolved = script.resolve(value)
        text = None if not _is_plain(resolved) else ast.unparse(resolved).replace("_", "")
    return Setting(name=name, value=text, line=line or line_of(value), number=_number(text))


def _is_plain(node: ast.expr) -> bool:
    allowed = ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop
    return all(isinstance(part, allowed) for part in ast.walk(node))


def _number(text: str | None) -> float | None:
    """The value of a product of numbers such as ``60 * 10``; None where it is no number."""
    try:
        value = 1.0
        for factor in (text or "x").split("*"):
            value *= float(factor)
    except ValueError:
        return None
    return value


def _class_values(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            yield ast.unparse(statement.target), statement.value


def _wallclock(settings: Mapping[str, Setting]) -> Iterator[Violation]:
    setting = settings.get("MAX_WALLCLOCK_SECONDS")
    if setting is None or setting.number is None:
        return
    if setting.number > MAX_WALLCLOCK_SECONDS:
        yield _s8(setting.line, f"MAX_WALLCLOCK_SECONDS is {setting.value} by default, over 600")
    elif setting.number <= 0:
        yield _s8(setting.line, "MAX_WALLCLOCK_SECONDS is off by default: training is 600 s")


def _validation_files(script: Script) -> Iterator[Violation]:
    """The glob of the validation shards must match all of them and nothing else."""
    for node in script.walk():
        if not isinstance(node, ast.Constant | ast.BinOp | ast.JoinedStr):
            continue
        text = script.text(node)
        if not isinstance(text, str) or len(text) > 200 or "fineweb_val" not in text:
            continue
        name = text.rsplit("/", 1)[-1]
        if name.endswith(".bin") and not _reads_all(name) and "_bytes_" not in name:
            yield _s8(line_of(node), f"reads validation shards by {name}, not fineweb_val_*.bin")


def _reads_all(name: str) -> bool:
    shards = ("fineweb_val_000000.bin", "fineweb_val_000001.bin", "fineweb_val_000137.bin")
    return all(fnmatchcase(shard, name) for shard in shards)


def _written_environment(script: Script) -> Iterator[Violation]:
    for node in script.walk():
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            name = script.text(node.slice)
            if script.dotted(node.value) == "os.environ" and _governs(name):
                yield _s8(line_of(node), f"sets {name!r} itself: it belongs to the runner")
        elif isinstance(node, ast.Call) and script.dotted(node.func) in _ENVIRONMENT_CALLS:
            texts = [script.text(n) for n in ast.walk(node) if isinstance(n, ast.Constant)]
            names = [*texts, *(k.arg for k in node.keywords)]
            if any(_governs(name) for name in names):
                yield _s8(line_of(node), f"sets what belongs to the runner: {shown(node)}")


_ENVIRONMENT_CALLS = ("os.putenv", "os.environ.update", "os.environ.setdefault")


def _governs(name: object) -> bool:
    governed = ("MAX_WALLCLOCK_SECONDS", "SEED", "DATA_PATH", "TOKENIZER_PATH", "MODEL_TEST")
    return isinstance(name, str) and (name in governed or bool(_SPARING.match(name)))


def _seed_default(
    settings: Mapping[str, Setting], before: Mapping[str, Setting]
) -> Iterator[Violation]:
    now, then = settings.get("SEED"), before.get("SEED")
    if now and then and now.value != then.value:
        detail = f"the default seed went from {then.value} to {now.value}: the runner sets SEED"
        yield Violation(rule="S7", detail=detail, line=now.line)


def _seed_search(script: Script) -> Iterator[Violation]:
    """A loop that seeds the global generators and builds or trains a model each time.

    Seeding inside a loop alone is honest: one generator for each layer, or a new stream each step.
    """
    functions = {n.name: n for n in script.walk() if isinstance(n, ast.FunctionDef)}
    builders = {n.name for n in script.walk() if isinstance(n, ast.ClassDef) and _is_model(n)} | {
        name for name in functions if _STARTING.match(name)
    }
    if not any(isinstance(n, ast.Call) and _is_seeding(n) for n in script.walk()):
        return
    for loop in script.walk():
        if isinstance(loop, ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.DictComp):
            called = _reached(loop, functions)
            seeds = [c for c in called if _is_seeding(c)]
            if _varies(loop, seeds) and any(ast.unparse(c.func) in builders for c in called):
                yield _s7(loop, f"tries seeds in a loop: {shown(seeds[0])}")


def _is_model(node: ast.ClassDef) -> bool:
    return any("Module" in ast.unparse(base) for base in node.bases)


def _is_seeding(call: ast.Call) -> bool:
    return bool(_SEEDING.search(ast.unparse(call.func)))


def _reached(loop: ast.AST, functions: Mapping[str, ast.FunctionDef]) -> list[ast.Call]:
    """Every call in a loop, and in the script's own functions that it calls."""
    calls: list[ast.Call] = []
    queue, seen = [loop], set[str]()
    while queue:
        for call in ast.walk(queue.pop()):
            if isinstance(call, ast.Call):
                calls.append(call)
                name = ast.unparse(call.func)
                if name in functions and name not in seen:
                    seen.add(name)
                    queue.append(functions[name])
    return calls


def _varies(loop: ast.AST, seeds: list[ast.Call]) -> bool:
    """Whether a seeding, or a call in the loop with a seed in it, depends on the loop."""
    stored = {n.id for n in ast.walk(loop) if isinstance(n, ast.Name) and _is_stored(n)}
    own = {id(n) for n in ast.walk(loop)}
    inner = any(id(seeding) not in own for seeding in seeds)
    calls = [n for n in ast.walk(loop) if isinstance(n, ast.Call)] if inner else []
    named = [c for c in calls if re.search("seed", ast.unparse(c), re.IGNORECASE)]
    return any(
        isinstance(part, ast.Name) and part.id in stored
        for call in [*(c for c in seeds if id(c) in own), *named]
        for argument in [*call.args, *(k.value for k in call.keywords)]
        for part in ast.walk(argument)
    )


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
