"""Canonical JSON: the same bytes for the same value, nothing lost, nothing silently changed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

import attrs
import pytest
import rfc8785
from facts import example
from hypothesis import given
from hypothesis import strategies as st

from autoresearch import codec, events
from autoresearch.codec import UnknownEvent, canonical, decode, encode, skim
from autoresearch.errors import CodecError
from autoresearch.events import EVENT_TYPES, UPCASTERS, Event
from autoresearch.model import Idea

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=6))
def test_is_rfc_8785_to_the_byte(value: dict[str, Any]) -> None:
    """The fast encoder writes exactly what the reference implementation writes."""
    assert canonical(value) == rfc8785.dumps(value).decode()


@given(st.dictionaries(TEXT, PLAIN, max_size=6))
def test_comes_back_equal_and_stable(value: dict[str, Any]) -> None:
    """Reading canonical text and writing it again gives the same bytes and an equal value."""
    text = canonical(value)
    read = json.loads(text, parse_int=float)  # the digits of 5e16 are not those of an integer
    assert read == value
    assert canonical(read) == text


@given(st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=5), TEXT)
def test_an_event_comes_back_equal(metrics: dict[str, float], run: str) -> None:
    """An event that was encoded and decoded is the event."""
    event = events.MetricsExtracted(run=run, experiment=3, metrics=metrics)
    assert decode("metrics_extracted", 1, encode(event)) == event


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_what_decodes_is_of_the_types_that_its_class_names(name: str) -> None:
    """A value of another type is refused, or is written again as it was read."""
    shape: Any = EVENT_TYPES[name]
    usual = {item.name: example(item) for item in attrs.fields(shape)}
    values = [None, True, 0, 7, 0.5, "x", [], [1], ["x"], [1.5], [None], [True], {}, {"a": 1}]
    values += [{"a": 0.5}, {"a": True}, {"a": "x"}, {"a": None}, {"a": [1]}, [{"a": 1}], [[]]]
    for changed in (name for name, value in usual.items() if not isinstance(value, list | tuple)):
        for value in values:
            payload = canonical({**usual, changed: value})
            with suppress(CodecError):
                assert encode(decode(name, shape.schema_version, payload)) == payload


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_a_payload_names_every_field(name: str) -> None:
    """A field that is None is written as null, so a payload has all fields of its class."""
    shape = EVENT_TYPES[name]
    known: Any = shape
    event = shape(**{item.name: example(item) for item in attrs.fields(known)})
    payload = encode(event)
    assert json.loads(payload).keys() == {item.name for item in attrs.fields(known)}
    assert decode(name, shape.schema_version, payload) == event


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_refuses_numbers_that_are_not_finite(number: float) -> None:
    """A diverged loss is refused with the event type and the field, never written as null."""
    event = events.MetricsExtracted(run="r", experiment=0, metrics={"val_bpb": number})
    with pytest.raises(CodecError, match=r"metrics_extracted\.metrics\.val_bpb is -?(nan|inf)"):
        encode(event)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"x": Colour.RED}, '{"x":"red"}'),
        ({"x": (1, 2.0, -0.0)}, '{"x":[1,2,0]}'),
        ({"x": datetime(2026, 3, 18, 2, tzinfo=UTC)}, '{"x":"2026-03-18T02:00:00Z"}'),
        (
            {"x": datetime(2026, 3, 18, 2, tzinfo=timezone(timedelta(hours=2)))},
            '{"x":"2026-03-18T00:00:00Z"}',
        ),
        ({"x": Path("a/b")}, '{"x":"a/b"}'),
        ({"b": 1, "a": {"d": None, "c": True}}, '{"a":{"c":true,"d":null},"b":1}'),
        ({"x": 1e-7, "y": 1e21, "z": 0.1}, '{"x":1e-7,"y":1e+21,"z":0.1}'),
    ],
)
def test_values_have_one_form(value: Mapping[str, Any], text: str) -> None:
    """Enums are their values, tuples arrays, times UTC, and keys are sorted."""
    assert canonical(value) == text


def test_nested_values_are_objects() -> None:
    """A frozen value inside an event is written as an object of its fields."""
    found = json.loads(canonical({"idea": Idea(direction="d", description="x", hypothesis="h")}))
    assert found["idea"]["direction"] == "d"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (2**53, "over 2"),
        (datetime(2026, 3, 18), "time zone"),
        ("\ud800", "surrogate"),
        (b"bytes", "bytes"),
        ({1: "x"}, "key"),
        ([{"deep": {3}}], r"\.env\.x\[0\]\.deep is a set"),
    ],
)
def test_refuses_what_json_cannot_say(value: Any, complaint: str) -> None:
    """What has no exact form is refused by name instead of being changed."""
    event = events.IdeaQueued(
        idea="i", direction="d", description="x", hypothesis="h", author="g", env={"x": value}
    )
    with pytest.raises(CodecError, match=complaint):
        encode(event)


def test_what_could_not_be_read_back_is_not_written() -> None:
    """A value of another type in one event would close the whole log to every reader for ever."""
    for event, complaint in (
        (events.SteeringGiven(text="x", author="a", experiments="y"), "'y' is not of type int"),  # type: ignore[arg-type]
        (events.SteeringGiven(text="x", author="a", experiments=1.5), "1.5 is not of type int"),  # type: ignore[arg-type]
        (events.Paused(reason=3), "3 is not of type str"),  # type: ignore[arg-type]
        (events.Overruled(experiment=True, verdict="keep", reason="x", author="a"), "True is not"),
    ):
        with pytest.raises(CodecError, match=rf"{complaint}.*; correct the value$"):
            encode(event)


def test_refuses_values_that_are_no_events() -> None:
    """Only registered events are recorded."""
    with pytest.raises(CodecError, match="Idea is not a registered event"):
        encode(Idea(direction="d", description="x", hypothesis="h"))  # type: ignore[arg-type]


def test_an_unknown_type_is_carried_along() -> None:
    """A fact from a plugin or release that we do not know keeps its payload to the byte."""
    found = decode("moon_landed", 1, '{"crew":3}')
    assert found == UnknownEvent(
        unknown_type="moon_landed", unknown_version=1, payload='{"crew":3}'
    )


def test_a_version_from_the_future_is_carried_along() -> None:
    """A newer version of a known type is not guessed at."""
    found = decode("note_added", 99, '{"text":"x","mood":"good"}')
    assert isinstance(found, UnknownEvent)
    assert found.payload == '{"text":"x","mood":"good"}'


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ('{"author":"a","text":"t","mood":1}', r"note_added\.mood is not a field"),
        ('{"author":"a"}', r"note_added\.text is missing"),
        ('{"author":"a","text":3}', r"note_added\.text: 3 is not of type str"),
        ("[]", "must be an object"),
        ("{", "not JSON"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(payload: str, complaint: str) -> None:
    """At the current version a payload has exactly the fields of its class, of their types."""
    with pytest.raises(CodecError, match=complaint):
        decode("note_added", 1, payload)


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_no_payload_breaks_the_reader(name: str) -> None:
    """Whatever JSON a line holds, in any version, it is an event or it is refused as no event."""
    names = [item.name for item in attrs.fields(EVENT_TYPES[name])]
    odd = (None, True, -1, 10**400, 1.5, "", "x", [], [1], [[1]], {}, {"a": 1}, [{"name": 1}])
    rng = random.Random(name)
    payloads: list[object] = [None, [], 1, "x", {}]
    payloads += [{key: rng.choice(odd) for key in names if rng.random() < 0.9} for _ in range(40)]
    for version in range(1, EVENT_TYPES[name].schema_version + 1):
        for payload in payloads:
            with suppress(CodecError):
                assert isinstance(decode(name, version, json.dumps(payload)), Event)


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_the_quick_reader_says_what_the_naming_one_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read quickly has the values and types of what is checked field by field, or is not.

    The texts of the values are those in which JSON decoders differ.
    """
    shape: Any = EVENT_TYPES[name]
    fields = attrs.fields(shape)
    usual = {item.name: canonical({"": example(item)})[4:-1] for item in fields}
    texts = ["null", "true", "0", "-0", "1.0", "1e0", "-0.0", "1e400", "NaN", "-Infinity", "01"]
    texts += ["1" * n for n in (15, 19, 20, 22, 400, 5000)] + ["9007199254740993", "5e-324"]
    texts += ['"x"', '"\\ud800"', '"\\ud83d\\ude00"', '"\t"', '"\x7f"', '"\\/"', "[", "[]", "[1]"]
    texts += ['["x"]', '["x",null]', "{}", '{"a":1}', '{"a":1,"a":"x"}', '{"a":[{"b":[]}]}', "[{}]"]
    texts += ['[{"name":"LR","new":[1],"old":{}}]', '{"a":null}', '{"a":true}', '["x"]x']
    payloads = ["[]", "null", "x", " {} ", _object(usual), " " + _object(usual)]
    payloads += [_object({**usual, key: text}) for key in usual for text in texts]
    payloads += [_object({key: usual[key] for key in usual if key != left}) for left in usual]
    payloads += [_object({**usual, "mood": "1"}), _object(usual)[:-1] + ',"mood":1}']
    payloads += [_object(usual)[:-1] + f',"{key}":{usual[key]}}}' for key in usual]
    quick = [_outcome(skim, name, shape.schema_version, payload) for payload in payloads]
    whole = [_outcome(decode, name, shape.schema_version, payload) for payload in payloads]
    monkeypatch.setattr(codec, "_reader", lambda _: None)
    slow = [_outcome(decode, name, shape.schema_version, payload) for payload in payloads]
    assert quick == whole == slow
    assert any(isinstance(outcome, str) for outcome in slow)


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join(f'"{key}":{text}' for key, text in members.items()) + "}"


