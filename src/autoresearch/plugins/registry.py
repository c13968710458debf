"""Loads the chosen plugins, checks their settings, registers and configures them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pluggy
from attrs import define

from autoresearch import hookspecs
from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, ConfigError, PluginError
from autoresearch.plugins import selection
from autoresearch.plugins.calls import Calls
from autoresearch.plugins.failures import CAUGHT, Failures
from autoresearch.plugins.info import PluginInfo, settings_of
from autoresearch.plugins.loading import Loaded, MissingPartError, load, way_round
from autoresearch.plugins.observers import Observers
from autoresearch.plugins.sources import BUILT_IN, Found
from autoresearch.plugins.trace import Trace


@define
class Registry:
    """What was found and what is active; made once when a campaign or a command starts."""

    config: Config
    found: tuple[Found, ...]
    loaded: tuple[Loaded, ...]
    missing: Mapping[str, str]
    calls: Calls
    failures: Failures
    observers: Observers

    @classmethod
    def load(
        cls,
        config: Config,
        project: Path,
        extra: Sequence[object],
        environ: Mapping[str, str],
        patience: float,
    ) -> Registry:
        """Do everything that ``Plugins.load`` promises."""
        asked, given = selection.wishes(extra, environ)
        found = selection.find_all(config, project, asked, given)
        selection.check_tables(config, found)
        chosen = selection.choose(found, config, asked)
        _check_idle_tables(config, [item for item in found if item not in chosen])
        return cls.of(config, found, chosen, selection.named(config, asked), environ, patience)

    @classmethod
    def of(
        cls,
        config: Config,
        found: tuple[Found, ...],
        chosen: Sequence[Found],
        named: frozenset[str],
        environ: Mapping[str, str],
        patience: float,
    ) -> Registry:
        """Load, register and configure the chosen plugins in their order."""
        loaded, missing = _load_all(chosen, named)
        manager, failures = pluggy.PluginManager(hookspecs.PROJECT), Failures()
        manager.add_hookspecs(hookspecs)
        calls = Calls(manager, failures, Trace(environ))
        for item in loaded:
            _register(manager, item, config)
        for item in loaded:
            _configure(calls, item, config)
        observers = Observers(calls, patience)
        return cls(config, found, loaded, missing, calls, failures, observers)

    @property
    def active(self) -> Mapping[str, str]:
        """Active name to version and the start of the digest."""
        return {item.name: f"{item.version} {item.digest[:12]}" for item in self.loaded}

    def diff(self, recorded: Mapping[str, str]) -> tuple[str, ...]:
        """Return a line for each plugin that was added, removed or changed."""
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
        """Describe the active plugins in the order of registration, then the others."""
        active = {id(item.found) for item in self.loaded}
        described = [self._info(item, active=True) for item in self.loaded]
        return (*described, *(self._other(item) for item in self.found if id(item) not in active))

    def _other(self, found: Found) -> PluginInfo:
        if found.shadow:
            return _unusable(found, f"its name is taken by {found.shadow}; rename one of them")
        try:
            return self._info(load(found), active=False)
        except AutoresearchError as error:
            return _unusable(found, self.missing.get(found.name, str(error)))

    def _info(self, item: Loaded, *, active: bool) -> PluginInfo:
        return PluginInfo(
            name=item.name,
            version=item.version,
            source=item.found.source,
            digest=item.digest,
            active=active,
            summary=item.summary,
            hooks=item.hooks,
            settings=settings_of(item.name, item.shape, self.config),
        )


def _unusable(found: Found, problem: str) -> PluginInfo:
    return PluginInfo(
        name=found.name,
        version=found.version,
        source=found.source,
        digest="",
        active=False,
        problem=problem,
    )


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
