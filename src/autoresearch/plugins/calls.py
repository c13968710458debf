"""Calls hook implementations one by one, so that one that fails is passed over for the next.

Every failure becomes a PluginFailure and is told; with ``AUTORESEARCH_TRACE_PLUGINS=1`` every call
is printed: who, what came of it, how long it took. Observers have a thread each, where they can
raise, hang or print without disturbing anything.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TextIO, TypeVar, cast

import pluggy
from attrs import evolve, frozen

from autoresearch.desk import Desk
from autoresearch.errors import OutageError, SuspendedError
from autoresearch.frozen import freeze
from autoresearch.history import History
from autoresearch.hookspecs import FORMER, HOOKS
from autoresearch.plugins.answers import Check, Given, InvalidAnswerError, check_of, credit
from autoresearch.text import block, one_line

T = TypeVar("T")
NOTHING = History(plugins=freeze({}))  # what is known before anything happened

TRACE = "AUTORESEARCH_TRACE_PLUGINS"

# What a plugin may throw at the loop; KeyboardInterrupt is a person's and passes through.
CAUGHT = (Exception, SystemExit)
NO_ANSWER = ("outage", "suspended")
"""The kinds of failure of a mind that is not asked again for now."""

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (InvalidAnswerError, "refused"),
    (OutageError, "outage"),
    (SuspendedError, "suspended"),
)


@frozen(kw_only=True)
class PluginFailure:
    """A plugin raised, hung, or answered what its hook does not allow; ``error`` is one line.

    ``kind`` is refused for such an answer, outage or suspended for a mind that gives none.
    """

    plugin: str
    hook: str
    error: str
    traceback: str = ""
    kind: str = ""

    @classmethod
    def of(cls, plugin: str, hook: str, error: BaseException) -> PluginFailure:
        """Describe an exception that came out of a plugin, without the frames of the caller."""
        frames = _plugin_frames(error.__traceback__)
        lines = traceback.format_exception(type(error), error, frames)
        kind = next((word for kinds, word in _KINDS if isinstance(error, kinds)), "")
        name = "answer refused" if kind == "refused" else type(error).__name__
        text = one_line(str(error) if kind in NO_ANSWER else f"{name}: {error}", 500)
        made = block("".join(lines))
        return cls(plugin=plugin, hook=hook, error=text, traceback=made, kind=kind)

    def __str__(self) -> str:
        return f"plugin {self.plugin} failed in {self.hook}: {self.error}"


def _plugin_frames(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith("autoresearch.plugins"):
            return frames
        frames = frames.tb_next
    return None


def warn(failure: PluginFailure) -> None:
    """Print a failure as one line, where nothing else listens."""
    print(f"warning: {failure}", file=sys.stderr)


class Manager(pluggy.PluginManager):
    """pluggy's manager, for which a hook's former name is an implementation of the hook."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Return the options of an implementation, under the hook's name of today."""
        options = super().parse_hookimpl_opts(plugin, name)
        today = FORMER.get((options and options.get("specname")) or name)
        # A copy: pluggy keeps the options on the plugin's own function.
        return {**options, "specname": today} if options and today else options


