"""The situations in which every strategy is asked; a contract runs through all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autoresearch.model import Violation
from autoresearch.testing.builders import experiment
from autoresearch.testing.story import Story, story


def _violated() -> Story:
    found = (Violation(rule="artifact_size", detail="16,000,001 bytes"),)
    return story([1.1, experiment(0.2, verdict="quarantine", violations=found)])


def _regressed() -> Story:
    worse = (experiment(1.12 + 0.01 * step, verdict="keep") for step in range(4))
    return story([1.10, 1.08, *worse])


def _settled() -> Story:
    made = story([1.10, 1.12, 1.13, 1.14, 1.09], directions=["width"])
    made.declare_dead("width").queue("a deeper model", 0.01).queue("another optimizer")
    return made.declare_plateau().go_back(0)


EXAMPLES: Mapping[str, Callable[[], Story]] = {
    "nothing yet": lambda: story([]),
    "a baseline": lambda: story([1.1]),
    "a baseline that crashed": lambda: story([None]),
    "steady progress": lambda: story([1.1 - 0.02 * step for step in range(8)]),
    "discards in a row": lambda: story([1.1, 1.12, 1.13, 1.14, 1.15], directions=["width"]),
    "crashes in a row": lambda: story([1.1, None, None, None, None]),
    "a plateau": lambda: story([1.1, *(1.09 - 0.00001 * step for step in range(9))]),
    "a regression": _regressed,
    "higher is better": lambda: story([0.5, 0.6, 0.55, None, 0.7], better="higher"),
    "a violation": _violated,
    "dead ends, a plateau and a queue": _settled,
}
