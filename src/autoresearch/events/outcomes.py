"""Facts about runs, what was concluded from them, what they cost and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping

from autoresearch.events.registry import (
    Event,
    doc,
    event,
    experiment_number,
    grown,
    renamed,
    run_name,
)

# --- runs -----------------------------------------------------------------------------------


@event("run_requested", version=2, upcasters=[grown])
class RunRequested(Event):
    """A run is about to be launched under this name; nothing was started before this fact."""

    experiment: int = experiment_number()
    run: str = run_name()
    index: int = doc("0 for the first run of the experiment")
    seed: int = doc("random seed given to the script")
    launcher: str = doc("launcher plugin that is asked")
    command: tuple[str, ...] = doc("program and arguments")
    timeout_seconds: float = doc("deadline", unit="s")
    script_digest: str = doc("sha256 of the script that runs", default="")
    env: Mapping[str, str] = doc("environment overrides", factory=dict)
    stage: str = doc("stage that it runs in; empty where a campaign has none", default="")
    control: bool = doc("whether the best runs again only to be measured again", default=False)


@event("run_promoted")
class RunPromoted(Event):
    """What a run showed in one stage is worth a run in the next."""

    experiment: int = experiment_number()
    run: str = run_name()
    stage: str = doc("stage that the experiment goes on to")
    reason: str = doc("why")
    author: str = doc("plugin that decided", default="")


@event("run_started")
class RunStarted(Event):
    """The launcher answered with a handle."""

    run: str = run_name()
    experiment: int = experiment_number()
    reference: str = doc("how to find the run again: a pid, a call id")


@event("metric_observed")
class MetricObserved(Event):
    """A number read while the run was going on."""

    run: str = run_name()
    experiment: int = experiment_number()
    name: str = doc("name of the number")
    value: float = doc("its value", unit="metric")
    step: int | None = doc("training step", unit="steps", default=None)


@event("run_finished")
class RunFinished(Event):
    """The run is over."""

    run: str = run_name()
    experiment: int = experiment_number()
    status: str = doc("completed, crashed, timed_out, stopped_early or infra_failed")
    exit_code: int | None = doc("exit code of the program", default=None)
    seconds: float = doc("wall clock measured by the launcher", unit="s", default=0.0)
    log_bytes: int = doc("size of the output", unit="bytes", default=0)
    log_digest: str = doc("sha256 of the output", default="")
    detail: str = doc("the launcher's own words, or the crash's last line", default="")


@event("metrics_extracted")
class MetricsExtracted(Event):
    """The named numbers of a finished run; a number that the run did not give is absent."""

    run: str = run_name()
    experiment: int = experiment_number()
    metrics: Mapping[str, float] = doc("name to value", factory=dict)


@event("run_locked", version=2, upcasters=[renamed(measurement="locks")])
class RunLocked(Event):
    """What the score of a run was measured with; only scores of one measurement are compared."""

    run: str = run_name()
    experiment: int = experiment_number()
    measurement: Mapping[str, str] = doc(
        "name to digest, or to the name of the hardware", was="locks", factory=dict
    )


@event("checkout_changed")
class CheckoutChanged(Event):
    """Something that is not a run's own was different after it: the run's doing, or a person's."""

    experiment: int = experiment_number()
    run: str = run_name()
    what: str = doc("the checkout, refs, git configuration, the store or the lab")
    paths: tuple[str, ...] = doc("the first files that differ", default=())


EVALUATIONS: dict[object, str] = {False: "-evaluation", True: "-hidden"}
"""What follows the name of a run in the name of its evaluation, and of its folder."""


@event("evaluated")
class Evaluated(Event):
    """An evaluation command judged what a run left; a hidden score is for people alone."""

    run: str = run_name()
    experiment: int = experiment_number()
    name: str = doc("name of the score; that of a hidden one begins with hidden/")
    value: float | None = doc("the score; null when there is none", unit="metric", default=None)
    hidden: bool = doc("whether no plugin and no mind may see it", default=False)
    status: str = doc("how the command ended, as in run_finished", default="")
    seconds: float = doc("wall clock", unit="s", default=0.0)
    log_bytes: int = doc("size of the output", unit="bytes", default=0)
    log_digest: str = doc("sha256 of the output", default="")
    detail: str = doc("why there is no score", default="")


@event("retention_applied")
class RetentionApplied(Event):
    """Large files of a decided run were deleted, as the setting ``retention`` says."""

    run: str = run_name()
    experiment: int = experiment_number()
    files: tuple[str, ...] = doc("their paths in the run's folder, the first 100", default=())
    count: int = doc("how many files were deleted", default=0)
    bytes_freed: int = doc("their size", unit="bytes", default=0)


@event("fix_attempted")
class FixAttempted(Event):
    """A trivial crash was fixed and the experiment is tried again."""

    experiment: int = experiment_number()
    attempt: int = doc("1 for the first fix")
    problem: str = doc("the crash, in one line")
    fix: str = doc("what was changed")
    source_digest: str = doc("sha256 of the fixed script", default="")


# --- after the run --------------------------------------------------------------------------


@event("analysis_recorded", version=2, upcasters=[renamed(author="analyst")])
class AnalysisRecorded(Event):
    """The ANALYSIS block of an experiment."""

    experiment: int = experiment_number()
    result: str = doc("score, size and verdict in one line")
    versus_expected: str = doc("better, worse or same than predicted")
    why: str = doc("best explanation")
    lesson: str = doc("what it tells about future experiments")
    author: str = doc("plugin that wrote it", was="analyst", default="")


