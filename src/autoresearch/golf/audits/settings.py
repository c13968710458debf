"""S2, S7 and S8: what follows from a script's defaults.

The seed comes from the runner, no default buys time or spares validation, and the artifact of a
network of that shape can stay under the limit of the challenge.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

from attrs import frozen

from autoresearch.golf.audits.script import (
    Script,
    finding,
    inside,
    line_of,
    names_in,
    shown,
    stores,
    written,
)
from autoresearch.model import Violation

MAX_WALLCLOCK_SECONDS = 600.0  # rule 2 of the challenge
_READERS = re.compile(r"(^|\.|_)(getenv|get|setdefault|env|env_\w+|get_env\w*)$")
_SPARING = re.compile(
    r"^(SKIP_(FINAL_)?(EVAL|VAL)|NO_(EVAL|VAL)|(MAX|NUM|LIMIT|CROP)_?(VAL|EVAL)_?(TOKENS|DOCS|SHARDS|"
    r"SEQS|BATCHES|STEPS)?|(VAL|EVAL)_(TOKENS|TOKEN_LIMIT|LIMIT|MAX\w*|FRACTION|SUBSET|CROP|DOCS|"
    r"NUM_TOKENS|NUM_DOCS|NUM_BATCHES|ITERS|ONLY_FIRST))$"
)
_OFF = {"", "0", "0.0", "false", "none", "no", "-1", "1.0"}  # a fraction of 1.0 spares nothing
_GOVERNED = ("MAX_WALLCLOCK_SECONDS", "SEED", "DATA_PATH", "TOKENIZER_PATH", "MODEL_TEST")
_ENVIRONMENT_CALLS = ("os.putenv", *(f"os.environ.{name}" for name in (
    "update", "setdefault", "__setitem__", "__ior__")))  # fmt: skip
_SHARDS = ("fineweb_val_000000.bin", "fineweb_val_000001.bin", "fineweb_val_000137.bin")
_SEEDING = re.compile(
    r"^(torch\.(cuda\.|random\.)?(manual_seed(_all)?|seed)|random\.seed|(np|numpy)\.random\.seed|"
    r"(set_seed|seed_everything|seed_all)\w*)$"
)
_STARTING = re.compile(r"^(main|run|train|build|make|init)(_|$)")
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.DictComp)

RESERVE = 20_000  # what two seeds of one script differ by, with room
MAX_SOURCE_BYTES = 1_000_000  # source is counted as it is; a sixteenth of the limit is no script
# Compressed over stored bytes of int8 artifacts: 0.92 after a full run on 8xH100 (15,815,847 of
# 17,178,912), 0.74 to 0.86 after ten minutes on one GPU. Less training compresses better.
FULL_RATIO, SHORT_RATIO = 0.92, 0.74
SURE = 0.03  # relative: how far networks of other shapes are from the measured ratio
# Signs of another packing than int8 and zlib, whose ratio nobody knows before its first run.
_OTHER_PACKING = re.compile(
    r"int[2-7](?!\d)|lzma|zstd|zstandard|brotli|bz2|ternary|binary_|gptq|-(3|7|15|31|63), \1\b",
    re.IGNORECASE,
)
_SHAPE = ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT")


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
    for node in script.every(ast.Call):
        if setting := _from_call(script, node):
            found.setdefault(setting.name, setting)
    for group in script.classes:
        for name, value in _class_values(group) if "hyperparam" in group.name.lower() else ():
            found.setdefault(name.upper(), _setting(script, name.upper(), value))
    return found


def audit_settings(script: Script, pristine: Script | None) -> Iterator[Violation]:
    """Yield defaults that buy training time or spare validation, and any choice of a seed."""
    settings = read_settings(script)
    before = read_settings(pristine) if pristine is not None else {}
    yield from _wallclock(settings)
    for name, setting in settings.items():
        if _SPARING.match(name) and (setting.value or "").lower() not in _OFF:
            detail = f"{name} is {setting.value} by default: validation is whole"
            yield finding("S8", setting.line, detail)
    yield from _validation_files(script)
    yield from _written_environment(script)
    now, then = settings.get("SEED"), before.get("SEED")
    if now and then and now.value != then.value:
        detail = f"the default seed went from {then.value} to {now.value}: the runner sets SEED"
        yield finding("S7", now.line, detail, warn=True)
    yield from _seed_search(script)


def _from_call(script: Script, node: ast.Call) -> Setting | None:
    name = script.text(node.args[0]) if node.args else None
    if not isinstance(name, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
        return None
    if not _READERS.search(written(node.func)) or len(node.args) < 2:
        return None
    return _setting(script, name, node.args[1], line_of(node))


def _setting(script: Script, name: str, value: ast.expr, line: int = 0) -> Setting:
    text = script.text(value)
    if not isinstance(text, str):
        resolved = script.resolve(value)
        text = None if not _is_plain(resolved) else written(resolved).replace("_", "")
    return Setting(name=name, value=text, line=line or line_of(value), number=_number(text))


def _is_plain(node: ast.expr) -> bool:
    allowed = ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop
    return all(isinstance(part, allowed) for part in inside(node, ast.AST))


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
            yield written(statement.target), statement.value


def _wallclock(settings: Mapping[str, Setting]) -> Iterator[Violation]:
    setting = settings.get("MAX_WALLCLOCK_SECONDS")
    if setting is None or setting.number is None:
        return
    if setting.number > MAX_WALLCLOCK_SECONDS:
        detail = f"MAX_WALLCLOCK_SECONDS is {setting.value} by default, over 600"
        yield finding("S8", setting.line, detail)
    elif setting.number <= 0:
        detail = "MAX_WALLCLOCK_SECONDS is off by default: training is 600 s"
        yield finding("S8", setting.line, detail)


def _validation_files(script: Script) -> Iterator[Violation]:
    """The glob of the validation shards must match all of them and nothing else."""
    for node in script.every((ast.Constant, ast.BinOp, ast.JoinedStr)):
        text = script.text(node)
        if not isinstance(text, str) or len(text) > 200 or "fineweb_val" not in text:
            continue
        name = text.rsplit("/", 1)[-1]
        reads_all = all(fnmatchcase(shard, name) for shard in _SHARDS)
        if name.endswith(".bin") and not reads_all and "_bytes_" not in name:
            detail = f"reads validation shards by {name}, not fineweb_val_*.bin"
            yield finding("S8", node, detail)


def _written_environment(script: Script) -> Iterator[Violation]:
    for place in script.every(ast.Subscript):
        name = script.text(place.slice) if stores(place) else None
        if _governs(name) and script.dotted(place.value) == "os.environ":
            yield finding("S8", place, f"sets {name!r} itself: it belongs to the runner")
    node: ast.Call | ast.Assign | ast.AugAssign
    for node in script.every((ast.Call, ast.Assign, ast.AugAssign)):  # type: ignore[assignment]
        if not _writes_environment(script, node):
            continue
        given = node.args if isinstance(node, ast.Call) else [node.value]
        parts = [node, *map(script.resolve, given)]
        texts = {script.text(n) for part in parts for n in inside(part, ast.Constant)}
        named = {k.arg for part in parts for k in inside(part, ast.keyword)}
        if any(map(_governs, texts | named)):
            yield finding("S8", node, f"sets what belongs to the runner: {shown(node)}")


def _writes_environment(script: Script, node: ast.Call | ast.Assign | ast.AugAssign) -> bool:
    """Whether several settings are given at once: ``os.environ |= {...}``, or a call that does."""
    if isinstance(node, ast.Call):
        return script.dotted(node.func) in _ENVIRONMENT_CALLS
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(script.dotted(target) == "os.environ" for target in targets)


def _governs(name: object) -> bool:
    return isinstance(name, str) and (name in _GOVERNED or bool(_SPARING.match(name)))


def _seed_search(script: Script) -> Iterator[Violation]:
    """A loop that seeds the global generators and builds or trains a model each time.

    Seeding inside a loop alone is honest: one generator for each layer, or a new stream each step.
    """
    if not any(map(_is_seeding, script.every(ast.Call))):
        return
    functions = {n.name: n for n in script.every(ast.FunctionDef)}
    builders = {n.name for n in script.every(ast.ClassDef) if _is_model(n)}
    builders |= {name for name in functions if _STARTING.match(name)}
    for loop in script.every(_LOOPS):
        reached = _reached(loop, functions)
        seeds = [call for call in reached if _is_seeding(call)]
        if _varies(loop, seeds) and any(written(c.func) in builders for c in reached):
            yield finding("S7", loop, f"tries seeds in a loop: {shown(seeds[0])}")


def _is_model(node: ast.ClassDef) -> bool:
    return any("Module" in written(base) for base in node.bases)


def _is_seeding(call: ast.Call) -> bool:
    return bool(_SEEDING.search(written(call.func)))


def _reached(loop: ast.AST, functions: Mapping[str, ast.FunctionDef]) -> list[ast.Call]:
    """Every call in a loop, and in the script's own functions that it calls."""
    calls: list[ast.Call] = []
    queue, seen = [loop], set[str]()
    while queue:
        for call in inside(queue.pop(), ast.Call):
            calls.append(call)
            name = written(call.func)
            if name in functions and name not in seen:
                seen.add(name)
                queue.append(functions[name])
    return calls


