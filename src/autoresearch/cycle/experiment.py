"""One experiment from its reasoning to the verdict, as a state machine over the History.

Every step looks at the log alone to know what comes next, so going on after a crash is the same
code as going on after the last step; events that may be repeated carry ids made from the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle import Kit, changes, proposals
from autoresearch.cycle.proposals import current
from autoresearch.cycle.recorder import passes, stage_after
from autoresearch.durable import end_of
from autoresearch.errors import WorkspaceError
from autoresearch.folding import in_stage
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
    Violation,
)
from autoresearch.policies import first_score, refuse
from autoresearch.projections.files import analysis_block, controls, shown_status
from autoresearch.text import block, one_line

_HARDWARE = "hardware"


def is_preparing(experiment: Experiment) -> bool:
    """Return whether an experiment has still to come to its commit."""
    return experiment.reasoning is None or not experiment.commit


def prepare(kit: Kit) -> None:
    """Take the newest experiment one step nearer to its commit; it may be dropped on the way."""
    experiment = current(kit)
    if experiment.reasoning is None:
        proposals.reason(kit)
    elif experiment.number == kit.history.baseline_number:
        changes.adopt_baseline(kit)
    else:
        changes.change(kit)


def needs_a_run(history: History, experiment: Experiment) -> bool:
    """Return whether the next step of an experiment starts another run."""
    if not experiment.commit or experiment.number in history.open_runs:
        return False
    if not experiment.runs:
        return True
    newest = experiment.runs[-1]
    # A verdict says it of the runs that it knew, and a crash may come before the next verdict.
    another_seed = experiment.verdict is Verdict.RERUN and experiment.judged == len(experiment.runs)
    promoted = experiment.promoted not in ("", newest.stage)
    return newest.superseded or another_seed or promoted or _says_nothing(experiment)


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


def conclude(kit: Kit, number: int, output: RunOutput) -> None:
    """Judge a finished run, unless it is to run again: it says nothing, or a crash was fixed.

    A control is judged by nobody: what it measured is in the score of the best already.
    """
    experiment = kit.history.experiments[number]
    if experiment.runs[-1].control:
        kit.tell("; ".join(controls(kit.history)))
    elif _says_nothing(experiment):
        tell_nothing(kit, experiment)
    elif (
        output.status is not RunStatus.CRASHED
        or not may_be_fixed(kit, experiment)
        or fix(kit, number, output)
    ):
        analyse(kit, number, output)
        decide(kit, number, output)


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


def may_be_fixed(kit: Kit, experiment: Experiment) -> bool:
    """Return whether a crash of an experiment may be fixed once more."""
    baseline = experiment.number == kit.history.baseline_number
    return not baseline and experiment.fixes < kit.config.limits.crash_fixes


def fix(kit: Kit, number: int, output: RunOutput, texts: Mapping[str, str] | None = None) -> str:
    """Commit a fix of a crash, ``texts`` or a plugin's; return why there is none, or nothing."""
    experiment = kit.history.experiments[number]
    problem = one_line(output.detail, 300)
    idea = Idea(
        direction=experiment.idea.direction,
        description=f"fix: {problem}",
        hypothesis=last_words(output.log_path),
        author=experiment.idea.author,
        kind=IdeaKind.FIX,
    )
    attempt = experiment.fixes + 1
    refused = changes.fix(kit, number, idea, attempt, problem, texts)
    if not refused:
        kit.tell(f"experiment {number}: fixed ({problem}), attempt {attempt}")
    return refused


def last_words(path: Path) -> str:
    """Return the end of a run's output, as much as a person or a mind would read."""
    with suppress(OSError):
        return block(end_of(path, 8_000), 6_000)
    return ""


def analyse(
    kit: Kit, number: int, output: RunOutput, words: Mapping[str, str] | None = None
) -> None:
    """Audit a finished run and write the ANALYSIS block; ``words`` are fields of `Analysis`."""
    _audit(kit, number, output)
    experiment = kit.history.experiments[number]
    if experiment.analysis is not None:
        return
    past = _past(kit, number)
    asked = (past.experiments[number], past, proposals.resting(kit), proposals.desk(kit))
    made = evolve(kit.plugins.analyze_run(*asked), **(words or {}))
    kit.record_costs()
    recorded = events.AnalysisRecorded(
        experiment=number,
        result=one_line(made.result, 300),
        versus_expected=one_line(made.versus_expected, 1_000),
        why=one_line(made.why, 2_000),
        lesson=one_line(made.lesson, 1_000),
        author=made.author,
    )
    scored = _scored_prediction(kit, experiment, output)
    kit.recorder.record_many([*scored, (recorded, f"{output.name}/analysis")])