@event("prediction_scored")
class PredictionScored(Event):
    """The prediction made before the run was held against the result."""

    experiment: int = experiment_number()
    predicted: float = doc("metric expected", unit="metric")
    observed: float = doc("metric measured", unit="metric")
    outcome: str = doc("hit, overshoot or undershoot")


@event("decided", version=2, upcasters=[renamed(author="policy")])
class Decided(Event):
    """A policy gave its verdict."""

    experiment: int = experiment_number()
    verdict: str = doc("keep, discard, crash, rerun or quarantine")
    reason: str = doc("why")
    author: str = doc("plugin that decided", was="policy")
    metric: float | None = doc("score judged; null when there is none", unit="metric", default=None)
    delta: float | None = doc("score minus the best before", unit="metric", default=None)
    confidence: float | None = doc("probability that the gain is real, 0 to 1", default=None)
    artifact_bytes: int | None = doc("size judged", unit="bytes", default=None)


@event("quarantine_resolved", version=2, upcasters=[renamed(author="person")])
class QuarantineResolved(Event):
    """A person released or confirmed a quarantined experiment."""

    experiment: int = experiment_number()
    released: bool = doc("true: the result is believed; false: it stays out for good")
    reason: str = doc("why")
    author: str = doc("who", was="person")


@event("overruled")
class Overruled(Event):
    """A person put another verdict in the place of the one that was given."""

    experiment: int = experiment_number()
    verdict: str = doc("keep or discard")
    reason: str = doc("why")
    author: str = doc("who")


@event("lesson_learned")
class LessonLearned(Event):
    """What an experiment taught, in one line."""

    experiment: int = experiment_number()
    direction: str = doc("family of the change")
    lesson: str = doc("the lesson")


@event("direction_declared_dead", version=2, upcasters=[renamed(author="rule")])
class DirectionDeclaredDead(Event):
    """A direction was abandoned."""

    direction: str = doc("family of the change")
    reason: str = doc("why it failed")
    experiments: tuple[int, ...] = doc("experiments that proved it", default=())
    author: str = doc("plugin that declared it", was="rule", default="")


@event("plateau_declared", version=2, upcasters=[renamed(author="rule")])
class PlateauDeclared(Event):
    """The last experiments brought next to nothing; something radical is due."""

    experiments: tuple[int, ...] = doc("experiments of the plateau", default=())
    reason: str = doc("why")
    author: str = doc("plugin that declared it", was="rule", default="")


@event("backtracked", version=2, upcasters=[renamed(author="rule")])
class Backtracked(Event):
    """The branch went back to a known-good commit."""

    after_experiment: int = doc("last experiment before going back")
    to_experiment: int = doc("experiment whose commit is head again")
    commit: str = doc("commit that is head again")
    reason: str = doc("what went wrong")
    author: str = doc("plugin that asked for it", was="rule", default="")
    experiments: tuple[int, ...] = doc("experiments that proved it", default=())


# --- money, plugins, people -----------------------------------------------------------------


@event("cost_incurred")
class CostIncurred(Event):
    """Something was spent."""

    kind: str = doc("run or tokens")
    source: str = doc("launcher or generator that spent it")
    experiment: int | None = doc("experiment it was spent on", default=None)
    gpu_seconds: float = doc("GPU time, all GPUs together", unit="GPU s", default=0.0)
    seconds: float = doc("wall clock", unit="s", default=0.0)
    tokens_in: int = doc("tokens read by a model", unit="tokens", default=0)
    tokens_out: int = doc("tokens written by a model", unit="tokens", default=0)
    usd: float = doc("money", unit="USD", default=0.0)


@event("budget_reserved")
class BudgetReserved(Event):
    """The worst case of a run was set aside before it started; its ``run_finished`` releases it."""

    run: str = run_name()
    experiment: int = experiment_number()
    seconds: float = doc("longest wall clock", unit="s", default=0.0)
    gpu_seconds: float = doc("most GPU time, all GPUs together", unit="GPU s", default=0.0)
    usd: float = doc("most money", unit="USD", default=0.0)
    prices: str = doc("where the price is from, and of when", default="")


@event("budget_exhausted")
class BudgetExhausted(Event):
    """A limit that a person set was reached, or leaves too little for the worst case of a run."""

    budget: str = doc("which limit: experiments, hours, usd or gpu_hours")
    limit: float = doc("its value")
    used: float = doc("what was used")


@event("plugin_failed")
class PluginFailed(Event):
    """A plugin raised, hung, or answered what its hook does not allow; the loop went on."""

    plugin: str = doc("name of the plugin")
    hook: str = doc("hook that failed")
    error: str = doc("the error in one line")
    traceback: str = doc("the traceback", default="")
    experiment: int | None = doc("experiment in which it happened", default=None)


@event("note_added")
class NoteAdded(Event):
    """A person wrote into the memory."""

    text: str = doc("the note")
    author: str = doc("who")


@event("history_imported", version=2, upcasters=[grown])
class HistoryImported(Event):
    """A row of another tool's history was taken over."""

    source: str = doc("file it came from")
    row: int = doc("row number in that file; 1 is the first below the header")
    commit: str = doc("commit as written there", default="")
    metric: float | None = doc("score as written there", unit="metric", default=None)
    status: str = doc("status as written there", default="")
    description: str = doc("description as written there", default="")
    problems: tuple[str, ...] = doc("what was wrong with the row", default=())
    experiment: int | None = doc("experiment that it became; null for none", default=None)
    cells: Mapping[str, str] = doc("every column that held something, as written", factory=dict)
