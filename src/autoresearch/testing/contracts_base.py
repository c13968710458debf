"""What all conformance classes share: the plugin under test behind the real facade."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest

from autoresearch.config import Config, MetricConfig
from autoresearch.history import History
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing.examples import EXAMPLES

PATIENCE = 2.0  # seconds; an observer that needs longer is taken to hang


class PluginContract:
    """Subclass a contract, give it the fixture ``plugin``, and pytest checks the rest.

    ``plugin`` returns a module, an instance, or a class that can be called without arguments.
    ``config`` may be given too, for a plugin with settings.
    """

    hooks: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin under test."""
        pytest.fail(f"{type(self).__name__} has no plugin; give it a fixture of this name")

    @pytest.fixture
    def config(self) -> Config:
        """The configuration that the plugin is given."""
        return Config(preset="plain", metric=MetricConfig(sd=0.001))

    @pytest.fixture
    def companions(self) -> tuple[object, ...]:
        """Plugins that stand behind the one under test."""
        return ()

    @pytest.fixture
    def failures(self) -> list[PluginFailure]:
        """What the facade reported about the plugin."""
        return []

    @pytest.fixture
    def plugins(
        self,
        plugin: object,
        config: Config,
        companions: tuple[object, ...],
        failures: list[PluginFailure],
    ) -> Iterator[Plugins]:
        """The facade with the plugin under test and no built-in."""
        made = Plugins.only(*companions, plugin, config=config, patience=PATIENCE)
        made.on_failure = failures.append
        yield made
        made.close()

    def test_implements_its_hook(self, plugins: Plugins) -> None:
        """The plugin can be loaded and implements the hook that its kind is named after."""
        implemented = plugins.infos()[-1].hooks
        assert set(self.hooks) & set(implemented), (
            f"it implements {', '.join(implemented)}, but none of {', '.join(self.hooks)}"
        )


def sound(failures: list[PluginFailure], situation: str) -> None:
    """Fail the test when the facade reported anything."""
    assert not failures, f"{situation}: {failures[0]}\n{failures[0].traceback}"


def situations() -> Iterator[tuple[str, History]]:
    """Yield every example history with its name."""
    return ((name, _told(name)) for name in EXAMPLES)


@cache  # telling them all takes 0.1 s, and a History cannot be changed
def _told(name: str) -> History:
    return EXAMPLES[name]().history


def snapshot(folder: Path) -> dict[str, str]:
    """Return the digest of every file under a folder, to see what was written."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
