"""The local launcher keeps what every launcher has to promise."""

from __future__ import annotations

import pytest

from autoresearch.launchers.local import Plugin
from autoresearch.testing import LauncherContract


class TestLocal(LauncherContract):
    """The conformance tests of the kit, with the built-in launcher."""

    @pytest.fixture
    def plugin(self) -> Plugin:
        """The launcher under test."""
        return Plugin()

    @pytest.fixture
    def launcher(self) -> str:
        """Its name in the configuration."""
        return "local"