def _varies(loop: ast.AST, seeds: list[ast.Call]) -> bool:
    """Whether a seeding, or a call in the loop with a seed in it, depends on the loop."""
    stored = {n.id for n in inside(loop, ast.Name) if stores(n)}
    calls = list(inside(loop, ast.Call))
    own = {id(call) for call in calls}
    asked = [seeding for seeding in seeds if id(seeding) in own]
    if len(asked) < len(seeds):  # a function that the loop calls does the seeding
        asked += [c for c in calls if re.search("seed", written(c), re.IGNORECASE)]
    arguments = (a for c in asked for a in (*c.args, *(k.value for k in c.keywords)))
    return any(names_in(argument) & stored for argument in arguments)


def audit_size(
    script: Script,
    pristine: Script | None,
    env: Mapping[str, str],
    limit: int,
    ratio: float | None = None,
) -> Iterator[Violation]:
    """Yield a source that is too long, or an artifact that is over the limit beyond doubt.

    The artifact is estimated only where the shape of the network follows from settings that both
    scripts have and the code that packs and builds it is the pristine one; elsewhere it is unknown
    before the run, and nothing is said. ``ratio`` is what the packed model of the campaign's first
    script had for each byte estimated. Before it is known, nothing is said of a script that packs
    otherwise than the starter, or began with an estimate over the limit.
    """
    size = len(script.source.encode("utf-8", "replace"))
    if size > MAX_SOURCE_BYTES:
        yield Violation(rule="S2", detail=f"the source has {size} bytes, over {MAX_SOURCE_BYTES}")
    payload = estimated_payload(script, env)
    if pristine is None or payload is None:
        return
    before = estimated_payload(pristine, {}) or 0
    other = SHORT_RATIO * before > limit - RESERVE or _OTHER_PACKING.search(pristine.source)
    if payload <= before or (ratio is None and other):
        return
    least, most = (SHORT_RATIO, FULL_RATIO) if ratio is None else (ratio, ratio)
    low, high = (size + round(part * payload) for part in (least * (1 - SURE), most * (1 + SURE)))
    if high > limit - RESERVE and _building(script) == _building(pristine):
        doubtful = low <= limit - RESERVE
        said = f"{low} to {high}" if doubtful else f"at least {low}"
        detail = (
            f"the artifact will have {said} bytes, the limit is {limit} with {RESERVE} to spare"
        )
        yield finding("S2", 1, detail, warn=doubtful)


