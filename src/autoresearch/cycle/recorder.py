"""The one door through which a campaign writes: guarded, durable, folded, then observed."""

from __future__ import annotations

from collections.abc import Iterable

from autoresearch import events
from autoresearch.folding import foresee, step
from autoresearch.history import History
from autoresearch.log import EventLog, Recorded, Tip, Writer
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.protocol import check


class Recorder:
    """Holds the newest History of a campaign; every change of it goes through :meth:`record`."""

    def __init__(self, log: EventLog, writer: Writer, plugins: Plugins, history: History) -> None:
        self._log = log
        self._writer = writer
        self._plugins = plugins
        self._failures: list[PluginFailure] = []
        self._observing = False
        self.history = history
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
        self._writer.append_many(
            [event for event, _ in chosen], event_ids=[event_id for _, event_id in chosen]
        )
        return self.refresh()

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

    def sync(self) -> None:
        """Bring the SQL tables up to date, unless somebody is using the file."""
        self._log.sync()

    def plugin_failed(self, failure: PluginFailure) -> None:
        """Record a plugin's failure, once the observers that are being told have returned."""
        self._failures.append(failure)
        if not self._observing:
            self._record_failures()

    def _observe(self, record: Recorded) -> None:
        if isinstance(record.event, events.PluginFailed) or self._observing:
            return
        self._observing = True
        try:
            self._plugins.event_recorded(record, self.history)
        finally:
            self._observing = False
        self._record_failures()

    def _record_failures(self) -> None:
        while self._failures:
            failure = self._failures.pop(0)
            current = self.history.current
            self._writer.append(
                events.PluginFailed(
                    plugin=failure.plugin,
                    hook=failure.hook,
                    error=failure.error,
                    traceback=failure.traceback,
                    experiment=current.number if current else None,
                )
            )
            self.refresh()
