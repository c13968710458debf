"""A project folder into which a test writes plugins, and the facade that finds them there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from autoresearch.config import Config
from autoresearch.plugins import PluginFailure, Plugins

HEAD = '''"""{summary}."""
from autoresearch import *
from attrs import frozen
'''

Write = Callable[..., Path]
Load = Callable[..., Plugins]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes ``plugins/NAME.py`` of the project, with the imports that every plugin needs."""

    def write_file(
        name: str, text: str, summary: str = "A plugin", folder: str = "plugins"
    ) -> Path:
        path = tmp_path / folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD.format(summary=summary) + dedent(text))
        return path

    return write_file


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads the project's plugins without any environment; options are those of Config."""
    opened: list[Plugins] = []

    def load_all(*extra: Any, environ: dict[str, str] | None = None, **options: Any) -> Plugins:
        config = Config(**{"preset": "plain", **options})
        opened.append(Plugins.load(config, tmp_path, extra, environ or {}))
        return opened[-1]

    yield load_all
    for plugins in opened:
        plugins.close()


@pytest.fixture
def only() -> Iterator[Callable[..., tuple[Plugins, list[PluginFailure]]]]:
    """Makes a facade of nothing but the given plugins, and the list of their failures."""
    opened: list[Plugins] = []

    def make(*given: object, **options: Any) -> tuple[Plugins, list[PluginFailure]]:
        plugins, failures = Plugins.only(*given, **options), list[PluginFailure]()
        plugins.on_failure = failures.append
        opened.append(plugins)
        return plugins, failures

    yield make
    for plugins in opened:
        plugins.close()