def estimated_payload(script: Script, env: Mapping[str, str]) -> int | None:
    """Bytes of int8 weights and fp16 row scales of the starter's network, before compression.

    ``env`` overrides the defaults of the script. None where a setting of the shape is missing.
    """
    settings = read_settings(script)
    shape = [_integer(name, settings, env) for name in _SHAPE]
    if any(value is None for value in shape):
        return None
    vocab, layers, dim, heads, kv_heads, mult = (value or 0 for value in shape)
    if 0 in (vocab, dim, heads):
        return None
    kv = dim // heads * kv_heads
    rows = 2 * dim + 2 * kv + (mult + 1) * dim
    block = dim * (2 * dim + 2 * kv + 2 * mult * dim) + 2 * rows + 4 * (4 * dim + heads)
    default = settings.get("TIE_EMBEDDINGS")
    tied = env.get("TIE_EMBEDDINGS") or (default.value if default else "1")
    tables = 2 if tied in ("0", "False") else 1
    return layers * block + tables * vocab * (dim + 2)


def _integer(name: str, settings: Mapping[str, Setting], env: Mapping[str, str]) -> int | None:
    try:
        if name in env:
            return int(env[name])
        number = settings[name].number if name in settings else None
        return None if number is None else int(number)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=8)
def _building(script: Script) -> dict[str, str]:
    """The code of network and quantiser: where that is the same, settings alone give the size."""
    return {
        node.name: written(node)
        for node in script.tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and ("nn." in written(node) or "quantize" in node.name or "artifact" in node.name)
    }