class Calls:
    """Asks plugins in pluggy's order, the last registered first, and checks what they answer.

    Of the newest :meth:`first`, ``answered`` is the plugin whose answer was taken, and ``outcomes``
    tells of each that was asked before it: its error, or nothing when it passed.
    """

    def __init__(self, manager: pluggy.PluginManager, environ: Mapping[str, str]) -> None:
        self.on_failure: Callable[[PluginFailure], None] = warn
        self._manager = manager
        self._trace = environ.get(TRACE, "") not in ("", "0")
        self._counts: Counter[tuple[str, str]] = Counter()
        self.outcomes: dict[str, str] = {}
        self.answered: str = ""

    def implementations(self, hook: str) -> tuple[pluggy.HookImpl, ...]:
        """Return a hook's implementations in the order in which they are asked."""
        return tuple(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    def first(
        self,
        hook: str,
        /,
        skip: Mapping[str, str] | None = None,
        halt: bool = False,
        **given: Any,
    ) -> Any:
        """Return the first sound answer that is not None, as the wrappers leave it.

        The plugins to ``skip`` are not asked; the reason of one that has any counts as its error.
        With ``halt`` nobody is asked after a mind that gives no answer, or that is skipped for a
        reason.
        """
        skip = skip or {}
        every, check = self.implementations(hook), check_of(hook)
        opened = [(impl, self._open(impl, hook, given)) for impl in every if impl.wrapper]
        answer, outcomes, answered = None, dict[str, str](), ""
        for impl in every:
            name = impl.plugin_name
            if impl.wrapper:
                continue
            if name in skip:
                if why := skip[name]:
                    outcomes[name] = why
                if why and halt:
                    break
                continue
            answer, failure = self._ask(impl, hook, check, given)
            if answer is not None:
                answered = name
                break
            outcomes[name] = failure.error if failure else ""
            if halt and failure and failure.kind in NO_ANSWER:
                break
        self.outcomes, self.answered = outcomes, answered
        for impl, wrapper in reversed(opened):
            if wrapper is not None:
                answer = self._close(impl, wrapper, hook, check, given, answer)
        return answer

    def collect(
        self,
        hook: str,
        /,
        instead: Callable[[PluginFailure], Any] | None = None,
        **given: Any,
    ) -> list[tuple[str, Any]]:
        """Return every plugin's sound answer with its name.

        ``instead`` makes the answer of one that failed; without, it gives none.
        """
        found, check = [], check_of(hook)
        for impl in self.implementations(hook):
            answer, failure = self._ask(impl, hook, check, given)
            if failure is not None and instead is not None:
                answer = instead(failure)
            if answer is not None:
                found.append((impl.plugin_name, answer))
        return found

    def invoke(
        self,
        impl: pluggy.HookImpl,
        hook: str,
        given: Given,
        run: Callable[[Callable[[], Any]], Any] = lambda work: work(),
    ) -> Any:
        """Call one implementation with the arguments that it names; its exceptions come out.

        ``run`` makes the call, for instance in another thread.
        """
        work = partial(impl.function, *_arguments(impl, hook, given))
        return self._traced(impl.plugin_name, hook, partial(run, work))

    def failed(self, plugin: str, hook: str, error: BaseException) -> PluginFailure:
        """Tell of an exception that came out of a plugin, unless the like was told too often."""
        failure = told = PluginFailure.of(plugin, hook, error)
        if HOOKS[hook].frequent:
            self._counts[plugin, hook] += 1
            count = self._counts[plugin, hook]
            if count & (count - 1):
                return failure
            if count > 1:
                told = evolve(failure, error=f"{failure.error} ({count} times by now)")
        self.on_failure(told)
        return failure

    def _ask(
        self, impl: pluggy.HookImpl, hook: str, check: Check, given: Given
    ) -> tuple[Any, PluginFailure | None]:
        """Return a plugin's sound answer, or None and how it failed if it did."""
        try:
            answer = self.invoke(impl, hook, given)
            return None if answer is None else check(answer, impl.plugin_name, given), None
        except CAUGHT as error:
            return None, self.failed(impl.plugin_name, hook, error)

    def _open(
        self, impl: pluggy.HookImpl, hook: str, given: Given
    ) -> Generator[None, Any, Any] | None:
        """Run a wrapper up to its ``yield``; None when it failed and is left out."""
        wrapper: Generator[None, Any, Any]
        try:
            wrapper = impl.function(*_arguments(impl, hook, given))  # type: ignore[assignment]
            next(wrapper)
        except StopIteration:
            error = InvalidAnswerError("the wrapper ended without yield")
            self.failed(impl.plugin_name, hook, error)
            return None
        except CAUGHT as error:
            self.failed(impl.plugin_name, hook, error)
            return None
        return wrapper

    def _close(
        self,
        impl: pluggy.HookImpl,
        wrapper: Generator[None, Any, Any],
        hook: str,
        check: Check,
        given: Given,
        inner: Any,
    ) -> Any:
        """Give a wrapper the answer and return what it makes of it; ``inner`` when it fails."""
        plugin = impl.plugin_name
        try:
            outcome = self._traced(plugin, f"{hook} (wrapper)", partial(_finish, wrapper, inner))
            if outcome is None and inner is not None and not HOOKS[hook].may_be_silenced:
                raise InvalidAnswerError("the wrapper lost the answer; return what its yield gave")
            if outcome is None or outcome == inner:
                return outcome if outcome is None else inner
            return credit(check(outcome, plugin, given), inner, plugin)
        except CAUGHT as error:
            self.failed(plugin, hook, error)
            return inner

    def _traced(self, plugin: str, hook: str, work: Callable[[], T]) -> T:
        """Do the work, and print a line about it if that was asked for, also when it raises."""
        if not self._trace:
            return work()
        start, shown = time.perf_counter(), ""
        try:
            result = work()
            shown = repr(result)
            return result
        except BaseException as error:
            shown = repr(error)
            raise
        finally:
            took = (time.perf_counter() - start) * 1000
            line = f"trace {took:9.3f} ms  {hook} {plugin} -> {one_line(shown, 100)}"
            print(line, file=sys.stderr)


def _arguments(impl: pluggy.HookImpl, hook: str, given: Given) -> list[Any]:
    """Return what an implementation names; a desk is that of its author, with its refusals.

    Where no loop lends a desk, there is one that knows the history and keeps all in memory.
    """
    named = {name: given[name] for name in impl.argnames}
    if "desk" in named:
        desk = named["desk"] or Desk(history=given.get("history", NOTHING))
        named["desk"] = desk.of(impl.plugin_name, hook)
    return list(named.values())


def _finish(wrapper: Generator[None, Any, Any], inner: object) -> Any:
    try:
        wrapper.send(inner)
    except StopIteration as stop:
        return stop.value
    wrapper.close()
    raise InvalidAnswerError("the wrapper yields twice; yield once")


# --- observers --------------------------------------------------------------------------------

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
            name = impl.plugin_name
            observer = self._observers.setdefault(name, Observer(name, self._patience))
            if not observer.off:
                try:
                    self._calls.invoke(impl, hook, given, observer.run)
                except (*CAUGHT, HungError) as error:
                    self._calls.failed(name, hook, error)

    def close(self) -> None:
        """Let the threads end."""
        for observer in self._observers.values():
            observer.close()


_Job = tuple[Callable[[], Any], "Future[Any]"]


class Observer:
    """One plugin's own thread, so that what it opens in one call still serves in the next.

    An observer that exceeds ``patience`` seconds is off for good: its thread cannot be ended, and
    a second call would wait behind the first.
    """

    def __init__(self, name: str, patience: float) -> None:
        self.off: bool = False
        self._name = name
        self._patience = patience
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], Any]) -> None:
        """Do the work in the observer's thread and wait for its end.

        Raises what the work raised, or HungError when it takes too long.
        """
        done, out, error = Future[Any](), sys.stdout, sys.stderr
        thread = self._started()
        sys.stdout = cast(TextIO, _Muffled(out, thread))
        sys.stderr = cast(TextIO, _Muffled(error, thread))
        try:
            self._jobs.put((work, done))
            self.off = not wait([done], self._patience).done
        finally:
            # A hung one stays muffled: what it prints when it wakes up is of no use to anyone.
            if not self.off:
                sys.stdout, sys.stderr = out, error
        if self.off:
            raise HungError(
                f"took over {self._patience:g} seconds; it is switched off for the rest of this "
                "process"
            )
        if (raised := done.exception()) is not None:
            raise raised

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
        work, done = job
        try:
            done.set_result(work())
        # Everything is handed over, SystemExit too: here it would reach no one else.
        except BaseException as error:
            done.set_exception(error)


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
