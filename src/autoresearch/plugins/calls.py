"""Calls hook implementations one by one, so that one that fails is passed over for the next."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, TypeVar

import pluggy

from autoresearch.plugins.answers import NonsenseError, credit
from autoresearch.plugins.failures import CAUGHT, Failures, PluginFailure
from autoresearch.plugins.trace import Trace

T = TypeVar("T")
Check = Callable[[object, str], T]
Arguments = Mapping[str, Any]

# For these None is an answer of its own: let the run go on, stay at head.
_MAY_BE_SILENCED = ("should_stop_run", "backtrack")


def _here(work: Callable[[], Any]) -> Any:
    return work()


class Calls:
    """Asks plugins in pluggy's order, the last registered first, and checks what they answer."""

    def __init__(self, manager: pluggy.PluginManager, failures: Failures, trace: Trace) -> None:
        self._manager = manager
        self._failures = failures
        self._trace = trace

    def implementations(self, hook: str) -> tuple[pluggy.HookImpl, ...]:
        """Return a hook's implementations in the order in which they are asked."""
        return tuple(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    def first(self, hook: str, check: Check[T], arguments: Arguments) -> T | None:
        """Return the first sound answer that is not None, as the wrappers leave it."""
        every = self.implementations(hook)
        opened = [(impl, self._open(impl, hook, arguments)) for impl in every if impl.wrapper]
        answer: T | None = None
        for impl in (impl for impl in every if not impl.wrapper):
            answer = self._ask(impl, hook, check, arguments)
            if answer is not None:
                break
        for impl, wrapper in reversed(opened):
            if wrapper is not None:
                answer = self._close(impl, wrapper, hook, check, answer)
        return answer

    def collect(
        self,
        hook: str,
        check: Check[T],
        arguments: Arguments,
        instead: Callable[[PluginFailure], T] | None = None,
    ) -> list[tuple[str, T]]:
        """Return every plugin's sound answer with its name; ``instead`` stands for a failed one."""
        answers = []
        for impl in self.implementations(hook):
            answer = self._ask(impl, hook, check, arguments, instead)
            if answer is not None:
                answers.append((impl.plugin_name, answer))
        return answers

    def invoke(
        self,
        impl: pluggy.HookImpl,
        hook: str,
        arguments: Arguments,
        run: Callable[[Callable[[], Any]], Any] = _here,
    ) -> Any:
        """Call one implementation with the arguments that it names; its exceptions come out.

        ``run`` makes the call, for instance in another thread.
        """
        given = [arguments[name] for name in impl.argnames]
        with self._trace.call(impl.plugin_name, hook) as span:
            span.result = run(partial(impl.function, *given))
        return span.result

    def failed(self, plugin: str, hook: str, error: BaseException) -> PluginFailure:
        """Report an exception that came out of a plugin."""
        failure = PluginFailure.of(plugin, hook, error)
        self._failures.report(failure)
        return failure

    def _ask(
        self,
        impl: pluggy.HookImpl,
        hook: str,
        check: Check[T],
        arguments: Arguments,
        instead: Callable[[PluginFailure], T] | None = None,
    ) -> T | None:
        try:
            answer = self.invoke(impl, hook, arguments)
            return None if answer is None else check(answer, impl.plugin_name)
        except CAUGHT as error:
            failure = self.failed(impl.plugin_name, hook, error)
            return instead(failure) if instead else None

    def _open(
        self, impl: pluggy.HookImpl, hook: str, arguments: Arguments
    ) -> Generator[None, Any, Any] | None:
        """Run a wrapper up to its ``yield``; None when it failed and is left out."""
        wrapper: Generator[None, Any, Any]
        try:
            wrapper = impl.function(*[arguments[name] for name in impl.argnames])  # type: ignore[assignment]
            next(wrapper)
        except StopIteration:
            self.failed(impl.plugin_name, hook, NonsenseError("the wrapper ended without yield"))
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
        check: Check[T],
        inner: T | None,
    ) -> T | None:
        """Give a wrapper the answer and return what it makes of it; ``inner`` when it fails."""
        try:
            with self._trace.call(impl.plugin_name, f"{hook} (wrapper)") as span:
                span.result = outcome = _finish(wrapper, inner)
            if outcome is None and inner is not None and hook not in _MAY_BE_SILENCED:
                raise NonsenseError("the wrapper lost the answer; return what its yield gave")
            if outcome is None or outcome == inner:
                return outcome if outcome is None else inner
            return credit(check(outcome, impl.plugin_name), inner, impl.plugin_name)
        except CAUGHT as error:
            self.failed(impl.plugin_name, hook, error)
            return inner


def _finish(wrapper: Generator[None, Any, Any], inner: object) -> Any:
    try:
        wrapper.send(inner)
    except StopIteration as stop:
        return stop.value
    wrapper.close()
    raise NonsenseError("the wrapper yields twice; yield once")
