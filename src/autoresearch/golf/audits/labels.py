"""Labels that an abstract run carries, who is told about them, and what libraries do to them."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase
from typing import Protocol

DATA = "data"  # validation tokens, or anything computed from them
PATH = "path"  # the name of a validation shard
METRIC = "metric"  # a number that the evaluation returned
Labels = frozenset[str]
Env = dict[str, Labels]
CLEAN: Labels = frozenset()

COUNTS = {
    "shape",
    "dtype",
    "device",
    "ndim",
    "nbytes",
    "itemsize",
    "scored",
    "name",
    "stem",
    "parent",
}
COUNTING = {"numel", "size", "dim", "element_size", "exists", "is_file", "stat", "nelement"}
READERS = (
    "numpy.fromfile", "numpy.memmap", "numpy.load", "numpy.frombuffer", "torch.load", "open",
    "torch.from_file", "mmap.mmap", "io.open", "builtins.open", "torch.UntypedStorage.from_file",
)  # fmt: skip
GROWING = {"append", "extend", "insert", "add", "update", "copy_", "put", "setdefault", "put_"}


class Watcher(Protocol):
    """Is told about every call, assignment and cut while the labels flow past."""

    def call(self, node: ast.Call, receiver: Labels, arguments: Labels, inside: bool) -> None:
        """A call; ``inside`` says whether it happens in the evaluation code."""

    def measured(self, node: ast.Call, loops: tuple[ast.AST, ...]) -> None:
        """The evaluation was called on validation data, inside these loops, the outermost first."""

    def assigned(self, target: ast.expr, labels: Labels, inside: bool) -> None:
        """A value was stored."""

    def cut(self, node: ast.Subscript, labels: Labels, inside: bool) -> None:
        """A slice was taken of something labelled."""


def names_validation(text: str) -> bool:
    """Whether a string names, or as a pattern also matches, the validation split."""
    if len(text) > 300 or "\n" in text:
        return False
    last = text.rsplit("/", 1)[-1]
    if "fineweb_val" in text or text in ("val", "validation"):
        return True
    if not any(magic in last for magic in "*?["):
        return last.endswith(".bin") and ("_val_" in last or last.startswith("val_"))
    return fnmatchcase("fineweb_val_000000.bin", last) or fnmatchcase("val", last)
