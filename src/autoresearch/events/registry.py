"""The registry of facts: how a class becomes an event type and how its fields are documented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, dataclass_transform

import attrs
from attrs import field

from autoresearch.frozen import freeze

T = TypeVar("T", bound="Event")
Payload = dict[str, Any]


class Event:
    """Base of all facts; subclasses are frozen attrs classes registered with :func:`event`."""

    type_name: ClassVar[str]
    schema_version: ClassVar[int]


EVENT_TYPES: dict[str, type[Event]] = {}
UPCASTERS: dict[tuple[str, int], Callable[[Payload], Payload]] = {}


def doc(text: str, unit: str = "", former: str = "", **options: Any) -> Any:
    """An attrs field with its meaning and unit, from which the column reference is generated.

    ``former`` is its name in older versions, under which SQL finds it in their payloads.
    """
    return field(metadata={"doc": text, "unit": unit, "former": former}, **options)


def experiment_number() -> Any:
    """The field that most facts share."""
    return doc("number of the experiment within its campaign; 0 is the baseline")


def run_name() -> Any:
    """The field that names a run."""
    return doc("name of the run, unique for ever")


def _read_only(_: type[Any], fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """A fact is handed to plugins, so its tables are as frozen as itself."""
    return [
        item.evolve(converter=freeze) if "Mapping" in str(item.type) else item for item in fields
    ]


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(field, doc, experiment_number, run_name),
)
def event(
    name: str, version: int = 1, upcasters: Sequence[Callable[[Payload], Payload]] = ()
) -> Callable[[type[T]], type[T]]:
    """Register a class as the fact ``name``; the name is what the log stores.

    ``upcasters`` lift a payload of version 1 to 2, of 2 to 3, and so on.
    """

    def register(cls: type[T]) -> type[T]:
        made = attrs.frozen(kw_only=True, field_transformer=_read_only)(cls)
        made.type_name, made.schema_version = name, version
        EVENT_TYPES[name] = made
        UPCASTERS.update({(name, old): lift for old, lift in enumerate(upcasters, start=1)})
        return made

    return register


def grown(payload: Payload) -> Payload:
    """Lift a payload to a version that only has more fields, each with a default."""
    return payload


def renamed(**names: str) -> Callable[[Payload], Payload]:
    """Return the upcaster of a version in which fields have other names: new=old."""

    def lift(payload: Payload) -> Payload:
        new_of = {old: new for new, old in names.items()}
        return {new_of.get(key, key): value for key, value in payload.items()}

    return lift
