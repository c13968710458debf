"""What people do to a campaign, also while its loop runs: ideas, steering, notes and verdicts."""

from __future__ import annotations

import getpass
import math
import time
from pathlib import Path
from typing import Any

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle.kit import head_commit
from autoresearch.cycle.proposals import as_queued, queued
from autoresearch.errors import StreamHeldError, WorkspaceError
from autoresearch.folding import fold
from autoresearch.history import History, QueuedIdea, is_open
from autoresearch.launchers.supervisor import run_around
from autoresearch.log import FileLog, Writer
from autoresearch.model import Idea, Verdict
from autoresearch.plugins import Plugins, answers
from autoresearch.projections.remembered import remembered_history
from autoresearch.text import one_line, without_users
from autoresearch.workspace import Lab

IMPORTED = "imported"  # in the recorded environment of a campaign that was taken over: its files


class Inbox:
    """A campaign as far as people write to it; all of it goes to a stream beside the loop's."""

    def __init__(self, project: Path, tag: str, log: FileLog, config: Config) -> None:
        self.project: Path = project
        self.tag: str = tag
        self.log: FileLog = log
        self.config: Config = config
        self.lab: Lab = Lab(
            project=project, tag=tag, script=config.script, editable=config.editable
        )
        self._history: History | None = None

    @property
    def history(self) -> History:
        """Everything known now, folded from the log; cheap to ask again."""
        if self._history is None:
            self._history = remembered_history(self.log, self.tag)
        self._history = fold(self._history, self.log.read(after=self._history.position))
        return self._history

    def check_own(self) -> None:
        """Refuse what needs the scripts of a history that was taken over from another tool."""
        started = self.history.started
        if started is not None and (source := started.environment.get(IMPORTED)):
            raise WorkspaceError(
                f"campaign {self.tag} was imported from {source} and its scripts are not here; "
                "it can be read and replayed, and autoresearch init starts one that can run"
            )

    def add_idea(self, idea: Idea, *, anyway: bool = False) -> str:
        """Put an idea into the queue, also while the loop runs; return its id.

        Raises WorkspaceError for an idea that would be refused from a plugin as well, for a patch
        that does not apply, and, unless ``anyway``, for a variable that nothing here reads.
        """
        self.check_own()
        try:
            answers.idea(idea, "")
        except answers.InvalidAnswerError as error:
            raise WorkspaceError(f"this idea cannot be tried: {error}") from None
        started = self.history.started
        assert started is not None
        idea = evolve(idea, author=idea.author or person())
        head = head_commit(self.history)
        event = as_queued(self.lab, idea, head, started.base_commit, anyway=anyway)
        self._append(event)
        return event.idea

    def doubts(self, idea: Idea) -> list[str]:
        """Say in a line each why an idea will probably have to wait."""
        infos = () if idea.has_code else Plugins.load(self.config, self.project).infos()
        active = [item for item in infos if item.active and item.name != "crash_fixes"]  # no crash
        if idea.has_code or any("implement_idea" in item.hooks for item in active):
            return []
        return ["no active plugin turns words into code; queue the idea with --patch"]

    def rank_idea(self, idea: str, expected_gain: float) -> None:
        """Give a queued idea another expected gain, in metric units; the best is tried first."""
        waiting = self._queued(idea)
        if not math.isfinite(expected_gain):
            raise WorkspaceError(f"the expected gain is {expected_gain}; give a finite number")
        again = queued(waiting, idea, expected_gain=expected_gain)
        self._append(again)

    def _queued(self, idea: str) -> QueuedIdea:
        if idea not in self.history.queue:
            raise WorkspaceError(
                f"idea {idea} is not queued; autoresearch idea list shows the queue"
            )
        return self.history.queue[idea]

    def drop_idea(self, idea: str, reason: str) -> None:
        """Take an idea out of the queue; raises WorkspaceError when it is not in it."""
        self._queued(idea)
        self._append(events.IdeaDropped(idea=idea, reason=reason))

    def steer(self, text: str, experiments: int = 0) -> int:
        """Say where the research should go, until withdrawn or for so many experiments.

        Returns the number under which it can be withdrawn.
        """
        if not one_line(text):
            raise WorkspaceError(f"the steering {text!r} is empty; write what you want")
        said = events.SteeringGiven(
            text=without_users(text), author=person(), experiments=experiments
        )
        self._append(said)
        return len(self.history.steering)

    def withdraw(self, number: int) -> None:
        """Take back what was said under a number; WorkspaceError where nothing stands there."""
        if number not in {item.number for item in self.history.steered}:
            raise WorkspaceError(f"no steering {number} stands; autoresearch steer lists them")
        self._append(events.SteeringWithdrawn(number=number, author=person()))

    def add_note(self, text: str, author: str | None = None) -> None:
        """Write a note into the memory, also while the loop runs."""
        if not one_line(text):
            raise WorkspaceError(f"the note {text!r} is empty; write what to remember")
        text = without_users(text)
        self._append(events.NoteAdded(text=text, author=author or person()))

    def resolve_quarantine(self, experiment: int, *, release: bool, reason: str) -> None:
        """Say whether a quarantined result is believed; the reason is recorded with your name.

        Raises WorkspaceError when the experiment is not quarantined.
        """
        history = self.history
        known = 0 <= experiment < len(history.experiments)
        if not known or history.experiments[experiment].verdict is not Verdict.QUARANTINE:
            raise WorkspaceError(
                f"experiment {experiment} of {self.tag} is not quarantined; "
                "autoresearch quarantine lists those that are"
            )
        self.overrule(experiment, Verdict.KEEP if release else Verdict.DISCARD, reason)

    def overrule(self, experiment: int, verdict: Verdict, reason: str) -> None:
        """Put ``keep`` or ``discard`` in the place of a verdict; recorded with your name.

        A result that is no longer kept is not best, nor head: the loop builds on the kept one
        below it. Raises WorkspaceError where there is no such verdict to give.
        """
        if why := self._cannot_overrule(experiment, verdict, reason):
            raise WorkspaceError(f"experiment {experiment} of {self.tag} {why}")
        who: Any = {"experiment": experiment, "reason": without_users(reason), "author": person()}
        if self.history.experiments[experiment].verdict is Verdict.QUARANTINE:
            released = verdict is Verdict.KEEP
            self._append(events.QuarantineResolved(released=released, **who))
        else:
            self._append(events.Overruled(verdict=verdict.value, **who))

    def _cannot_overrule(self, experiment: int, verdict: Verdict, reason: str) -> str | None:
        history = self.history
        if not 0 <= experiment < len(history.experiments):
            return f"does not exist; {which_there_are(history, history.campaign)}"
        found = history.experiments[experiment]
        if is_open(found):
            return "has no verdict yet; wait for it, or autoresearch stop"
        if found.verdict is verdict:
            return f"has the verdict {verdict.value} already; autoresearch show {experiment}"
        if experiment == history.baseline_number and found.verdict is Verdict.KEEP:
            return "is the baseline, with which all else is compared; start another campaign"
        if verdict is Verdict.KEEP and history.score(found) is None:
            return f"gave no {history.metric}; only a result that has a score can be kept"
        return None if one_line(reason) else "needs a reason that says something; give --reason"

    def pause(self, reason: str = "") -> None:
        """Let the loop wait, from its next step on, until :meth:`resume`."""
        self._append(events.Paused(reason=reason or "asked for", by=person()))

    def release(self) -> str:
        """End the lease of whoever drives by hand and return their name; WorkspaceError without."""
        lease = self.history.lease
        if lease is None:
            raise WorkspaceError(f"nobody drives campaign {self.tag}; autoresearch run may act")
        self._append(events.LeaseEnded(by=person()))
        return lease.by

    def resume(self) -> None:
        """Let the loop go on after a pause, a person's or its own, and ask suspended minds again.

        Raises WorkspaceError when neither is there.
        """
        if self.history.paused is None and not self.history.suspended:
            raise WorkspaceError(
                f"campaign {self.tag} is not paused; autoresearch status says more"
            )
        self._append(events.Resumed(by=person()))

    def _append(self, event: events.Event) -> None:
        with _inbox(self.log, self.tag) as writer:
            writer.append(event)


def _inbox(log: FileLog, tag: str, patience: float = 10.0) -> Writer:
    """Open the stream of what people add; wait a little while another process is adding.

    Raises WorkspaceError inside a run: generated code does not take part as the person.
    """
    if run := run_around():
        raise WorkspaceError(
            f"this is inside the run {run}, and a run does not take part in a campaign; "
            "print what you found, the loop reads it"
        )
    deadline = time.monotonic() + patience
    while True:
        try:
            return log.writer(tag, stream=f"{tag}.inbox", actor=person())
        except StreamHeldError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def which_there_are(history: History, who: str) -> str:
    """Say which experiments ``who`` has, or how to have some."""
    count = len(history.experiments)
    return f"{who} has 0 to {count - 1}" if count else "run some with autoresearch run"


def person() -> str:
    """Return the name of the user whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
