"""Loads the chosen plugins, checks hooks and settings, configures them, tells what there is."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

import attrs
import pluggy
from attrs import define, frozen

from autoresearch import hookspecs
from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, ConfigError, PluginError, brought_by
from autoresearch.frozen import alike
from autoresearch.hookspecs import FORMER, HOOKS, PROJECT
from autoresearch.plugins import discovery
from autoresearch.plugins.calls import CAUGHT, PATIENCE, Calls, Manager, Observers, PluginFailure
from autoresearch.plugins.discovery import BUILT_IN, Found
from autoresearch.structure import suggest
from autoresearch.text import one_line

MARK = f"{PROJECT}_impl"


class MissingPartError(PluginError):
    """A built-in needs a distribution that is not installed."""


@frozen(kw_only=True)
class Loaded:
    """A plugin in memory; ``shape`` is its settings class, ``hooks`` what it implements."""

    found: Found
    plugin: object
    version: str
    digest: str
    summary: str
    hooks: tuple[str, ...]
    shape: type[Any] | None

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return self.found.name


def load(found: Found) -> Loaded:
    """Import a plugin and check what it implements.

    Raises PluginError: one line that names the plugin, its source and the way round it;
    MissingPartError when a built-in's optional dependency is absent.
    """
    # Looked up here, because a built-in imports it only when it is used.
    if found.needs and importlib.util.find_spec(found.needs) is None:
        fix = brought_by(found.needs)
        raise MissingPartError(f"plugin {found.name!r} needs {found.needs}; {fix}")
    try:
        digest = found.digest()
        module = found.load()
    except CAUGHT as error:
        raise _broken(found, error) from error
    plugin = _plugin_in(found, module)
    marked = ((name, item) for name, item in _functions(plugin) if hasattr(item, MARK))
    hooks = {_check(found, name, item) for name, item in marked}
    _refuse_unmarked(found, plugin)
    if not hooks:
        raise PluginError(f"{_called(found)} has no hook; mark one with @hookimpl or remove it")
    return Loaded(
        found=found,
        plugin=plugin,
        version=found.version or str(getattr(module, "__version__", "0")),
        digest=digest,
        summary=one_line((inspect.getdoc(module) or "").strip().partition("\n")[0]),
        hooks=tuple(name for name in HOOKS if name in hooks),
        shape=_shape(found, plugin, module),
    )


def way_round(name: str) -> str:
    """Say how to go on without a plugin."""
    return f"fix it, or go on without it: --plugin no:{name}"


def _refuse(found: Found, reason: str) -> NoReturn:
    raise PluginError(f"{_called(found)}: {reason}")


def _called(found: Found) -> str:
    return f"plugin {found.name!r} ({found.source})"


def _broken(found: Found, error: BaseException) -> PluginError:
    place = f" at line {error.lineno}" if isinstance(error, SyntaxError) else ""
    text = one_line(f"{type(error).__name__}: {error}")
    return PluginError(f"{_called(found)} is broken{place}: {text}; {way_round(found.name)}")


def _plugin_in(found: Found, module: object) -> object:
    """Return what has the hooks: the module, its ``plugin``, or a new ``Plugin()``.

    A class is called once for every load, so that two campaigns in one process share no state.
    """
    plugin = module
    if isinstance(module, ModuleType):
        plugin = getattr(module, "Plugin", getattr(module, "plugin", module))
    if not isinstance(plugin, type):
        return plugin
    try:
        return plugin()
    except CAUGHT as error:
        raise _broken(found, error) from error


def _functions(plugin: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(plugin):
        # Looked up without running properties, as pluggy does.
        item = inspect.getattr_static(plugin, name, None)
        if inspect.isfunction(item) or isinstance(item, (staticmethod, classmethod)):
            yield name, getattr(plugin, name)


def _check(found: Found, name: str, function: Callable[..., Any]) -> str:
    """Return the hook that a marked function implements, or say what is wrong with it."""
    options: Mapping[str, Any] = getattr(function, MARK)
    hook = str(options.get("specname") or name)
    hook = FORMER.get(hook, hook)
    if hook not in HOOKS:
        fix = suggest(hook, HOOKS, "hooks are")
        raise PluginError(f"{_called(found)} implements {hook!r}, which is not a hook{fix}")
    _check_arguments(found, hook, function)
    _check_wrapper(found, hook, options, function)
    return hook


def _check_arguments(found: Found, hook: str, function: Callable[..., Any]) -> None:
    known = HOOKS[hook].arguments
    for argument in inspect.signature(function).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            _refuse(
                found,
                f"{hook} is given its arguments by name, so {argument} would "
                f"stay empty; name what it needs of {', '.join(known)}",
            )
        if argument.name not in known:
            fix = suggest(argument.name, known, "it gets")
            _refuse(found, f"{hook} has no argument {argument.name!r}{fix}")
        if argument.default is not argument.empty:
            _refuse(found, f"{hook} always gets {argument.name!r}; remove its default")


def _check_wrapper(
    found: Found, hook: str, options: Mapping[str, Any], function: Callable[..., Any]
) -> None:
    if options.get("hookwrapper"):
        _refuse(found, f"{hook} is an old hookwrapper; use wrapper=True")
    if not options.get("wrapper"):
        return
    if not HOOKS[hook].first_result:
        # A wrapper here could hide what another plugin found or was told.
        _refuse(found, f"{hook} asks every plugin and cannot be wrapped; remove wrapper=True")
    if not inspect.isgeneratorfunction(function):
        _refuse(found, f"the wrapper of {hook} has no yield; add one")


def _refuse_unmarked(found: Found, plugin: object) -> None:
    home = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    for name, function in _functions(plugin):
        own = getattr(function, "__module__", home) == home
        if (name in HOOKS or name in FORMER) and own and not hasattr(function, MARK):
            _refuse(
                found,
                f"{name} is named like a hook but not marked; put @hookimpl above it or rename it",
            )


def _shape(found: Found, plugin: object, module: object) -> type[Any] | None:
    shape = getattr(plugin, "Settings", None) or getattr(module, "Settings", None)
    if shape is not None and not attrs.has(shape):
        _refuse(found, "Settings is not an attrs class; add @frozen to it")
    return shape


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
    settings: tuple[SettingInfo, ...] = ()
    problem: str = ""

    def as_json(self) -> Mapping[str, Any]:
        """Return everything as plain values for ``--json``."""
        return attrs.asdict(self, value_serializer=_plain)


@define(eq=False)
class Registry:
    """What was found and what is active; made once when a campaign or a command starts."""

    config: Config
    found: tuple[Found, ...]
    loaded: tuple[Loaded, ...]
    missing: Mapping[str, str]
    calls: Calls
    observers: Observers

    @classmethod
    def load(
        cls,
        config: Config,
        project: Path,
        extra: Sequence[object] = (),
        environ: Mapping[str, str] = os.environ,
        patience: float = PATIENCE,
    ) -> Self:
        """Find the plugins, make the wanted ones active, and give each its configuration.

        ``extra`` holds the values of ``--plugin``: ``NAME``, ``file.py`` or ``no:NAME``, or
        plugins themselves (modules, classes, instances); ``AUTORESEARCH_LOAD_PLUGINS`` is a comma
        list of names and files. ``patience`` is how many seconds an observer may take. Raises
        PluginError or ConfigError with one line that names the plugin.
        """
        asked, given = discovery.wishes(extra, environ)
        found = discovery.find_all(config, project, asked, given)
        discovery.check_tables(config, found)
        chosen = discovery.choose(found, config, asked)
        _check_idle_tables(config, [item for item in found if item not in chosen])
        named = discovery.named(config, asked)
        return cls._of(config.at(project), found, chosen, named, environ, patience)

    @classmethod
    def only(
        cls, *plugins: object, config: Config | None = None, patience: float = PATIENCE
    ) -> Self:
        """Make these plugins active and no other, not even a built-in: for tests and replays.

        A plugin is a module, a class, an instance, or the path of a file.
        """
        found = tuple(map(discovery.from_anything, plugins))
        discovery.settle_names(found, ())
        settings = config or Config(preset="plain")
        return cls._of(settings, found, found, frozenset(), {}, patience)

    @classmethod
    def _of(
        cls,
        config: Config,
        found: tuple[Found, ...],
        chosen: Sequence[Found],
        named: frozenset[str],
        environ: Mapping[str, str],
        patience: float,
    ) -> Self:
        """Load, register and configure the chosen plugins in their order."""
        loaded, missing = _load_all(chosen, named)
        manager = Manager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        calls = Calls(manager, environ)
        for item in loaded:
            _register(manager, item, config)
        for item in loaded:
            _configure(calls, item, config)
        return cls(config, found, loaded, missing, calls, Observers(calls, patience))

    @property
    def on_failure(self) -> Callable[[PluginFailure], None]:
        """Who is told of each failure."""
        return self.calls.on_failure

    @on_failure.setter
    def on_failure(self, listener: Callable[[PluginFailure], None]) -> None:
        self.calls.on_failure = listener

    def is_current(
        self, project: Path, extra: Sequence[object], environ: Mapping[str, str] = os.environ
    ) -> bool:
        """Return whether :meth:`load` would make the same of it, so that it can be spared."""
        asked, given = discovery.wishes(extra, environ)
        found = discovery.find_all(self.config, project, asked, given)
        chosen = discovery.choose(found, self.config, asked)
        return [item for item in chosen if item.name not in self.missing] == [
            item.found for item in self.loaded if item.found.digest() == item.digest
        ]

    def close(self) -> None:
        """Let the observers' threads end."""
        self.observers.close()

    @property
    def active(self) -> Mapping[str, str]:
        """Active name to ``version digest``, the digest cut to 12 hex digits."""
        return {item.name: f"{item.version} {item.digest[:12]}" for item in self.loaded}

    def diff(self, recorded: Mapping[str, str]) -> tuple[str, ...]:
        """Say in lines what is active now and differs from what a campaign recorded."""
        now = self.active
        lines = []
        for name in sorted({*now, *recorded}):
            if name not in recorded:
                lines.append(f"added {name} {now[name]}")
            elif name not in now:
                lines.append(f"removed {name} {recorded[name]}")
            elif now[name] != recorded[name]:
                lines.append(f"changed {name}: {recorded[name]} before, {now[name]} now")
        return tuple(lines)

    def infos(self) -> tuple[PluginInfo, ...]:
        """Describe the active plugins in the order of registration, then the others.

        Those that are not active are imported for it.
        """
        active = {id(item.found) for item in self.loaded}
        described = [self._loaded_info(item, active=True) for item in self.loaded]
        return (*described, *(self._other(item) for item in self.found if id(item) not in active))

    def _other(self, found: Found) -> PluginInfo:
        try:
            if found.shadow:
                raise PluginError(f"its name is taken by {found.shadow}; rename one of them")
            return self._loaded_info(load(found), active=False)
        except AutoresearchError as error:
            problem = self.missing.get(found.name, str(error))
        return alike(PluginInfo, found, digest="", active=False, problem=problem)

    def _loaded_info(self, item: Loaded, *, active: bool) -> PluginInfo:
        told = {"name": item.name, "source": item.found.source, "active": active}
        return alike(PluginInfo, item, settings=_settings_info(item, self.config), **told)


