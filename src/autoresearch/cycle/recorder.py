"""The one door through which a campaign writes: guarded, durable, folded, then observed.

The guard is the order of steps that the research protocol fixes; a step out of order is refused.
Trouble that passes (a full disk, a folder that cannot be written, a lock that git left) is told
once in one line and waited out, a little longer each time. The steps of the loop may be repeated,
so that nothing is lost and nothing happens twice.
"""

from __future__ import annotations

import errno
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

from attrs import define, field

from autoresearch import events
from autoresearch.durable import UNWRITABLE
from autoresearch.errors import AutoresearchError, BlockedError, LogError, ProtocolError
from autoresearch.folding import foresee, step
from autoresearch.frozen import alike
from autoresearch.history import History
from autoresearch.log import EventLog, Recorded, Tip, Writer
from autoresearch.model import Notice, Verdict
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.plugins.calls import NO_ANSWER
from autoresearch.text import one_line

REST_SECONDS = 30.0  # of a mind after its first outage; twice as long after each further one

# Whoever asks in SQL has the rest laid over the tables, and a sync costs more than a short run.
# What it writes grows with the tables: it waits for a share of new events, but not for long.
SYNC_SECONDS, SYNC_SHARE, SYNC_LATEST = 10.0, 1 / 8, 600.0


class Recorder:
    """Holds the newest History of a campaign; every change of it goes through :meth:`record`.

    An append that the disk refuses is waited for. ``failed`` is the first failure of a plugin since
    the loop was started; ``owed`` holds facts that are recorded by :meth:`settle`; ``at`` is the
    number of the experiment that the loop works at.
    """

    def __init__(
        self,
        log: EventLog,
        writer: Writer,
        plugins: Plugins,
        history: History,
        tell: Callable[[str], None] = lambda _: None,
        patience: Patience | None = None,
    ) -> None:
        self._log = log
        self._writer = writer
        self._plugins = plugins
        self._failures: deque[PluginFailure] = deque()
        self._observing = False
        self._tell = tell
        self._told: set[str] = set()
        self._synced, self._synced_to = -math.inf, 0  # when, and up to which event
        self.patience: Patience = patience or Patience(Clock(), tell)
        self.history: History = history
        self.failed: PluginFailure | None = None
        self.at: int | None = None
        self.owed: deque[events.Event] = deque()
        self.patience.note = self._waits
        plugins.on_failure = self.plugin_failed

    def record(self, event: events.Event, *, event_id: str | None = None) -> History:
        """Append one event if the protocol allows it, and return the History with it.

        With an ``event_id`` that the log already has, nothing is appended. Raises ProtocolError.
        """
        return self.record_many([(event, event_id)])

    def record_many(self, facts: Iterable[tuple[events.Event, str | None]]) -> History:
        """Append events that belong together, each with its id or None, so that no kill parts them.

        Each must be allowed after those before it. Raises ProtocolError, with nothing appended.
        """
        chosen, foreseen = list(facts), self.history
        for number, (event, _) in enumerate(chosen, 1):
            check(foreseen, event)
            if number < len(chosen):
                foreseen = foresee(foreseen, event)
        together, ids = [event for event, _ in chosen], [event_id for _, event_id in chosen]
        self.patience.through(lambda: self._writer.append_many(together, event_ids=ids))
        return self.refresh()

    def record_together(self, *facts: events.Event) -> History:
        """Append events that belong together and have no ids; see :meth:`record_many`."""
        return self.record_many((fact, None) for fact in facts)

    @property
    def about(self) -> int | None:
        """The experiment that something happens in, if one is under way."""
        return self.at if self.at in self.history.open_numbers else None

    def _waits(self, reason: str) -> None:
        """Record what the loop waits for, or that it goes on, where the disk takes that."""
        with suppress(LogError):
            self._writer.append(events.Paused(reason=reason) if reason else events.Resumed())
            self.refresh()
        if reason:
            campaign = self.history.campaign
            self._plugins.notify(Notice(kind="needs_human", campaign=campaign, text=reason))

    def settle(self) -> None:
        """Record what is owed; each fact is forgotten only when it is in the log."""
        while self.owed:
            self.record(self.owed[0])
            self.owed.popleft()

    def refresh(self) -> History:
        """Take in everything acknowledged since, also what other writers appended."""
        new = list(self._log.read(after=self.history.position))
        for record in new:
            if record.position <= self.history.position:
                continue  # a failed observer of the one before led to reading on from there
            self.history = step(self.history, record)
            if record.campaign == self.history.campaign:
                self._observe(record)
        return self.history

    def tip(self) -> Tip:
        """Return the end of the log, to be written down outside it."""
        return self._log.tip()

    def sync(self, *, at_once: bool = False) -> None:
        """Bring the SQL tables up to date, unless that was just done or somebody uses the file."""
        now, position = self.patience.clock.now(), self.history.position
        waited, new = now - self._synced, position - self._synced_to
        is_due = waited >= (SYNC_SECONDS if new >= SYNC_SHARE * position else SYNC_LATEST)
        if at_once or is_due:
            self._log.sync()
            self._synced, self._synced_to = now, position

    def plugin_failed(self, failure: PluginFailure) -> None:
        """Record a plugin's failure, once the observers that are being told have returned.

        The first of each plugin and each of a mind that is not asked again for now are told; that
        of a launcher is told as the end of its run.
        """
        self.failed = self.failed or failure
        told = f"{failure.plugin} {failure.error}" if failure.kind in NO_ANSWER else failure.plugin
        if told not in self._told and failure.hook != "launch_run":
            self._told.add(told)
            self._tell(f"{failure} (told once; autoresearch status counts them)")
        self._failures.append(failure)
        if not self._observing:
            self._record_failures()

    def _observe(self, record: Recorded) -> None:
        if isinstance(record.event, events.PluginFailed) or self._observing:
            return
        if isinstance(record.event, events.Evaluated) and record.event.hidden:
            return  # for people alone; an observer may have a mind
        self._observing = True
        try:
            self._plugins.event_recorded(record, self.history)
        finally:
            self._observing = False
        self._record_failures()

    def _record_failures(self) -> None:
        while self._failures:
            failure = self._failures.popleft()
            failed = alike(events.PluginFailed, failure, experiment=self.about)
            more = self._of_mind(failure)
            self.record_together(failed, *more)
            if more and failure.kind == "suspended":
                self._needs_human(failure)

    def _of_mind(self, failure: PluginFailure) -> tuple[events.Event, ...]:
        """Return what a failure means for a mind: it rests, longer each time, or is suspended."""
        if failure.kind not in NO_ANSWER:
            return ()
        before = self.history.suspended.get(failure.plugin)
        times = before.times if before is not None else 0
        suspended = events.MindSuspended(
            author=failure.plugin,
            reason=failure.error,
            permanent=failure.kind == "suspended",
            seconds=pause_seconds(times, REST_SECONDS) if failure.kind == "outage" else 0.0,
            times=times + 1,
        )
        return (suspended,)

    def _needs_human(self, failure: PluginFailure) -> None:
        text = one_line(f"{failure.plugin} is suspended: {failure.error}", 500)
        self._tell(f"{text}; correct it, and autoresearch resume has it asked again")
        self._plugins.notify(Notice(kind="needs_human", campaign=self.history.campaign, text=text))


