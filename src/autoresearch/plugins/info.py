"""What can be told about a plugin that was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen

from autoresearch.config import Config


@frozen(kw_only=True)
class SettingInfo:
    """One setting of a plugin: its table's key, type, meaning, default and value."""

    name: str
    type: str
    doc: str
    default: Any
    value: Any


@frozen(kw_only=True)
class PluginInfo:
    """One plugin that was found, active or only available.

    ``source`` is built-in, ``distribution NAME`` or the file's path; ``digest`` is the sha256 of
    its source; ``problem`` says why it cannot be used, and is empty otherwise.
    """

    name: str
    version: str
    source: str
    digest: str
    active: bool
    summary: str = ""
    hooks: tuple[str, ...] = ()
    settings: tuple[SettingInfo, ...] = field(default=())
    problem: str = ""

    def as_json(self) -> Mapping[str, Any]:
        """Return everything as plain values for ``--json``."""
        return attrs.asdict(self, value_serializer=_plain)


def settings_of(name: str, shape: type[Any] | None, config: Config) -> tuple[SettingInfo, ...]:
    """Describe the settings class of a plugin with the values that the configuration gives it."""
    if shape is None:
        return ()
    values = config.settings(name, shape)
    return tuple(
        SettingInfo(
            name=item.name,
            type=_type_name(item.type),
            doc=str(item.metadata.get("doc", "")),
            default=_default(item, values),
            value=getattr(values, item.name),
        )
        for item in attrs.fields(shape)
    )


def _default(item: attrs.Attribute[Any], values: Any) -> Any:
    default: Any = item.default
    if default is attrs.NOTHING:
        return None
    if not hasattr(default, "takes_self"):  # attrs.Factory is no class for type checkers
        return default
    return default.factory(values) if default.takes_self else default.factory()


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _plain(_: Any, __: Any, value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, tuple, list, dict)) or value is None:
        return value
    return str(value)
