"""autoresearch runs machine-learning research by itself, and can prove afterwards what it did.

What this module and `autoresearch.testing` export is public; everything else is private.
"""

TYPE_CHECKING = False  # as in typing, which would take longer to import than all of this
if TYPE_CHECKING:
    from autoresearch.campaign import Campaign
    from autoresearch.config import Config, setting
    from autoresearch.desk import Desk, Ended
    from autoresearch.driving.observing import Observation, Observed, observe
    from autoresearch.driving.steps import Driver, Stand
    from autoresearch.errors import AutoresearchError, OutageError, SuspendedError
    from autoresearch.history import History, QueuedIdea
    from autoresearch.hookspecs import hookimpl
    from autoresearch.ideas.hyperparameters import (
        Hyperparameter,
        hyperparameters,
        knobs,
        with_changes,
        with_value,
        with_values,
    )
    from autoresearch.log import Recorded
    from autoresearch.model import (
        Analysis,
        Backtrack,
        Candidate,
        Change,
        Cost,
        Decision,
        Experiment,
        Idea,
        IdeaKind,
        Notice,
        Objection,
        Quote,
        Run,
        RunHandle,
        RunOutput,
        RunRequest,
        RunStatus,
        Signal,
        ValueChange,
        Verdict,
        Violation,
        Workspace,
    )
    from autoresearch.opening import connect, open_campaign, start
    from autoresearch.projections import Projection

__all__ = [
    "Analysis",
    "AutoresearchError",
    "Backtrack",
    "Campaign",
    "Candidate",
    "Change",
    "Config",
    "Cost",
    "Decision",
    "Desk",
    "Driver",
    "Ended",
    "Experiment",
    "History",
    "Hyperparameter",
    "Idea",
    "IdeaKind",
    "Notice",
    "Objection",
    "Observation",
    "Observed",
    "OutageError",
    "Projection",
    "QueuedIdea",
    "Quote",
    "Recorded",
    "Run",
    "RunHandle",
    "RunOutput",
    "RunRequest",
    "RunStatus",
    "Signal",
    "Stand",
    "SuspendedError",
    "ValueChange",
    "Verdict",
    "Violation",
    "Workspace",
    "connect",
    "hookimpl",
    "hyperparameters",
    "knobs",
    "observe",
    "open_campaign",
    "setting",
    "start",
    "with_changes",
    "with_value",
    "with_values",
]

# Where a name lives, unless that is the module of values. Loaded when it is first asked for, since
# most commands and most plugins need a part of the house only.
_HOMES = {
    "AutoresearchError": "errors",
    "Campaign": "campaign",
    "Config": "config",
    "Desk": "desk",
    "Driver": "driving.steps",
    "Ended": "desk",
    "History": "history",
    "Hyperparameter": "ideas.hyperparameters",
    "Observation": "driving.observing",
    "Observed": "driving.observing",
    "OutageError": "errors",
    "Projection": "projections",
    "QueuedIdea": "history",
    "Recorded": "log",
    "Stand": "driving.steps",
    "SuspendedError": "errors",
    "connect": "opening",
    "hookimpl": "hookspecs",
    "hyperparameters": "ideas.hyperparameters",
    "knobs": "ideas.hyperparameters",
    "observe": "driving.observing",
    "open_campaign": "opening",
    "setting": "config",
    "start": "opening",
    "with_changes": "ideas.hyperparameters",
    "with_value": "ideas.hyperparameters",
    "with_values": "ideas.hyperparameters",
}

if not TYPE_CHECKING:  # so that a type checker still finds a misspelt name

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        home = import_module(f"{__name__}.{_HOMES.get(name, 'model')}")
        globals()[name] = value = getattr(home, name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
