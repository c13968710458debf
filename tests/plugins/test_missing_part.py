"""A built-in that needs more than is installed is left out, unless somebody names it."""

import sys

import pytest

from autoresearch.errors import PluginError
from autoresearch.testing import run_request, workspace


@pytest.fixture
def no_modal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modal distribution look as if it were not installed."""
    monkeypatch.setitem(sys.modules, "modal", None)


@pytest.fixture
def no_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the openai distribution look as if it were not installed."""
    monkeypatch.setitem(sys.modules, "openai", None)


def test_it_is_listed_with_what_to_install(load, no_openai):
    """The campaign goes on, and the list says what is missing."""
    told = next(item for item in load().infos() if item.name == "openai")
    assert told.problem == "plugin 'openai' needs openai; pip install 'autoresearch[openai]'"


def test_naming_it_is_an_error(load, no_openai):
    """Whoever asks for it is told at once."""
    with pytest.raises(PluginError, match=r"pip install 'autoresearch\[openai\]'"):
        load("openai")


def test_asking_a_launcher_that_is_left_out_says_why(load, no_modal, tmp_path):
    """A campaign on Modal without its client is told what to install, not that nobody answers."""
    plugins = load()
    with pytest.raises(PluginError, match=r"pip install 'autoresearch\[modal\]'"):
        plugins.launch_run(run_request(tmp_path, launcher="modal"), workspace(tmp_path / "work"))
