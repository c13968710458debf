"""One experiment from its reasoning to the verdict, as a state machine over the History.

Every step looks at the log alone to know what comes next, so going on after a crash is the same
code as going on after the last step; events that may be repeated carry ids made from the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle import changes, minds, proposals, runs
from autoresearch.cycle.kit import Kit
from autoresearch.cycle.measurement import other_hardware, other_measurement
from autoresearch.cycle.proposals import current
from autoresearch.history import History
from autoresearch.model import (
    Candidate,
    Decision,
    Experiment,
    Idea,
    IdeaKind,
    RunOutput,
    RunStatus,
    Verdict,
)
from autoresearch.policies.greedy import refuse
from autoresearch.projections.blocks import analysis_block, shown_status
from autoresearch.text import block, one_line


def advance(kit: Kit) -> None:
    """Take the experiment under way one step further."""
    experiment = current(kit)
    if experiment.reasoning is None:
        proposals.reason(kit)
    elif not experiment.commit:
        baseline = experiment.number == kit.history.baseline_number
        changes.adopt_baseline(kit) if baseline else changes.change(kit)
    elif kit.history.open_run is not None:
        output = runs.finish_run(kit)
        assert output is not None
        conclude(kit, output)
    elif needs_a_run(kit.history):
        runs.request_run(kit)
    else:
        conclude(kit, runs.output_of(kit, experiment))


def needs_a_run(history: History) -> bool:
    """Return whether the next step of the experiment under way starts another run."""
    experiment = history.current
    if experiment is None or not experiment.commit or history.open_run is not None:
        return False
    if not experiment.runs:
        return True
    newest = experiment.runs[-1]
    fixed = newest.script_digest != experiment.source_digest
    another_seed = experiment.verdict is Verdict.RERUN and experiment.analysis is not None
    return fixed or another_seed or _says_nothing(experiment)


def failed_in_a_row(experiment: Experiment) -> int:
    """Return how many of the newest finished runs failed for the machine's sake."""
    ended = [run.status for run in experiment.runs if run.status is not None]
    count = 0
    while count < len(ended) and ended[-1 - count] is RunStatus.INFRA_FAILED:
        count += 1
    return count


def _says_nothing(experiment: Experiment) -> bool:
    # With an analysis it was judged by a release that let the machine's failures reach a verdict.
    return experiment.runs[-1].says_nothing and experiment.analysis is None


def conclude(kit: Kit, output: RunOutput) -> None:
    """Judge a finished run, unless it is to run again: it says nothing, or a crash was fixed."""
    experiment = current(kit)
    if _says_nothing(experiment):
        tell_nothing(kit, experiment)
    elif output.status is not RunStatus.CRASHED or not _fixed(kit, output):
        analyse(kit, output)
        decide(kit, output)


def tell_nothing(kit: Kit, experiment: Experiment) -> None:
    """Say once that a run has no verdict: neither its end nor the machine is the idea's fault."""
    *earlier, newest = experiment.runs
    if newest.interrupted:
        kit.tell(
            f"experiment {experiment.number}: {newest.detail or 'its run was stopped'}; it has no "
            "verdict, and autoresearch run tries it again"
        )
    elif not earlier or earlier[-1].detail != newest.detail:
        kit.tell(f"experiment {experiment.number}: {newest.detail}; trying again")


def may_be_fixed(kit: Kit) -> bool:
    """Return whether a crash of the experiment under way may be fixed once more."""
    experiment = current(kit)
    baseline = experiment.number == kit.history.baseline_number
    return not baseline and experiment.fixes < kit.config.limits.crash_fixes


def _fixed(kit: Kit, output: RunOutput) -> bool:
    return may_be_fixed(kit) and not fix(kit, output)


def fix(kit: Kit, output: RunOutput, texts: Mapping[str, str] | None = None) -> str:
    """Commit a fix of a crash, ``texts`` or a plugin's; return why there is none, or nothing."""
    experiment = current(kit)
    problem = one_line(output.detail, 300)
    idea = Idea(
        direction=experiment.idea.direction,
        description=f"fix: {problem}",
        hypothesis=last_words(output.log_path),
        author=experiment.idea.author,
        kind=IdeaKind.FIX,
    )
    attempt = experiment.fixes + 1
    refused = changes.fix(kit, idea, attempt, problem, texts)
    if not refused:
        kit.tell(f"experiment {experiment.number}: fixed ({problem}), attempt {attempt}")
    return refused


