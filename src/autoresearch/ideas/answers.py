"""Turns what a language model answered into an idea, or into one line that says why not.

A server that promises a schema may still answer anything: other keys, 1e15 for a loss, edits of
lines that do not exist. Nothing here trusts the schema. The prose around an answer, fences and
thoughts aloud are passed over: the last whole JSON object that looks like an answer counts.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from attrs import field, frozen

from autoresearch.desk import Desk
from autoresearch.errors import AutoresearchError, PluginError
from autoresearch.history import History, parent_of, script_of
from autoresearch.ideas import describe, differences, digest_of, hyperparameters, with_changes
from autoresearch.ideas.edits import Edit, EditError, changed_lines, edited, same_code
from autoresearch.ideas.literals import typed
from autoresearch.ideas.moves import direction_of
from autoresearch.ideas.script import Menu, changed, is_new, is_protected
from autoresearch.model import Idea, Remark, ValueChange
from autoresearch.python_source import fault
from autoresearch.text import block, one_line

_LONGEST_ANSWER = 1_000_000
_LENGTHS = {"direction": 60, "description": 200, "hypothesis": 600}
_COMPARED = 100  # newest experiments that a new change is compared with
_MUCH = 10  # lines of a change from which on two that share nine tenths are called one
_ALIKE = 0.9


class AnswerError(PluginError):
    """A model's answer cannot be used; the message is fit to be sent back to the model."""

    def __init__(self, reason: str, stage: str = "answer") -> None:
        super().__init__(reason)
        self.stage = stage


class Novelty:
    """Knows the lines that each experiment brought; what does nearly the same is not new."""

    def __init__(self) -> None:
        self._lines: dict[int, frozenset[str]] = {}

    def against(self, desk: Desk) -> Callable[[frozenset[str]], int | None]:
        """Return what finds the experiment that brought the same lines, comments aside."""

        history = desk.history
        head = "" if history.head is None else history.experiments[history.head].commit

        def twin(lines: frozenset[str]) -> int | None:
            for item in history.decided[-_COMPARED:]:
                # On another head the same few lines may do something else.
                small = len(lines) < _MUCH
                if small and item.parent_commit != head:
                    continue
                if _alike(lines, self._of(item.number, desk)):
                    return item.number
            return None

        return twin

    def _of(self, number: int, desk: Desk) -> frozenset[str]:
        if number not in self._lines:
            try:
                self._lines[number] = _brought(number, desk)
            except AutoresearchError:  # its text is gone: nothing can be compared
                self._lines[number] = frozenset()
        return self._lines[number]


def _brought(number: int, desk: Desk) -> frozenset[str]:
    item = desk.history.experiments[number]
    parent = parent_of(item, desk.history)
    if parent is None or not item.source_digest:
        return frozenset()
    before, after = desk.source(parent.number), desk.source(number)
    return frozenset().union(*(changed_lines(before.get(p, ""), t) for p, t in after.items()))


def _alike(lines: frozenset[str], old: frozenset[str]) -> bool:
    shared, either = len(lines & old), len(lines | old)
    return shared > 0 and (lines == old or (shared >= _MUCH and shared >= _ALIKE * either))


@frozen(kw_only=True)
class Ground:
    """What an answer is checked against; ``fixed`` are variables that the campaign sets.

    ``source`` is the text of the script, ``files`` that of every other editable file by path.
    ``novelty`` finds the experiment that brought the same lines of code; ``menu`` is what a small
    model chose from.
    """

    history: History
    source: str
    author: str
    fixed: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(factory=dict)
    novelty: Callable[[frozenset[str]], int | None] = lambda _: None
    menu: Menu = field(factory=dict)


def read(text: str, ground: Ground) -> Idea:
    """Return the idea in a JSON answer; AnswerError with one line when it cannot be used."""
    answer = _parsed(text)
    moved = _moved(answer, ground.menu)
    if moved:  # what it is and what it does, the change says itself
        own = {"direction": direction_of(moved[0].name), "description": describe(moved)}
        answer = {**own, **answer}
    words = {name: _text(answer, name, limit) for name, limit in _LENGTHS.items()}
    cites = _cites(answer.get("cites"), ground.history)
    challenged = _challenge(answer, words["direction"], cites, ground.history)
    script = script_of(ground.history)
    files = {**ground.files, script: ground.source}
    texts, env = _code(answer, files, script, ground.fixed, moved)
    gain = _number(answer, "expected_gain", 0.0, ground.history)
    idea = Idea(
        direction=words["direction"],
        description=words["description"],
        hypothesis=words["hypothesis"],
        author=ground.author,
        evidence=(*challenged, *_texts(answer.get("evidence"))),
        cites=cites,
        risk=one_line(str(answer.get("risk") or "not named"), 300),
        source=texts.get(script),
        files={path: text for path, text in texts.items() if path != script},
        changes=_overrides(env, ground.source) if env else differences(files, texts, script),
        env=env,
        predicted=_number(answer, "predicted", ground.history.best_metric or 0.0, ground.history),
        expected_gain=gain,
    )
    _must_be_new(idea, files, texts, ground)
    return idea


