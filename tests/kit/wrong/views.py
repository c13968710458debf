"""Wrong projections and observers; the first of each kind is right."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from autoresearch.events import EVENT_TYPES
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.log import Recorded
from autoresearch.model import Notice
from autoresearch.text import one_line


class View:
    """A right projection: one line for each experiment."""

    file_name = "view.txt"

    def render(self, history: History) -> str:
        """Return the text."""
        lines = (self.line(item.idea.description) for item in history.experiments)
        return "".join(f"{line}\n" for line in lines)

    def line(self, text: str) -> str:
        """Return a text as one line."""
        return one_line(text)


class InAFolder(View):
    """Writes where it does not belong."""

    file_name = "../view.txt"


class NeedsABest(View):
    """Fails before anything was kept."""

    def render(self, history: History) -> str:
        """Return the text."""
        assert history.best is not None
        return super().render(history)


class ShowsTheTime(View):
    """Renders different text each time, as a clock does."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def render(self, history: History) -> str:
        """Return the text."""
        return f"{super().render(history)}tick {next(self._ticks)}\n"


class ShowsEscapes(View):
    """Trusts foreign text."""

    def line(self, text: str) -> str:
        """Return the text."""
        return text


class WritesItself(View):
    """Writes its file, which is the loop's to do."""

    def render(self, history: History) -> str:
        """Return the text."""
        text = super().render(history)
        Path(self.file_name).write_text(text)
        return text


class Observer:
    """A right observer: it counts."""

    def __init__(self) -> None:
        self.seen = 0

    @hookimpl
    def event_recorded(self, event: Recorded) -> None:
        """Observe."""
        self.look(event)

    def look(self, event: Recorded) -> None:
        """Count."""
        self.seen += 1

    @hookimpl
    def notify(self, notice: Notice) -> None:
        """Tell."""
        self.say(notice)

    def say(self, notice: Notice) -> str:
        """Return what is told."""
        return f"{notice.kind}: {notice.text}"


class NoObserver:
    """Implements a hook that its contract does not ask for."""

    @hookimpl
    def backtrack(self, history: History) -> None:
        """Carry on."""


class Raises(Observer):
    """Fails when a decision is made."""

    def look(self, event: Recorded) -> None:
        """Look."""
        assert event.type != "decided"


class Hangs(Observer):
    """Never comes back from a decision."""

    def look(self, event: Recorded) -> None:
        """Look."""
        if event.type == "decided":
            time.sleep(3600)


class KnowsItAll(Observer):
    """Fails on an event that it does not know."""

    def look(self, event: Recorded) -> None:
        """Look."""
        assert EVENT_TYPES[event.type] is not None


class WantsANumber(Observer):
    """Fails on a notice that belongs to no experiment."""

    def say(self, notice: Notice) -> str:
        """Return what is told."""
        return f"experiment {notice.experiment:d}: {notice.text}"
