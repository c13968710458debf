"""Stands in for torch in a test: everything is there, and nothing is computed."""

from __future__ import annotations

from typing import Any


class Thing:
    """Whatever it is asked for, it has; as a number it is 1."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Thing()

    def __call__(self, *given: Any, **_: Any) -> Any:
        # As a decorator it leaves the function as it is.
        return given[0] if len(given) == 1 and callable(given[0]) else Thing()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None: ...
    def __iter__(self) -> Any:
        return iter(())

    def __format__(self, form: str) -> str:
        return format(1.0, form) if form and form[-1] in "fge" else "1"

    def __float__(self) -> float:
        return 1.0

    def item(self) -> float:
        return 1.0

    def numel(self) -> int:
        return 1

    def _same(self, *_: Any) -> Any:
        return Thing()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _same
    __truediv__ = __rtruediv__ = __neg__ = __pow__ = __rpow__ = __getitem__ = _same
    __setitem__ = _same


class Cuda(Thing):
    """One GPU of the kind that the script was written for."""

    def get_device_capability(self) -> tuple[int, int]:
        return (9, 0)

    def max_memory_allocated(self) -> int:
        return 45 << 30


cuda = Cuda()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Thing()


def compile(*given: Any, **_: Any) -> Any:
    return given[0] if given else lambda function: function


def no_grad() -> Any:
    return lambda function: function
