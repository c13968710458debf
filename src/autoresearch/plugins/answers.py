"""What each hook may answer: one check a kind, which also fills in the author's name.

A check returns the answer as it is used, or raises NonsenseError with what is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import attrs

from autoresearch.history import History
from autoresearch.model import (
    Analysis,
    Backtrack,
    Candidate,
    Cost,
    Decision,
    Idea,
    Objection,
    RunHandle,
    Signal,
    ValueChange,
    Verdict,
    Violation,
    Workspace,
)
from autoresearch.text import one_line

T = TypeVar("T")
_AUTHORS: Mapping[type[Any], str] = {
    Idea: "generator",
    Analysis: "analyst",
    Decision: "policy",
    Backtrack: "rule",
}


class NonsenseError(Exception):
    """An answer that its hook does not allow; the plugin is passed over."""


def idea(answer: object, plugin: str) -> Idea:
    """Check an Idea: words that say what and why, and at most one kind of code."""
    given = _instance(answer, Idea)
    for name in ("direction", "description", "hypothesis"):
        _words(given, name)
    if given.source is not None and given.patch is not None:
        raise NonsenseError("an Idea has both a source and a patch; give one of them")
    for name in ("source", "patch"):
        if getattr(given, name) is not None:
            _words(given, name)
    if given.files and given.patch is not None:
        raise NonsenseError("an Idea has both files and a patch; give one of them")
    _strings("Idea.files", given.files)
    for path, text in given.files.items():
        _text(text, f"the new text of {path}")
    if not all(isinstance(item, ValueChange) for item in given.changes):
        raise NonsenseError(f"Idea.changes is {given.changes!r}; give ValueChange values")
    _environment(given.env)
    _strings("Idea.evidence", given.evidence)
    if not all(isinstance(number, int) for number in given.cites):
        raise NonsenseError(f"Idea.cites is {given.cites!r}; give numbers of experiments")
    for name in ("predicted", "expected_gain"):
        _finite(given, name)
    return _signed(given, "generator", plugin)


def objections(answer: object, plugin: str) -> tuple[Objection, ...]:
    """Check one Objection or several, each with its reason."""
    many = (answer,) if isinstance(answer, Objection) else _sequence(answer, Objection)
    for item in many:
        _words(item, "reason")
    return tuple(_signed(item, "reviewer", plugin) for item in many)


def texts(answer: object, _: str, workspace: Workspace) -> Mapping[str, str]:
    """Check new texts of editable files; plain text is that of the script."""
    if not isinstance(answer, Mapping):
        return {workspace.script: _text(answer, "the new text of the script")}
    _strings("the path of a file", answer)
    for path, text in answer.items():
        _text(text, f"the new text of {path}")
        if not workspace.allows(path):
            raise NonsenseError(f"{path} may not be changed; it is not among the editable files")
    return answer


def violations(answer: object, _: str) -> tuple[Violation, ...]:
    """Check violations: each names its rule and what was found."""
    many = _sequence(answer, Violation)
    for item in many:
        _words(item, "rule")
        _words(item, "detail")
        if item.severity not in ("violation", "warning"):
            raise NonsenseError(f"severity is {item.severity!r}; use violation or warning")
    return many


def handle(answer: object, _: str) -> RunHandle:
    """Check a handle: it can be asked, stopped, and found again."""
    if not isinstance(answer, RunHandle):
        raise NonsenseError(
            f"{_shown(answer)} is no RunHandle; it needs reference, log_path, poll and stop"
        )
    if not isinstance(answer.reference, str) or not isinstance(answer.log_path, Path):
        raise NonsenseError("a RunHandle has text as reference and a Path as log_path")
    return answer


def metrics(answer: object, _: str) -> Mapping[str, Any]:
    """Check that metrics are a mapping from names; the values are judged one by one."""
    if not isinstance(answer, Mapping):
        raise NonsenseError(f"{_shown(answer)} is not a mapping of names to numbers")
    _strings("a metric's name", answer)
    return answer


def locks(answer: object, _: str) -> Mapping[str, str]:
    """Check that locks are a mapping from names to texts."""
    if not isinstance(answer, Mapping):
        raise NonsenseError(f"{_shown(answer)} is not a mapping of names to texts")
    _strings("a lock's name", answer)
    _strings("a lock", answer.values())
    return answer


def number(value: object) -> float:
    """Check one metric's value: a finite real number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise NonsenseError(f"{_shown(value)} is not a finite number; leave an absent metric out")
    return float(value)


def costs(answer: object, plugin: str) -> tuple[Cost, ...]:
    """Check costs: finite, not negative."""
    if not isinstance(answer, Sequence):
        raise NonsenseError(f"{_shown(answer)} is not a sequence of costs")
    given = tuple(_instance(item, Cost) for item in answer)
    for item in given:
        amounts = (item.tokens_in, item.tokens_out, item.usd, item.seconds)
        if min(number(amount) for amount in amounts) < 0:
            raise NonsenseError(f"{_shown(item)} is negative; money does not come back")
    return tuple(_signed(item, "source", plugin) for item in given)


