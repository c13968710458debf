"""The typed facade: the only place from which a hook is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from autoresearch.config import Config
from autoresearch.desk import Desk
from autoresearch.errors import PluginError
from autoresearch.frozen import freeze
from autoresearch.history import History
from autoresearch.model import (
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
    Quote,
    RunHandle,
    RunOutput,
    RunRequest,
    Violation,
    Workspace,
)
from autoresearch.plugins import gathering
from autoresearch.plugins.calls import PluginFailure
from autoresearch.plugins.registry import Registry

if TYPE_CHECKING:
    import click

    from autoresearch.log import Recorded
    from autoresearch.projections import Projection

_NOTHING = History(plugins=freeze({}))  # what is known before anything happened


class Plugins(Registry):
    """The active plugins of one campaign, with one typed method for each hook.

    A strategy that raises or gives an invalid answer is told to ``on_failure`` and passed over for
    the next. ``on_failure`` prints one line unless it is set to something else.
    """

    # --- doors --------------------------------------------------------------------------

    def register_commands(self, cli: click.Group) -> None:
        """Let plugins add commands; one that replaces a command is undone and reported."""
        gathering.add_commands(self.calls, cli)

    def projections(self, config: Config) -> tuple[Projection, ...]:
        """Return the plugins' projections; PluginError when two have one file name."""
        return gathering.gather_projections(self.calls, config)

    # --- before the run -----------------------------------------------------------------

    def propose_idea(
        self,
        history: History,
        source: str,
        rng: Random,
        files: Mapping[str, str] | None = None,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> Idea | None:
        """Return the first of the ideas, or None when no generator has one."""
        return next(iter(self.propose_ideas(history, source, rng, files, skip, desk)), None)

    def propose_ideas(
        self,
        history: History,
        source: str,
        rng: Random,
        files: Mapping[str, str] | None = None,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> tuple[Idea, ...]:
        """Return the ideas of the first generator that has any, the one to try now first.

        Those to ``skip`` are not asked; the reason of one that has any counts as its failure.
        """
        found: Idea | tuple[Idea, ...] | None = self.calls.first(
            "propose_idea",
            skip=skip,
            history=history,
            source=source,
            rng=rng,
            files=freeze(files or {}),
            desk=desk or Desk(history=history),
        )
        return (found,) if isinstance(found, Idea) else found or ()

    def explain_no_idea(
        self, history: History, source: str, files: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return what each generator that says so looked for, by its name."""
        given = freeze(files)
        found = self.calls.collect("explain_no_idea", history=history, source=source, files=given)
        return dict(found)

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
        found: Mapping[str, str] | None = self.calls.first(
            "implement_idea",
            skip=skip,
            idea=idea,
            workspace=workspace,
            desk=desk or Desk(history=_NOTHING),
        )
        return found

    def audit_change(
        self, change: Change, workspace: Workspace, history: History = _NOTHING
    ) -> tuple[Violation, ...]:
        """Return what must not run; an audit that fails counts as a violation."""
        return self._audit("audit_change", change=change, workspace=workspace, history=history)

    # --- the run ------------------------------------------------------------------------

    def check_launcher(self, config: Config, project: Path) -> tuple[str, ...] | None:
        """Return what is missing before runs can start; None where the launcher does not say.

        Raises PluginError when no launcher answers to ``config.launcher``.
        """
        found: tuple[str, ...] | None = self.calls.first(
            "check_launcher", config=config, project=project
        )
        launching, checking = (
            {impl.plugin_name for impl in self.calls.implementations(name)}
            for name in ("launch_run", "check_launcher")
        )
        if found is None and launching <= checking:  # each of them said that it is not the one
            raise PluginError(self._no_launcher(config.launcher))
        return found

    def unpack_script(self, source: str) -> str | None:
        """Return what is edited in place of the script that a campaign starts from, or None."""
        found: str | None = self.calls.first("unpack_script", source=source)
        return found

    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle:
        """Start or find a run; a launcher that fails leaves a run that is ``infra_failed``.

        Raises PluginError when no launcher answers to ``request.launcher``.
        """
        failures: list[PluginFailure] = []
        handle: RunHandle | None = self.calls.first(
            "launch_run", failures.append, request=request, workspace=workspace
        )
        if handle is None and failures:
            return gathering.not_launched(request, failures)
        if handle is None:
            raise PluginError(self._no_launcher(request.launcher))
        return handle

    def quote_run(self, request: RunRequest) -> Quote | None:
        """Return what a run may take at the most, None where its launcher does not say."""
        found: Quote | None = self.calls.first("quote_run", request=request)
        return found

    def quote_call(
        self,
        history: History = _NOTHING,
        files: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> float:
        """Return what the next idea may cost at the most, in US dollars."""
        found = self.calls.collect(
            "quote_call",
            history=history,
            files=freeze(files or {}),
            desk=desk or Desk(history=history),
        )
        return float(sum(cost.usd for _, many in found for cost in many))

    def extract_metrics(
        self, output: RunOutput, history: History = _NOTHING
    ) -> Mapping[str, float]:
        """Return all metrics of a run, less those for which two plugins give different values."""
        found = self.calls.collect("extract_metrics", output=output, history=history)
        return gathering.merge_metrics(found, self.calls)

    def measure_run(self, output: RunOutput, history: History = _NOTHING) -> Mapping[str, str]:
        """Return what a score was measured with, less what two plugins tell differently."""
        found = self.calls.collect("measure_run", output=output, history=history)
        return gathering.merge(found, "measure_run", self.calls)

    def explain_no_score(self, output: RunOutput, history: History) -> tuple[str, ...]:
        """Return what each plugin that reads scores says of a run that has none."""
        found = self.calls.collect("explain_no_score", output=output, history=history)
        return tuple(told for _, told in found)

    def should_stop_run(
        self, request: RunRequest, observed: Mapping[str, float], history: History
    ) -> str | None:
        """Return the reason to stop a run, or None to let it go on."""
        found: str | None = self.calls.first(
            "should_stop_run", request=request, observed=freeze(observed), history=history
        )
        return found

    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History
    ) -> tuple[Violation, ...]:
        """Return what must not be believed; an audit that fails counts as a violation."""
        return self._audit("audit_run", experiment=experiment, output=output, history=history)

    # --- after the run ------------------------------------------------------------------

    def analyze_run(
        self,
        experiment: Experiment,
        history: History,
        skip: Mapping[str, str] | None = None,
        desk: Desk | None = None,
    ) -> Analysis:
        """Return the analysis; PluginError when no plugin writes one."""
        found: Analysis | None = self.calls.first(
            "analyze_run",
            skip=skip,
            experiment=experiment,
            history=history,
            desk=desk or Desk(history=history),
        )
        if found is None:
            raise PluginError(
                f"no plugin analysed experiment {experiment.number}; make plugin analysis active"
            )
        return found

    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Return the decision; PluginError when no policy decides."""
        found: Decision | None = self.calls.first("decide", candidate=candidate, history=history)
        if found is None:
            raise PluginError(
                f"no policy decided about experiment {candidate.experiment.number}; "
                "make plugin greedy active"
            )
        return found

    def backtrack(self, history: History) -> Backtrack | None:
        """Return where to go back to, or None to carry on from head."""
        found: Backtrack | None = self.calls.first("backtrack", history=history)
        return found

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
        found = self.calls.collect(hook, gathering.unaudited, **given)
        return tuple(item for _, many in found for item in many)

    def _no_launcher(self, wanted: str) -> str:
        if wanted in self.missing:
            return self.missing[wanted]
        names = [impl.plugin_name for impl in self.calls.implementations("launch_run")]
        known = ", ".join(names) or "none"
        return f"no launcher answers to {wanted!r}; set launcher to one of: {known}"
