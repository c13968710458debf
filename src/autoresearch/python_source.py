"""Whether a text is a Python script, asked in one way everywhere and without its warnings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings

from attrs import frozen

REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python raises for a text that is no script of its own, or that nests too deeply."""
_DEEPEST = 1_000  # as many calls as Python allows


@frozen
class Fault:
    """Why a script does not compile, and on which line where Python says so."""

    message: str
    line: int | None = None


def readable(source: str) -> str:
    """Return a script in the grammar of this Python, line for line.

    Python 3.12 allows an f-string's own quotes inside its braces. Before that they are tripled
    outside, which means the same. Anything else comes back as it is.
    """
    try:
        return _read(source)[0]
    except REFUSALS:
        return source


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a script; raises one of ``REFUSALS`` where Python would."""
    return _read(source)[1]


def _read(source: str) -> tuple[str, ast.Module]:
    """Return a script in the grammar of this Python, and its tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return source, _shallow(ast.parse(source))
        except SyntaxError:  # and nothing else: what nests too deeply would keep libcst for ever
            if sys.version_info >= (3, 12) or _is_deep(source):
                raise
            older = _in_older_grammar(source)
            if older == source:
                raise
            return older, ast.parse(older)


def _shallow(read: ast.Module) -> ast.Module:
    """Return a tree; raises RecursionError for one that no walk through it would come back from.

    Python 3.14 reads chains of any length, before that it refused about the same ones itself.
    """
    level: list[ast.AST] = [read] if sys.version_info >= (3, 14) else []
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise RecursionError("an expression is nested too deeply")
    return read


def _in_older_grammar(source: str) -> str:
    try:
        import libcst
    except ImportError:
        return source

    class Tripled(libcst.CSTTransformer):
        def leave_FormattedString(  # noqa: N802 - the name is libcst's
            self, original_node: libcst.FormattedString, updated_node: libcst.FormattedString
        ) -> libcst.FormattedString:
            del original_node
            quote, inner = updated_node.end, "".join(map(_code, updated_node.parts))
            if len(quote) == 3 or quote not in inner:
                return updated_node
            marks = 3 * ("'" if 3 * quote in inner and quote == '"' else quote)
            start = updated_node.start.removesuffix(quote) + marks
            return updated_node.with_changes(start=start, end=marks)

    def _code(part: libcst.CSTNode) -> str:
        return libcst.Module([]).code_for_node(part)

    try:
        return libcst.parse_module(source).visit(Tripled()).code
    except (libcst.ParserSyntaxError, RecursionError, UnicodeError):
        return source


def _is_deep(source: str) -> bool:
    """Whether brackets or signs nest deeper than Python's own 200, which would end libcst."""
    depth = most = 0
    for char in source:
        depth = max(0, depth + (char in "([{") - (char in ")]}"))
        most = max(most, depth)
    return most > 200 or re.search(r"(?:(?:[+~-]|not|lambda:)\s*){200}", source) is not None


def fault(source: str, *, as_file: bool = False) -> Fault | None:
    """Return why Python would refuse a script, None where it compiles.

    With ``as_file`` a byte order mark and a coding line count, as where the text is run. What a
    newer Python than this one reads is no fault: whether the one that runs it does is asked there.
    """
    try:
        with warnings.catch_warnings():
            # An odd escape in a string is the script's own affair, at most a warning.
            warnings.simplefilter("ignore")
            compile(source.encode() if as_file else source, "script", "exec", dont_inherit=True)
            if sys.version_info >= (3, 14):
                parse(source.removeprefix("\ufeff"))
    except SyntaxError as error:
        if (older := readable(source)) != source:
            return fault(older, as_file=as_file)
        return Fault(error.msg, error.lineno)
    except ValueError as error:
        return Fault(str(error))
    except (MemoryError, RecursionError):
        return Fault("an expression is nested too deeply")
    return None


_ASK = """import sys
try:
    compile(sys.stdin.buffer.read(), "script", "exec", dont_inherit=True)
except (SyntaxError, ValueError) as error:
    print(getattr(error, "lineno", None) or 0, getattr(error, "msg", error))
"""


def fault_of(python: str, source: str) -> Fault | None:
    """Return why the interpreter ``python`` would refuse a script, None where it compiles there.

    Raises ``OSError`` or ``subprocess.SubprocessError`` where it cannot be asked.
    """
    # Alone, without site: only its grammar is asked for, and nothing of the script is run.
    asked = subprocess.run(
        [python, "-I", "-S", "-W", "ignore", "-c", _ASK],
        input=source.encode("utf-8", "replace"), capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    line, _, message = asked.stdout.decode("utf-8", "replace").strip().partition(" ")
    return Fault(message, int(line) or None) if message else None


def tree(source: str) -> ast.Module | None:
    """Return the syntax tree of a script, None where it does not parse."""
    try:
        return parse(source.removeprefix("\ufeff"))
    except REFUSALS:
        return None


def imported(source: str) -> set[str]:
    """Return the packages that a script imports whenever it starts, by their first name."""
    found: set[str] = set()
    for node in getattr(tree(source), "body", ()):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