def read_change(text: str, files: Mapping[str, str], script: str) -> dict[str, str]:
    """Return the new texts by path in an answer that has only ``edits`` or ``source``."""
    changed, _ = _code({**_parsed(text), "env": None}, files, script, frozenset())
    return changed


def read_words(text: str) -> dict[str, str]:
    """Return the ``why`` and the ``lesson`` of an analysis."""
    answer = _parsed(text, {"why", "lesson"})
    return {"why": _text(answer, "why", 600), "lesson": _text(answer, "lesson", 300)}


def read_remarks(text: str) -> list[Remark]:
    """Return what several experiments show; whether it is true of the log, the loop finds out."""
    many = _parsed(text, {"remarks"}).get("remarks")
    found = []
    for item in many if isinstance(many, list) else ():
        cites = item.get("cites") if isinstance(item, dict) else None
        if not isinstance(cites, list) or not all(type(number) is int for number in cites):
            _refuse("a remark cites no experiments; give a text and cites with numbers")
        found.append(Remark(text=_text(item, "text", 160), cites=tuple(cites)))
    return found or _refuse("it has no remarks; give one to three")


def _refuse(reason: str, stage: str = "answer") -> NoReturn:
    raise AnswerError(f"the model's answer was not used: {one_line(reason, 300)}", stage)


def _moved(answer: Mapping[str, Any], menu: Menu) -> tuple[ValueChange, ...]:
    """Return the value that a small model moved; none where the answer does not name any."""
    change = answer.get("change")
    if change is None:
        return ()
    given: Mapping[str, Any] = change if isinstance(change, dict) else {}
    name = given.get("name")
    new: Any = given.get("value")
    if not isinstance(name, str) or name not in menu:
        _refuse(f"there is no value {one_line(repr(name), 60)}; use one of {', '.join(menu)}")
    item, values = menu[name]
    ends = min(item.ladder), max(item.ladder)  # between its rungs is as good as on one
    if type(new) not in _TYPES[item.type] or not ends[0] <= new <= ends[1]:
        told = ", ".join(map(str, values))
        _refuse(f"{name} is {one_line(repr(new), 40)}; give one of {told}, or one between them")
    return (changed(item, new),)


# --- reading --------------------------------------------------------------------------------------

_CODE = {"edits", "source", "env", "change"}
_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,)}
_OBJECTS_TRIED = 200  # so that a megabyte of brackets is refused in a moment
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _parsed(text: str, keys: set[str] = _CODE) -> Mapping[str, Any]:
    if len(text) > _LONGEST_ANSWER:
        _refuse(f"it has {len(text)} characters; give at most {_LONGEST_ANSWER}")
    text = _THOUGHT.sub("", text) or text
    try:
        answer = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        answer = _last_object(text, keys)
        if answer is None:
            _refuse(f"it is not JSON ({error}); give one JSON object")
    if not isinstance(answer, dict):
        _refuse(f"it is a JSON {type(answer).__name__}; give one JSON object")
    return answer


def _last_object(text: str, keys: set[str]) -> Any:
    """Return the last whole JSON object in a text, None without one.

    Models like to think aloud before the answer, to explain it after, and to put fences around it.
    """
    # An edit within an answer that was cut off is an object as well, but no answer.
    found = [item for item in objects(text, _DECODER) if keys & item.keys()]
    return found[-1] if found else None


