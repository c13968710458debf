"""A built-in that needs more than is installed is left out, unless somebody names it."""

import sys

import pytest

from autoresearch.errors import PluginError


@pytest.fixture
def no_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the openai distribution look as if it were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "openai"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("autoresearch.ideas")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)


def test_it_is_listed_with_what_to_install(load, no_openai):
    """The campaign goes on, and the list says what is missing."""
    told = next(item for item in load().infos() if item.name == "openai")
    assert told.problem == "plugin 'openai' needs openai; pip install 'autoresearch[openai]'"


def test_naming_it_is_an_error(load, no_openai):
    """Whoever asks for it is told at once."""
    with pytest.raises(PluginError, match=r"pip install 'autoresearch\[openai\]'"):
        load("openai")
