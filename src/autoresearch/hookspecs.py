"""Every hook, in the order in which one campaign calls them; the only contract with plugins.

All arguments are frozen. A plugin implements a hook with ``@autoresearch.hookimpl`` and names only
the arguments that it wants. *First result* hooks stop at the first answer that is not ``None``,
asking the plugin nearest to the user first; *collecting* hooks ask every plugin.

``@hook`` declares everything else that is known of a hook, so that it stands in this one place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy
from attrs import frozen

from autoresearch.config import Config
from autoresearch.desk import Desk
from autoresearch.history import History
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
    Notice,
    Objection,
    Parent,
    Promotion,
    Quote,
    Remark,
    RunHandle,
    RunOutput,
    RunRequest,
    Violation,
    Workspace,
)

if TYPE_CHECKING:  # a campaign that runs without the command line need not load them
    import click

    from autoresearch.projections import Projection

PROJECT = "autoresearch"
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")


@frozen(kw_only=True)
class Hook:
    """What is known of one hook beside its signature.

    ``check`` is the function of ``plugins.answers`` that judges an answer, "" for a hook that
    returns nothing. ``contract`` is the conformance class of ``autoresearch.testing``.
    ``may_be_silenced``: a wrapper may turn an answer into None, which is an answer of its own.
    ``frequent``: called for every event or every few seconds, so that a plugin that always fails
    in it would fill the log: only its 1st, 2nd, 4th, 8th ... failure is told.
    """

    name: str
    arguments: tuple[str, ...]
    first_result: bool = False
    check: str = ""
    contract: str = ""
    may_be_silenced: bool = False
    frequent: bool = False


HOOKS: dict[str, Hook] = {}

# A plugin that was written before a hook was renamed keeps working.
FORMER: Mapping[str, str] = {"lock_run": "measure_run"}


def hook(**known: Any) -> Callable[[F], F]:
    """Declare the function below as a hook; ``known`` are fields of :class:`Hook`."""

    def declare(function: F) -> F:
        made = Hook(
            name=function.__name__,
            arguments=tuple(inspect.signature(function).parameters),
            **known,
        )
        HOOKS[made.name] = made
        return pluggy.HookspecMarker(PROJECT)(function, firstresult=made.first_result)

    return declare


@hook()
def configure(config: Config) -> None:
    """Give a plugin the configuration, once, when it becomes active.

    Called before any other hook. ``config.settings("name", MySettings)`` returns the plugin's own
    table ``[tool.autoresearch.plugins.<name>]`` checked against an attrs class. Returns nothing;
    raise ``ConfigError`` to refuse.
    """


@hook(first_result=True, check="problems")
def check_launcher(
    config: Config, project: Path, tell: Callable[[str], None]
) -> Sequence[str] | None:
    """Say what is missing before runs can be launched, at no cost: a token, a program, data.

    Called before a campaign is started or gone on with, and before anything is recorded; the first
    problem refuses it in one line, which should end with what to do. ``tell`` gives a person a line
    about what takes a while, or does not prevent the start. First result; an empty sequence found
    nothing, and ``None`` means that ``config.launcher`` is not this plugin's.
    """


@hook(first_result=True, check="script")
def unpack_script(source: str) -> str | None:
    """Turn the script that a campaign starts from into the text that is edited.

    Called once, before a campaign is started, with the script as it is committed: some are packed,
    so that they hold their own text only compressed. The text becomes the first commit of the
    campaign's branch. First result; ``None`` means that the script is edited as it is.
    """


@hook()
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line.

    Called once while the command line starts. ``cli`` is the Click group ``autoresearch``.
    Collecting; returns nothing. A command that exists already may not be replaced.
    """


@hook(check="projections", contract="ProjectionContract", frequent=True)
def register_projections(config: Config) -> Sequence[Projection] | None:
    """Offer files that are pure functions of the log, beside results.tsv and notes.md.

    Called when a campaign is opened and by ``autoresearch rebuild``. Collecting; ``None`` offers
    none. Two projections of one file name are an error that names both plugins.
    """


@hook(first_result=True, check="ideas", contract="IdeaGeneratorContract")
def propose_idea(
    history: History, source: str, rng: Random, files: Mapping[str, str], desk: Desk
) -> Idea | Sequence[Idea] | None:
    """Propose the next experiment, or several of which the first is the next.

    Called after the memory was reviewed, once for every experiment but the baseline. ``source`` is
    the script at head; ``rng`` is seeded from the campaign and the experiment's number; ``files``
    holds the text of every editable file at head by path, the script among them; the ``desk`` has
    what an author may ask for while it thinks, and what of its ideas was refused. Of several ideas
    (at most 100) the first is tried, and the others wait in the queue under their author's name,
    each held to what a person's queued idea is held to. First result; ``None`` (or an exception)
    passes on to the next generator, so that the loop never stops for a generator that is down. One
    that raises ``OutageError`` rests a while, longer each time; one that raises ``SuspendedError``
    is not asked again until a person acts.
    """


