"""S3: nothing from outside comes in, and nothing is started: network, packages, processes, code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from autoresearch.golf.audits.tree import Script, line_of, shown, words
from autoresearch.model import Violation

NETWORK = words(
    "socket ssl http urllib urllib3 requests httpx httpx2 aiohttp ftplib smtplib poplib imaplib "
    "telnetlib xmlrpc websocket websockets paramiko boto3 botocore s3fs gcsfs fsspec wget pycurl "
    "huggingface_hub datasets modelscope kagglehub gdown wandb comet_ml neptune mlflow grpc zmq "
    "socketserver nntplib asyncssh smart_open modal ray"
)
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
DOWNLOADS = ("torch.hub.", "torch.utils.model_zoo.", "sentencepiece.download")
LOADED_CODE = words(
    "eval exec compile builtins.eval builtins.exec builtins.compile marshal.loads types.CodeType "
    "types.FunctionType runpy.run_path runpy.run_module code.InteractiveInterpreter "
    "importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader"
)
FILE_READERS = ("open", "io.open", "torch.load", "numpy.load", "numpy.fromfile", "numpy.memmap")
# What a run may read by a fixed name besides shards and tokenizer: itself and what it wrote.
_OWN_FILES = re.compile(r"(^|/)(final_model[^/]*|logs/[^/]*|train_gpt\.py)$|^/proc/|^/sys/")
HIDING = ("sys.modules", "os.__dict__", "builtins.__dict__", "__builtins__", "subprocess.__dict__")
SENSITIVE = words("os sys subprocess builtins importlib shutil socket urllib")
# The starter prints the driver's table, and our own script scores its artifact in a new process.
HONEST_PROGRAMS = frozenset({"nvidia-smi"})
CUDA_LIBRARIES = ("libcudart", "libcuda", "libnccl")


def audit_imports(script: Script) -> Iterator[Violation]:
    """Yield what reaches outside of the script; a plain ``import subprocess`` is not yet a deed."""
    for node in script.walk():
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, node)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node)
        elif isinstance(node, ast.Call):
            yield from _call(script, node)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from _reference(script, node)


def _found(node: ast.AST, detail: str, severity: str = "violation") -> Violation:
    return Violation(rule="S3", detail=detail, line=line_of(node), severity=severity)


def _imported_from(node: ast.ImportFrom) -> Iterator[Violation]:
    if node.level:
        yield _found(node, "imports a neighbouring file: all code that counts is in the script")
    elif node.module:
        yield from _module(node.module, node)


def _module(name: str, node: ast.AST) -> Iterator[Violation]:
    top = name.split(".")[0]
    if top in NETWORK and name != "urllib.parse":
        yield _found(node, f"imports {name}: a run must not reach the network")
    elif top in INSTALLERS:
        yield _found(node, f"imports {name}: a run must not install packages")
    elif top in SPAWNERS:
        yield _found(node, f"imports {name}: a run must not start programs or load machine code")
    elif name.startswith("torch.hub"):
        yield _found(node, f"imports {name}: a run must not download anything")
    elif top not in USUAL and top not in sys.stdlib_module_names:
        yield _found(node, f"imports {name}: a machine without it ends the run", "warning")


def _call(script: Script, node: ast.Call) -> Iterator[Violation]:
    name = script.dotted(node.func)
    if name is None:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            yield _found(node, f"loads foreign weights: {shown(node)}")
        return
    if name in ("__import__", "builtins.__import__", "importlib.import_module"):
        yield from _dynamic_import(script, node)
    elif name in ("getattr", "builtins.getattr", "vars", "builtins.vars"):
        yield from _lookup(script, node, name)
    elif name in LOADED_CODE:
        yield _found(node, f"runs code that no reader sees in the script: {shown(node)}")
    elif name.startswith(("os.exec", "os.spawn")) or name in PROCESS_CALLS:
        yield _found(node, f"starts a process: {shown(node)}")
    elif name.startswith("subprocess."):
        if not _honest_process(script, node):
            yield _found(node, f"starts a process: {shown(node)}")
    elif name in REMOTE:
        yield _found(node, f"reaches the network: {shown(node)}")
    elif name.startswith(DOWNLOADS):
        yield _found(node, f"downloads: {shown(node)}")
    elif name.startswith("ctypes.") and not _cuda_library(script, node):
        yield _found(node, f"calls machine code outside of the libraries: {shown(node)}")
    elif name in FILE_READERS:
        yield from _file(script, node)
    elif name.startswith(("torch.utils.cpp_extension.", "multiprocessing.")):
        yield _found(node, f"starts a compiler or workers: {shown(node)}", "warning")


def _file(script: Script, node: ast.Call) -> Iterator[Violation]:
    path = script.text(node.args[0]) if node.args else None
    mode = script.text(node.args[1]) if len(node.args) > 1 else "r"
    writes = isinstance(mode, str) and mode[:1] in ("w", "a", "x")
    if isinstance(path, str) and not writes and not _OWN_FILES.search(path):
        what = f"reads {path!r}: a run has shards, tokenizer and its own output only"
        yield _found(node, what, "warning")


def _dynamic_import(script: Script, node: ast.Call) -> Iterator[Violation]:
    module = script.text(node.args[0]) if node.args else None
    if isinstance(module, str):
        yield from _module(module, node)
    else:
        yield _found(node, f"imports a module whose name is computed: {shown(node)}")


def _lookup(script: Script, node: ast.Call, name: str) -> Iterator[Violation]:
    module = script.dotted(node.args[0]) if node.args else None
    if module not in SENSITIVE and module != "__builtins__":
        return
    if name.endswith("vars") or len(node.args) < 2 or script.text(node.args[1]) is None:
        yield _found(node, f"looks up a computed name in {module}: {shown(node)}")


def _reference(script: Script, node: ast.Name | ast.Attribute) -> Iterator[Violation]:
    name = script.dotted(node) or (node.id if isinstance(node, ast.Name) else "")
    if name in HIDING:
        yield _found(node, f"goes around the imports through {name}")
    elif name in PROCESS_CALLS and isinstance(node.ctx, ast.Load) and isinstance(node, ast.Name):
        yield _found(node, f"starts a process under another name: {node.id} is {name}")


def _cuda_library(script: Script, node: ast.Call) -> bool:
    library = script.text(node.args[0]) if node.args else None
    opens = script.dotted(node.func) in ("ctypes.CDLL", "ctypes.cdll.LoadLibrary")
    if opens:
        return isinstance(library, str) and library.startswith(CUDA_LIBRARIES)
    return "find_library" not in ast.unparse(node.func) and "LoadLibrary" not in shown(node.func)


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
    program = script.text(parts[0])
    if isinstance(program, str):
        return program.rsplit("/", 1)[-1] in HONEST_PROGRAMS
    return script.dotted(parts[0]) == "sys.executable" and _is_this_script(script, parts[1:])


def _is_this_script(script: Script, parts: list[ast.expr]) -> bool:
    """Only the script itself, by its own path: no ``-c``, no ``-m``, no other file."""
    if not parts:
        return False
    code = ast.unparse(script.resolve(parts[0]))
    return "__file__" in code or "sys.argv[0]" in code


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
