"""Reads a Config from where people put settings, and remembers where each value came from.

Command line over environment over file over preset over default. The file is ``autoresearch.toml``
or the table ``[tool.autoresearch]`` of ``pyproject.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import fields, frozen, has, resolve_types

from autoresearch.config import RUN_FOLDER, Config, unstructure
from autoresearch.errors import ConfigError, why
from autoresearch.presets import Preset, default_for, presets
from autoresearch.structure import structure, suggest
from autoresearch.text import without_users

FILE_NAME = "autoresearch.toml"
PREFIX = "AUTORESEARCH_"
_NO_SETTINGS = {f"{PREFIX}{name}" for name in ("RUN", "DRIVER", "LOAD_PLUGINS", "TRACE_PLUGINS")}
_COMMAND_LINE, _ENVIRONMENT = "command line", "environment"
Table = dict[str, Any]


@frozen(kw_only=True)
class Loaded:
    """A configuration with the origin of every dotted setting that is not a default."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None

    @property
    def by_hand(self) -> tuple[str, ...]:
        """The settings that no file holds: from the command line or the environment."""
        return tuple(
            name
            for name, origin in self.origins.items()
            if origin == _COMMAND_LINE or origin.startswith(_ENVIRONMENT)
        )

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (dotted name, value, origin) for every setting, in the order of the classes."""
        for name, value in flat(unstructure(self.config)):
            yield name, value, self.origins.get(name, "default")


def load(
    project: Path,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Merge all sources into one Config; ``overrides`` has dotted names from the command line.

    Raises ConfigError with one line for an unreadable file, an unknown setting or a bad value.
    """
    found, from_file = _read(project, file)
    from_environment = _from_environment(environ or {})
    above = {**from_environment, **dict(overrides or {})}
    preset = _preset(above.get("preset", from_file.get("preset", default_for(project))))
    merged: Table = {"preset": preset.name}
    origins: dict[str, str] = {}
    _merge(merged, preset.settings, f"preset {preset.name}", origins)
    _merge(merged, from_file, str(found.name) if found else "", origins)
    for dotted, value in from_environment.items():
        _put(merged, dotted, value, f"{_ENVIRONMENT} {_variable(dotted)}", origins)
    for dotted, value in dict(overrides or {}).items():
        _put(merged, dotted, value, _COMMAND_LINE, origins)
    loaded = Loaded(config=structure(merged, Config, ""), origins=origins, file=found)
    for name, value, origin in loaded.rows():
        _refuse_user(name, value, origin)
    return loaded


def _refuse_user(name: str, value: Any, origin: str) -> None:
    """Settings are recorded, and a log forgets nothing."""
    if isinstance(value, (list, tuple, Mapping)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _refuse_user(name, inner, origin)
    elif isinstance(value, str) and (shown := without_users(value)) != value:
        raise ConfigError(
            f"{name} from {origin} has a user or password in {shown}; take it out, and pass it in "
            "a variable of your environment (pass_env)"
        )


def from_record(recorded: Mapping[str, Any], overrides: Mapping[str, Any] = {}) -> Config:
    """Return the Config that ``campaign_started`` recorded, with ``overrides`` by dotted names.

    A setting that is newer than the record gets the value of the recorded preset, else its default.
    """
    preset = presets().get(str(recorded.get("preset")))
    # Before there was a choice, every run worked in its own folder, and nothing held it.
    table: Table = {}
    _merge(table, preset.settings if preset else {}, "", {})
    _merge(table, {"cwd": RUN_FOLDER, "boundary": {"kind": "none"}, **recorded}, "", {})
    for dotted, value in overrides.items():
        _put(table, dotted, value, _COMMAND_LINE, {})
    return structure(table, Config, "recorded configuration")


def _preset(name: object) -> Preset:
    known = presets()
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"unknown preset {name!r}{suggest(str(name), known) or '; use plain'}")
    return known[name]


def _read(project: Path, file: Path | None) -> tuple[Path | None, Table]:
    if file is not None:
        return file, _parse(file)
    own = project / FILE_NAME
    if own.exists() or own.is_symlink():  # a link that leads nowhere is told
        return own, _parse(own)
    shared = project / "pyproject.toml"
    tool = _parse(shared).get("tool") if shared.exists() else None
    table = tool.get("autoresearch") if isinstance(tool, dict) else tool
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"tool.autoresearch in {shared} is {table!r}; make it a table")
    return (None, {}) if table is None else (shared, table)


def _parse(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {why(error)}; name a file that exists") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; correct the file") from None


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for every value in nested tables."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def _merge(
    into: Table, table: Mapping[str, Any], origin: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in table.items():
        below = into.setdefault(key, {}) if isinstance(value, Mapping) else None
        if isinstance(below, dict) and isinstance(value, Mapping):
            _merge(below, value, origin, origins, f"{prefix}{key}.")
        else:
            into[key], origins[f"{prefix}{key}"] = value, origin


def _put(into: Table, dotted: str, value: Any, origin: str, origins: dict[str, str]) -> None:
    *path, last = dotted.split(".")
    for part in path:
        into = into.setdefault(part, {})
        if not isinstance(into, dict):
            raise ConfigError(f"{dotted} from {origin} is inside a value; make {part} a table")
    _merge(into, {last: value}, origin, origins, dotted.removesuffix(last))


def _known(shape: type[Any] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in fields(resolve_types(shape)):
        if item.type is not None and has(item.type):
            yield from _known(item.type, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item.type


def _variable(dotted: str) -> str:
    return PREFIX + dotted.replace(".", "_").upper()


def _from_environment(environ: Mapping[str, str]) -> Table:
    found: Table = {}
    known = {_variable(dotted): (dotted, kind) for dotted, kind in _known()}
    for name, text in environ.items():
        dotted, kind = known.get(name, ("", None))
        if kind in (str, int, float):
            try:
                found[dotted] = kind(text)
            except ValueError:
                raise ConfigError(
                    f"{name} is {text!r}, but a {kind.__name__} is wanted; correct it"
                ) from None
        elif name.startswith(PREFIX) and name not in _NO_SETTINGS:
            fix = "; use the file or --set" if name in known else suggest(name, known)
            if fix:
                raise ConfigError(f"the environment cannot set {name}{fix}")
    return found
