"""Finds plugins, makes them active, and is the only place from which their hooks are called."""

# mypy: disable-error-code="no-any-return"
# What plugins answer is checked where it comes in, by `answers`, which no type checker sees.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from attrs import frozen

from autoresearch.config import Config
from autoresearch.desk import Desk
from autoresearch.errors import PluginError
from autoresearch.frozen import freeze
from autoresearch.history import History
from autoresearch.model import (
    NOT_LAUNCHED,
    Analysis,
    Backtrack,
    Candidate,
    Change,
    Cost,
    Decision,
    Experiment,
    Idea,
    Notice,
    Objection,
    Parent,
    Promotion,
    Quote,
    Remark,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Violation,
    Workspace,
)
from autoresearch.plugins.answers import InvalidAnswerError, number
from autoresearch.plugins.calls import CAUGHT, NOTHING, Calls, PluginFailure
from autoresearch.plugins.registry import PluginInfo, Registry, SettingInfo
from autoresearch.projections import Projection
from autoresearch.text import one_line

if TYPE_CHECKING:
    import click

    from autoresearch.log import Recorded


__all__ = ["PluginFailure", "PluginInfo", "Plugins", "SettingInfo"]


T = TypeVar("T")


class Plugins(Registry):
    """The active plugins of one campaign, with one typed method for each hook.

    A strategy that raises or gives an invalid answer is told to ``on_failure`` and passed over for
    the next. ``on_failure`` prints one line unless it is set to something else.
    """

    # --- doors --------------------------------------------------------------------------

    def register_commands(self, cli: click.Group) -> None:
        """Let plugins add commands; one that replaces a command is undone and reported."""
        for impl in self.calls.implementations("register_commands"):
            before = dict(cli.commands)
            try:
                self.calls.invoke(impl, "register_commands", {"cli": cli})
                for name, command in before.items():
                    if cli.commands.get(name) is not command:
                        raise InvalidAnswerError(
                            f"command {name!r} exists already; choose another name"
                        )
            except CAUGHT as error:
                cli.commands = before
                self.calls.failed(impl.plugin_name, "register_commands", error)

    def projections(self, config: Config) -> tuple[Projection, ...]:
        """Return the plugins' projections.

        Raises PluginError when two of them, or one and the loop, claim the same file.
        """
        gathered = []
        owner = dict.fromkeys(_TAKEN, "autoresearch")
        for plugin, projections in self.calls.collect("register_projections", config=config):
            for item in projections:
                name = item.file_name
                if name in owner:
                    raise PluginError(
                        f"{name} is written by {owner[name]} and by plugin {plugin}; "
                        "rename the file of one"
                    )
                owner[name] = plugin
                gathered.append(PluginProjection(plugin, item, name, self.calls))
        return tuple(gathered)

    # --- before the run -----------------------------------------------------------------

    def propose_idea(
        self,
        history: History,
        source: str,
        rng: Random,
        files: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> Idea | None:
        """Return the first of the ideas, or None when no generator has one."""
        return next(iter(self.propose_ideas(history, source, rng, files, desk=desk)), None)

    def propose_ideas(
        self,
        history: History,
        source: str,
        rng: Random,
        files: Mapping[str, str] | None = None,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
        *,
        halt: bool = False,
    ) -> tuple[Idea, ...]:
        """Return the ideas of the first generator that has any, the one to try now first.

        ``skip`` and ``halt`` are those of :meth:`Calls.first`.
        """
        found: Idea | tuple[Idea, ...] | None = self.calls.first(
            "propose_idea",
            skip=skip,
            halt=halt,
            history=history,
            source=source,
            rng=rng,
            files=freeze(files or {}),
            desk=desk,
        )
        return (found,) if isinstance(found, Idea) else found or ()

    def explain_no_idea(
        self, history: History, source: str, files: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return what each generator that says so looked for, by its name."""
        given = freeze(files)
        return dict(
            self.calls.collect("explain_no_idea", history=history, source=source, files=given)
        )

    def review_idea(self, idea: Idea, history: History) -> tuple[Objection, ...]:
        """Return every objection to an idea."""
        found = self.calls.collect("review_idea", idea=idea, history=history)
        return tuple(item for _, many in found for item in many)

    def implement_idea(
        self,
        idea: Idea,
        workspace: Workspace,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> Mapping[str, str] | None:
        """Return the new texts of files by path, or None when no plugin can write them."""
        return self.calls.first(
            "implement_idea", skip=skip, idea=idea, workspace=workspace, desk=desk
        )

    def audit_change(
        self, change: Change, workspace: Workspace, history: History = NOTHING
    ) -> tuple[Violation, ...]:
        """Return what must not run; an audit that fails counts as a violation."""
        return self._audit("audit_change", change=change, workspace=workspace, history=history)

    # --- the run ------------------------------------------------------------------------

    def check_launcher(
        self, config: Config, project: Path, tell: Callable[[str], None] = lambda _: None
    ) -> tuple[str, ...] | None:
        """Return what is missing before runs can start; None where the launcher does not say.

        Raises PluginError when no launcher answers to ``config.launcher``.
        """
        found = self.calls.first("check_launcher", config=config, project=project, tell=tell)
        launching, checking = (
            {impl.plugin_name for impl in self.calls.implementations(name)}
            for name in ("launch_run", "check_launcher")
        )
        if found is None and launching <= checking:  # each of them said that it is not the one
            raise PluginError(self._no_launcher(config.launcher))
        return found

    def unpack_script(self, source: str) -> str | None:
        """Return what is edited in place of the script that a campaign starts from, or None."""
        return self.calls.first("unpack_script", source=source)

    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle:
        """Start or find a run; a launcher that fails leaves a run that is ``infra_failed``.

        Raises PluginError when no launcher answers to ``request.launcher``.
        """
        handle = self.calls.first("launch_run", request=request, workspace=workspace)
        if handle is not None:
            return handle
        told = self.calls.outcomes.items()
        if failed := [f"launcher {name}: {error}" for name, error in told if error]:
            return NotLaunched(request, one_line("; ".join(failed), 500))
        raise PluginError(self._no_launcher(request.launcher))

    def quote_run(self, request: RunRequest) -> Quote | None:
        """Return what a run may take at the most, None where its launcher does not say."""
        return self.calls.first("quote_run", request=request)

    def quote_call(
        self,
        history: History = NOTHING,
        files: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> float:
        """Return what the next idea may cost at the most, in US dollars."""
        found = self.calls.collect(
            "quote_call", history=history, files=freeze(files or {}), desk=desk
        )
        return float(sum(cost.usd for _, many in found for cost in many))

    def extract_metrics(self, output: RunOutput, history: History = NOTHING) -> Mapping[str, float]:
        """Return all metrics of a run, less those for which two plugins give different values."""
        found = self.calls.collect("extract_metrics", output=output, history=history)
        numbers = [(plugin, _numbers(plugin, metrics, self.calls)) for plugin, metrics in found]
        return _merge(numbers, "extract_metrics", self.calls)

    def measure_run(self, output: RunOutput, history: History = NOTHING) -> Mapping[str, str]:
        """Return what a score was measured with, less what two plugins tell differently."""
        found = self.calls.collect("measure_run", output=output, history=history)
        return _merge(found, "measure_run", self.calls)

    def explain_no_score(self, output: RunOutput, history: History) -> tuple[str, ...]:
        """Return what each plugin that reads scores says of a run that has none."""
        found = self.calls.collect("explain_no_score", output=output, history=history)
        return tuple(told for _, told in found)

    def should_stop_run(
        self, request: RunRequest, observed: Mapping[str, float], history: History
    ) -> str | None:
        """Return the reason to stop a run, or None to let it go on."""
        return self.calls.first(
            "should_stop_run", request=request, observed=freeze(observed), history=history
        )

    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History, desk: Desk | None = None
    ) -> tuple[Violation, ...]:
        """Return what must not be believed; an audit that fails counts as a violation."""
        return self._audit(
            "audit_run", experiment=experiment, output=output, history=history, desk=desk
        )

    # --- after the run ------------------------------------------------------------------

    def analyze_run(
        self,
        experiment: Experiment,
        history: History,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> Analysis:
        """Return the analysis; PluginError when no plugin writes one."""
        found = self.calls.first(
            "analyze_run", skip=skip, experiment=experiment, history=history, desk=desk
        )
        return found or _nobody(f"no plugin analysed experiment {experiment.number}", "analysis")

    def promote_run(self, experiment: Experiment, history: History) -> Promotion:
        """Return whether an experiment goes on to the next stage; PluginError when none says so."""
        found = self.calls.first("promote_run", experiment=experiment, history=history)
        what = f"no plugin says whether experiment {experiment.number} is promoted"
        return found or _nobody(what, "promotion")

    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Return the decision; PluginError when no policy decides."""
        found = self.calls.first("decide", candidate=candidate, history=history)
        what = f"no policy decided about experiment {candidate.experiment.number}"
        return found or _nobody(what, "greedy")

    def backtrack(self, history: History) -> Backtrack | None:
        """Return where to go back to, or None to carry on from head."""
        return self.calls.first("backtrack", history=history)

    def choose_parent(self, history: History, rng: Random) -> Parent | None:
        """Return what the next idea builds on, or None for head."""
        return self.calls.first("choose_parent", history=history, rng=rng)

    def summarize(
        self,
        history: History,
        since: int,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> tuple[Remark, ...]:
        """Return what an author says of the experiments since one; nothing where none does."""
        found = self.calls.first("summarize", skip=skip, history=history, since=since, desk=desk)
        return found or ()

    # --- watching -----------------------------------------------------------------------

    def report_costs(self) -> tuple[Cost, ...]:
        """Return what plugins spent since the last call, each under its plugin's name."""
        return tuple(cost for _, costs in self.calls.collect("report_costs") for cost in costs)

    def event_recorded(self, event: Recorded, history: History) -> None:
        """Show a durable event to every observer; none can disturb."""
        self.observers.tell("event_recorded", event=event, history=history)

    def notify(self, notice: Notice) -> None:
        """Tell every notifier; none can disturb."""
        self.observers.tell("notify", notice=notice)

    def _audit(self, hook: str, **given: object) -> tuple[Violation, ...]:
        found = self.calls.collect(hook, _unaudited, **given)
        return tuple(item for _, many in found for item in many)

    def _no_launcher(self, wanted: str) -> str:
        if wanted in self.missing:
            return self.missing[wanted]
        names = [impl.plugin_name for impl in self.calls.implementations("launch_run")]
        known = ", ".join(names) or "none"
        return f"no launcher answers to {wanted!r}; set launcher to one of: {known}"


# --- what several plugins give together, and what stands for a failed one ---------------------

# Written by the loop itself, or read by it.
_TAKEN = ("results.tsv", "notes.md", "run.log", "events.duckdb")


def _nobody(what: str, plugin: str) -> NoReturn:
    raise PluginError(f"{what}; make plugin {plugin} active")


def _unaudited(failure: PluginFailure) -> tuple[Violation, ...]:
    """Stand in for an audit that failed: a script must not pass by breaking its auditor."""
    detail = f"{failure.hook} of {failure.plugin} failed: {failure.error}"
    return (Violation(rule="audit_failed", detail=detail),)


def _merge(
    found: Sequence[tuple[str, Mapping[str, T]]], hook: str, calls: Calls
) -> Mapping[str, T]:
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


@frozen
class NotLaunched:
    """A handle to a run that did not start: it is over at once, as the machine's fault."""

    request: RunRequest
    detail: str
    reference: str = ""  # there is nothing to find again

    @property
    def log_path(self) -> Path:
        """A file of its own: a later start under the same name must find its log untouched."""
        return self.request.folder / NOT_LAUNCHED

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