@hook(check="reason", may_be_silenced=True)
def explain_no_idea(history: History, source: str, files: Mapping[str, str]) -> str | None:
    """Say in a few words why there was no idea: what was looked for, and what would help.

    Called when no generator has an idea, to tell a person who waits. ``source`` and ``files`` are
    those of ``propose_idea``. Collecting; ``None`` says nothing.
    """


@hook(check="objections")
def review_idea(idea: Idea, history: History) -> Objection | Sequence[Objection] | None:
    """Raise objections before money is spent.

    Called with each proposed idea before it is implemented. Collecting; ``None`` has none. One
    fatal objection drops the idea, and the generators are asked again.
    """


@hook(first_result=True, check="texts")
def implement_idea(idea: Idea, workspace: Workspace, desk: Desk) -> str | Mapping[str, str] | None:
    """Turn an idea without code into the whole new text of the script, or of several files.

    Called only for ideas that bring neither source, files, patch nor environment. The script at
    head is ``workspace.script_path``; the plugin must not write into the workspace, but may into
    ``desk.scratch()``. The answer is the script's text, or a mapping of editable files to theirs.
    First result; ``None`` passes on. A person's words wait in the queue for a plugin that
    implements them, and all words for one that failed; others are dropped.
    """


@hook(check="violations", contract="AuditContract")
def audit_change(
    change: Change, workspace: Workspace, history: History
) -> Sequence[Violation] | None:
    """Find what must not run: scope, size, integrity of the evaluation.

    Called after the change was written into the worktree and before it is committed and run;
    ``history`` tells what the runs before it measured. Collecting; ``None`` or an empty sequence
    found nothing. A violation with severity ``violation`` blocks the run, one with ``warning`` is
    only recorded.
    """


@hook(first_result=True, check="handle", contract="LauncherContract")
def launch_run(request: RunRequest, workspace: Workspace) -> RunHandle | None:
    """Start a run, or find the one that was started under the same name.

    Called after ``run_requested`` is durable, and again after a crash of the loop: a launcher must
    start a request name once only and otherwise return a handle to that run. The command starts
    in ``request.cwd``, or in ``request.folder`` where that is None, and finds the folder's path in
    AUTORESEARCH_RUN; its output goes to the handle's ``log_path``. First result; ``None``
    means that ``request.launcher`` is not this plugin's. A launcher that raises leaves a run that
    is ``infra_failed``, so it raises only while nothing was started.
    """


@hook(first_result=True, check="quote")
def quote_run(request: RunRequest) -> Quote | None:
    """Say what a run may take at the most: seconds, GPUs, money.

    Called before an experiment is begun and before each of its runs, where nothing was started yet;
    of the request the launcher, the command, the environment and the deadline are set. It is held
    against ``limits`` and reserved. First result; ``None`` means that ``request.launcher`` is not
    this plugin's; without an answer a run is taken to last to its deadline and to cost nothing.
    """


@hook(check="costs")
def quote_call(history: History, files: Mapping[str, str], desk: Desk) -> Sequence[Cost] | None:
    """Say what this plugin's next question to a mind may cost at the most: tokens and money.

    Called before an experiment is begun, where ``limits.usd`` is set; the arguments are those of
    ``propose_idea``. Collecting: the sum has to fit beside the worst case of the run, or nobody is
    asked. ``None`` costs nothing. Before any further question the plugin looks at ``desk.usd_left``
    itself.
    """


@hook(check="metrics", contract="MetricExtractorContract")
def extract_metrics(output: RunOutput, history: History) -> Mapping[str, float] | None:
    """Read named numbers from a finished run.

    Called once a run is over, whatever its status; ``history`` tells what earlier runs were read
    by. Collecting and merged: where two plugins give different values for one name it is a failure
    that names both, and neither is used. An absent metric is left out of the mapping: never 0,
    never NaN. ``None`` found none.
    """


@hook(check="measurement")
def measure_run(output: RunOutput, history: History) -> Mapping[str, str] | None:
    """Say what the score of a completed run was measured with.

    Called after the metrics were extracted. Digests of the evaluation code, the tokenizer and the
    validation data, the name of the hardware; ``score`` names the line that the score is read from.
    A score is compared with the best one only if both were measured with the same things. A
    different ``hardware`` is said in the decision, any other difference makes the verdict
    ``quarantine``. Collecting and merged; ``None`` says nothing.
    """


@hook(check="reason", may_be_silenced=True)
def explain_no_score(output: RunOutput, history: History) -> str | None:
    """Say in a few words why a completed run has no score: what was looked for, and what was there.

    Called after its metrics were extracted, where the campaign's is not among them. Collecting;
    ``None`` says nothing.
    """


@hook(first_result=True, check="reason", may_be_silenced=True, frequent=True)
def should_stop_run(
    request: RunRequest, observed: Mapping[str, float], history: History
) -> str | None:
    """Stop a doomed run.

    Called every few seconds while a run goes on, with the newest numbers read from its output.
    First result; a string is the reason to stop, ``None`` lets it go on.
    """