def _settings_info(item: Loaded, config: Config) -> tuple[SettingInfo, ...]:
    """Describe the settings class of a plugin with the values that the configuration gives it."""
    if item.shape is None:
        return ()
    values = config.settings(item.name, item.shape)
    return tuple(
        SettingInfo(
            name=one.name,
            type=one.type.__name__ if isinstance(one.type, type) else str(one.type),
            doc=str(one.metadata.get("doc", "")),
            default=_default(one, values),
            value=getattr(values, one.name),
        )
        for one in attrs.fields(item.shape)
    )


def _default(item: attrs.Attribute[Any], values: Any) -> Any:
    default: Any = item.default
    if default is attrs.NOTHING:
        return None
    if not hasattr(default, "takes_self"):  # attrs.Factory is not a class for type checkers
        return default
    return default.factory(values) if default.takes_self else default.factory()


def _plain(_: Any, __: Any, value: Any) -> Any:
    plain = isinstance(value, (str, int, float, bool, tuple, list, dict)) or value is None
    return value if plain else str(value)


def _load_all(
    chosen: Iterable[Found], named: frozenset[str]
) -> tuple[tuple[Loaded, ...], dict[str, str]]:
    """Load what was chosen; a built-in without its optional part is left out unless named."""
    loaded, missing = [], {}
    for found in chosen:
        try:
            loaded.append(load(found))
        except MissingPartError as error:
            if found.name in named:
                raise
            missing[found.name] = str(error)
    return tuple(loaded), missing