# --- trouble that passes -------------------------------------------------------------------------

T = TypeVar("T")

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
_NOTED = 2  # tries, about three seconds, until it is noted that the loop waits
FEW = 6  # tries of a loop that was told not to wait: about a minute

_PASSING = UNWRITABLE | {errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Clock:
    """Time as the loop knows it; a test passes its own."""

    def now(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def passes(error: BaseException) -> bool:
    """Return whether a step that failed with this error may work later, with nothing changed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BlockedError):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        # An error that says `from None` still knows what it was made of.
        cause = cause.__cause__ or cause.__context__
    return False


def pause_seconds(count: int, first: float = FIRST_SECONDS) -> float:
    """Return how long to wait for the ``count``-th time, counted from 0."""
    return float(min(first * 2 ** min(count, 20), LONGEST_SECONDS))


@define
class Patience:
    """Repeats a step until the trouble has passed; ``endless`` False gives up after a while.

    Steps may be inside each other: only the innermost one that fails is repeated. ``note`` gets
    what is waited for once it takes some seconds, and an empty text when that has come.
    """

    clock: Clock
    tell: Callable[[str], None]
    note: Callable[[str], None] = lambda _: None
    endless: bool = True
    off: bool = False
    _given_up: BaseException | None = field(default=None, init=False)

    def through(self, step: Callable[[], T]) -> T:
        """Return what the step returns; raises what does not pass."""
        tries = 0
        while True:
            try:
                result = step()
            except (AutoresearchError, OSError) as error:
                if self.off or error is self._given_up or not passes(error):
                    raise
                if not self.endless and tries >= FEW:
                    self._given_up = error
                    raise
                if tries == 0:
                    self.tell(f"{one_line(str(error), 500)} (waiting, then trying again)")
                if tries == _NOTED:
                    self.note(one_line(str(error), 500))
                self.clock.sleep(pause_seconds(tries))
                tries += 1
            else:
                if tries > _NOTED:
                    self.note("")
                if tries:
                    self.tell("it works again; going on")
                return result


# --- the order of steps that the research protocol fixes -----------------------------------------


def check(history: History, event: events.Event) -> None:
    """Refuse an event that the protocol does not allow after this history.

    Raises ProtocolError: an idea without a review of the memory at its newest position, a
    reasoning that cites nothing, a run without reasoning, a decision without an analysis.
    """
    rule = _RULES.get(type(event))
    if rule is not None:
        rule(history, event)


def _idea(history: History, event: events.IdeaProposed) -> None:
    if event.experiment != history.next_number:
        raise ProtocolError(
            f"experiment {event.experiment} was proposed, but {history.next_number} is next; "
            "finish preparing the open experiment first"
        )
    if event.experiment > 0 and history.reviewed is None:
        raise ProtocolError(
            f"experiment {event.experiment} was proposed without reading the memory; "
            "record memory_reviewed first"
        )


def _review(history: History, event: events.MemoryReviewed) -> None:
    if event.read_to < history.position:
        raise ProtocolError(
            f"the memory was read up to {event.read_to}, but the log stands at "
            f"{history.position}; read it again"
        )


def _reasoning(history: History, event: events.ReasoningRecorded) -> None:
    _must_exist(history, event.experiment)
    if event.experiment == 0:
        return
    if history.reviewed is None or event.read_to != history.reviewed.read_to:
        raise ProtocolError(
            f"the reasoning of experiment {event.experiment} does not rest on the memory that was "
            "read; review the memory first"
        )
    unknown = [number for number in event.cites if number >= event.experiment or number < 0]
    if not event.cites or unknown:
        raise ProtocolError(
            f"the reasoning of experiment {event.experiment} cites "
            f"{unknown or 'no earlier experiment'}; cite experiments below {event.experiment}"
        )


def _run(history: History, event: events.RunRequested) -> None:
    if event.control:
        _must_be_kept(history, event.experiment)
    else:
        _must_exist(history, event.experiment)
    opened = history.open_runs.get(event.experiment)
    if opened is not None:
        raise ProtocolError(
            f"run {opened.request.run} is still open; finish it before starting another"
        )
    due = next_stage(history, event.experiment, control=event.control)
    if history.stages and event.stage != due:
        raise ProtocolError(
            f"experiment {event.experiment} was not promoted to the stage {event.stage!r}; "
            f"run it in {due!r}"
        )
    if history.experiments[event.experiment].reasoning is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no reasoning; record it before the run"
        )


def next_stage(history: History, number: int, *, control: bool = False) -> str:
    """Return the stage of an experiment's next run; empty where the campaign has none.

    A control measures what decisions compare with, so it runs in the last one.
    """
    if control:
        return history.stages[-1] if history.stages else ""
    return history.experiments[number].promoted or next(iter(history.stages), "")


def stage_after(history: History, stage: str) -> str | None:
    """Return the stage that follows another, None after the last."""
    return dict(pairwise(history.stages)).get(stage)


def _promotion(history: History, event: events.RunPromoted) -> None:
    _must_exist(history, event.experiment)
    experiment = history.experiments[event.experiment]
    if event.experiment in history.open_runs or experiment.analysis is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no analysis; record it before the promotion"
        )
    if event.stage != stage_after(history, experiment.stage):
        raise ProtocolError(f"the stage {event.stage!r} does not follow {experiment.stage!r}")


def _decision(history: History, event: events.Decided) -> None:
    _must_exist(history, event.experiment)
    opened = history.open_runs.get(event.experiment)
    if opened is not None:
        raise ProtocolError(f"run {opened.request.run} is still open; wait for its end")
    if history.experiments[event.experiment].analysis is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no analysis; record it before the decision"
        )
    stage = history.experiments[event.experiment].stage
    if event.verdict == Verdict.KEEP and stage in history.stages[:-1]:
        raise ProtocolError(
            f"experiment {event.experiment} ran in the stage {stage!r} alone; promote it, since "
            f"only what ran in {history.stages[-1]!r} is kept"
        )


def _must_exist(history: History, number: int) -> None:
    if number not in history.open_numbers:
        raise ProtocolError(f"experiment {number} is not under way; propose it first")


def _must_be_kept(history: History, number: int) -> None:
    known = history.experiments[number : number + 1] if number >= 0 else ()
    if not known or known[0].verdict is not Verdict.KEEP:
        raise ProtocolError(f"experiment {number} is not kept; a control measures one that is")


_RULES: dict[type[events.Event], Callable[[History, Any], None]] = {
    events.IdeaProposed: _idea,
    events.MemoryReviewed: _review,
    events.ReasoningRecorded: _reasoning,
    events.RunRequested: _run,
    events.RunPromoted: _promotion,
    events.Decided: _decision,
}
