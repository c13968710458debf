"""Whether a text is a Python script, asked in one way everywhere and without its warnings."""

from __future__ import annotations

import ast
import warnings

from attrs import frozen


@frozen
class Fault:
    """Why a script does not compile, and on which line where Python says so."""

    message: str
    line: int | None = None


def fault(source: str, *, as_file: bool = False) -> Fault | None:
    """Return why Python would refuse a script, None where it compiles.

    With ``as_file`` a byte order mark and a coding line count, as where the text is run.
    """
    try:
        with warnings.catch_warnings():
            # An odd escape in a string is the script's own affair, at most a warning.
            warnings.simplefilter("ignore")
            compile(source.encode() if as_file else source, "script", "exec", dont_inherit=True)
    except SyntaxError as error:
        return Fault(error.msg, error.lineno)
    except ValueError as error:
        return Fault(str(error))
    except (MemoryError, RecursionError):
        return Fault("an expression is nested too deeply")
    return None


def tree(source: str) -> ast.Module | None:
    """Return the syntax tree of a script, None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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
