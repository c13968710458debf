"""Tells observers what happened, where they can raise, hang or print without disturbing anything.

Each has a thread of its own, so that what it opens in one call still serves in the next.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TextIO, cast

import pluggy
from attrs import define, field

from autoresearch.plugins.calls import CAUGHT, Calls

PATIENCE = 5.0  # seconds; a mirror over a slow network needs about one


class HungError(Exception):
    """An observer did not come back in time."""


class Observers:
    """The plugins that watch; none of them can disturb the loop or another one."""

    def __init__(self, calls: Calls, patience: float) -> None:
        self._calls = calls
        self._patience = patience
        self._observers: dict[str, Observer] = {}

    def tell(self, hook: str, **given: Any) -> None:
        """Call every implementation of ``event_recorded`` or ``notify``."""
        for impl in self._calls.implementations(hook):
            self._tell_one(impl, hook, given)

    def close(self) -> None:
        """Let the threads end."""
        for observer in self._observers.values():
            observer.close()

    def _tell_one(self, impl: pluggy.HookImpl, hook: str, given: dict[str, Any]) -> None:
        name = impl.plugin_name
        observer = self._observers.setdefault(name, Observer(name, self._patience))
        if observer.off:
            return
        try:
            self._calls.invoke(impl, hook, given, observer.run)
        except (*CAUGHT, HungError) as error:
            self._calls.failed(name, hook, error)


@define
class _Job:
    work: Callable[[], Any]
    done: threading.Event = field(factory=threading.Event)
    error: BaseException | None = None


class Observer:
    """One plugin's own thread.

    An observer that exceeds ``patience`` seconds is off for good: its thread cannot be ended, and
    a second call would wait behind the first.
    """

    def __init__(self, name: str, patience: float) -> None:
        self.off = False
        self._name = name
        self._patience = patience
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], Any]) -> None:
        """Do the work in the observer's thread and wait for its end.

        Raises what the work raised, or HungError when it takes too long.
        """
        job, out, error = _Job(work), sys.stdout, sys.stderr
        thread = self._started()
        sys.stdout = cast(TextIO, _Muffled(out, thread))
        sys.stderr = cast(TextIO, _Muffled(error, thread))
        try:
            self._jobs.put(job)
            self.off = not job.done.wait(self._patience)
        finally:
            # A hung one stays muffled: what it prints when it wakes up is of no use to anyone.
            if not self.off:
                sys.stdout, sys.stderr = out, error
        if self.off:
            raise HungError(
                f"took over {self._patience:g} seconds; it is switched off for the rest of this "
                "process"
            )
        if job.error is not None:
            raise job.error

    def close(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _started(self) -> threading.Thread:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_serve, args=(self._jobs,), name=f"observer {self._name}", daemon=True
            )
            self._thread.start()
        return self._thread


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.work()
        # Everything is handed over, SystemExit too: here it would reach no one else.
        except BaseException as error:
            job.error = error
        finally:
            job.done.set()


class _Muffled:
    """A stream that keeps what one thread prints off the terminal; others print as ever."""

    def __init__(self, stream: TextIO, thread: threading.Thread) -> None:
        self._stream = stream
        self._thread = thread

    def write(self, text: str) -> int:
        if threading.current_thread() is self._thread:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
