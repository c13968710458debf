"""What several plugins give together: metrics, projections, commands; clashes name both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import frozen

from autoresearch.config import Config
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.model import Violation
from autoresearch.plugins.answers import NonsenseError, number
from autoresearch.plugins.calls import Calls
from autoresearch.plugins.failures import CAUGHT, PluginFailure
from autoresearch.projections import Projection

if TYPE_CHECKING:
    import pluggy

T = TypeVar("T")

# Written by the loop itself, or read by it.
_TAKEN = ("results.tsv", "notes.md", "run.log", "events.duckdb")


def unaudited(failure: PluginFailure) -> tuple[Violation, ...]:
    """Stand in for an audit that failed: a script must not pass by breaking its auditor."""
    detail = f"{failure.hook} of {failure.plugin} failed: {failure.error}"
    return (Violation(rule="audit_failed", detail=detail),)


def merge_metrics(
    found: Sequence[tuple[str, Mapping[str, Any]]], calls: Calls
) -> Mapping[str, float]:
    """Put the metrics of several plugins together; a value that is no number is left out."""
    numbers = [(plugin, _numbers(plugin, metrics, calls)) for plugin, metrics in found]
    return merge(numbers, "extract_metrics", calls)


def merge(found: Sequence[tuple[str, Mapping[str, T]]], hook: str, calls: Calls) -> Mapping[str, T]:
    """Put the mappings of several plugins together.

    A name to which two plugins give different values is left out and the clash is reported:
    nobody wins, and a script that prints two scores can neither choose one nor stop the loop.
    """
    merged: dict[str, T] = {}
    giver: dict[str, str] = {}
    clashes: set[str] = set()
    for plugin, values in found:
        for name, value in values.items():
            first = giver.setdefault(name, plugin)
            if merged.setdefault(name, value) != value:
                clashes.add(name)
                both = f"{merged[name]!r} from {first} and {value!r} from {plugin}"
                problem = NonsenseError(f"two values for {name!r}: {both}; neither is used")
                calls.failed(plugin, hook, problem)
    return {name: value for name, value in merged.items() if name not in clashes}


def _numbers(plugin: str, metrics: Mapping[str, Any], calls: Calls) -> dict[str, float]:
    sound = {}
    for name, value in metrics.items():
        try:
            sound[name] = number(value)
        except NonsenseError as error:
            calls.failed(plugin, "extract_metrics", NonsenseError(f"metric {name!r}: {error}"))
    return sound


@frozen
class PluginProjection:
    """A plugin's projection; when it cannot be made, its file says so and the loop goes on."""

    plugin: str
    inner: Projection
    file_name: str
    calls: Calls

    def render(self, history: History) -> str:
        """Return the file's text, or one line that names the plugin and its error."""
        try:
            text = self.inner.render(history)
            if not isinstance(text, str):
                raise NonsenseError(f"{type(text).__name__} is not the text of {self.file_name}")
        except CAUGHT as error:
            failure = self.calls.failed(self.plugin, "register_projections", error)
            return f"{self.file_name} could not be made by plugin {self.plugin}: {failure.error}\n"
        return text


def gather_projections(calls: Calls, config: Config) -> tuple[Projection, ...]:
    """Return the projections of all plugins.

    Raises PluginError when two of them, or one and the loop, claim the same file.
    """
    check = partial(_projections, calls=calls)
    found = calls.collect("register_projections", check, {"config": config})
    owner = dict.fromkeys(_TAKEN, "autoresearch")
    for plugin, projections in found:
        for item in projections:
            if item.file_name in owner:
                raise PluginError(
                    f"{item.file_name} is written by {owner[item.file_name]} and by plugin "
                    f"{plugin}; rename the file of one"
                )
            owner[item.file_name] = plugin
    return tuple(item for _, projections in found for item in projections)


def _projections(answer: object, plugin: str, calls: Calls) -> tuple[PluginProjection, ...]:
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise NonsenseError(f"{type(answer).__name__} is not a sequence of projections")
    return tuple(_projection(item, plugin, calls) for item in answer)


def _projection(item: object, plugin: str, calls: Calls) -> PluginProjection:
    if not isinstance(item, Projection):
        raise NonsenseError(f"{type(item).__name__} is no Projection; give file_name and render")
    name = item.file_name
    if not isinstance(name, str) or not name or PurePath(name).name != name:
        raise NonsenseError(f"{name!r} is not the name of a file; leave folders out")
    return PluginProjection(plugin, item, name, calls)


def add_commands(calls: Calls, cli: click.Group) -> None:
    """Let every plugin add commands to the group; commands that were there stay as they are."""
    for impl in calls.implementations("register_commands"):
        _add(calls, impl, cli)


def _add(calls: Calls, impl: pluggy.HookImpl, cli: click.Group) -> None:
    before = dict(cli.commands)
    try:
        calls.invoke(impl, "register_commands", {"cli": cli})
        for name, command in before.items():
            if cli.commands.get(name) is not command:
                raise NonsenseError(f"command {name!r} exists already; choose another name")
    except CAUGHT as error:
        cli.commands = before
        calls.failed(impl.plugin_name, "register_commands", error)
