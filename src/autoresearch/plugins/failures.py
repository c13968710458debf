"""A plugin's failure as a value, and who is told of it."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from attrs import evolve, frozen

from autoresearch.plugins.answers import NonsenseError
from autoresearch.text import block, one_line

# These are called for every event, every few seconds, or at every look. A plugin that always fails
# in one of them would fill the log, and its plugin_failed events would call it again.
_REPEATED = ("should_stop_run", "event_recorded", "notify", "register_projections")

# What a plugin may throw at the loop; KeyboardInterrupt is a person's and passes through.
CAUGHT = (Exception, SystemExit)


@frozen(kw_only=True)
class PluginFailure:
    """A plugin raised, hung, or answered what its hook does not allow; ``error`` is one line."""

    plugin: str
    hook: str
    error: str
    traceback: str = ""

    @classmethod
    def of(cls, plugin: str, hook: str, error: BaseException) -> PluginFailure:
        """Describe an exception that came out of a plugin, without the frames of the caller."""
        frames = _plugin_frames(error.__traceback__)
        lines = traceback.format_exception(type(error), error, frames)
        kind = "answer refused" if isinstance(error, NonsenseError) else type(error).__name__
        return cls(
            plugin=plugin,
            hook=hook,
            error=one_line(f"{kind}: {error}", 500),
            traceback=block("".join(lines)),
        )

    def __str__(self) -> str:
        return f"plugin {self.plugin} failed in {self.hook}: {self.error}"


class Failures:
    """Hands failures on; of a hook that is called all the time only the 1st, 2nd, 4th, 8th ..."""

    def __init__(self) -> None:
        self.on_failure: Callable[[PluginFailure], None] = warn
        self._counts: Counter[tuple[str, str]] = Counter()
        self._heard: list[PluginFailure] | None = None

    @contextmanager
    def heard(self) -> Iterator[list[PluginFailure]]:
        """Collect the failures of one call beside reporting them."""
        heard: list[PluginFailure] = []
        self._heard = heard
        try:
            yield heard
        finally:
            self._heard = None

    def report(self, failure: PluginFailure) -> None:
        """Tell ``on_failure`` unless it has heard the like too often."""
        if self._heard is not None:
            self._heard.append(failure)
        if failure.hook in _REPEATED:
            key = (failure.plugin, failure.hook)
            self._counts[key] += 1
            count = self._counts[key]
            if count & (count - 1):
                return
            if count > 1:
                failure = evolve(failure, error=f"{failure.error} ({count} times by now)")
        self.on_failure(failure)


def warn(failure: PluginFailure) -> None:
    """Print a failure as one line, where nobody else listens."""
    print(f"warning: {failure}", file=sys.stderr)


def _plugin_frames(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith("autoresearch.plugins"):
            return frames
        frames = frames.tb_next
    return None
