"""Tells observers what happened, each in a thread of its own."""

from __future__ import annotations

import pluggy

from autoresearch.plugins.calls import Arguments, Calls
from autoresearch.plugins.failures import CAUGHT
from autoresearch.plugins.isolation import HungError, Observer


class Observers:
    """The plugins that watch; none of them can disturb the loop or another one."""

    def __init__(self, calls: Calls, patience: float) -> None:
        self._calls = calls
        self._patience = patience
        self._observers: dict[str, Observer] = {}

    def tell(self, hook: str, arguments: Arguments) -> None:
        """Call every implementation of ``event_recorded`` or ``notify``."""
        for impl in self._calls.implementations(hook):
            self._tell_one(impl, hook, arguments)

    def close(self) -> None:
        """Let the threads end."""
        for observer in self._observers.values():
            observer.close()

    def _tell_one(self, impl: pluggy.HookImpl, hook: str, arguments: Arguments) -> None:
        name = impl.plugin_name
        observer = self._observers.setdefault(name, Observer(name, self._patience))
        if observer.off:
            return
        try:
            self._calls.invoke(impl, hook, arguments, observer.run)
        except (*CAUGHT, HungError) as error:
            self._calls.failed(name, hook, error)
