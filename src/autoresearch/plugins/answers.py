"""What each hook may answer: one check a kind, which also fills in the author's name.

A check is named in the hook's declaration. It gets the answer, the plugin's name and the arguments
that the hook was called with, and returns the answer as it is used, or raises InvalidAnswerError
with what is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path, PurePath
from typing import Any, NoReturn, TypeVar

import attrs

from autoresearch.hookspecs import HOOKS
from autoresearch.model import (
    Analysis,
    Backtrack,
    Cost,
    Decision,
    Idea,
    Objection,
    Parent,
    Promotion,
    Quote,
    Remark,
    RunHandle,
    Signal,
    ValueChange,
    Verdict,
    Violation,
)
from autoresearch.projections import Projection
from autoresearch.text import one_line, without_users

T = TypeVar("T")
Given = Mapping[str, Any]
Check = Callable[[object, str, Given], Any]

_SIGNED = (Idea, Objection, Analysis, Promotion, Decision, Backtrack, Parent)
_REASONED = (Objection, Promotion, Decision, Backtrack, Parent)
_AUTHORS: Mapping[type[Any], str] = {**dict.fromkeys(_SIGNED, "author"), Cost: "source"}
_WORDS: Mapping[type[Any], tuple[str, ...]] = {
    **dict.fromkeys(_REASONED, ("reason",)),
    Idea: ("direction", "description", "hypothesis"),
    Violation: ("rule", "detail"),
    Analysis: ("result", "versus_expected", "why", "lesson"),
    Remark: ("text",),
}
_NUMBERS: Mapping[type[Any], tuple[str, ...]] = {
    Idea: ("predicted", "expected_gain"),
    Decision: ("delta", "confidence"),
}


_IDEAS = 100  # of one answer; each is checked with git before the first of them runs


class InvalidAnswerError(Exception):
    """An answer that its hook does not allow; the plugin is passed over."""


def check_of(hook: str) -> Check:
    """Return the check that a hook's declaration names."""
    found: Check = globals()[HOOKS[hook].check]
    return found


def idea(answer: object, plugin: str, _: Given | None = None) -> Idea:
    """Check an Idea: words that say what and why, and at most one kind of code."""
    given = _sound(answer, Idea, plugin)
    if given.source is not None and given.patch is not None:
        _refuse("an Idea has both a source and a patch; give one of them")
    for name in ("source", "patch"):
        if getattr(given, name) is not None:
            _words(given, name)
    if given.files and given.patch is not None:
        _refuse("an Idea has both files and a patch; give one of them")
    _strings("Idea.files", given.files)
    for path, text in given.files.items():
        _text(text, f"the new text of {path}")
    if not all(isinstance(item, ValueChange) for item in given.changes):
        _refuse(f"Idea.changes is {given.changes!r}; give ValueChange values")
    _environment(given.env)
    _strings("Idea.evidence", given.evidence)
    _integers("Idea.cites", given.cites)
    return given


def ideas(answer: object, plugin: str, given: Given) -> Idea | tuple[Idea, ...] | None:
    """Check one Idea or several; of several those that were tried or refused are left out."""
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        return idea(answer, plugin)
    if len(answer) > _IDEAS:
        _refuse(f"{len(answer)} ideas in one answer, more than {_IDEAS}; give the best first")
    many, past = [idea(item, plugin) for item in answer], given["history"]
    refused = {getattr(item, "idea", "") for item in (*past.rejected, *past.refusals)}
    fresh = tuple(item for item in many if item.id not in refused and item.id not in past.tried)
    return fresh if len(fresh) > 1 else next(iter(fresh), None)


def objections(answer: object, plugin: str, _: Given) -> tuple[Objection, ...]:
    """Check one Objection or several, each with its reason."""
    many = (answer,) if isinstance(answer, Objection) else answer
    return _each(many, Objection, plugin)


def texts(answer: object, _plugin: str, given: Given) -> Mapping[str, str]:
    """Check new texts of editable files; plain text is that of the script."""
    workspace = given["workspace"]
    if not isinstance(answer, Mapping):
        return {workspace.script: _text(answer, "the new text of the script")}
    _strings("the path of a file", answer)
    for path, text in answer.items():
        _text(text, f"the new text of {path}")
        if not workspace.allows(path):
            _refuse(f"{path} may not be changed; it is not among the editable files")
    return answer


def violations(answer: object, plugin: str, _: Given) -> tuple[Violation, ...]:
    """Check violations: each names its rule and what was found."""
    many = _each(answer, Violation, plugin)
    for item in many:
        if item.severity not in ("violation", "warning"):
            _refuse(f"severity is {item.severity!r}; use violation or warning")
    return many


