"""Long tables of cases: a part in `make test`, all of them in `make test-all`."""

from __future__ import annotations

import os
from collections.abc import Iterable

ALL = "AUTORESEARCH_TEST_ALL"


def thinned(cases: Iterable[str], step: int = 4) -> list[str]:
    """Return the cases that are tried now: the whole table takes minutes on two cores."""
    every = list(cases)
    return every if os.environ.get(ALL) else every[::step]
