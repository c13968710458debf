"""S3 and S6: nothing from outside comes in: no network, package, process or code, and no data.

Data could also be smuggled in as literals: long strings, long lists of numbers, blobs in comments.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator

from autoresearch.golf.audits.script import (
    Script,
    called,
    finding,
    inside,
    line_of,
    names_in,
    shown,
    words,
    written,
)
from autoresearch.golf.audits.tampering import FILE_READERS
from autoresearch.model import Violation

NETWORK = words(
    "socket ssl http urllib urllib3 requests httpx httpx2 aiohttp ftplib smtplib poplib imaplib "
    "telnetlib xmlrpc websocket websockets paramiko boto3 botocore s3fs gcsfs fsspec wget pycurl "
    "huggingface_hub datasets modelscope kagglehub gdown grpc zmq _socket "
    "socketserver nntplib asyncssh smart_open modal ray"
)
# They log to a service where there is one and to files elsewhere; a run has no network anyway.
TELEMETRY = words("wandb comet_ml neptune mlflow")
INSTALLERS = words("pip ensurepip setuptools pkg_resources distutils venv conda uv")
SPAWNERS = words("pty pexpect sh plumbum invoke fabric cffi")
# Libraries that the challenge's image has or that entries were accepted with; another one is not
# forbidden (rule 9), but a run that lacks it crashes, so the author is told.
USUAL = words(
    "torch numpy scipy sentencepiece triton flash_attn flash_attn_interface einops brotli zstd "
    "zstandard tqdm psutil numba fla mamba_ssm causal_conv1d tiktoken transformer_engine mlx"
)
PROCESS_CALLS = words(
    "os.system os.popen os.fork os.forkpty os.posix_spawn os.posix_spawnp os.startfile "
    "asyncio.create_subprocess_exec asyncio.create_subprocess_shell"
)
REMOTE = words("torch.distributed.TCPStore torch.distributed.rpc.init_rpc asyncio.open_connection")
FETCHING = words("from_pretrained use_artifact use_model download_artifacts hf_hub_download")
DOWNLOADS = ("torch.hub.", "torch.utils.model_zoo.", "sentencepiece.download")
LOADED_CODE = words(
    "eval exec compile builtins.eval builtins.exec builtins.compile marshal.loads types.CodeType "
    "types.FunctionType runpy.run_path runpy.run_module code.InteractiveInterpreter "
    "importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader"
)
# What a run may read by a fixed name besides shards and tokenizer: itself and what it wrote.
_OWN_FILES = re.compile(r"(^|/)(final_model[^/]*|logs/[^/]*|train_gpt\.py)$|^/proc/|^/sys/")
_OWN_FOLDER = re.compile(
    r"(str\()?(os\.path\.dirname\((os\.path\.(abspath|realpath)\()?__file__\)+|"
    r"(pathlib\.)?Path\(__file__\)(\.(resolve|absolute)\(\))?\.parent\)?)"
)
HIDING = (
    "sys.modules",
    "sys.path",
    "sys.meta_path",
    "sys.path_hooks",
    "os.__dict__",
    "builtins.__dict__",
    "__builtins__",
    "subprocess.__dict__",
)
SENSITIVE = words("os sys subprocess builtins importlib shutil socket urllib __builtins__")
# The starter prints the driver's table, and the project's script scores its artifact in a new
# process.
HONEST_PROGRAMS = frozenset({"nvidia-smi"})
CUDA_LIBRARIES = ("libcudart", "libcuda", "libnccl")

MAX_LITERAL_BYTES = 4_096  # the limit of the challenge's reviewers for one constant
MAX_NUMBERS = 1_000  # at two bytes a token this would already hold 2 kB of validation text
MAX_NUMBERS_TOGETHER = 4_000
_BLOB = re.compile(r"[^\s]{120,}")  # prose and code break sooner; base64, hex and base85 do not
_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict)


def audit_imports(script: Script) -> Iterator[Violation]:
    """Yield what reaches outside of the script; a plain ``import subprocess`` is not yet a deed."""
    known = {n.func.value for n in script.every(ast.Call) if _adds_own_folder(script, n)}  # type: ignore[attr-defined]
    for node in script.every(ast.AST):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, node)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield _s3(node, "imports a neighbouring file: all code that counts is in the script")
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _module(node.module, node)
        elif isinstance(node, ast.Call):
            yield from _call(script, node)
        elif isinstance(node, ast.Name | ast.Attribute) and node not in known:
            yield from _reference(script, node)


def _adds_own_folder(script: Script, node: ast.Call) -> bool:
    """Whether a call puts the script's own folder on ``sys.path``, where Python has it anyway."""
    if script.dotted(node.func) not in ("sys.path.insert", "sys.path.append") or not node.args:
        return False
    folder = written(node.args[-1])
    for name in names_in(node.args[-1]) & script.values.keys():
        folder = re.sub(rf"\b{name}\b", lambda _, n=name: written(script.values[n]), folder)  # type: ignore[misc]
    meant = {name: script.names.get(name) for name in ("os", "Path", "pathlib") if name in folder}
    honest = all(stands in ("os", "pathlib.Path", "pathlib") for stands in meant.values())
    return honest and bool(_OWN_FOLDER.fullmatch(folder))


