"""What most verbs need: the project they stand in, its settings, its campaign."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from autoresearch.campaign import Campaign
from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError
from autoresearch.git import top_level
from autoresearch.history import History
from autoresearch.log import FileLog
from autoresearch.opening import existing_store, open_campaign, settings_of
from autoresearch.plugins import Plugins
from autoresearch.settings import Loaded

F = TypeVar("F", bound=Callable[..., Any])


def project_option(function: F) -> F:
    """Add ``--project``."""
    return click.option(
        "--project",
        type=click.Path(path_type=Path),
        default=Path(),
        help="Folder of the project; any folder inside it will do.",
    )(function)


def tag_option(function: F) -> F:
    """Add ``--tag``."""
    return click.option("--tag", help="Run tag of the campaign; the last active one by default.")(
        function
    )


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def at_option(function: F) -> F:
    """Add ``--at``."""
    return click.option("--at", type=click.IntRange(min=0), help="As of this position of the log.")(
        function
    )


def config_options(function: F) -> F:
    """Add ``--config`` and ``--set``."""
    function = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set one setting, such as limits.hours=8; may be repeated.",
    )(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file instead of autoresearch.toml.",
    )(function)


def plugin_option(function: F) -> F:
    """Add ``--plugin``."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="NAME|FILE|no:NAME",
        help="Make a plugin active, load one from a file, or block one; may be repeated.",
    )(function)


def root_of(project: Path) -> Path:
    """Return the top of the git checkout around a folder."""
    return top_level(project.resolve())


def store_at(project: Path) -> FileLog:
    """Return the store of a project that has one."""
    return existing_store(root_of(project))


def campaign_at(project: Path, tag: str | None) -> Campaign:
    """Return the campaign that a verb is about."""
    return open_campaign(project, tag)


def check_position(store: FileLog, at: int | None) -> None:
    """Refuse a position that the log has not reached: its answer would change later."""
    tip = store.tip().position
    if at is not None and at > tip:
        raise WorkspaceError(f"the log has no position {at} yet; give --at 0 to {tip}")


def history_at(campaign: Campaign, at: int | None) -> History:
    """Return the History of a campaign now, or as it was at a position of the log."""
    check_position(campaign.log, at)
    return campaign.history if at is None else campaign.at(at)


def settings_at(project: Path, config: Path | None, sets: Sequence[str]) -> Loaded:
    """Return the merged settings of the project."""
    return settings_of(root_of(project), config, overrides(sets), os.environ)


def overrides(sets: Sequence[str]) -> Mapping[str, Any]:
    """Turn ``name=value`` words into settings; values are TOML, and a bare word is a string."""
    import tomllib

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
    try:
        root = top_level(folder)
        return Plugins.load(settings_of(root, environ=os.environ).config, root)
    except AutoresearchError:
        return None
