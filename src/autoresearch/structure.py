"""Checks plain tables against attrs classes; what does not fit is one line that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import cattrs
from attrs import fields
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError

from autoresearch.errors import ConfigError

S = TypeVar("S")


def structure(table: Mapping[str, Any], shape: type[S], where: str, kind: str = "setting") -> S:
    """Build ``shape`` from a table; ``where`` is its name for the message, ``kind`` what it has.

    Raises ConfigError with one line for an unknown key or a value of a wrong type.
    """
    try:
        return CONVERTER.structure(dict(table), shape)
    except cattrs.BaseValidationError as error:
        raise ConfigError(_line(*next(places(error, where)), kind)) from None


def suggest(word: str, known: Iterable[str], all_are: str = "") -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word.

    Where none is near, all of them behind ``all_are``, such as ``plugins are``; without it nothing.
    """
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    told = f"; {all_are} {', '.join(words) or 'none'}" if all_are else ""
    return f"; did you mean {near[0]!r}?" if near else told


def places(error: BaseException, where: str) -> Iterator[tuple[str, BaseException]]:
    """Yield each single error within one of the converter's, with the dotted name of its value."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            where = f"{where}.{note.name}" if where else note.name
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from places(inner, where)
    else:
        yield where, error


def _line(where: str, error: BaseException, kind: str) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return _unknown(error, where, kind)
    if isinstance(error, ConfigError):
        return f"{where}.{error}" if where else str(error)
    # A value where a table is due fails in many ways inside cattrs, none of them readable.
    reason = str(error) if isinstance(error, ValueError | OverflowError) else "not a table"
    return f"{where}: {reason}; correct the value"


def _unknown(error: ForbiddenExtraKeysError, where: str, kind: str) -> str:
    key = sorted(error.extra_fields)[0]
    known = [item.name for item in fields(error.cl)]
    advice = suggest(key, known, f"known {kind}s are")
    return f"unknown {kind} {where}.{key}".replace(" .", " ") + advice


def _strict(value: Any, wanted: type[Any]) -> Any:
    if type(value) is wanted:  # nearly every value of every event
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and wanted is not bool) or not isinstance(value, wanted):
        raise ValueError(f"{value!r} is not of type {wanted.__name__}")
    return value


def _strings(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is not a list of strings")
    return tuple(value)


def strict_converter() -> cattrs.Converter:
    """Return a converter that takes no unknown key and no value of another type."""
    made = cattrs.Converter(forbid_extra_keys=True)
    for kind in (str, int, float, bool):
        made.register_structure_hook(kind, _strict)
    return made


CONVERTER = strict_converter()
CONVERTER.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _strings)
