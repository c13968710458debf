"""Packed scripts: the text inside a compressed literal that is executed, and its size packed again.

Nothing is executed to find it. The calls that decode and decompress are known by name, and their
result is bounded, so that a few bytes cannot become a full memory.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import gzip
import importlib.util
import io
import lzma
import zlib
from collections.abc import Callable, Mapping

from autoresearch.golf.audits.script import Script, try_parse

LARGEST = 4_000_000  # bytes of a script, unpacked
_DEPTH = 8  # layers of packing, and calls inside one another
MARK = "# unpacked at setup: the artifact counts this file packed again"
_STUB = (
    'import lzma,base64\nexec(lzma.decompress(base64.b85decode(""),format=lzma.FORMAT_RAW,'
    'filters=[{"id":33}]))\n'
)

_TEXTS: Mapping[str, Callable[[bytes], bytes]] = {
    "base64.b64decode": base64.b64decode,
    "base64.standard_b64decode": base64.b64decode,
    "base64.urlsafe_b64decode": base64.urlsafe_b64decode,
    "base64.decodebytes": base64.decodebytes,
    "base64.b85decode": base64.b85decode,
    "base64.a85decode": base64.a85decode,
    "base64.b32decode": base64.b32decode,
    "base64.b16decode": base64.b16decode,
    "binascii.a2b_base64": binascii.a2b_base64,
    "bytes.fromhex": lambda text: bytes.fromhex(text.decode()),
}


def unpacked(source: str) -> str | None:
    """Return the text that a packed script executes, through all layers; None for any other.

    A script counts as packed where it does nothing else: beside one `exec` of a literal there are
    only imports and the literal's own assignments.
    """
    found = None
    for _ in range(_DEPTH):
        inner = _one_layer(source)
        if inner is None:
            break
        found = source = inner
    return found


def adopted(source: str) -> str | None:
    """Return what a campaign edits in place of a packed script, marked as such; None otherwise."""
    inner = unpacked(source)
    return None if inner is None else f"{MARK}\n{inner}"


def packed_bytes(text: str) -> int:
    """Return the bytes of a script packed again: LZMA in base 85, and the line that executes it."""
    plain = text.removeprefix(f"{MARK}\n").encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    body = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=filters)
    return len(_STUB) + len(base64.b85encode(body))


def _one_layer(source: str) -> str | None:
    script = try_parse(source)
    if script is None:
        return None
    executed = None
    for node in script.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assign):
            continue
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Constant):
            continue
        if executed is not None or not isinstance(call, ast.Call):
            return None
        if script.dotted(call.func) not in ("exec", "builtins.exec") or not call.args:
            return None
        executed = call.args[0]
    compiled = script.dotted(executed.func) if isinstance(executed, ast.Call) else None
    if isinstance(executed, ast.Call) and compiled in ("compile", "builtins.compile"):
        executed = executed.args[0] if executed.args else None
    if not isinstance(executed, ast.Call | ast.Name):
        return None
    try:
        found = _value(script, executed, _DEPTH)
        return None if found is None else found.decode()
    except (ValueError, OSError, EOFError, TypeError, lzma.LZMAError, zlib.error):
        return None


def _value(script: Script, node: ast.AST | None, depth: int) -> bytes | None:
    """Return the bytes that an expression always gives; a text gives those of UTF-8."""
    if depth == 0 or node is None:
        return None
    if isinstance(node, ast.Name):
        known = script.values.get(node.id)
        return None if known is None else _value(script, known, depth - 1)
    text = script.text(node) if not isinstance(node, ast.Call) else None
    if text is not None:
        return text.encode() if isinstance(text, str) else text
    return _called(script, node, depth) if isinstance(node, ast.Call) else None


def _called(script: Script, node: ast.Call, depth: int) -> bytes | None:
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("decode", "encode"):
        return _value(script, node.func.value, depth)
    name = script.dotted(node.func) or ""
    given = _value(script, node.args[0], depth - 1) if node.args else None
    if given is None:
        return None
    if name in _TEXTS:
        return _TEXTS[name](given)
    if name == "lzma.decompress":
        return _lzma(script, node, given)
    if name == "zlib.decompress":
        window = _number(script, node, "wbits", zlib.MAX_WBITS)
        return zlib.decompressobj(window).decompress(given, LARGEST)
    if name == "gzip.decompress":
        return gzip.GzipFile(fileobj=io.BytesIO(given)).read(LARGEST)
    if name == "bz2.decompress":
        return bz2.BZ2Decompressor().decompress(given, LARGEST)
    return _brotli(given) if name == "brotli.decompress" else None


def _lzma(script: Script, node: ast.Call, given: bytes) -> bytes:
    """Decompress as the call says: of its arguments only the module's own constants are known."""
    words = {k.arg: k.value for k in node.keywords}
    form = _constant(script, words.get("format")) if "format" in words else lzma.FORMAT_AUTO
    filters = None
    if isinstance(listed := words.get("filters"), ast.List):
        filters = [_filter(script, item) for item in listed.elts if isinstance(item, ast.Dict)]
    return lzma.LZMADecompressor(form, filters=filters).decompress(given, LARGEST)


def _filter(script: Script, node: ast.Dict) -> dict[str, int]:
    pairs = zip(node.keys, node.values, strict=True)
    return {ast.literal_eval(key): _constant(script, value) for key, value in pairs if key}


def _constant(script: Script, node: ast.AST | None) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    name = (script.dotted(node) if node is not None else None) or ""
    return int(getattr(lzma, name.removeprefix("lzma."), 0)) if name.startswith("lzma.") else 0


def _number(script: Script, node: ast.Call, name: str, default: int) -> int:
    given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == name)]
    if not given:
        return default
    value = ast.literal_eval(script.resolve(given[0]))
    return value if isinstance(value, int) else default


def _brotli(given: bytes) -> bytes | None:
    if importlib.util.find_spec("brotli") is None:
        return None
    brotli = importlib.import_module("brotli")
    found: bytes = brotli.decompress(given)
    return found if len(found) <= LARGEST else None
