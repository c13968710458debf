"""The one door through which a campaign writes: guarded, durable, folded, then observed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from autoresearch import events
from autoresearch.cycle.trouble import Clock, Patience, pause_seconds
from autoresearch.errors import LogError
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