def _outcome(read: Callable[..., Any], name: str, version: int, payload: str) -> object:
    """Return every field with the types inside it, or the complaint."""
    try:
        event = read(name, version, payload)
    except CodecError as error:
        return str(error)
    assert isinstance(event, Event) or read is skim
    return [repr(getattr(event, item.name)) for item in attrs.fields(EVENT_TYPES[name])]


def test_a_number_beyond_all_floats_is_named() -> None:
    """JSON has integers that no float can hold."""
    payload = encode(events.CostIncurred(kind="run", source="s")).replace(
        '"seconds":0', f'"seconds":{10**400}'
    )
    with pytest.raises(CodecError, match=r"cost_incurred\.seconds: int too large"):
        decode("cost_incurred", 1, payload)


def test_old_versions_are_lifted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old payload goes through every upcaster up to the current version."""

    @attrs.frozen(kw_only=True)
    class Moved(Event):
        to: str
        by: str

    Moved.type_name, Moved.schema_version = "moved", 3
    monkeypatch.setitem(EVENT_TYPES, "moved", Moved)
    monkeypatch.setitem(UPCASTERS, ("moved", 1), lambda old: {"to": old["where"]})
    monkeypatch.setitem(UPCASTERS, ("moved", 2), lambda old: {**old, "by": "unknown"})
    assert decode("moved", 1, '{"where":"up"}') == Moved(to="up", by="unknown")
    assert decode("moved", 2, '{"to":"up"}') == Moved(to="up", by="unknown")


def test_a_missing_upcaster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version without a way up is an error that says which one is missing."""
    monkeypatch.setattr(EVENT_TYPES["note_added"], "schema_version", 2)
    with pytest.raises(CodecError, match="note_added version 1 has no upcaster"):
        decode("note_added", 1, "{}")


def test_what_was_recorded_as_locks_is_read_as_a_measurement() -> None:
    """``run_locked`` called its field locks in version 1; the bytes stay, the event has today's."""
    old = '{"experiment":1,"locks":{"data":"abc"},"run":"r"}'
    measured = EVENT_TYPES["run_locked"](run="r", experiment=1, measurement={"data": "abc"})
    assert decode("run_locked", 1, old) == measured
    assert decode("run_locked", 2, old.replace("locks", "measurement")) == measured


def test_changes_of_version_1_are_read_from_the_description_once() -> None:
    """Ideas of older stores said in words alone what they change; what is no value is left out."""
    lift = UPCASTERS["idea_proposed", 1]
    old = {"description": "key: LR 0.1 -> 0.2, TIED True -> False; x a -> b, n 1 -> __import__"}
    assert lift(old) == {
        **old,
        "changes": [
            {"name": "LR", "old": 0.1, "new": 0.2},
            {"name": "TIED", "old": True, "new": False},
        ],
    }
    assert lift({})["changes"] == []
