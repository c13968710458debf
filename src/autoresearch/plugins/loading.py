"""Loads one plugin and checks its hooks before any of them is called."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NoReturn

import attrs
from attrs import frozen

from autoresearch.errors import PluginError, brought_by
from autoresearch.hookspecs import FORMER, HOOKS, PROJECT
from autoresearch.plugins.calls import CAUGHT
from autoresearch.plugins.discovery import Found
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
        fix = suggest(hook, HOOKS) or f"; hooks are {', '.join(HOOKS)}"
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
            fix = suggest(argument.name, known) or f"; it gets {', '.join(known) or 'none'}"
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
