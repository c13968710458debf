"""What every projection and every observer must do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
from attrs import evolve

from autoresearch.history import History
from autoresearch.log import Recorded
from autoresearch.model import Notice
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.projections import Projection
from autoresearch.testing.builders import experiment, idea
from autoresearch.testing.contracts_base import PluginContract, situations, sound
from autoresearch.testing.examples import EXAMPLES
from autoresearch.testing.story import history

_NOTICES = ("new_best", "stuck", "budget_gone", "needs_human")
_ESCAPE = "\x1b[2Jcleared\x1b]0;title\x07"


class ProjectionContract:
    """Conformance of a projection; give the fixture ``projection``."""

    @pytest.fixture
    def projection(self) -> Projection:
        """The projection under test."""
        pytest.fail(f"{type(self).__name__} has no projection; give it a fixture of this name")

    def test_has_a_file_name(self, projection: Projection) -> None:
        """Its file has a name and no folder."""
        name = projection.file_name
        bare = isinstance(name, str) and name != "" and PurePath(name).name == name
        assert bare, f"file_name is {name!r}; give a name without a folder"

    def test_renders_every_history(self, projection: Projection) -> None:
        """There is no campaign that it cannot show."""
        for name, past in situations():
            text = projection.render(past)
            assert isinstance(text, str), f"{name}: it rendered {text!r}; return text"

    def test_same_history_same_text(
        self, projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The text follows from the history alone: not from time, place or what came before."""
        texts = {name: _shown(projection, past) for name, past in situations()}
        monkeypatch.chdir(tmp_path)
        for name, past in reversed(list(situations())):
            assert _shown(projection, past) == texts[name], f"{name}: the second text differs"

    def test_shows_foreign_text_safely(self, projection: Projection) -> None:
        """Terminal escapes in an idea do not reach the file."""
        told = experiment(1.05, idea=idea(_ESCAPE, hypothesis=_ESCAPE, direction=_ESCAPE))
        text = projection.render(history([1.1, told]))
        assert "\x1b" not in text, "an escape sequence of an idea stands in the file"

    def test_writes_nothing(
        self, projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It returns its text and leaves writing to the loop."""
        monkeypatch.chdir(tmp_path)
        for _, past in situations():
            _shown(projection, past)
        assert os.listdir(tmp_path) == [], f"it wrote {os.listdir(tmp_path)}"


def _shown(projection: Projection, past: History) -> str:
    """Return the text, or the error: that it fails at all is told by one test and not by all."""
    try:
        return projection.render(past)
    except Exception as error:
        return repr(error)


class ObserverContract(PluginContract):
    """Conformance of ``event_recorded`` and ``notify``; give ``plugin``.

    It must not need more than two seconds for any event.
    """

    hooks = ("event_recorded", "notify")

    def test_sees_every_event(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It neither raises nor hangs, whatever happens in a campaign."""
        for event, past in _watched():
            plugins.event_recorded(event, past)
            sound(failures, f"event {event.type}")

    def test_sees_events_of_newer_releases(
        self, plugins: Plugins, failures: list[PluginFailure]
    ) -> None:
        """An event type that it does not know is no reason to fail."""
        event, past = next(_watched())
        plugins.event_recorded(evolve(event, type="from_the_future", payload='{"x":1}'), past)
        sound(failures, "an event of an unknown type")

    def test_takes_every_notice(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It can tell a person about everything there is to tell, with and without a number."""
        for kind in _NOTICES:
            for number in (None, 3):
                plugins.notify(
                    Notice(kind=kind, campaign="test", text=f"{kind} 1.07", experiment=number)
                )
                sound(failures, f"notice {kind}")


def _watched() -> Iterator[tuple[Recorded, History]]:
    for make in EXAMPLES.values():
        told = make()
        for event in told.log.read():
            yield event, told.history