def handle(answer: object, _plugin: str, _: Given) -> RunHandle:
    """Check a handle: it can be asked, stopped, and found again."""
    if not isinstance(answer, RunHandle):
        _refuse(f"{_shown(answer)} is not a RunHandle; it needs reference, log_path, poll and stop")
    if not isinstance(answer.reference, str) or not isinstance(answer.log_path, Path):
        _refuse("a RunHandle has text as reference and a Path as log_path")
    return answer


def quote(answer: object, plugin: str, _: Given) -> Quote:
    """Check a Quote: finite, not negative."""
    given = _sound(answer, Quote, plugin)
    if min(map(number, (given.seconds, given.gpus, given.usd_per_hour))) < 0:
        _refuse(f"{_shown(given)} is negative; a run takes something or nothing")
    return given


def metrics(answer: object, _plugin: str, _: Given) -> Mapping[str, Any]:
    """Check that metrics are a mapping from names; the values are judged one by one."""
    if not isinstance(answer, Mapping):
        _refuse(f"{_shown(answer)} is not a mapping of names to numbers")
    _strings("a metric's name", answer)
    return answer


def measurement(answer: object, _plugin: str, _: Given) -> Mapping[str, str]:
    """Check that a measurement is a mapping from names to texts."""
    if not isinstance(answer, Mapping):
        _refuse(f"{_shown(answer)} is not a mapping of names to texts")
    _strings("a measurement's name", answer)
    _strings("a measurement", answer.values())
    return answer


def number(value: object) -> float:
    """Check one metric's value: a finite real number."""
    if not _is_finite(value):
        _refuse(f"{_shown(value)} is not a finite number; leave an absent metric out")
    return float(value)  # type: ignore[arg-type]


def costs(answer: object, plugin: str, _: Given) -> tuple[Cost, ...]:
    """Check costs: finite, not negative."""
    given = _each(answer, Cost, plugin)
    for item in given:
        amounts = (item.tokens_in, item.tokens_out, item.usd, item.seconds)
        if min(number(amount) for amount in amounts) < 0:
            _refuse(f"{_shown(item)} is negative; money does not come back")
    return given


def problems(answer: object, _plugin: str, _: Given) -> tuple[str, ...]:
    """Check what a launcher misses: one line each."""
    if isinstance(answer, str) or not isinstance(answer, Sequence):
        _refuse(f"{_shown(answer)} is not a sequence of problems")
    return tuple(_text(item, "a problem") for item in answer)


def script(answer: object, _plugin: str, _: Given) -> str:
    """Check the text of a script."""
    return _text(answer, "the text of the script")


def reason(answer: object, _plugin: str, _: Given) -> str:
    """Check a reason to stop a run."""
    return _text(answer, "a reason")


def analysis(answer: object, plugin: str, _: Given) -> Analysis:
    """Check an Analysis: all four lines of the block say something."""
    return _sound(answer, Analysis, plugin)


def decision(answer: object, plugin: str, given: Given) -> Decision:
    """Check a Decision: a reason, a probability, and no experiment kept without a score."""
    made, candidate = _sound(answer, Decision, plugin), given["candidate"]
    if made.confidence is not None and not 0 <= made.confidence <= 1:
        _refuse(f"confidence is {made.confidence}; give a probability from 0 to 1")
    if made.verdict is Verdict.KEEP and candidate.metric is None:
        _refuse(f"experiment {candidate.experiment.number} has no score and cannot be kept")
    return made


def promotion(answer: object, plugin: str, _: Given) -> Promotion:
    """Check a Promotion: a plain yes or no, with its reason."""
    made = _sound(answer, Promotion, plugin)
    if not isinstance(made.promote, bool):
        _refuse(f"promote is {made.promote!r}; say True or False")
    return made


def backtrack(answer: object, plugin: str, given: Given) -> Backtrack:
    """Check a Backtrack: target and proof exist, and a dead end names its direction."""
    made, history = _sound(answer, Backtrack, plugin), given["history"]
    if made.signal is Signal.DEAD_END and not made.direction:
        _refuse("a dead end names no direction; set Backtrack.direction")
    if made.to_experiment is not None:
        _kept(made.to_experiment, given)
    _integers("Backtrack.experiments", made.experiments)
    unknown = [item for item in made.experiments if not 0 <= item < history.next_number]
    if unknown:
        _refuse(f"Backtrack.experiments names {unknown}, which do not exist")
    return made


def parent(answer: object, plugin: str, given: Given) -> Parent:
    """Check a Parent: it was kept."""
    made = _sound(answer, Parent, plugin)
    _kept(made.experiment, given)
    return made


def _kept(number: int, given: Given) -> None:
    if number not in {item.number for item in given["history"].kept}:
        _refuse(f"experiment {number} was never kept; go back to a kept one")


