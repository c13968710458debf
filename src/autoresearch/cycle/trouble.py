"""Trouble that passes: a full disk, a folder that cannot be written, a lock that git left.

It is told once in one line and waited out, a little longer each time. The steps of the loop may be
repeated, so that nothing is lost and nothing happens twice.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import define, field

from autoresearch.durable import UNWRITABLE
from autoresearch.errors import AutoresearchError, BlockedError
from autoresearch.text import one_line

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
