"""The one door through which a campaign writes: guarded, durable, folded, then observed.

Trouble that passes (a full disk, a folder that cannot be written, a lock that git left) is told
once in one line and waited out, a little longer each time. The steps of the loop may be repeated,
so that nothing is lost and nothing happens twice.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from attrs import define, field

from autoresearch import events
from autoresearch.durable import UNWRITABLE
from autoresearch.errors import AutoresearchError, BlockedError, LogError
from autoresearch.folding import foresee, step
from autoresearch.frozen import alike
from autoresearch.history import History
from autoresearch.log import EventLog, Recorded, Tip, Writer
from autoresearch.model import Notice
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.protocol import check
from autoresearch.text import one_line

REST_SECONDS = 30.0  # of a mind after its first outage; twice as long after each further one
_NO_ANSWER = ("outage", "suspended")

# Whoever asks in SQL has the rest laid over the tables, and a sync costs more than a short run.
SYNC_SECONDS = 10.0


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
        self._sync_from = 0.0
        self.patience = patience or Patience(Clock(), tell)
        self.history = history
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
        now = self.patience.clock.now()
        if at_once or now >= self._sync_from:
            self._log.sync()
            self._sync_from = now + SYNC_SECONDS

    def plugin_failed(self, failure: PluginFailure) -> None:
        """Record a plugin's failure, once the observers that are being told have returned.

        The first of each plugin and each of a mind that is not asked again for now are told; that
        of a launcher is told as the end of its run.
        """
        self.failed = self.failed or failure
        told = f"{failure.plugin} {failure.error}" if failure.kind in _NO_ANSWER else failure.plugin
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
        if failure.kind not in _NO_ANSWER:
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
