"""Long tables of cases: a part in `make test`, all of them in `make test-all`."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

ALL = "AUTORESEARCH_TEST_ALL"
LONG = pytest.mark.skipif(not os.environ.get(ALL), reason=f"takes a while; {ALL}=1 tries it")


def thinned(cases: Iterable[str], step: int = 4) -> list[str]:
    """Return the cases that are tried now: the whole table takes minutes on two cores."""
    every = list(cases)
    return every if os.environ.get(ALL) else every[::step]
