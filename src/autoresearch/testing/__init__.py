"""Test kit for plugins: values, stories, fakes, and a conformance class for every kind of plugin.

Fixtures come with ``pytest_plugins = ["autoresearch.testing"]`` and not by being installed.

PYTEST_DONT_REWRITE: a test module may import this package before it names it as a plugin.
"""

from autoresearch.log import MemoryLog
from autoresearch.testing.builders import (
    SOURCE,
    analysis,
    candidate,
    change,
    experiment,
    idea,
    run_output,
    run_request,
    workspace,
)
from autoresearch.testing.contracts_audits import AuditContract
from autoresearch.testing.contracts_base import PluginContract
from autoresearch.testing.contracts_ideas import IdeaGeneratorContract
from autoresearch.testing.contracts_runs import LauncherContract, MetricExtractorContract
from autoresearch.testing.contracts_verdicts import BacktrackingRuleContract, DecisionPolicyContract
from autoresearch.testing.contracts_views import ObserverContract, ProjectionContract
from autoresearch.testing.examples import EXAMPLES
from autoresearch.testing.fakes import (
    FakeLauncher,
    FixedMetrics,
    KeepBetter,
    PlainAnalysis,
    RecordingObserver,
    ScriptedIdeas,
    ScriptedSource,
    set_constant,
)
from autoresearch.testing.fixtures import memory_log, openai_server, project
from autoresearch.testing.log_contract import EventLogContract
from autoresearch.testing.openai_server import ApiError, LoopbackOpenAI, Slow
from autoresearch.testing.projects import git, make_project
from autoresearch.testing.story import Story, history, refold, story

__all__ = [
    "EXAMPLES",
    "SOURCE",
    "ApiError",
    "AuditContract",
    "BacktrackingRuleContract",
    "DecisionPolicyContract",
    "EventLogContract",
    "FakeLauncher",
    "FixedMetrics",
    "IdeaGeneratorContract",
    "KeepBetter",
    "LauncherContract",
    "LoopbackOpenAI",
    "MemoryLog",
    "MetricExtractorContract",
    "ObserverContract",
    "PlainAnalysis",
    "PluginContract",
    "ProjectionContract",
    "RecordingObserver",
    "ScriptedIdeas",
    "ScriptedSource",
    "Slow",
    "Story",
    "analysis",
    "candidate",
    "change",
    "experiment",
    "git",
    "history",
    "idea",
    "make_project",
    "memory_log",
    "openai_server",
    "project",
    "refold",
    "run_output",
    "run_request",
    "set_constant",
    "story",
    "workspace",
]