def last_words(path: Path) -> str:
    """Return the end of a run's output, as much as a person or a mind would read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8_000))
            return block(file.read().decode("utf-8", "replace"), 6_000)
    except OSError:
        return ""


def analyse(kit: Kit, output: RunOutput, words: Mapping[str, str] | None = None) -> None:
    """Audit a finished run and write the ANALYSIS block; ``words`` are fields of `Analysis`."""
    _audit(kit, output)
    _analyse(kit, output, words or {})


def decide(kit: Kit, output: RunOutput, told: Decision | None = None) -> None:
    """Decide by the policies, or as ``told`` by whoever made the experiment, within the limits."""
    _record_decision(kit, output, _decide(kit, output, told))


def _audit(kit: Kit, output: RunOutput) -> None:
    if output.status is not RunStatus.COMPLETED:
        return
    experiment = current(kit)
    found = (
        *other_measurement(experiment, kit.history),
        *kit.plugins.audit_run(experiment, output, kit.history),
    )
    for index, item in enumerate(found):
        if item.blocks:
            kit.recorder.record(
                events.AuditFailed(
                    experiment=experiment.number,
                    rule=item.rule,
                    detail=one_line(item.detail, 1_000),
                    line=item.line,
                    stage="after_run",
                ),
                event_id=f"{output.name}/audit/{index}",
            )


def _analyse(kit: Kit, output: RunOutput, words: Mapping[str, str]) -> None:
    experiment = current(kit)
    if experiment.analysis is None:
        desk = minds.desk(kit)
        made = kit.plugins.analyze_run(experiment, kit.history, minds.resting(kit), desk)
        made = evolve(made, **words)
        kit.record_costs()
        recorded = events.AnalysisRecorded(
            experiment=experiment.number,
            result=one_line(made.result, 300),
            versus_expected=one_line(made.versus_expected, 1_000),
            why=one_line(made.why, 2_000),
            lesson=one_line(made.lesson, 1_000),
            author=made.author,
        )
        kit.recorder.record_many(
            [*_scored_prediction(kit, output), (recorded, f"{output.name}/analysis")]
        )


def _scored_prediction(kit: Kit, output: RunOutput) -> list[tuple[events.Event, str]]:
    experiment, history = current(kit), kit.history
    observed, predicted = history.score(experiment), experiment.idea.predicted
    if observed is None or predicted is None:
        return []
    gain = history.gain(observed, predicted)
    close = abs(gain) <= 2.0 * (kit.config.metric.sd or history.noise.sd)
    outcome = "hit" if close else "overshoot" if gain > 0 else "undershoot"
    scored = events.PredictionScored(
        experiment=experiment.number, predicted=predicted, observed=observed, outcome=outcome
    )
    return [(scored, f"{output.name}/prediction")]


def _decide(kit: Kit, output: RunOutput, told: Decision | None) -> Decision:
    experiment, history = current(kit), kit.history
    size = experiment.metrics.get(kit.config.metric.size)
    status = output.status
    if experiment.number == history.baseline_number and history.score(experiment) is not None:
        status = RunStatus.COMPLETED  # a repetition that failed takes nothing from the first run
    score = history.score(experiment) if status is RunStatus.COMPLETED else None
    candidate = Candidate(
        experiment=experiment,
        metric=score,
        artifact_bytes=None if size is None else int(size),
        status=status,
        violations=experiment.violations,
    )
    decision = told or kit.plugins.decide(candidate, history)
    return bounded(decision, candidate, history, kit.config)


def bounded(decision: Decision, candidate: Candidate, history: History, config: Config) -> Decision:
    """Return a policy's decision within the limits, which are the loop's whatever it answers."""
    experiment = candidate.experiment
    decision = evolve(decision, reason=decision.reason + other_hardware(experiment, history))
    blocking = [item for item in candidate.violations if item.blocks]
    if blocking and decision.verdict in (Verdict.KEEP, Verdict.RERUN):
        reason = f"{blocking[0].rule}: {blocking[0].detail}"
        return Decision(verdict=Verdict.QUARANTINE, reason=reason, author="audit")
    refused = refuse(candidate, history, config)
    if refused is not None and decision.verdict is Verdict.KEEP:
        reason = f"{decision.author} wanted to keep it, but {refused.reason}"
        return evolve(refused, reason=reason, author="protocol")
    limit = config.limits.reruns
    if decision.verdict is Verdict.RERUN and _reruns(experiment) >= limit:
        reason = f"{decision.author} wanted more than {limit} reruns (limits.reruns)"
        return Decision(verdict=Verdict.DISCARD, reason=reason, author="protocol")
    return decision


def _reruns(experiment: Experiment) -> int:
    """Count the runs that a policy asked for: neither the first, nor those after a failure."""
    telling = sum(not run.says_nothing for run in experiment.runs)
    return telling - 1 - experiment.fixes


def _record_decision(kit: Kit, output: RunOutput, decision: Decision) -> None:
    experiment, history = current(kit), kit.history
    assert experiment.analysis is not None
    score, best = history.score(experiment), history.best_metric
    delta = decision.delta
    if delta is None and score is not None and best is not None:
        delta = score - best
    size = experiment.metrics.get(kit.config.metric.size)
    decided = events.Decided(
        experiment=experiment.number,
        verdict=decision.verdict.value,
        reason=one_line(decision.reason, 1_000),
        author=decision.author,
        metric=score,
        delta=delta,
        confidence=decision.confidence,
        artifact_bytes=None if size is None else int(size),
    )
    learned = events.LessonLearned(
        experiment=experiment.number,
        direction=experiment.idea.direction,
        lesson=experiment.analysis.lesson,
    )
    lesson = [] if decision.verdict is Verdict.RERUN else [(learned, f"{output.name}/lesson")]
    kit.recorder.record_many([*lesson, (decided, f"{output.name}/decided")])
    _tell_verdict(kit, experiment.number)


def _tell_verdict(kit: Kit, number: int) -> None:
    experiment = kit.history.experiments[number]
    assert experiment.analysis is not None
    assert experiment.decision is not None
    kit.tell(analysis_block(experiment.analysis, shown_status(experiment)))
    kit.tell(
        f"experiment {number}: {experiment.decision.verdict.value}, {experiment.decision.reason}"
    )
