"""The presets that ship with autoresearch; what one brings is imported when somebody asks for it.

This is the only file outside of a preset's own package that names it. Its values are named tuples:
`--version` and `--help` read it, and attrs takes longer to import than all that they need besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

DEFAULT = "plain"
_NONE: Mapping[str, Any] = MappingProxyType({})

# Modules that hold a PRESET; they are read for `--help` and every project, so they must be light.
_MODULES = {"golf": "autoresearch.golf", "plain": ""}


class PresetPlugin(NamedTuple):
    """A plugin that is active in campaigns of its preset; ``needs`` as in a built-in plugin."""

    name: str
    module: str
    needs: str = ""


class Verb(NamedTuple):
    """A command of the command line: one line of help, and its click command as module:name."""

    help: str
    command: str


class MetricColumn(NamedTuple):
    """A metric that has a column of its own name in the views ``runs`` and ``experiments``."""

    doc: str
    unit: str = ""


class Preset(NamedTuple):
    """Defaults to start from, and what comes with them; ``settings`` are shaped like a file's.

    ``mark`` is a file and a word in it by which a project of the task is known: the preset is its
    default, and ``template`` are the files with which one begins. ``verbs`` and ``columns`` are
    there in every project, whatever preset it starts from.
    """

    name: str
    summary: str
    settings: Mapping[str, Any] = _NONE
    mark: tuple[str, str] | None = None
    plugins: tuple[PresetPlugin, ...] = ()
    verbs: Mapping[str, Verb] = _NONE
    columns: Mapping[str, MetricColumn] = _NONE
    template: tuple[str, ...] = ()


@cache
def presets() -> Mapping[str, Preset]:
    """Return all presets by name."""
    return {name: _load(name, module) for name, module in _MODULES.items()}


def _load(name: str, module: str) -> Preset:
    if not module:
        return Preset(name=name, summary="no defaults of any task")
    found: Preset = import_module(module).PRESET
    return found


def default_for(project: Path) -> str:
    """Return the preset that a project starts from where no setting names one."""
    return next((name for name, preset in presets().items() if _fits(project, preset)), DEFAULT)


def _fits(project: Path, preset: Preset) -> bool:
    try:
        return (
            preset.mark is not None
            and preset.mark[1].encode() in (project / preset.mark[0]).read_bytes()
        )
    except OSError:
        return False


def preset_verbs() -> Mapping[str, Verb]:
    """Return the verbs of all presets by name."""
    found = (preset.verbs.items() for preset in presets().values())
    return {name: verb for verbs in found for name, verb in verbs}


def metric_columns() -> Mapping[str, MetricColumn]:
    """Return the metrics of all presets that have a column of their own."""
    found = (preset.columns.items() for preset in presets().values())
    return {name: column for columns in found for name, column in columns}
