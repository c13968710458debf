"""Finds the hyperparameters of a training script and changes one literal, and nothing but that.

Three forms are understood: helpers such as ``env_int("NAME", 3)``; environment look-ups such as
``int(os.environ.get("NAME", 3))``, also with the default as text; and plain constants, at the top
of the module or in the body of a class. Reading gives exact byte ranges, so an edit leaves every
other byte, comment and line end as it was.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

from attrs import field, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.ideas.literals import Literal, Value, evaluate, literals, typed
from autoresearch.python_source import tree


@frozen(kw_only=True)
class Hyperparameter:
    """A named number, flag or word of the script; ``line`` counts from 1.

    ``form`` is ``environment`` when a variable of that name replaces the value at run time, else
    ``constant``. ``spans`` are the byte ranges of the literal, several when it is repeated.
    """

    name: str
    value: Value
    type: str
    line: int
    form: str
    spans: tuple[tuple[int, int], ...] = field(default=(), repr=False)


@lru_cache(maxsize=8)
def hyperparameters(source: str) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters in the order of the file; none if the script does not parse.

    A name that is given two different values is left out: nobody could say which one counts.
    """
    parsed = tree(source)
    if parsed is None:
        return ()
    starts = _line_starts(source)
    grouped: dict[str, list[Hyperparameter]] = defaultdict(list)
    for found in literals(parsed):
        read = _read(found, starts)
        if read is not None:
            grouped[read.name].append(read)
    merged = (_merge(group) for group in grouped.values())
    return tuple(sorted((item for item in merged if item), key=lambda item: item.line))


def with_value(source: str, name: str, value: Value) -> str:
    """Return the script with one hyperparameter changed; see `with_values`."""
    return with_values(source, {name: value})


def with_values(source: str, values: Mapping[str, Value]) -> str:
    """Return the script with the named literals replaced and every other byte as it was.

    Raises AutoresearchError for a name that is not a hyperparameter or a value of another type.
    """
    known = {item.name: item for item in hyperparameters(source)}
    data = source.encode()
    replacements = []
    for name, value in values.items():
        if name not in known:
            raise AutoresearchError(
                f"the script has no hyperparameter {name!r}; use one of "
                f"{', '.join(known) or 'none: it has none'}"
            )
        for start, end in known[name].spans:
            literal = _literal(known[name], value, data[start:end].decode())
            replacements.append((start, end, literal))
    for start, end, literal in sorted(replacements, reverse=True):
        data = data[:start] + literal.encode() + data[end:]
    return data.decode()


def _line_starts(source: str) -> list[int]:
    """Return the byte at which each line starts, with the parser's idea of a line end."""
    ends = re.finditer(rb"\r\n|\r|\n", source.encode())
    return [0, *(match.end() for match in ends)]


def _read(found: Literal, starts: list[int]) -> Hyperparameter | None:
    raw = evaluate(found.node)
    value = None if raw is None else typed(raw, found.type)
    node = found.node
    if value is None or (found.form == "constant" and isinstance(value, str)):
        return None
    if node.end_lineno is None or node.end_col_offset is None:
        return None
    start = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    return Hyperparameter(
        name=found.name,
        value=value,
        type=type(value).__name__,
        line=node.lineno,
        form=found.form,
        spans=((start, end),),
    )


def _merge(group: list[Hyperparameter]) -> Hyperparameter | None:
    first = group[0]
    if any((item.value, item.type) != (first.value, first.type) for item in group):
        return None
    spans = tuple(span for item in group for span in item.spans)
    return Hyperparameter(
        name=first.name,
        value=first.value,
        type=first.type,
        line=first.line,
        form=first.form,
        spans=spans,
    )


def _literal(parameter: Hyperparameter, value: Value, old: str) -> str:
    """Return ``value`` written the way the old literal was: quoted, as a flag, with underscores."""
    quote = old[0] if old[:1] in {'"', "'"} else ""
    if parameter.type == "str":
        return repr(str(value))
    if isinstance(value, str) or isinstance(value, bool) != (parameter.type == "bool"):
        raise AutoresearchError(
            f"{parameter.name} is of type {parameter.type}, but {value!r} was given; "
            f"give one of type {parameter.type}"
        )
    if isinstance(value, bool):
        text = str(value) if old in {"True", "False"} else str(int(value))
    elif parameter.type == "int":
        text = f"{int(value):_}" if "_" in old else str(int(value))
    else:
        text = short(float(value))
    return f"{quote}{text}{quote}"


def short(value: float) -> str:
    """Return a float literal with six significant digits that stays a float when read back."""
    text = f"{value:.6g}"
    return text if any(mark in text for mark in ".en") else f"{text}.0"
