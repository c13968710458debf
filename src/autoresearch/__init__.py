"""autoresearch runs machine-learning research by itself, and can prove afterwards what it did.

What this module and `autoresearch.testing` export is public; everything else is private.
"""

TYPE_CHECKING = False  # as in typing, which would take longer to import than all of this
if TYPE_CHECKING:
    from autoresearch.campaign import Campaign as Campaign
    from autoresearch.config import Config as Config
    from autoresearch.config import setting as setting
    from autoresearch.desk import Desk as Desk
    from autoresearch.desk import Ended as Ended
    from autoresearch.driving import Driver as Driver
    from autoresearch.driving import Stand as Stand
    from autoresearch.driving.agents import Observation as Observation
    from autoresearch.driving.agents import Observed as Observed
    from autoresearch.driving.agents import observe as observe
    from autoresearch.errors import AutoresearchError as AutoresearchError
    from autoresearch.errors import OutageError as OutageError
    from autoresearch.errors import SuspendedError as SuspendedError
    from autoresearch.history import History as History
    from autoresearch.history import QueuedIdea as QueuedIdea
    from autoresearch.hookspecs import hookimpl as hookimpl
    from autoresearch.ideas import Hyperparameter as Hyperparameter
    from autoresearch.ideas import hyperparameters as hyperparameters
    from autoresearch.ideas import knobs as knobs
    from autoresearch.ideas import with_changes as with_changes
    from autoresearch.ideas import with_value as with_value
    from autoresearch.ideas import with_values as with_values
    from autoresearch.launchers.cluster import ClusterLauncher as ClusterLauncher
    from autoresearch.launchers.cluster import ClusterRun as ClusterRun
    from autoresearch.launchers.cluster import ClusterSettings as ClusterSettings
    from autoresearch.log import Recorded as Recorded
    from autoresearch.model import Analysis as Analysis
    from autoresearch.model import Backtrack as Backtrack
    from autoresearch.model import Candidate as Candidate
    from autoresearch.model import Change as Change
    from autoresearch.model import Cost as Cost
    from autoresearch.model import Decision as Decision
    from autoresearch.model import Experiment as Experiment
    from autoresearch.model import Idea as Idea
    from autoresearch.model import IdeaKind as IdeaKind
    from autoresearch.model import Notice as Notice
    from autoresearch.model import Objection as Objection
    from autoresearch.model import Parent as Parent
    from autoresearch.model import Promotion as Promotion
    from autoresearch.model import Quote as Quote
    from autoresearch.model import Remark as Remark
    from autoresearch.model import Run as Run
    from autoresearch.model import RunHandle as RunHandle
    from autoresearch.model import RunOutput as RunOutput
    from autoresearch.model import RunRequest as RunRequest
    from autoresearch.model import RunStatus as RunStatus
    from autoresearch.model import Signal as Signal
    from autoresearch.model import ValueChange as ValueChange
    from autoresearch.model import Verdict as Verdict
    from autoresearch.model import Violation as Violation
    from autoresearch.model import Workspace as Workspace
    from autoresearch.opening import connect as connect
    from autoresearch.opening import open_campaign as open_campaign
    from autoresearch.opening import start as start
    from autoresearch.projections import Projection as Projection
else:  # so that a type checker still finds a misspelt name
    # Module to its public names. It is loaded when one of them is first asked for, since most
    # commands and most plugins need a part of the house only.
    _NAMES = {
        "campaign": "Campaign",
        "config": "Config setting",
        "desk": "Desk Ended",
        "driving.agents": "Observation Observed observe",
        "driving": "Driver Stand",
        "errors": "AutoresearchError OutageError SuspendedError",
        "history": "History QueuedIdea",
        "hookspecs": "hookimpl",
        "ideas": "Hyperparameter hyperparameters knobs with_changes with_value with_values",
        "launchers.cluster": "ClusterLauncher ClusterRun ClusterSettings",
        "log": "Recorded",
        "model": "Analysis Backtrack Candidate Change Cost Decision Experiment Idea IdeaKind "
        "Notice Objection Parent Promotion Quote Remark Run RunHandle RunOutput RunRequest "
        "RunStatus Signal ValueChange Verdict Violation Workspace",
        "opening": "connect open_campaign start",
        "projections": "Projection",
    }
    _HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
    __all__ = sorted(_HOMES)

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
