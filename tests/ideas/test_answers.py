"""What a language model may answer, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.durable import digest
from autoresearch.ideas.answers import AnswerError, Ground, read
from autoresearch.model import Idea, ValueChange
from autoresearch.testing import experiment, story

SOURCE = """\
import os
rate = float(os.environ.get("RATE", 0.5))
width = int(os.environ.get("WIDTH", 4))
seed = int(os.environ.get("SEED", 1))
print("score:", rate * width)
"""
GOOD: dict[str, Any] = {
    "direction": "rate",
    "description": "halve the rate",
    "hypothesis": "experiment 1 shows that it is too high",
    "evidence": ["experiment 1: -0.05"],
    "cites": [1],
    "risk": "too slow",
    "predicted": 1.0,
    "expected_gain": 0.05,
    "edits": [{"search": '"RATE", 0.5', "replace": '"RATE", 0.25'}],
    "source": None,
    "env": [],
}
PAST = story([1.1, 1.05, 1.2]).declare_dead("depth").history


def answer(**changes: Any) -> str:
    """Return a good answer with some keys changed; a key set to ... is left out."""
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...})


def idea(text: str, fixed: frozenset[str] = frozenset()) -> Idea:
    """Read an answer after the usual history."""
    return read(text, Ground(history=PAST, source=SOURCE, author="openai", fixed=fixed))


def test_a_good_answer_is_an_idea() -> None:
    """Edits are applied, and every word and number is taken over."""
    made = idea(answer())
    assert made.source == SOURCE.replace("0.5", "0.25")
    assert (made.direction, made.cites, made.predicted, made.expected_gain) == (
        *("rate", (1,), 1.0, 0.05),
    )
    assert made.author == "openai"


@pytest.mark.parametrize("wrap", ["```json\n{}\n```", "```\n{}\n```", "  {}\n\n"])
def test_a_fence_around_the_answer_is_forgiven(wrap: str) -> None:
    """Small models like to wrap JSON in Markdown."""
    assert idea(wrap.replace("{}", answer())).direction == "rate"


def test_whole_sources_and_variables_are_taken_too() -> None:
    """A rewrite is the new source; a variable that the script reads becomes its environment."""
    assert idea(answer(edits=[], source="print('score: 1')\n")).source == "print('score: 1')\n"
    made = idea(answer(edits=None, env=[{"name": "RATE", "value": "0.25"}]))
    assert made.source is None
    assert dict(made.env) == {"RATE": "0.25"}


@pytest.mark.parametrize(
    "wrap",
    [
        "Here it is:\n{}\nGood luck!",
        "<think>{'a': 1} or {\"edits\": 0}?</think>\n{}",
        "```JSON\n{}\n```\nDone {x}.",
    ],
)
def test_the_last_whole_object_is_the_answer(wrap: str) -> None:
    """What a model says before and after it is passed over."""
    assert idea(wrap.replace("{}", answer())).direction == "rate"


def test_a_megabyte_of_brackets_is_refused_in_a_moment() -> None:
    """The search for an object in an answer is bounded."""
    with pytest.raises(AnswerError, match="not JSON"):
        idea('{"a":' * 190_000)


FILES = {"conf.toml": "decay = 0.1\nname = 'x'\n"}


def edited(**edit: str) -> Idea:
    """Read an answer with one edit where a file of settings may change too."""
    ground = Ground(history=PAST, source=SOURCE, author="openai", files=FILES)
    return read(answer(edits=[edit]), ground)


def test_an_edit_may_name_a_file() -> None:
    """The idea brings that file, and says in values what changed."""
    made = edited(file="conf.toml", search="0.1", replace="0.2")
    assert made.source is None
    assert made.files == {"conf.toml": "decay = 0.2\nname = 'x'\n"}
    assert made.changes == (ValueChange(name="decay", old=0.1, new=0.2, file="conf.toml"),)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"file": "data.py", "search": "0.1", "replace": "0.2"}, "data.py' may not be changed"),
        ({"file": "conf.toml", "search": "0.5", "replace": "1"}, "0 times in conf.toml"),
        ({"file": "conf.toml", "search": "0.1", "replace": "x"}, "conf.toml does not compile"),
    ],
)
def test_an_edit_stays_within_the_editable_files(edit: dict[str, str], reason: str) -> None:
    """Another file, or one that would be broken, is refused in one line."""
    with pytest.raises(AnswerError, match=reason):
        edited(**edit)


def test_edits_and_variables_are_told_as_values() -> None:
    """What differs between the scripts, or between a default and its override."""
    assert idea(answer()).changes == (ValueChange(name="RATE", old=0.5, new=0.25),)
    made = idea(answer(edits=None, env=[{"name": "WIDTH", "value": "8"}]))
    assert made.changes == (ValueChange(name="WIDTH", old=4, new=8),)


@pytest.mark.parametrize("cites", [[], None])
def test_without_a_citation_the_best_is_cited(cites: Any) -> None:
    """The protocol wants a reference to a result that was read, and an idea builds on the best."""
    assert idea(answer(cites=cites)).cites == (1,)


@pytest.mark.parametrize("cites", [[99], [-1], ["1"], [True], "1", [[0]], [1, 99], 7.5])
def test_a_citation_that_does_not_exist_is_refused(cites: Any) -> None:
    """Words that rest on an experiment that was never made are not put on another one."""
    with pytest.raises(AnswerError, match="cite"):
        idea(answer(cites=cites))


def test_words_are_cleaned_and_cut() -> None:
    """No escape sequence, line end or endless text gets through."""
    made = idea(
        answer(
            description="halve\x1b[31m the\nrate \u202e" + "x" * 999,
            hypothesis="a\tb\x00c",
            evidence=["one\ntwo", 3, "", "y" * 9999] + ["more"] * 50,
            risk=None,
        )
    )
    assert made.description.startswith("halve the rate xxx")
    assert len(made.description) == 200
    assert made.hypothesis == "a bc"
    assert made.evidence[0] == "one two"
    assert len(made.evidence) <= 8
    assert all(len(text) <= 300 for text in made.evidence)
    assert made.risk == "not named"


BAD: dict[str, tuple[str, str]] = {
    "not JSON": ("I think you should", "not JSON"),
    "nothing": ("", "not JSON"),
    "cut off": (answer()[:-5], "not JSON"),
    "NaN": (answer().replace("0.05", "NaN"), "not JSON"),
    "a list": ("[]", "JSON list"),
    "a number": ("1e15", "JSON float"),
    "nested too deep": ("[" * 100_000, "not JSON"),
    "too long": (" " * 1_000_001, "characters"),
    "schema ignored": ('{"answer": "42"}', "direction is None"),
    "empty words": (answer(description=" \n"), "description"),
    "words that are numbers": (answer(hypothesis=7), "hypothesis"),
    "only unseen characters": (answer(direction="\u200b\x1b[0m"), "direction"),
    "a dead end": (answer(direction="depth"), "dead end"),
    "a loss of 1e15": (answer(predicted=1e15), "out of range"),
    "an infinite loss": (answer().replace("1.0,", "1e999,"), "out of range"),
    "an endless integer": (answer().replace("1.0,", "9" * 400 + ","), "out of range"),
    "a gain of a million": (answer(expected_gain=1e6), "out of range"),
    "a number in words": (answer(predicted="1.0"), "predicted"),
    "a flag for a number": (answer(predicted=True), "predicted"),
    "no change": (answer(edits=[]), "no change"),
    "edits and source": (answer(source="x = 1\n"), "edits and source"),
    "a search that is not there": (
        answer(edits=[{"search": "RATES", "replace": "x"}]),
        "occurs 0 times",
    ),
    "a search that is twice there": (
        answer(edits=[{"search": "rate", "replace": "x"}]),
        "occurs 2 times",
    ),
    "an empty search": (answer(edits=[{"search": "", "replace": "x"}]), "is empty"),
    "an edit without replace": (answer(edits=[{"search": "0.5"}]), "lacks search or replace"),
    "edits that are no list": (answer(edits={"search": "0.5", "replace": "1"}), "not a list"),
    "an edit that is a word": (answer(edits=["0.5"]), "lacks search or replace"),
    "an edit of nothing": (answer(edits=[{"search": "0.5", "replace": "0.5"}]), "as they are"),
    "a syntax error": (answer(edits=[{"search": "0.5)", "replace": "0.5"}]), "does not compile"),
    "a null byte": (answer(edits=[{"search": "0.5", "replace": "\0"}]), "does not compile"),
    "half a surrogate": (answer(edits=[{"search": "0.5", "replace": "\ud800"}]), "compile"),
    "a source that is a list": (answer(edits=[], source=["x"]), "source is not text"),
    "a variable that is not read": (
        answer(edits=[], env=[{"name": "LD_PRELOAD", "value": "x.so"}]),
        "LD_PRELOAD",
    ),
    "the seed": (answer(edits=[], env=[{"name": "SEED", "value": "7"}]), "SEED"),
    "a width in words": (answer(edits=[], env=[{"name": "WIDTH", "value": "wide"}]), "type int"),
    "an infinite rate": (answer(edits=[], env=[{"name": "RATE", "value": "inf"}]), "type float"),
    "variables that are no list": (answer(edits=[], env={"RATE": "1"}), "not a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_one_line(name: str) -> None:
    """Every bad answer is one error that says what was wrong and what to give."""
    text, reason = BAD[name]
    with pytest.raises(AnswerError, match=reason) as caught:
        idea(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_variables_set_by_the_campaign_are_not_the_model_s() -> None:
    """What the configuration sets stays set."""
    with pytest.raises(AnswerError, match="set by the campaign"):
        idea(answer(edits=[], env=[{"name": "RATE", "value": "0.1"}]), frozenset({"RATE"}))


def test_what_was_tried_is_refused() -> None:
    """The same script again is no idea, whatever words are put around it."""
    source = SOURCE.replace("0.5", "0.25")
    past = story([1.1, experiment(1.2, source_digest=digest(source))]).history
    with pytest.raises(AnswerError, match="tried before"):
        read(answer(description="new words"), Ground(history=past, source=SOURCE, author="x"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GOOD, "search", "replace", "name", "value"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(GOOD)), _JSON))
def test_any_json_is_an_idea_or_an_error(changes: dict[str, Any]) -> None:
    """Whatever values stand under the keys, nothing else than an idea or AnswerError comes out."""
    try:
        made = idea(json.dumps({**GOOD, **changes}))
    except AnswerError:
        return
    assert made.has_code
    assert made.direction


@given(st.text(max_size=200))
def test_any_text_is_an_idea_or_an_error(text: str) -> None:
    """Text that is no answer never raises anything but AnswerError."""
    with pytest.raises(AnswerError):
        idea(text)