@hook(check="violations", contract="AuditContract")
def audit_run(
    experiment: Experiment, output: RunOutput, history: History, desk: Desk
) -> Sequence[Violation] | None:
    """Find what must not be believed: sizes, clocks, conservation of bytes, implausible gains.

    Called after the metrics of a completed run were extracted and before it is analysed. What can
    only be found where the run was is asked of the ``desk``: ``job`` runs a script there.
    Collecting; ``None`` or an empty sequence found nothing. A blocking violation makes the
    verdict ``quarantine`` whatever a policy says.
    """


@hook(first_result=True, check="analysis")
def analyze_run(experiment: Experiment, history: History, desk: Desk) -> Analysis | None:
    """Write the ANALYSIS block.

    Called after each finished run, before the decision. ``experiment`` holds its reasoning, runs
    and metrics; the ``desk`` has the run's output, its curve and the diff. First result; ``None``
    passes on (a built-in always answers).
    """


@hook(first_result=True, check="promotion")
def promote_run(experiment: Experiment, history: History) -> Promotion | None:
    """Say whether an experiment is worth a run in the next stage.

    Called after the analysis of a run in any stage but the last, where the run has a score and no
    limit is broken; not for the baseline, which runs in all of them. ``history`` is as that stage
    shows it: ``history.best_metric`` is the best's score there. First result; ``None`` passes on.
    What is not promoted is discarded with the reason.
    """


@hook(first_result=True, check="decision", contract="DecisionPolicyContract")
def decide(candidate: Candidate, history: History) -> Decision | None:
    """Judge a finished experiment: keep, discard, crash, rerun or quarantine.

    Called after the analysis, of a run in the last stage where there are several. ``history`` does
    not contain the candidate's decision yet; ``history.best`` is what it must beat. First result;
    ``None`` passes on. A veto over other policies is an implementation with ``wrapper=True``.
    """


@hook(
    first_result=True, check="backtrack", contract="BacktrackingRuleContract", may_be_silenced=True
)
def backtrack(history: History) -> Backtrack | None:
    """Answer the three signals of the protocol: dead end, regression, plateau.

    Called after every decision. First result; ``None`` carries on from head.
    """


@hook(first_result=True, check="parent")
def choose_parent(history: History, rng: Random) -> Parent | None:
    """Choose the kept experiment that the next idea builds on.

    Called after every decision once no signal moved head, while no other experiment is under way;
    ``rng`` is seeded from the campaign and the number of the next experiment. First result;
    ``None`` is head. Another one becomes head, which is recorded as ``backtracked`` with the
    reason; what is built on it still has to beat the best.
    """


@hook(first_result=True, check="remarks")
def summarize(history: History, since: int, desk: Desk) -> Sequence[Remark] | None:
    """Say what ten experiments show together.

    Called by the loop alone, once after every ten decided experiments, the first of which is
    ``since``; a driver of the steps does not call it. Each remark (three are kept) cites
    experiments of the campaign, and every number in it has to be one of theirs; what is not is left
    out, and told. The rules' own line on them (kept ones, gain, what was tried most) stands in
    front of the remarks, and alone without any. First result; ``None`` passes on.
    """


@hook(check="costs")
def report_costs() -> Sequence[Cost] | None:
    """Say what was spent since the last call: tokens and money of a language model.

    Called after every hook in which a plugin may have asked a model: ``propose_idea``,
    ``review_idea``, ``implement_idea``, ``analyze_run``. Collecting; ``None`` spent nothing. The
    sum counts against ``limits.usd`` together with the money of the runs.
    """


@hook(contract="ObserverContract", frequent=True)
def event_recorded(event: Recorded, history: History) -> None:
    """Observe a fact after it is durable.

    Called for every event of the campaign that is recorded while it runs, the loop's own and what
    people append meanwhile, but not for ``campaign_started``, which no plugin can be there for, nor
    for ``plugin_failed``: an observer that fails would be told of it, and fail again. Collecting
    and isolated: it cannot veto, and a failure becomes ``plugin_failed`` and disturbs no other
    plugin. Returns nothing.
    """


@hook(contract="ObserverContract", frequent=True)
def notify(notice: Notice) -> None:
    """Tell a person: a new best, stuck, budget gone, a human is needed.

    Called when it happens. Collecting and isolated as ``event_recorded``. Returns nothing.
    """


class Configured:
    """A built-in plugin that needs nothing of the configuration but to have it."""

    def __init__(self) -> None:
        self._config = Config()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Remember the settings of the campaign."""
        self._config = config


class WithTable(Configured, Generic[S]):
    """A plugin with a table: ``name`` is the plugin's, ``Settings`` the class of the table."""

    name: str
    Settings: type[S]

    def __init__(self) -> None:
        super().__init__()
        self._settings = self.Settings()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Remember the settings of the campaign, and read the plugin's table."""
        super().configure(config)
        self._settings = config.settings(self.name, self.Settings)