def _check_idle_tables(config: Config, idle: Iterable[Found]) -> None:
    """Check the tables of built-ins that take no part: a slip in one is a slip all the same.

    The code of others is not run for it, since installing something must change nothing.
    """
    for found in idle:
        if found.source == BUILT_IN and config.plugins.get(found.name):
            with suppress(MissingPartError):
                _check_settings(load(found), config)


def _check_settings(item: Loaded, config: Config) -> None:
    if item.shape is not None:
        config.settings(item.name, item.shape)
    elif config.plugins.get(item.name):
        raise ConfigError(
            f"plugin {item.name} takes no settings, but plugins.{item.name} has some; remove them"
        )


def _register(manager: pluggy.PluginManager, item: Loaded, config: Config) -> None:
    _check_settings(item, config)
    try:
        manager.register(item.plugin, item.name)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(
            f"plugin {item.name!r} cannot be registered: {error}; {way_round(item.name)}"
        ) from error


def _configure(calls: Calls, item: Loaded, config: Config) -> None:
    for impl in calls.implementations("configure"):
        if impl.plugin is not item.plugin:
            continue
        try:
            calls.invoke(impl, "configure", {"config": config})
        except AutoresearchError as error:
            raise type(error)(f"plugin {item.name}: {error}") from error
        except CAUGHT as error:
            raise PluginError(
                f"plugin {item.name} cannot be configured: {type(error).__name__}: {error}; "
                f"{way_round(item.name)}"
            ) from error
