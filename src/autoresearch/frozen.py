"""Values that nobody can change: what facts and settings hold, and plugins are given to read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, TypeVar

from attrs import fields

T = TypeVar("T")


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change; a dict still, so that JSON and equality know it."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this table is read-only; make a copy with dict(...) and change that")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


_AS_IT_IS = frozenset({FrozenDict, str, int, float, bool, type(None)})
EMPTY = FrozenDict()  # one for all: most tables of a long History hold nothing


def freeze(value: Any) -> Any:
    """Return plain data with every mapping a FrozenDict and every list a tuple, all the way in."""
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()}) if value else EMPTY
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value


def alike(kind: type[T], value: object, /, **more: Any) -> T:
    """Return a value with the fields of another that bear its fields' names, and with ``more``."""
    kinds: tuple[Any, Any] = (kind, type(value))
    given = {name: getattr(value, name) for name in _shared(*kinds) if name not in more}
    return kind(**given, **more)


@cache
def _shared(kind: type[Any], other: type[Any]) -> tuple[str, ...]:
    own, told = (
        set(getattr(each, "__struct_fields__", ())) or {item.name for item in fields(each)}
        for each in (kind, other)
    )
    return tuple(own & told)
