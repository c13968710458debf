"""What most verbs need: the project they stand in, its settings, its campaign.

The decorators add the options that say which, and hand over what the options stand for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError

if TYPE_CHECKING:
    from autoresearch.log import FileLog
    from autoresearch.plugins import Plugins
    from autoresearch.settings import Loaded

Verb = Callable[..., Any]


class Asked(NamedTuple):
    """What the options of `init` and `run` say about the campaign to start or to go on with."""

    project: Path
    tag: str | None
    config: Path | None
    sets: tuple[str, ...]
    plugins: tuple[str, ...]


project_option = click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder of the project; any folder inside it will do.",
)
tag_option = click.option("--tag", help="Run tag of the campaign; the last active one by default.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
at_option = click.option("--at", type=click.IntRange(min=0), help="As of this position of the log.")
_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of autoresearch.toml."
)
_set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set one setting, such as limits.hours=8; may be repeated.",
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME|FILE|no:NAME",
    help="Make a plugin active, load one from a file, or block one; may be repeated.",
)


def _handing(
    names: Sequence[str], resolve: Callable[..., Mapping[str, Any]], *options: Any
) -> Callable[[Verb], Verb]:
    """Make a decorator that adds options and hands on what ``resolve`` makes of their values."""

    def decorate(verb: Verb) -> Verb:
        @wraps(verb)
        def call(**given: Any) -> Any:
            return verb(**resolve(*(given.pop(name) for name in names)), **given)

        for option in reversed(options):
            option(call)
        return call

    return decorate


def _log(project: Path) -> Mapping[str, Any]:
    from autoresearch.opening import existing_store

    return {"log": existing_store(root_of(project))}


def _campaign(project: Path, tag: str | None) -> Mapping[str, Any]:
    from autoresearch.opening import open_campaign

    return {"campaign": open_campaign(project, tag)}


def _history(project: Path, tag: str | None, at: int | None) -> Mapping[str, Any]:
    campaign = _campaign(project, tag)["campaign"]
    check_position(campaign.log, at)
    history = campaign.history if at is None else campaign.at(at)
    return {"campaign": campaign, "history": history}


def _settings(project: Path, config: Path | None, sets: Sequence[str]) -> Mapping[str, Any]:
    return {"root": root_of(project), "loaded": settings_at(project, config, sets)}


def starting(tag: Any) -> Callable[[Verb], Verb]:
    """Make the decorator of a verb that may start a campaign, with this option ``--tag``."""
    rest = (_config_option, _set_option, plugin_option)
    return _handing(
        Asked._fields, lambda *values: {"asked": Asked(*values)}, project_option, tag, *rest
    )


with_log = _handing(("project",), _log, project_option)
with_campaign = _handing(("project", "tag"), _campaign, project_option, tag_option)
with_history = _handing(("project", "tag", "at"), _history, project_option, tag_option, at_option)
with_settings = _handing(
    ("project", "config", "sets"), _settings, project_option, _config_option, _set_option
)


def root_of(project: Path) -> Path:
    """Return the top of the git checkout around a folder."""
    from autoresearch.git import top_level

    return top_level(project.resolve())


def check_position(log: FileLog, at: int | None) -> None:
    """Refuse a position that the log has not reached: its answer would change later."""
    tip = log.head().position
    if at is not None and at > tip:
        raise WorkspaceError(f"the log has no position {at} yet; give --at 0 to {tip}")


def settings_at(project: Path, config: Path | None, sets: Sequence[str]) -> Loaded:
    """Return the merged settings of the project."""
    from autoresearch.opening import settings_of

    return settings_of(root_of(project), config, overrides(sets), os.environ)


def overrides(sets: Sequence[str]) -> Mapping[str, Any]:
    """Turn ``name=value`` words into settings; values are TOML, and a bare word is a string."""
    found: dict[str, Any] = {}
    for word in sets:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {word!r} is not NAME=VALUE; write it like limits.hours=8")
        try:
            found[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = text
    return found


def plugins_here(folder: Path) -> Plugins | None:
    """Return the plugins of the project around a folder; None where there is no usable one."""
    from autoresearch.plugins import Plugins

    try:
        return Plugins.load(settings_at(folder, None, ()).config, root_of(folder))
    except AutoresearchError:
        return None