def decide(kit: Kit, number: int, output: RunOutput, told: Decision | None = None) -> None:
    """Decide by the policies, or as ``told`` by whoever made the experiment, within the limits.

    In a stage that is not the last one, what would be kept is promoted to the next.
    """
    decision = _decide(kit, number, output, told)
    facts: list[events.Event] = []
    if decision.verdict is Verdict.KEEP and _past(kit, number).is_early:
        _promote(kit, number, output, decision)
        return
    if decision.verdict is Verdict.KEEP and _head_moved(kit, number):
        decision, facts = _on_new_head(kit, number, decision)
    _record_decision(kit, number, output, decision, facts)


def _head_moved(kit: Kit, number: int) -> bool:
    history = kit.history
    first = number == history.baseline_number
    return not first and history.experiments[number].built_on != history.head


def _past(kit: Kit, number: int) -> History:
    """Return the history that an experiment is judged by: its stage's, as it found head."""
    history, experiment = kit.history, kit.history.experiments[number]
    if _head_moved(kit, number):
        history = evolve(history, head=experiment.built_on, best_number=experiment.rival)
    return in_stage(history, experiment.stage, number)


def _promote(kit: Kit, number: int, output: RunOutput, decision: Decision) -> None:
    stage = stage_after(kit.history, kit.history.experiments[number].stage)
    assert stage is not None  # `_past` says that it is an early one
    promoted = events.RunPromoted(
        experiment=number,
        run=output.name,
        stage=stage,
        reason=one_line(decision.reason, 1_000),
        author=decision.author,
    )
    kit.recorder.record(promoted, event_id=f"{output.name}/promoted")
    kit.tell(f"experiment {number}: promoted to {stage}, {decision.reason}")


def _on_new_head(kit: Kit, number: int, decision: Decision) -> tuple[Decision, list[events.Event]]:
    """Make a change that would be kept again on head, which moved: only a run can confirm it."""
    told = f"it would be kept on experiment {kit.history.experiments[number].built_on}"
    told += f" ({decision.reason}), but head is experiment {kit.history.head} now"
    try:
        facts = changes.reapply(kit, number)
    except (WorkspaceError, UnicodeError) as error:
        if passes(error):
            raise
        verdict, told = Verdict.DISCARD, f"{told}, where the change does not fit: {error}"
        return evolve(decision, verdict=verdict, reason=told, author="protocol"), []
    told = f"{told}: the change was made there again, and a run is to confirm it"
    return evolve(decision, verdict=Verdict.RERUN, reason=told, author="protocol"), facts


def _audit(kit: Kit, number: int, output: RunOutput) -> None:
    if output.status is not RunStatus.COMPLETED:
        return
    past = _past(kit, number)
    experiment = past.experiments[number]
    found = (
        *other_measurement(experiment, past),
        *kit.plugins.audit_run(experiment, output, past, proposals.desk(kit)),
    )
    for index, item in enumerate(found):
        if item.blocks:
            failed = changes.broken(number, item, stage="after_run")
            kit.recorder.record(failed, event_id=f"{output.name}/audit/{index}")


def _scored_prediction(
    kit: Kit, experiment: Experiment, output: RunOutput
) -> list[tuple[events.Event, str]]:
    history = kit.history
    observed, predicted = history.score(experiment), experiment.idea.predicted
    if observed is None or predicted is None:
        return []
    gain = history.gain(observed, predicted)
    close = abs(gain) <= 2.0 * history.noise.sd
    outcome = "hit" if close else "overshoot" if gain > 0 else "undershoot"
    scored = events.PredictionScored(
        experiment=experiment.number, predicted=predicted, observed=observed, outcome=outcome
    )
    return [(scored, f"{output.name}/prediction")]


