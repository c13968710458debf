"""Turns what a language model answered into an idea, or into one line that says why not.

A server that promises a schema may still answer anything: other keys, 1e15 for a loss, edits of
lines that do not exist. Nothing here trusts the schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from attrs import frozen

from autoresearch.durable import digest
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.ideas.edits import hyperparameters
from autoresearch.ideas.script import PROTECTED, refused
from autoresearch.model import Idea
from autoresearch.python_source import fault
from autoresearch.text import one_line

_LONGEST_ANSWER = 1_000_000
_LENGTHS = {"direction": 60, "description": 200, "hypothesis": 600}


class AnswerError(PluginError):
    """A model's answer cannot be used; the message is fit to be sent back to the model."""


@frozen(kw_only=True)
class Ground:
    """What an answer is checked against; ``fixed`` are variables that the campaign sets."""

    history: History
    source: str
    generator: str
    fixed: frozenset[str] = frozenset()


def read(text: str, ground: Ground) -> Idea:
    """Return the idea in a JSON answer; AnswerError with one line when it cannot be used."""
    answer = _parsed(text)
    words = {name: _text(answer, name, limit) for name, limit in _LENGTHS.items()}
    if words["direction"] in ground.history.dead_ends:
        _refuse(f"direction {words['direction']!r} is a dead end; choose another")
    source, env = _code(answer, ground.source, ground.fixed)
    gain = _number(answer, "expected_gain", 0.0, ground.history)
    idea = Idea(
        direction=words["direction"],
        description=words["description"],
        hypothesis=words["hypothesis"],
        generator=ground.generator,
        evidence=_texts(answer.get("evidence")),
        cites=_cites(answer.get("cites"), ground.history),
        risk=one_line(str(answer.get("risk") or "not named"), 300),
        source=source,
        env=env,
        predicted=_number(answer, "predicted", ground.history.best_metric or 0.0, ground.history),
        expected_gain=gain,
    )
    _must_be_new(idea, ground.history)
    return idea


def read_change(text: str, source: str) -> str:
    """Return the new script in an answer that has only ``edits`` or ``source``; AnswerError."""
    answer = {**_parsed(text), "env": None}
    changed, _ = _code(answer, source, frozenset())
    if changed is None:
        _refuse("it has no code; give edits or source")
    return changed


def _refuse(reason: str) -> NoReturn:
    raise AnswerError(f"the model's answer was not used: {one_line(reason, 300)}")


def _parsed(text: str) -> Mapping[str, Any]:
    if len(text) > _LONGEST_ANSWER:
        _refuse(f"it has {len(text)} characters; give at most {_LONGEST_ANSWER}")
    try:
        answer = json.loads(_without_fence(text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"it is not JSON ({error}); give one JSON object")
    if not isinstance(answer, dict):
        _refuse(f"it is a JSON {type(answer).__name__}; give one JSON object")
    return answer


def _without_fence(text: str) -> str:
    """Drop a Markdown fence around the whole answer, the most common habit of small models."""
    stripped = text.strip()
    if not stripped.startswith("```"):
        return stripped
    return stripped.strip("`").removeprefix("json").strip()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _text(answer: Mapping[str, Any], name: str, limit: int) -> str:
    value = answer.get(name)
    cleaned = one_line(value, limit) if isinstance(value, str) else ""
    if not cleaned:
        _refuse(f"{name} is {value!r}; give a sentence")
    return cleaned


def _texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    cleaned = (one_line(item, 300) for item in items[:8] if isinstance(item, str))
    return tuple(item for item in cleaned if item)


def _cites(value: Any, history: History) -> tuple[int, ...]:
    """Return the experiments referred to that exist, else the best, else the baseline."""
    items = value if isinstance(value, list) else []
    decided = {item.number for item in history.decided}
    known = [item for item in items if type(item) is int and item in decided]
    return tuple(dict.fromkeys(known))[:12] or (history.best_number or 0,)


def _number(answer: Mapping[str, Any], name: str, middle: float, history: History) -> float | None:
    """Return a number within reach of ``middle``: no further away than the best score is large."""
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(f"{name} is {value!r}; give a number or null")
    reach = max(abs(history.best_metric or 0.0), 1.0)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or abs(number - middle) > reach:
        _refuse(f"{name} is {number:g}, out of range; the best {history.metric} is {middle:g}")
    return number


def _code(
    answer: Mapping[str, Any], source: str, fixed: frozenset[str]
) -> tuple[str | None, dict[str, str]]:
    edits, whole, env = (answer.get(name) or None for name in ("edits", "source", "env"))
    given = [name for name, value in (("edits", edits), ("source", whole), ("env", env)) if value]
    if len(given) != 1:
        _refuse(f"it gives {' and '.join(given) or 'no change'}; give edits, source or env")
    if env:
        return None, _environment(env, source, fixed)
    changed = _edited(edits, source) if edits else whole
    if not isinstance(changed, str):
        _refuse("source is not text; give the whole script")
    _must_compile(changed)
    if changed == source:
        _refuse("the change leaves the script as it is; change something")
    return changed, {}


def _edited(edits: Any, source: str) -> str:
    if not isinstance(edits, list):
        _refuse("edits is not a list; give a list of search and replace")
    for edit in edits:
        search, replace = _pair(edit, "search", "replace")
        count = source.count(search) if search else 0
        if count != 1:
            _refuse(f"search text {search[:80]!r} occurs {count} times; copy text that occurs once")
        source = source.replace(search, replace)
    return source


def _pair(item: Any, first: str, second: str) -> tuple[str, str]:
    values = (item.get(first), item.get(second)) if isinstance(item, dict) else (None, None)
    if not isinstance(values[0], str) or not isinstance(values[1], str):
        _refuse(f"{one_line(str(item), 80)!r} lacks {first} or {second}; give both as text")
    return values[0], values[1]


def _must_compile(source: str) -> None:
    found = fault(source)
    if found is not None:
        line = f", line {found.line}" if found.line else ""
        _refuse(f"the changed script does not compile ({found.message}{line}); mend the edit")


def _environment(env: Any, source: str, fixed: frozenset[str]) -> dict[str, str]:
    if not isinstance(env, list):
        _refuse("env is not a list; give a list of name and value")
    pairs = dict(_pair(item, "name", "value") for item in env)
    known = {item.name: item for item in hyperparameters(source)}
    for name, value in pairs.items():
        parameter = known.get(name)
        protected = any(fnmatchcase(name.upper(), rule) for rule in PROTECTED)
        if parameter is None or parameter.form != "environment" or protected:
            _refuse(f"the script reads no variable {name[:60]!r} that may change; use its names")
        if name in fixed:
            _refuse(f"{name} is set by the campaign; choose another variable")
        if parameter.type in ("int", "float", "bool") and not _is_number(value, parameter.type):
            _refuse(f"{name} is {value[:60]!r}; give one of type {parameter.type}")
        if len(value) > 100 or one_line(value) != value:
            _refuse(f"{name} has a value that is long or has control characters; give a short one")
    return pairs


def _is_number(text: str, kind: str) -> bool:
    try:
        return math.isfinite(float(text) if kind == "float" else int(text))
    except ValueError:
        return False


def _must_be_new(idea: Idea, history: History) -> None:
    tried = idea.source is not None and digest(idea.source) in history.tried_sources
    if tried or idea.id in history.tried or idea.id in refused(history):
        _refuse(f"{idea.description!r} was tried before; propose something new")
