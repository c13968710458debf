"""What most verbs need: the project they stand in, its settings, its campaign.

The decorators add the options that say which, and hand over what the options stand for.
"""

from __future__ import annotations

import functools
import inspect
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError

if TYPE_CHECKING:
    from autoresearch.log import FileLog
    from autoresearch.plugins import Plugins
    from autoresearch.settings import Loaded

Verb = Callable[..., Any]
_PATH = click.Path(path_type=Path)
_SET = "Set one setting, such as limits.hours=8; may be repeated."
_PLUGIN = "Make a plugin active, load one from a file, or block one; may be repeated."

project_option = click.option(
    "--project", type=_PATH, default=Path(), help="Folder of the project, or any folder inside it."
)
tag_option = click.option(
    "--tag", help="Run tag: the last active one by default; today's date for a new campaign."
)
at_option = click.option("--at", type=click.IntRange(min=0), help="As of this position of the log.")
plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="NAME|FILE|no:NAME", help=_PLUGIN
)
_OPTIONS = {
    "project": project_option,
    "tag": tag_option,
    "at": at_option,
    "config": click.option("--config", type=_PATH, help="Settings instead of autoresearch.toml."),
    "sets": click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help=_SET),
    "plugins": plugin_option,
}
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _handing(resolve: Callable[..., Mapping[str, Any]]) -> Callable[[Verb], Verb]:
    """Make a decorator that adds the options that ``resolve`` takes, and hands on its answer."""
    names = tuple(inspect.signature(resolve).parameters)

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**given: Any) -> Any:
            return verb(**resolve(**{name: given.pop(name) for name in names}), **given)

        for name in reversed(names):
            _OPTIONS[name](call)
        return call

    return decorate


@_handing
def with_log(project: Path) -> Mapping[str, Any]:
    """Hand over ``log``, the store of a project that has one."""
    from autoresearch.opening import existing_store

    return {"log": existing_store(root_of(project))}


@_handing
def with_campaign(project: Path, tag: str | None) -> Mapping[str, Any]:
    """Hand over the ``campaign``."""
    from autoresearch.opening import open_campaign

    return {"campaign": open_campaign(project, tag)}


@_handing
def with_history(project: Path, tag: str | None, at: int | None) -> Mapping[str, Any]:
    """Hand over the ``campaign``, and its ``history`` as of a position."""
    from autoresearch.opening import look_at

    campaign = look_at(project, tag)
    check_position(campaign.log, at)
    return {"campaign": campaign, "history": campaign.history if at is None else campaign.at(at)}


@_handing
def with_settings(project: Path, config: Path | None, sets: Sequence[str]) -> Mapping[str, Any]:
    """Hand over ``root``, the top of the project, and its ``loaded`` settings."""
    return {"root": root_of(project), "loaded": settings_at(project, config, sets)}


@_handing
def with_asked(
    project: Path, tag: str | None, config: Path | None, sets: Sequence[str], plugins: Sequence[str]
) -> Mapping[str, Any]:
    """Hand over ``asked``, the arguments of :func:`autoresearch.start`."""
    asked = {"project": project, "tag": tag, "config": config, "plugins": plugins}
    return {"asked": {**asked, "overrides": overrides(sets), "environ": os.environ}}


def root_of(project: Path) -> Path:
    """Return the top of the git checkout around a folder."""
    from autoresearch.git import top_level

    return top_level(project.resolve())


def check_position(log: FileLog, at: int | None) -> None:
    """Refuse a position that the log has not reached: its answer would change later."""
    tip = log.tip().position
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
        name, text = pair(word, "--set", like="limits.hours=8")
        try:
            found[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = text
    return found


def pair(
    word: str, option: str, form: str = "NAME=VALUE", *, like: str = "MATRIX_LR=0.02"
) -> tuple[str, str]:
    """Split a word of an option such as ``NAME=VALUE``."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ConfigError(f"{option} {word!r} is not {form}; write it like {like}")
    return name, value


def environment(words: Sequence[str]) -> dict[str, str]:
    """Return the variables that the words of ``--env`` give."""
    return dict(pair(word, "--env") for word in words)


def plugins_here(folder: Path) -> Plugins | None:
    """Return the plugins of the project around a folder; None where there is no usable one."""
    from autoresearch.plugins import Plugins

    try:
        return Plugins.load(settings_at(folder, None, ()).config, root_of(folder))
    except AutoresearchError:
        return None
