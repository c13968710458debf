"""autoresearch runs machine-learning research by itself, and can prove afterwards what it did."""

from autoresearch.campaign import Campaign
from autoresearch.config import Config, setting
from autoresearch.errors import AutoresearchError
from autoresearch.history import History, QueuedIdea
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas.edits import Hyperparameter, hyperparameters, with_value, with_values
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
    "Experiment",
    "History",
    "Hyperparameter",
    "Idea",
    "IdeaKind",
    "Notice",
    "Objection",
    "Projection",
    "QueuedIdea",
    "Recorded",
    "Run",
    "RunHandle",
    "RunOutput",
    "RunRequest",
    "RunStatus",
    "Signal",
    "ValueChange",
    "Verdict",
    "Violation",
    "Workspace",
    "connect",
    "hookimpl",
    "hyperparameters",
    "open_campaign",
    "setting",
    "start",
    "with_value",
    "with_values",
]