def remarks(answer: object, plugin: str, _: Given) -> tuple[Remark, ...] | None:
    """Check remarks: words, and the numbers of the experiments that show it."""
    many = _each(answer, Remark, plugin)
    for item in many:
        _integers("Remark.cites", item.cites)
    return many or None


def projections(answer: object, plugin: str, _: Given) -> tuple[Projection, ...]:
    """Check projections: each has a bare file name."""
    many: tuple[Projection, ...] = _each(answer, Projection, plugin)  # type: ignore[type-abstract]
    for item in many:
        name = item.file_name
        if not isinstance(name, str) or not name or PurePath(name).name != name:
            _refuse(f"{name!r} is not the name of a file; leave folders out")
    return many


def credit(outcome: T, inner: object, plugin: str) -> T:
    """Name a wrapper as the author of an answer that it changed but left signed by another."""
    author = _AUTHORS.get(type(outcome))
    if author is None or outcome == inner or type(inner) is not type(outcome):
        return outcome
    if getattr(outcome, author) != getattr(inner, author):
        return outcome
    return attrs.evolve(outcome, **{author: plugin})  # type: ignore[misc]


def _sound(answer: object, kind: type[T], plugin: str) -> T:
    """Return an answer of its kind, whose words and numbers are such, with its author's name."""
    if not isinstance(answer, kind):
        _refuse(f"{_shown(answer)} is not of type {kind.__name__}")
    for name in _WORDS.get(kind, ()):
        _words(answer, name)
    for name in _NUMBERS.get(kind, ()):
        value = getattr(answer, name)
        if value is not None and not _is_finite(value):
            _refuse(f"{kind.__name__}.{name} is {value!r}; give a finite number")
    author = _AUTHORS.get(kind)
    if author is None or getattr(answer, author):
        return answer
    return attrs.evolve(answer, **{author: plugin})  # type: ignore[misc]


def _each(answer: object, kind: type[T], plugin: str) -> tuple[T, ...]:
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        _refuse(f"{_shown(answer)} is not a sequence of {kind.__name__}")
    return tuple(_sound(item, kind, plugin) for item in answer)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


# Variables by which a loader, an interpreter, a shell or git runs code that no audit has seen.
_LOADS_CODE = re.compile(
    r"(LD|DYLD|GIT|AUTORESEARCH)_.*|PYTHON(PATH|HOME|STARTUP|USERBASE|INSPECT|BREAKPOINT|WARNINGS)"
    r"|BASH_ENV|ENV|PATH"
)

# Linux takes 128 KiB in one variable and a few MiB in all, and kept ideas add up.
_ENV_CHARACTERS = 10_000


def _environment(env: Mapping[str, str]) -> None:
    _strings("Idea.env", env)
    for name, value in env.items():
        if not isinstance(value, str):
            _refuse(f"Idea.env holds {value!r}; give text")
        if _LOADS_CODE.fullmatch(name):
            _refuse(f"Idea.env sets {name!r}, which loads code; change the script")
        if name in ("SEED", "RUN_ID"):
            _refuse(f"Idea.env sets {name!r}, which the loop gives to every run; leave it out")
        if "\0" in name + value or "=" in name:
            _refuse(f"Idea.env sets {name!r} to {value!r}; no process can be given it")
        if (shown := without_users(value)) != value:
            _refuse(f"Idea.env sets {name!r} to {shown!r}; leave the user and the password out")
        _encodable("Idea.env", value)
    size = sum(len(name) + len(value) for name, value in env.items())
    if size > _ENV_CHARACTERS:
        _refuse(
            f"Idea.env has {size} characters, more than {_ENV_CHARACTERS}; no run may be able to "
            "start with it; put large values into a file"
        )


def _integers(what: str, values: Iterable[object]) -> None:
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        _refuse(f"{what} is {values!r}; give numbers of experiments")


def _strings(what: str, values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str) or not value:
            _refuse(f"{what} holds {value!r}; give text")
        _encodable(what, value)


def _encodable(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidAnswerError(
            f"{what} holds half a surrogate pair; give text in UTF-8"
        ) from None


def _text(answer: object, what: str) -> str:
    if not isinstance(answer, str) or not answer.strip():
        _refuse(f"{_shown(answer)} is not {what}")
    _encodable(what, answer)
    return answer


def _words(given: object, name: str) -> None:
    value = getattr(given, name)
    if not isinstance(value, str) or not value.strip():
        _refuse(f"{type(given).__name__}.{name} is {value!r}; give text")
    _encodable(f"{type(given).__name__}.{name}", value)


def _shown(answer: object) -> str:
    return one_line(repr(answer), 80)


def _refuse(reason: str) -> NoReturn:
    raise InvalidAnswerError(reason)
