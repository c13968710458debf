"""Events as canonical JSON text (RFC 8785) and back; what cannot be written exactly is refused.

Fields that are None are written as null, so that a payload always says all it could have said.
Enums become their values, tuples become arrays, datetimes become UTC with a ``Z``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, get_type_hints

import attrs
import msgspec
import rfc8785

from autoresearch.errors import CodecError
from autoresearch.events import EVENT_TYPES, UPCASTERS, Event
from autoresearch.frozen import freeze
from autoresearch.structure import places, strict_converter

_LARGEST = 2**53 - 1  # RFC 8785 numbers are IEEE doubles: a larger integer would lose digits
_DIRECT = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


@attrs.frozen(kw_only=True)
class UnknownEvent(Event):
    """A fact of a type or version that this release does not know, carried along untouched."""

    unknown_type: str
    unknown_version: int
    payload: str


def encode(event: Event) -> str:
    """Return the event's fields as canonical JSON text.

    Raises CodecError naming the event type and the field for a number that is not finite, an
    integer over 2**53 - 1, text that is not Unicode, a value that JSON has no form for, or one that
    `decode` would refuse: a log that holds such a payload could not be read any more.
    """
    name = type_of(event)
    try:
        text = canonical({key: getattr(event, key) for key in _names(type(event))})
        _read(name, event.schema_version, text)
    except _RefusedError as refused:
        raise CodecError(f"{name}{refused}") from None
    except _UnreadableError as error:
        raise CodecError(f"{error}; correct the value") from None
    return text


def canonical(value: Mapping[str, Any]) -> str:
    """Return a mapping of plain values as canonical JSON text."""
    walk = _Walk()
    plain = walk.mapping(value)
    # The standard encoder is four times faster and agrees except on the numbers and keys that
    # the walk calls odd; tests hold the two against each other.
    return rfc8785.dumps(plain).decode() if walk.odd else _DIRECT(plain)


def decode(type_name: str, schema_version: int, payload: str) -> Event:
    """Return the event that a payload describes, lifted to the newest version of its type.

    An unknown type or a version from the future comes back as UnknownEvent. Raises CodecError
    naming the type and the field for a payload that does not fit its class.
    """
    told = skim(type_name, schema_version, payload)
    known = isinstance(told, Event)
    return told if known else EVENT_TYPES[type_name](**msgspec.structs.asdict(told))


def skim(type_name: str, schema_version: int, payload: str) -> Any:
    """Return a value that has the fields of what `decode` returns, made in a fifth of the time.

    It is for those who read fields and keep no event: it may be one, and mostly is not. What
    `decode` refuses is refused in the same words.
    """
    try:
        return _read(type_name, schema_version, payload)
    except _UnreadableError as error:
        raise CodecError(f"{error}; run verify") from error


def _read(type_name: str, schema_version: int, payload: str) -> Any:
    shape: Any = EVENT_TYPES.get(type_name)
    if shape is None or schema_version > shape.schema_version:
        return UnknownEvent(unknown_type=type_name, unknown_version=schema_version, payload=payload)
    read = _reader(shape) if schema_version == shape.schema_version else None
    try:
        if read is not None:
            return read(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # what is odd is taken, or refused by name, below
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"payload of {type_name} is not JSON: {error}") from None
    for version in range(schema_version, shape.schema_version):
        fields = _upcast(type_name, version, fields)
    return _structure(type_name, shape, fields)


@cache
def _reader(shape: Any) -> Callable[[str], Any] | None:
    """Return what makes a value with a class's fields of a payload that names every one of them.

    None for a class that does more with its fields than to make tables read-only.
    """
    types, items = get_type_hints(shape), attrs.fields(shape)
    if any(item.validator or item.converter not in (None, freeze) for item in items):
        return None
    tables = [item.name for item in items if item.converter]

    def freeze_tables(told: Any) -> None:
        for name in tables:
            setattr(told, name, freeze(getattr(told, name)))

    made = msgspec.defstruct(
        shape.__name__,
        [(item.name, types[item.name]) for item in items],
        namespace={"__post_init__": freeze_tables} if tables else {},
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(made).decode


def type_of(event: Event) -> str:
    """Return the registered type name of an event; raises CodecError for any other value."""
    name = getattr(type(event), "type_name", None)
    if name is None or EVENT_TYPES.get(name) is not type(event):
        raise CodecError(
            f"{type(event).__name__} is not a registered event; decorate its class with @event"
        )
    return str(name)


def _fields_of(shape: Any) -> tuple[str, ...]:
    return tuple(item.name for item in attrs.fields(shape))


_names: Callable[[Any], tuple[str, ...]] = cache(_fields_of)


class _UnreadableError(Exception):
    """Says why a payload is no event; what to do depends on who asked."""


class _RefusedError(ValueError):
    """Carries the path to the value, which is only put together when something is wrong."""


class _Walk:
    """Turns values into what JSON knows; ``odd`` says that only RFC 8785 proper can write them."""

    def __init__(self) -> None:
        self.odd = False

    def value(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return _text(value)
        if kind is int or kind is float:
            return self._number(value)
        return self._other(value)

    def mapping(self, value: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in value.items():
            kind = type(item)
            # Most fields are plain already: this loop stands in every append.
            if type(key) is not str or not key.isascii():
                self._check_key(key)
            if not (
                (kind is str and item.isascii())
                or item is None
                or kind is bool
                or (kind is int and -_LARGEST <= item <= _LARGEST)
            ):
                try:
                    item = self.value(item)
                except _RefusedError as refused:
                    raise _RefusedError(f".{key}{refused}") from None
            made[key] = item
        return made

    def _array(self, value: tuple[Any, ...] | list[Any]) -> list[Any]:
        made = []
        for index, item in enumerate(value):
            try:
                made.append(self.value(item))
            except _RefusedError as refused:
                raise _RefusedError(f"[{index}]{refused}") from None
        return made

    def _number(self, value: float) -> float:
        if not math.isfinite(value):
            raise _RefusedError(f" is {value}, but only finite numbers are recorded; leave it out")
        if value == 0:
            return 0
        if isinstance(value, float):
            if value.is_integer() and abs(value) <= _LARGEST:
                return int(value)
            self.odd |= not 1e-4 <= abs(value) < 1e16
        elif abs(value) > _LARGEST:
            raise _RefusedError(f" is {value}, over 2**53 - 1; record it as text")
        return value

    def _check_key(self, key: Any) -> None:
        if not isinstance(key, str):
            raise _RefusedError(f" has a key of type {type(key).__name__}; use text as keys")
        _text(key)
        self.odd = True

    def _other(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self.value(value.value)
        if isinstance(value, Mapping):
            return self.mapping(value)
        if isinstance(value, (tuple, list)):
            return self._array(value)
        if isinstance(value, datetime):
            return _moment_text(value)
        if isinstance(value, (str, PurePath)):
            return _text(str(value))
        if isinstance(value, (int, float)):
            return self._number(float(value) if isinstance(value, float) else int(value))
        if attrs.has(type(value)):
            return self.mapping({key: getattr(value, key) for key in _names(type(value))})
        raise _RefusedError(f" is a {type(value).__name__}, unknown to JSON; record plain values")


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _RefusedError(" holds half a surrogate pair; replace it first") from None
    return value


def _moment_text(value: datetime) -> str:
    if value.tzinfo is None:
        raise _RefusedError(f" is {value}, without a time zone; give it one")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _upcast(type_name: str, version: int, fields: dict[str, Any]) -> dict[str, Any]:
    upcaster = UPCASTERS.get((type_name, version))
    if upcaster is None:
        raise CodecError(f"{type_name} version {version} has no upcaster; add one to UPCASTERS")
    try:
        return upcaster(fields)
    except Exception as error:  # it takes the fields of its version for granted
        raise _UnreadableError(
            f"payload of {type_name} does not fit version {version}: {error!r}"
        ) from error


def _structure(type_name: str, shape: type[Event], fields: Any) -> Event:
    try:
        return _STRICT.structure(fields, shape)
    except Exception as error:  # a class may check its fields with any exception
        raise _UnreadableError(_reason(type_name, shape, fields, error)) from error


def _reason(type_name: str, shape: type[Event], fields: Any, error: Exception) -> str:
    if not isinstance(fields, dict):
        return f"payload of {type_name} is a {type(fields).__name__}, but must be an object"
    for name in sorted(fields.keys() - set(_names(shape))):
        return f"{type_name}.{name} is not a field of version {shape.schema_version}"
    where, reason = next(places(error, type_name), (type_name, error))
    return f"{where} is missing" if isinstance(reason, KeyError) else f"{where}: {reason}"


_STRICT = strict_converter()
_STRICT.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