def _decide(kit: Kit, number: int, output: RunOutput, told: Decision | None) -> Decision:
    history = _past(kit, number)
    experiment, status = history.experiments[number], output.status
    if experiment.number == history.baseline_number and history.score(experiment) is not None:
        status = RunStatus.COMPLETED  # a repetition that failed takes nothing from the first run
    candidate = candidate_of(experiment, history, status)
    config = kit.config
    if history.is_early and candidate.artifact_bytes is None:  # a smoke test need not write it
        config = evolve(config, limits=evolve(config.limits, artifact_bytes=0))
    if told is None and history.is_early:
        told = _judge_early(kit, candidate, history, config)
    decision = told or kit.plugins.decide(candidate, history)
    return bounded(decision, candidate, history, config)


def candidate_of(experiment: Experiment, history: History, status: RunStatus) -> Candidate:
    """Return an experiment whose newest run ended so as the policies judge it."""
    size = experiment.metrics.get(history.size)
    return Candidate(
        experiment=experiment,
        metric=history.score(experiment) if status is RunStatus.COMPLETED else None,
        artifact_bytes=None if size is None else int(size),
        status=status,
        violations=experiment.violations,
    )


def _judge_early(kit: Kit, candidate: Candidate, history: History, config: Config) -> Decision:
    """Judge a run of a stage that is not the last one: keep stands for promote."""
    refused = refuse(candidate, history, config)
    if refused is not None:
        return evolve(refused, author="protocol")
    experiment = candidate.experiment
    if experiment.number == history.baseline_number:
        made = first_score(candidate, history, config)
        return evolve(made, author="protocol", reason=f"{made.reason} in {history.stage}")
    answer = kit.plugins.promote_run(experiment, history)
    verdict = Verdict.KEEP if answer.promote else Verdict.DISCARD
    said = (
        answer.reason if answer.promote else f"not promoted from {history.stage}: {answer.reason}"
    )
    return Decision(verdict=verdict, reason=said, author=answer.author)


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
    return sum(not run.says_nothing and not run.superseded for run in experiment.runs) - 1


def _record_decision(
    kit: Kit, number: int, output: RunOutput, decision: Decision, facts: Iterable[events.Event]
) -> None:
    """Record a verdict together with what it rests on, and the facts that follow from it."""
    history = _past(kit, number)
    experiment = history.experiments[number]
    assert experiment.analysis is not None
    score, best = history.score(experiment), history.best_metric
    delta = decision.delta
    if delta is None and score is not None and best is not None:
        delta = score - best
    size = experiment.metrics.get(history.size)
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
    after = ((fact, None) for fact in facts)
    kit.recorder.record_many([*lesson, (decided, f"{output.name}/decided"), *after])
    _tell_verdict(kit, number)


def _tell_verdict(kit: Kit, number: int) -> None:
    experiment = kit.history.experiments[number]
    assert experiment.analysis is not None
    assert experiment.decision is not None
    kit.tell(analysis_block(experiment.analysis, shown_status(experiment)))
    kit.tell(
        f"experiment {number}: {experiment.decision.verdict.value}, {experiment.decision.reason}"
    )


# --- what scores are compared --------------------------------------------------------------------


def other_measurement(experiment: Experiment, history: History) -> tuple[Violation, ...]:
    """Return a violation for each part of the measurement that the best experiment's differs in.

    The hardware is not among them.

    An experiment that is typed as an evaluation change differs on purpose: it is only warned of.
    """
    severity = "warning" if experiment.idea.kind is IdeaKind.EVALUATION else "violation"
    return tuple(
        Violation(
            rule="measurement",
            detail=f"measured with another {name} than experiment {history.best_number}: "
            f"{new[:12] or 'none'} instead of {old[:12] or 'none'}",
            severity=severity,
        )
        for name, old, new in _differences(experiment, history)
        if name != _HARDWARE
    )


def other_hardware(experiment: Experiment, history: History) -> str:
    """Return words for the decision when the best score is of other hardware, else nothing."""
    for name, old, new in _differences(experiment, history):
        if name == _HARDWARE:
            return f" (on other hardware than experiment {history.best_number}: {new}, not {old})"
    return ""


def _differences(experiment: Experiment, history: History) -> list[tuple[str, str, str]]:
    best = history.best
    if best is None or best.number == experiment.number or not experiment.measurement:
        return []
    before, now = best.measurement, experiment.measurement
    names = sorted(before.keys() | now.keys()) if before else []
    pairs = [(name, before.get(name, ""), now.get(name, "")) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]
