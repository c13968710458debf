"""The local launcher keeps what every launcher has to promise."""

from __future__ import annotations

from types import ModuleType

import pytest

from autoresearch.launchers import local
from autoresearch.testing import LauncherContract


class TestLocal(LauncherContract):
    """The conformance tests of the kit, with the built-in launcher."""

    @pytest.fixture
    def plugin(self) -> ModuleType:
        """The launcher under test."""
        return local

    @pytest.fixture
    def launcher(self) -> str:
        """Its name in the configuration."""
        return "local"
