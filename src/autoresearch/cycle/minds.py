"""What the loop does for minds: lends hands to their desk, lets them rest, tells them refusals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from autoresearch import events
from autoresearch.config import BoundaryConfig
from autoresearch.cycle.kit import Kit
from autoresearch.desk import Desk, Hands
from autoresearch.launchers.boundary import Boundary
from autoresearch.launchers.environment import clean_environment
from autoresearch.launchers.folder import log_in
from autoresearch.model import Workspace


@frozen
class LoopHands(Hands):
    """The hands of a loop: its store, its runs, its lab, its log."""

    kit: Kit

    def text(self, name: str) -> str:
        """Return the stored text of a digest."""
        return self.kit.sources.get(name)

    def keep(self, text: str) -> str:
        """Store a text durably."""
        return self.kit.sources.put(text)

    def record(self, *facts: events.Event) -> None:
        """Append facts to the campaign's log."""
        self.kit.recorder.record_together(*facts)

    def output(self, run: str) -> Path | None:
        """Return the file with a run's output."""
        path = log_in(self.kit.lab.folder / "runs" / Path(run).name)
        return path if path.is_file() else None

    def document(self, path: str) -> str:
        """Return a tracked file as it is at head, empty where there is none."""
        shown = self.kit.lab.clone.attempt("show", f"{self.kit.head_commit()}:{path}")
        return shown.stdout if shown.returncode == 0 else ""

    def copy(self, folder: Path) -> None:
        """Write every tracked file of head into a folder."""
        self.kit.lab.export(self.kit.head_commit(), folder)

    def environment(self, passed: Sequence[str]) -> Mapping[str, str]:
        """Return what a run would see, and the names to pass."""
        return clean_environment(os.environ, {}, passed)

    def around(self, folder: Path, settings: BoundaryConfig) -> Sequence[str]:
        """Return bubblewrap's words, where it works: the folder to write in, the store hidden."""
        boundary = Boundary(settings=settings)
        if not boundary.on:
            return ()
        beside = folder.with_name("beside")
        beside.mkdir(exist_ok=True)
        lab = self.kit.lab
        place = Workspace(path=folder, script=lab.script, project=lab.project)
        return boundary.around(place, beside, os.environ)

    def beat(self) -> str:
        """Take in what people said meanwhile; an order to stop at once ends the command."""
        order = self.kit.recorder.refresh().stop
        return f"stopped by {order.by}" if order is not None and order.now else ""


def desk(kit: Kit) -> Desk:
    """Return the desk for the question that is asked now."""
    return Desk(history=kit.history, hands=LoopHands(kit))


def resting(kit: Kit) -> dict[str, str]:
    """Return the minds that are not asked now, each with the reason why it gives no answer."""
    found, now = {}, kit.clock.now()
    suspended = kit.history.suspended
    for author, times in tuple(kit.rests):
        if author not in suspended:  # it answered since, and counts from one again
            del kit.rests[author, times]
    for author, event in suspended.items():
        until = kit.rests.setdefault((author, event.times), now + event.seconds)
        if event.permanent or now < until:
            found[author] = event.reason
    return found


def answered(kit: Kit) -> None:
    """Say that a mind that gave no answer has given one."""
    author = kit.plugins.calls.answered
    if author in kit.history.suspended:
        kit.recorder.record(events.MindResumed(author=author))
        kit.tell(f"{author} answers again")