def reason(answer: object, _: str) -> str:
    """Check a reason to stop a run."""
    return _text(answer, "a reason")


def analysis(answer: object, plugin: str) -> Analysis:
    """Check an Analysis: all four lines of the block say something."""
    given = _instance(answer, Analysis)
    for name in ("result", "versus_expected", "why", "lesson"):
        _words(given, name)
    return _signed(given, "analyst", plugin)


def decision(answer: object, plugin: str, candidate: Candidate) -> Decision:
    """Check a Decision: a reason, a probability, and no experiment kept without a score."""
    given = _instance(answer, Decision)
    _words(given, "reason")
    _finite(given, "delta")
    _finite(given, "confidence")
    if given.confidence is not None and not 0 <= given.confidence <= 1:
        raise NonsenseError(f"confidence is {given.confidence}; give a probability from 0 to 1")
    if given.verdict is Verdict.KEEP and candidate.metric is None:
        number_ = candidate.experiment.number
        raise NonsenseError(f"experiment {number_} has no score and cannot be kept")
    return _signed(given, "policy", plugin)


def backtrack(answer: object, plugin: str, history: History) -> Backtrack:
    """Check a Backtrack: its target was kept, and a dead end names its direction."""
    given = _instance(answer, Backtrack)
    _words(given, "reason")
    if given.signal is Signal.DEAD_END and not given.direction:
        raise NonsenseError("a dead end names no direction; set Backtrack.direction")
    target = given.to_experiment
    if target is not None and target not in {item.number for item in history.kept}:
        raise NonsenseError(f"experiment {target} was never kept; go back to a kept one")
    return _signed(given, "rule", plugin)


def credit(outcome: T, inner: object, plugin: str) -> T:
    """Name a wrapper as the author of an answer that it changed but left signed by another."""
    author = _AUTHORS.get(type(outcome))
    if author is None or outcome == inner or type(inner) is not type(outcome):
        return outcome
    if getattr(outcome, author) != getattr(inner, author):
        return outcome
    return attrs.evolve(outcome, **{author: plugin})  # type: ignore[misc]


def _signed(given: T, author: str, plugin: str) -> T:
    return given if getattr(given, author) else attrs.evolve(given, **{author: plugin})  # type: ignore[misc]


def _instance(answer: object, kind: type[T]) -> T:
    if not isinstance(answer, kind):
        raise NonsenseError(f"{_shown(answer)} is not of type {kind.__name__}")
    return answer


def _sequence(answer: object, kind: type[T]) -> tuple[T, ...]:
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise NonsenseError(f"{_shown(answer)} is not a sequence of {kind.__name__}")
    return tuple(_instance(item, kind) for item in answer)


# Variables by which a loader, an interpreter, a shell or git runs code that no audit has seen.
_LOADS_CODE = re.compile(
    r"(LD|DYLD|GIT|AUTORESEARCH)_.*|PYTHON(PATH|HOME|STARTUP|USERBASE|INSPECT|BREAKPOINT|WARNINGS)"
    r"|BASH_ENV|ENV|PATH"
)


def _environment(env: Mapping[str, str]) -> None:
    _strings("Idea.env", env)
    for name, value in env.items():
        if not isinstance(value, str):
            raise NonsenseError(f"Idea.env holds {value!r}; give text")
        if _LOADS_CODE.fullmatch(name):
            raise NonsenseError(f"Idea.env sets {name!r}, which loads code; change the script")
        if "\0" in name + value or "=" in name:
            raise NonsenseError(f"Idea.env sets {name!r} to {value!r}; no process can be given it")
        _encodable("Idea.env", value)


def _strings(what: str, values: Any) -> None:
    for value in values:
        if not isinstance(value, str) or not value:
            raise NonsenseError(f"{what} holds {value!r}; give text")
        _encodable(what, value)


def _encodable(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NonsenseError(f"{what} holds half a surrogate pair; give text in UTF-8") from None


def _text(answer: object, what: str) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise NonsenseError(f"{_shown(answer)} is not {what}")
    _encodable(what, answer)
    return answer


def _words(given: object, name: str) -> None:
    value = getattr(given, name)
    if not isinstance(value, str) or not value.strip():
        raise NonsenseError(f"{type(given).__name__}.{name} is {value!r}; give text")
    _encodable(f"{type(given).__name__}.{name}", value)


def _finite(given: object, name: str) -> None:
    value = getattr(given, name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise NonsenseError(f"{type(given).__name__}.{name} is {value!r}; give a finite number")


def _shown(answer: object) -> str:
    return one_line(repr(answer), 80)
