"""Runs observers where they can raise, hang or print without disturbing anybody."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TextIO, cast

from attrs import define, field

PATIENCE = 5.0  # seconds; a mirror over a slow network needs about one


class HungError(Exception):
    """An observer did not come back in time."""


@define
class _Job:
    work: Callable[[], Any]
    done: threading.Event = field(factory=threading.Event)
    error: BaseException | None = None


class Observer:
    """One plugin's own thread, so that what it opens in one call still serves in the next.

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
        job = _Job(work)
        muffled = _Muffled(self._started())
        try:
            self._jobs.put(job)
            self.off = not job.done.wait(self._patience)
        finally:
            # A hung one stays muffled: what it prints when it wakes up is nobody's business.
            if not self.off:
                muffled.restore()
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
        # Everything is handed over, SystemExit too: here nobody else would ever see it.
        except BaseException as error:
            job.error = error
        finally:
            job.done.set()


class _Muffled:
    """Keeps what one thread prints off the terminal; other threads print as ever."""

    def __init__(self, thread: threading.Thread) -> None:
        self._out, self._error = sys.stdout, sys.stderr
        sys.stdout = cast(TextIO, _Muffler(sys.stdout, thread))
        sys.stderr = cast(TextIO, _Muffler(sys.stderr, thread))

    def restore(self) -> None:
        sys.stdout, sys.stderr = self._out, self._error


class _Muffler:
    def __init__(self, stream: TextIO, thread: threading.Thread) -> None:
        self._stream = stream
        self._thread = thread

    def write(self, text: str) -> int:
        if threading.current_thread() is self._thread:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
