"""Decides which of the plugins that were found are active, and in which order they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from autoresearch.config import Config
from autoresearch.errors import ConfigError, PluginError
from autoresearch.plugins.sources import Found, find, from_file, from_object, settle_names
from autoresearch.structure import suggest

LOAD = "AUTORESEARCH_LOAD_PLUGINS"
BLOCK = "no:"


def wishes(
    extra: Sequence[object], environ: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[Found, ...]]:
    """Return what the environment and then the caller ask for, and the objects among it.

    What is asked for is NAME, file.py or no:NAME; an object is asked for by its name.
    """
    asked, given = [], []
    for wish in (*environ.get(LOAD, "").split(","), *extra):
        if isinstance(wish, str):
            asked.append(wish.strip())
        else:
            given.append(from_object(wish))
            asked.append(given[-1].name)
    return tuple(wish for wish in asked if wish), tuple(given)


def find_all(
    config: Config, project: Path, asked: Iterable[str], given: Iterable[Found] = ()
) -> tuple[Found, ...]:
    """Return every plugin, the files and objects that were asked for among them.

    Raises PluginError for a file that does not exist and for two plugins of one name.
    """
    found = find(config, project)
    known = {item.path.resolve() for item in found if item.path}
    paths = dict.fromkeys(_path(wish, project) for wish in asked if _is_file(wish))
    files = tuple(from_file(path, project) for path in paths if path.resolve() not in known)
    return settle_names([*found, *files, *given], named(config, asked))


def choose(found: Sequence[Found], config: Config, asked: Sequence[str]) -> tuple[Found, ...]:
    """Return the active plugins, first registered first; the last registered answers first.

    What was asked for in the environment or on the command line comes last, in the order asked.
    The last word about a name counts; ``no:plugins/*.py`` blocks every plugin whose source fits.
    Raises PluginError for a name that nobody has.
    """
    by_name = {item.name: item for item in found if not item.shadow}
    on = {item.name: item.default for item in by_name.values()}
    for wish in (*config.active, *asked):
        for name in _meant(wish, found):
            on[_known(name, by_name)] = not wish.startswith(BLOCK)
    names = [_name(wish) for wish in asked if not wish.startswith(BLOCK)]
    order = [name for name in by_name if name not in names] + list(dict.fromkeys(names))
    return tuple(by_name[name] for name in order if on[name])


def named(config: Config, asked: Iterable[str]) -> frozenset[str]:
    """Return the names that somebody asked for, so that their absence is an error."""
    wishes_ = (wish for wish in (*config.active, *asked) if not wish.startswith(BLOCK))
    return frozenset(_name(wish) for wish in wishes_)


def check_tables(config: Config, found: Iterable[Found]) -> None:
    """Refuse a table of settings for a plugin that does not exist.

    Raises ConfigError with the nearest name.
    """
    names = [item.name for item in found]
    for name in config.plugins:
        if name not in names:
            mend = suggest(name, names) or f"; plugins are {', '.join(names)}"
            raise ConfigError(f"settings for an unknown plugin: plugins.{name}{mend}")


def _is_file(wish: str) -> bool:
    return not wish.startswith(BLOCK) and (wish.endswith(".py") or "/" in wish)


def _name(wish: str) -> str:
    return Path(wish).stem if _is_file(wish) else wish.removeprefix(BLOCK)


def _meant(wish: str, found: Iterable[Found]) -> list[str]:
    if wish.startswith(BLOCK) and "*" in wish:
        sources = wish.removeprefix(BLOCK)
        return [item.name for item in found if fnmatchcase(item.source, sources)]
    return [_name(wish)]


def _known(name: str, by_name: Mapping[str, Found]) -> str:
    if name in by_name:
        return name
    mend = suggest(name, by_name) or f"; plugins are {', '.join(by_name)}"
    raise PluginError(f"there is no plugin {name!r}{mend}")


def _path(wish: str, project: Path) -> Path:
    path = Path(wish).expanduser()
    for place in (path, project / path):
        if place.is_file():
            return place.resolve()
    raise PluginError(f"plugin file {wish!r} does not exist; correct the path")
