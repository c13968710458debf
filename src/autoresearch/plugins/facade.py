"""The typed facade: the only place from which a hook is called."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from autoresearch.config import Config
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
    RunHandle,
    RunOutput,
    RunRequest,
    Violation,
    Workspace,
)
from autoresearch.plugins import answers
from autoresearch.plugins.failures import PluginFailure
from autoresearch.plugins.gathering import (
    add_commands,
    gather_projections,
    merge,
    merge_metrics,
    unaudited,
)
from autoresearch.plugins.info import PluginInfo
from autoresearch.plugins.isolation import PATIENCE
from autoresearch.plugins.launching import not_launched
from autoresearch.plugins.registry import Registry
from autoresearch.plugins.sources import from_file, from_object, settle_names

if TYPE_CHECKING:
    from autoresearch.log import Recorded
    from autoresearch.projections import Projection


class Plugins:
    """The active plugins of one campaign, with one typed method for each hook.

    A strategy that raises or answers nonsense is told to ``on_failure`` and passed over for the
    next. ``on_failure`` prints one line unless somebody sets it.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._calls = registry.calls

    @classmethod
    def load(
        cls,
        config: Config,
        project: Path,
        extra: Sequence[object] = (),
        environ: Mapping[str, str] = os.environ,
        patience: float = PATIENCE,
    ) -> Plugins:
        """Find the plugins, make the wanted ones active, and give each its configuration.

        ``extra`` holds the values of ``--plugin``: ``NAME``, ``file.py`` or ``no:NAME``, or
        plugins themselves (modules, classes, instances); ``AUTORESEARCH_LOAD_PLUGINS`` is a comma
        list of names and files. ``patience`` is how many seconds an observer may take. Raises
        PluginError or ConfigError with one line that names the plugin.
        """
        return cls(Registry.load(config.at(project), project, extra, environ, patience))

    @classmethod
    def only(
        cls, *plugins: object, config: Config | None = None, patience: float = PATIENCE
    ) -> Plugins:
        """Make these plugins active and no other, not even a built-in: for tests and replays.

        A plugin is a module, a class, an instance, or the path of a file.
        """
        found = tuple(
            from_file(plugin, plugin.parent) if isinstance(plugin, Path) else from_object(plugin)
            for plugin in plugins
        )
        settle_names(found, ())
        settings = config or Config(preset="plain")
        return cls(Registry.of(settings, found, found, frozenset(), {}, patience))

    @property
    def on_failure(self) -> Callable[[PluginFailure], None]:
        """Who is told of each failure."""
        return self._registry.failures.on_failure

    @on_failure.setter
    def on_failure(self, listener: Callable[[PluginFailure], None]) -> None:
        self._registry.failures.on_failure = listener

    @property
    def active(self) -> Mapping[str, str]:
        """Active name to ``version digest``, the digest cut to 12 hex digits."""
        return self._registry.active

    def infos(self) -> tuple[PluginInfo, ...]:
        """Describe every plugin that was found; those not active are imported for it."""
        return self._registry.infos()

    def diff(self, recorded: Mapping[str, str]) -> tuple[str, ...]:
        """Say in lines what is active now and differs from what a campaign recorded."""
        return self._registry.diff(recorded)

    def close(self) -> None:
        """Let the observers' threads end."""
        self._registry.observers.close()

    # --- doors --------------------------------------------------------------------------

    def register_commands(self, cli: click.Group) -> None:
        """Let plugins add commands; one that replaces a command is undone and reported."""
        add_commands(self._calls, cli)

    def projections(self, config: Config) -> tuple[Projection, ...]:
        """Return the plugins' projections; PluginError when two have one file name."""
        return gather_projections(self._calls, config)

    # --- before the run -----------------------------------------------------------------

    def propose_idea(
        self, history: History, source: str, rng: Random, files: Mapping[str, str] | None = None
    ) -> Idea | None:
        """Return the first idea, or None when no generator has one."""
        given = {"history": history, "source": source, "rng": rng, "files": freeze(files or {})}
        return self._calls.first("propose_idea", answers.idea, given)

    def review_idea(self, idea: Idea, history: History) -> tuple[Objection, ...]:
        """Return every objection to an idea."""
        given = {"idea": idea, "history": history}
        found = self._calls.collect("review_idea", answers.objections, given)
        return tuple(item for _, many in found for item in many)

    def implement_idea(self, idea: Idea, workspace: Workspace) -> Mapping[str, str] | None:
        """Return the new texts of files by path, or None when no plugin can write them."""
        given = {"idea": idea, "workspace": workspace}
        check = partial(answers.texts, workspace=workspace)
        return self._calls.first("implement_idea", check, given)

    def audit_change(self, change: Change, workspace: Workspace) -> tuple[Violation, ...]:
        """Return what must not run; an audit that fails counts as a violation."""
        given = {"change": change, "workspace": workspace}
        return self._audit("audit_change", given)

    # --- the run ------------------------------------------------------------------------

    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle:
        """Start or find a run; a launcher that fails leaves a run that is ``infra_failed``.

        Raises PluginError when no launcher answers to ``request.launcher``.
        """
        given = {"request": request, "workspace": workspace}
        with self._registry.failures.heard() as failures:
            handle = self._calls.first("launch_run", answers.handle, given)
        if handle is None and failures:
            return not_launched(request, failures)
        if handle is None:
            raise PluginError(self._no_launcher(request.launcher))
        return handle

    def extract_metrics(self, output: RunOutput) -> Mapping[str, float]:
        """Return all metrics of a run, less those for which two plugins give different values."""
        found = self._calls.collect("extract_metrics", answers.metrics, {"output": output})
        return merge_metrics(found, self._calls)

    def lock_run(self, output: RunOutput) -> Mapping[str, str]:
        """Return what a score was measured with, less what two plugins tell differently."""
        found = self._calls.collect("lock_run", answers.locks, {"output": output})
        return merge(found, "lock_run", self._calls)

    def should_stop_run(
        self, request: RunRequest, observed: Mapping[str, float], history: History
    ) -> str | None:
        """Return the reason to stop a run, or None to let it go on."""
        given = {
            "request": request,
            "observed": freeze(observed),
            "history": history,
        }
        return self._calls.first("should_stop_run", answers.reason, given)

    def audit_run(
        self, experiment: Experiment, output: RunOutput, history: History
    ) -> tuple[Violation, ...]:
        """Return what must not be believed; an audit that fails counts as a violation."""
        given = {"experiment": experiment, "output": output, "history": history}
        return self._audit("audit_run", given)

    # --- after the run ------------------------------------------------------------------

    def analyze_run(self, experiment: Experiment, history: History) -> Analysis:
        """Return the analysis; PluginError when nobody writes one."""
        given = {"experiment": experiment, "history": history}
        found = self._calls.first("analyze_run", answers.analysis, given)
        if found is None:
            raise PluginError(
                f"nobody analysed experiment {experiment.number}; make plugin analysis active"
            )
        return found

    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Return the decision; PluginError when no policy decides."""
        given = {"candidate": candidate, "history": history}
        check = partial(answers.decision, candidate=candidate)
        found = self._calls.first("decide", check, given)
        if found is None:
            raise PluginError(
                f"no policy decided about experiment {candidate.experiment.number}; "
                "make plugin greedy active"
            )
        return found

    def backtrack(self, history: History) -> Backtrack | None:
        """Return where to go back to, or None to carry on from head."""
        check = partial(answers.backtrack, history=history)
        return self._calls.first("backtrack", check, {"history": history})

    # --- watching -----------------------------------------------------------------------

    def report_costs(self) -> tuple[Cost, ...]:
        """Return what plugins spent since the last call, each under its plugin's name."""
        found = self._calls.collect("report_costs", answers.costs, {})
        return tuple(cost for _, costs in found for cost in costs)

    def event_recorded(self, event: Recorded, history: History) -> None:
        """Show a durable event to every observer; none can disturb."""
        self._registry.observers.tell("event_recorded", {"event": event, "history": history})

    def notify(self, notice: Notice) -> None:
        """Tell every notifier; none can disturb."""
        self._registry.observers.tell("notify", {"notice": notice})

    def _audit(self, hook: str, given: Mapping[str, object]) -> tuple[Violation, ...]:
        found = self._calls.collect(hook, answers.violations, given, unaudited)
        return tuple(item for _, many in found for item in many)

    def _no_launcher(self, wanted: str) -> str:
        if wanted in self._registry.missing:
            return self._registry.missing[wanted]
        names = [impl.plugin_name for impl in self._calls.implementations("launch_run")]
        known = ", ".join(names) or "none"
        return f"no launcher answers to {wanted!r}; set launcher to one of: {known}"