def _s3(node: ast.AST, detail: str, *, warn: bool = False) -> Violation:
    return finding("S3", node, detail, warn=warn)


def _deed(node: ast.AST, what: str, *, warn: bool = False) -> Violation:
    return finding("S3", node, f"{what}: {shown(node)}", warn=warn)


def _module(name: str, node: ast.AST) -> Iterator[Violation]:
    top = name.split(".")[0]
    if top in NETWORK and name != "urllib.parse":
        yield _s3(node, f"imports {name}: a run must not reach the network")
    elif top in TELEMETRY:
        yield _s3(node, f"imports {name}: a run has no network, so it must work without", warn=True)
    elif top in INSTALLERS:
        yield _s3(node, f"imports {name}: a run must not install packages")
    elif top in SPAWNERS:
        yield _s3(node, f"imports {name}: a run must not start programs or load machine code")
    elif name.startswith("torch.hub"):
        yield _s3(node, f"imports {name}: a run must not download anything")
    elif top not in USUAL and top not in sys.stdlib_module_names:
        yield _s3(node, f"imports {name}: a machine without it ends the run", warn=True)


def _call(script: Script, node: ast.Call) -> Iterator[Violation]:
    name = script.dotted(node.func)
    if called(node) in FETCHING:
        yield _deed(node, "loads foreign weights")
    elif name is None:
        return
    elif name in ("__import__", "builtins.__import__", "importlib.import_module"):
        yield from _dynamic_import(script, node)
    elif name in ("getattr", "builtins.getattr", "vars", "builtins.vars"):
        yield from _lookup(script, node, name)
    elif name in LOADED_CODE:
        yield _deed(node, "runs code that no reader sees in the script")
    elif name.startswith(("os.exec", "os.spawn")) or name in PROCESS_CALLS:
        yield _deed(node, "starts a process")
    elif name.startswith("subprocess."):
        if not _honest_process(script, node):
            yield _deed(node, "starts a process")
    elif name in REMOTE:
        yield _deed(node, "reaches the network")
    elif name.startswith(DOWNLOADS):
        yield _deed(node, "downloads")
    elif name.startswith("ctypes.") and not _cuda_library(script, node):
        yield _deed(node, "calls machine code outside of the libraries")
    elif name in FILE_READERS:
        yield from _file(script, node)
    elif name.startswith(("torch.utils.cpp_extension.", "multiprocessing.")):
        yield _deed(node, "starts a compiler or workers", warn=True)


def _file(script: Script, node: ast.Call) -> Iterator[Violation]:
    path = script.text(node.args[0]) if node.args else None
    mode = script.text(node.args[1]) if len(node.args) > 1 else "r"
    writes = isinstance(mode, str) and mode[:1] in ("w", "a", "x")
    if isinstance(path, str) and not writes and not _OWN_FILES.search(path):
        what = f"reads {path!r}: a run has shards, tokenizer and its own output only"
        yield _s3(node, what, warn=True)


def _dynamic_import(script: Script, node: ast.Call) -> Iterator[Violation]:
    module = script.text(node.args[0]) if node.args else None
    if isinstance(module, str):
        yield from _module(module, node)
    else:
        yield _deed(node, "imports a module whose name is computed")


def _lookup(script: Script, node: ast.Call, name: str) -> Iterator[Violation]:
    module = script.dotted(node.args[0]) if node.args else None
    if module not in SENSITIVE:
        return
    if name.endswith("vars") or len(node.args) < 2 or script.text(node.args[1]) is None:
        yield _s3(node, f"looks up a computed name in {module}: {shown(node)}")


def _reference(script: Script, node: ast.Name | ast.Attribute) -> Iterator[Violation]:
    name = script.dotted(node) or (node.id if isinstance(node, ast.Name) else "")
    if name in HIDING:
        yield _s3(node, f"goes around the imports through {name}")
    elif name in PROCESS_CALLS and isinstance(node.ctx, ast.Load) and isinstance(node, ast.Name):
        yield _s3(node, f"starts a process under another name: {node.id} is {name}")


def _cuda_library(script: Script, node: ast.Call) -> bool:
    library = script.text(node.args[0]) if node.args else None
    if script.dotted(node.func) in ("ctypes.CDLL", "ctypes.cdll.LoadLibrary"):
        return isinstance(library, str) and library.startswith(CUDA_LIBRARIES)
    return "find_library" not in written(node.func) and "LoadLibrary" not in shown(node.func)


