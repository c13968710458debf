"""What several plugins give together, where clashes name both, and what stands for a failed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from autoresearch.config import Config
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.model import RunOutput, RunRequest, RunStatus, Violation
from autoresearch.plugins.answers import InvalidAnswerError, number
from autoresearch.plugins.calls import CAUGHT, Calls, PluginFailure
from autoresearch.projections import Projection
from autoresearch.text import one_line

if TYPE_CHECKING:
    import click

T = TypeVar("T")

# Written by the loop itself, or read by it.
_TAKEN = ("results.tsv", "notes.md", "run.log", "events.duckdb")


def unaudited(failure: PluginFailure) -> tuple[Violation, ...]:
    """Stand in for an audit that failed: a script must not pass by breaking its auditor."""
    detail = f"{failure.hook} of {failure.plugin} failed: {failure.error}"
    return (Violation(rule="audit_failed", detail=detail),)


def merge_metrics(
    found: Sequence[tuple[str, Mapping[str, Any]]], calls: Calls
) -> Mapping[str, float]:
    """Put the metrics of several plugins together; a value that is not a number is left out."""
    numbers = [(plugin, _numbers(plugin, metrics, calls)) for plugin, metrics in found]
    return merge(numbers, "extract_metrics", calls)


def merge(found: Sequence[tuple[str, Mapping[str, T]]], hook: str, calls: Calls) -> Mapping[str, T]:
    """Put the mappings of several plugins together.

    A name to which two plugins give different values is left out and the clash is reported:
    neither wins, and a script that prints two scores can neither choose one nor stop the loop.
    """
    merged: dict[str, T] = {}
    giver: dict[str, str] = {}
    clashes: set[str] = set()
    for plugin, values in found:
        for name, value in values.items():
            first = giver.setdefault(name, plugin)
            if merged.setdefault(name, value) != value:
                clashes.add(name)
                both = f"{merged[name]!r} from {first} and {value!r} from {plugin}"
                problem = InvalidAnswerError(f"two values for {name!r}: {both}; neither is used")
                calls.failed(plugin, hook, problem)
    return {name: value for name, value in merged.items() if name not in clashes}


def _numbers(plugin: str, metrics: Mapping[str, Any], calls: Calls) -> dict[str, float]:
    sound = {}
    for name, value in metrics.items():
        try:
            sound[name] = number(value)
        except InvalidAnswerError as error:
            problem = InvalidAnswerError(f"metric {name!r}: {error}")
            calls.failed(plugin, "extract_metrics", problem)
    return sound


@frozen
class PluginProjection:
    """A plugin's projection; when it cannot be made, its file says so and the loop goes on."""

    plugin: str
    inner: Projection
    file_name: str
    calls: Calls

    def render(self, history: History) -> str:
        """Return the file's text, or one line that names the plugin and its error."""
        try:
            text = self.inner.render(history)
            if not isinstance(text, str):
                raise InvalidAnswerError(
                    f"{type(text).__name__} is not the text of {self.file_name}"
                )
        except CAUGHT as error:
            failure = self.calls.failed(self.plugin, "register_projections", error)
            return f"{self.file_name} could not be made by plugin {self.plugin}: {failure.error}\n"
        return text


def gather_projections(calls: Calls, config: Config) -> tuple[Projection, ...]:
    """Return the projections of all plugins.

    Raises PluginError when two of them, or one and the loop, claim the same file.
    """
    gathered = []
    owner = dict.fromkeys(_TAKEN, "autoresearch")
    for plugin, projections in calls.collect("register_projections", config=config):
        for item in projections:
            name = item.file_name
            if name in owner:
                raise PluginError(
                    f"{name} is written by {owner[name]} and by plugin {plugin}; "
                    "rename the file of one"
                )
            owner[name] = plugin
            gathered.append(PluginProjection(plugin, item, name, calls))
    return tuple(gathered)


def add_commands(calls: Calls, cli: click.Group) -> None:
    """Let every plugin add commands to the group; commands that were there stay as they are."""
    for impl in calls.implementations("register_commands"):
        before = dict(cli.commands)
        try:
            calls.invoke(impl, "register_commands", {"cli": cli})
            for name, command in before.items():
                if cli.commands.get(name) is not command:
                    raise InvalidAnswerError(
                        f"command {name!r} exists already; choose another name"
                    )
        except CAUGHT as error:
            cli.commands = before
            calls.failed(impl.plugin_name, "register_commands", error)


@frozen
class NotLaunched:
    """A handle to a run that did not start: it is over at once, as the machine's fault."""

    request: RunRequest
    detail: str
    reference: str = ""  # there is nothing to find again

    @property
    def log_path(self) -> Path:
        """A file of its own: a later start under the same name must find its log untouched."""
        return self.request.folder / "not-launched.log"

    def poll(self) -> RunOutput:
        """Return the failure; the log says it too."""
        self.request.folder.mkdir(parents=True, exist_ok=True)
        self.log_path.write_text(self.detail + "\n", encoding="utf-8")
        return RunOutput(
            name=self.request.name,
            status=RunStatus.INFRA_FAILED,
            log_path=self.log_path,
            folder=self.request.folder,
            detail=self.detail,
        )

    def stop(self, reason: str) -> None:
        """Do nothing: nothing runs."""


def not_launched(request: RunRequest, failures: Sequence[PluginFailure]) -> NotLaunched:
    """Return the handle for launchers that failed, with their errors."""
    errors = "; ".join(f"launcher {item.plugin}: {item.error}" for item in failures)
    return NotLaunched(request, one_line(errors, 500))
