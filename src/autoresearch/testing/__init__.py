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
    git,
    idea,
    make_project,
    memory_log,
    openai_server,
    project,
    run_output,
    run_request,
    workspace,
)
from autoresearch.testing.contracts import (
    BacktrackingRuleContract,
    DecisionPolicyContract,
    IdeaGeneratorContract,
    PluginContract,
)
from autoresearch.testing.contracts_runs import (
    AuditContract,
    LauncherContract,
    MetricExtractorContract,
    ObserverContract,
    ProjectionContract,
)
from autoresearch.testing.fakes import (
    ApiError,
    FakeLauncher,
    FixedMetrics,
    KeepBetter,
    LoopbackOpenAI,
    PlainAnalysis,
    Raw,
    RecordingObserver,
    ScriptedIdeas,
    ScriptedSource,
    Slow,
    set_constant,
)
from autoresearch.testing.story import EXAMPLES, Story, history, refold, story

__all__ = [
    "EXAMPLES",
    "SOURCE",
    "ApiError",
    "AuditContract",
    "BacktrackingRuleContract",
    "DecisionPolicyContract",
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
    "Raw",
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