def objects(text: str, decoder: json.JSONDecoder) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON in a text, but none that is within another."""
    end = 0
    for _ in range(_OBJECTS_TRIED):
        if (start := text.find("{", end)) < 0:
            return
        try:
            found, end = decoder.raw_decode(text, start)
            yield found
        except (ValueError, RecursionError):
            end = start + 1


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
    """Return the experiments referred to; the best, which an idea builds on, when there are none.

    One that does not exist is refused: the words around it rest on something that was not measured.
    """
    if value is not None and not isinstance(value, list):
        _refuse(f"cites is {one_line(repr(value), 60)}; give a list of experiment numbers")
    decided = {item.number for item in history.decided}
    for item in value or []:
        if type(item) is not int or item not in decided:
            _refuse(
                f"it cites experiment {one_line(repr(item), 20)}, which was not decided; "
                f"cite only experiments up to {max(decided, default=0)}"
            )
    return tuple(dict.fromkeys(value or []))[:12] or (history.best_number or 0,)


def _challenge(
    answer: Mapping[str, Any], direction: str, cites: tuple[int, ...], history: History
) -> tuple[str, ...]:
    """Return the challenge of a dead end as evidence, once for each; refuse to go there otherwise.

    A challenge says what would tell that the earlier tries failed for another reason, and cites one
    of them.
    """
    dead = history.dead(direction)
    if dead is None:
        return ()
    said = answer.get("challenge")
    since = [i for i in history.recent(direction) if i.number > max(dead.experiments, default=-1)]
    if since:
        _refuse(
            f"direction {direction!r} is a dead end that experiment {since[0].number} challenged "
            "in vain; choose another",
            "duplicate",
        )
    if not isinstance(said, str) or len(said.strip()) < 20 or not {*cites} & {*dead.experiments}:
        _refuse(
            f"direction {direction!r} is a dead end ({one_line(dead.reason, 100)}); choose another "
            "or say in challenge what would tell that it failed for another reason, citing one of "
            f"{', '.join(str(number) for number in dead.experiments[-5:])}",
            "duplicate",
        )
    return (f"challenges the dead end {dead.direction!r}: {one_line(said, 300)}",)


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


# --- the change -----------------------------------------------------------------------------------


def _code(
    answer: Mapping[str, Any],
    files: Mapping[str, str],
    script: str,
    fixed: frozenset[str],
    moved: Sequence[ValueChange] = (),
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the new texts by path, and the environment: one of them is empty."""
    edits, whole, env = (answer.get(name) or None for name in ("edits", "source", "env"))
    ways = (("edits", edits), ("source", whole), ("env", env), ("change", moved))
    given = [name for name, value in ways if value]
    if len(given) != 1:
        _refuse(f"it gives {' and '.join(given) or 'no change'}; give edits, source or env")
    if env:
        return {}, _environment(env, files[script], fixed)
    if whole is not None and not isinstance(whole, str):
        _refuse("source is not text; give the whole script")
    after = {**files, **with_changes(files, moved, script)}
    if not moved:
        after = _edited(edits, files, script) if edits else {**files, script: str(whole)}
    changed = {path: text for path, text in after.items() if text != files[path]}
    if not changed:
        _refuse("the change leaves the files as they are; change something", "edit")
    for path, text in changed.items():
        _must_be_sound(path, text, is_python=_is_python(path, script))
    if all(_is_python(p, script) and same_code(files[p], text) for p, text in changed.items()):
        _refuse("the change leaves the code as it is, comments aside; change something", "edit")
    return changed, {}


def _is_python(path: str, script: str) -> bool:
    return path == script or path.endswith(".py")


def _edited(edits: Any, files: Mapping[str, str], script: str) -> dict[str, str]:
    if not isinstance(edits, list):
        _refuse("edits is not a list; give a list of search and replace")
    made = []
    for edit in edits:
        search, replace = _pair(edit, "search", "replace")
        path = edit.get("file")
        if path is not None and not isinstance(path, str):
            _refuse(f"file is {one_line(repr(path), 80)}; use one of {', '.join(files)}")
        made.append(Edit(search, replace, path or ""))
    try:
        return edited(files, made, script)
    except EditError as error:
        raise AnswerError(
            f"the model's answer was not used: {block(str(error), 4_000)}", "edit"
        ) from None


def _pair(item: Any, first: str, second: str) -> tuple[str, str]:
    values = (item.get(first), item.get(second)) if isinstance(item, dict) else (None, None)
    if not isinstance(values[0], str) or not isinstance(values[1], str):
        _refuse(f"{one_line(str(item), 80)!r} lacks {first} or {second}; give both as text")
    return values[0], values[1]


def _must_be_sound(path: str, text: str, *, is_python: bool) -> None:
    found = fault(text) if is_python else None
    if found is not None:
        line = f", line {found.line}" if found.line else ""
        _refuse(
            f"the changed {path} does not compile ({found.message}{line}); correct the edit", "edit"
        )
    try:
        text.encode()
        if path.endswith(".toml"):
            tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(f"the changed {path} does not compile ({error}); correct the edit", "edit")


def _overrides(env: Mapping[str, str], source: str) -> tuple[ValueChange, ...]:
    """Return what variables of the environment change against the script's own defaults."""
    return tuple(
        ValueChange(name=item.name, old=item.value, new=new)
        for item in hyperparameters(source)
        if item.name in env and (new := typed(env[item.name], item.type)) is not None
    )


def _environment(env: Any, source: str, fixed: frozenset[str]) -> dict[str, str]:
    if not isinstance(env, list):
        _refuse("env is not a list; give a list of name and value")
    pairs = dict(_pair(item, "name", "value") for item in env)
    known = {item.name: item for item in hyperparameters(source)}
    for name, value in pairs.items():
        parameter = known.get(name)
        if parameter is None or parameter.form != "environment" or is_protected(name):
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


def _must_be_new(
    idea: Idea, files: Mapping[str, str], texts: Mapping[str, str], ground: Ground
) -> None:
    history = ground.history
    known = digest_of({**files, **texts}) in history.tried_sources if texts else False
    if known or not is_new(history, idea.id):
        _refuse(f"{idea.description!r} was tried before; propose something new", "duplicate")
    lines = frozenset[str]().union(*(changed_lines(files[p], t) for p, t in texts.items()))
    twin = ground.novelty(lines) if lines else None
    if twin is not None:
        _refuse(
            f"{idea.description!r} does what experiment {twin} did; propose something new",
            "duplicate",
        )