def _honest_process(script: Script, node: ast.Call) -> bool:
    if script.dotted(node.func) in ("subprocess.CompletedProcess", "subprocess.TimeoutExpired"):
        return True
    if any(k.arg == "shell" and not _is_false(k.value) for k in node.keywords):
        return False
    command = next((k.value for k in node.keywords if k.arg == "args"), None)
    command = script.resolve(node.args[0]) if node.args else command
    if isinstance(command, ast.List | ast.Tuple) and command.elts:
        return _honest_command(script, command.elts)
    text = script.text(command)
    return isinstance(text, str) and text.split()[:1] in [[name] for name in HONEST_PROGRAMS]


def _honest_command(script: Script, parts: list[ast.expr]) -> bool:
    """A known program, or the script itself by its own path: no ``-c``, ``-m`` or other file."""
    program = script.text(parts[0])
    if isinstance(program, str):
        return program.rsplit("/", 1)[-1] in HONEST_PROGRAMS
    if script.dotted(parts[0]) != "sys.executable" or len(parts) < 2:
        return False
    code = written(script.resolve(parts[1]))
    return "__file__" in code or "sys.argv[0]" in code


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def audit_literals(script: Script) -> Iterator[Violation]:
    """Yield literals that could hold a piece of the validation text or of somebody's model."""
    parts = _inner_parts(script)
    blobs = numbers = 0
    last = 1
    for node in (n for n in script.every(ast.AST) if n not in parts):
        size, count = _text_size(script, node), _numbers(node)
        if size > MAX_LITERAL_BYTES:
            yield _s6(node, f"a literal of {size} bytes, more than {MAX_LITERAL_BYTES}")
        if count > MAX_NUMBERS:
            yield _s6(node, f"a literal with {count} numbers, more than {MAX_NUMBERS}")
        elif count > 16:
            numbers, last = numbers + count, line_of(node)
        if isinstance(node, ast.Constant):
            blobs += _blob_size(node.value)
            if isinstance(node.value, int) and node.value.bit_length() // 8 > 256:
                yield _s6(node, f"a number of {node.value.bit_length() // 8} bytes")
    if numbers > MAX_NUMBERS_TOGETHER:
        yield _s6(last, f"lists with {numbers} numbers together, more than {MAX_NUMBERS_TOGETHER}")
    if blobs > MAX_LITERAL_BYTES:
        yield _s6(1, f"strings that are no words: {blobs} bytes together")
    yield from _comments(script.source)


def _s6(at: ast.AST | int, what: str) -> Violation:
    return finding("S6", at, f"{what}: code must not carry data")


def _inner_parts(script: Script) -> set[ast.AST]:
    """Parts of a larger literal, which is counted as a whole."""
    parts: set[ast.AST] = set()
    for node in script.every(ast.AST):
        if node not in parts and isinstance(node, (ast.BinOp, ast.JoinedStr, *_DISPLAYS)):
            parts.update(child for child in inside(node, ast.AST) if child is not node)
    return {p for p in parts if not isinstance(p, ast.Call | ast.Lambda)}


def _text_size(script: Script, node: ast.AST) -> int:
    if node in script.prose:
        return 0  # its blobs are counted by _blob_size
    if isinstance(node, (ast.BinOp, *_DISPLAYS)):
        return sum(_size(child.value) for child in inside(node, ast.Constant))
    text = node.value if isinstance(node, ast.Constant) else None
    if text is None and isinstance(node, ast.Call | ast.JoinedStr | ast.Subscript):
        text = script.text(node)
    return _size(text)


def _size(value: object) -> int:
    if isinstance(value, str):
        return 0 if _is_code(value) else len(value.encode("utf-8", "replace"))
    return len(value) if isinstance(value, bytes) else 0


def _is_code(text: str) -> bool:
    """Whether a long string is a kernel: signs of C in lines of ordinary length."""
    if len(text) <= MAX_LITERAL_BYTES or _BLOB.search(text):
        return False
    signs = sum(text.count(sign) for sign in ";{}()=*")
    return 12 * signs > len(text) and max(map(len, text.splitlines())) < 200


def _numbers(node: ast.AST) -> int:
    if not isinstance(node, _DISPLAYS):
        return 0
    constants = inside(node, ast.Constant)
    return sum(isinstance(child.value, int | float | complex) for child in constants)


def _blob_size(value: object) -> int:
    if isinstance(value, bytes):
        return len(value) if len(value) >= 120 else 0
    return _blobs(value) if isinstance(value, str) else 0


def _blobs(text: str) -> int:
    return sum(_size(match.group()) for match in _BLOB.finditer(text))


def _comments(source: str) -> Iterator[Violation]:
    """A script can read its own comments, so they can carry data as well."""
    size, last = 0, 1
    if not any("#" in line and _BLOB.search(line) for line in source.splitlines()):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (blob := _blobs(token.string.strip("#=-~* "))):
            size, last = size + blob, token.start[0]
    if size > MAX_LITERAL_BYTES:
        yield _s6(last, f"comments that are no words: {size} bytes together")
