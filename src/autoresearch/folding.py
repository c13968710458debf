"""Folds events into a History, one small function for each type of fact that changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from attrs import evolve
from pyrsistent import pmap

from autoresearch import events
from autoresearch.history import History, OpenRun, QueuedIdea
from autoresearch.log import Recorded
from autoresearch.model import (
    Analysis,
    Decision,
    Experiment,
    Idea,
    IdeaKind,
    Lesson,
    Reasoning,
    Run,
    RunStatus,
    ValueChange,
    Verdict,
    Violation,
)

E = TypeVar("E", bound=events.Event)
M = TypeVar("M", bound=StrEnum)
Step = Callable[[History, Any, str], History]
_STEPS: dict[type[events.Event], Step] = {}
_TYPES: set[str] = set()  # their names, so that an event nobody folds is not even decoded


def fold(history: History, records: Iterable[Recorded]) -> History:
    """Fold recorded events, oldest first; events of other campaigns only move the position."""
    newest = None
    for newest in records:
        history = _taken(history, newest)
    return history if newest is None else _moved(history, newest)


def foresee(history: History, event: events.Event) -> History:
    """Return what History will be when this event is the next one."""
    take = _STEPS.get(type(event))
    history = history if take is None else take(history, event, "")
    return evolve(history, position=history.position + 1)


def step(history: History, record: Recorded) -> History:
    """Fold one event."""
    return _moved(_taken(history, record), record)


def _taken(history: History, record: Recorded) -> History:
    """Take in what an event says; a type that History has no use for, or does not know, is none."""
    if record.campaign != history.campaign or record.type not in _TYPES:
        return history
    take = _STEPS.get(type(record.event))
    return history if take is None else take(history, record.event, record.at)


def _moved(history: History, record: Recorded) -> History:
    return evolve(history, position=record.position, tip_hash=record.hash)


def _on(kind: type[E]) -> Callable[[Callable[[History, E, str], History]], Step]:
    def register(function: Callable[[History, E, str], History]) -> Step:
        _STEPS[kind] = function
        _TYPES.add(kind.type_name)
        return function

    return register


def _about(kind: type[E]) -> Callable[[Callable[[History, E, str], History]], Step]:
    """Register the step of a fact about an experiment; one that does not exist changes nothing.

    The log takes every well-formed event, so a fold must not fail on one that the loop would never
    have recorded.
    """

    def register(function: Callable[[History, E, str], History]) -> Step:
        def guarded(history: History, event: Any, at: str) -> History:
            known = 0 <= event.experiment < len(history.experiments)
            return function(history, event, at) if known else history

        return _on(kind)(guarded)

    return register


def _member(kind: type[M], value: str) -> M | None:
    """Return the member of an enum, None for a value that this release does not know."""
    return next((member for member in kind if member == value), None)


def _change(history: History, number: int, **changes: Any) -> History:
    experiment = evolve(history.experiments[number], **changes)
    return evolve(history, experiments=history.experiments.set(number, experiment))


@_on(events.CampaignStarted)
def _started(history: History, event: events.CampaignStarted, _: str) -> History:
    return evolve(
        history,
        metric=event.metric,
        lower_is_better=event.better == "lower",
        size=_size(event, history.size),
        started=event,
        plugins=event.plugins,
        stopped=None,
    )


def _size(event: events.CampaignStarted, otherwise: str) -> str:
    metric = event.config.get("metric")
    size = metric.get("size") if isinstance(metric, Mapping) else None
    return size if isinstance(size, str) else otherwise


@_on(events.CampaignResumed)
def _resumed(history: History, event: events.CampaignResumed, _: str) -> History:
    return evolve(history, plugins=event.plugins, stopped=None)


@_on(events.CampaignStopped)
def _stopped(history: History, event: events.CampaignStopped, _: str) -> History:
    return evolve(history, stopped=event.reason)


@_on(events.MemoryReviewed)
def _reviewed(history: History, event: events.MemoryReviewed, _: str) -> History:
    return evolve(history, reviewed=event)


@_on(events.IdeaQueued)
def _queued(history: History, event: events.IdeaQueued, _: str) -> History:
    idea = QueuedIdea(
        id=event.idea,
        direction=event.direction,
        description=event.description,
        hypothesis=event.hypothesis,
        generator=event.generator,
        expected_gain=event.expected_gain,
        patch=event.patch,
        env=event.env,
        changes=_changes(event.changes),
    )
    return evolve(history, queue=history.queue.set(event.idea, idea))


@_on(events.IdeaProposed)
def _proposed(history: History, event: events.IdeaProposed, at: str) -> History:
    if event.experiment != history.next_number:
        return history  # numbers have no gaps, and a decided experiment is not replaced
    idea = Idea(
        direction=event.direction,
        description=event.description,
        hypothesis=event.hypothesis,
        generator=event.generator,
        evidence=event.evidence,
        cites=event.cites,
        risk=event.risk,
        env=event.env,
        predicted=event.predicted,
        expected_gain=event.expected_gain,
        kind=_member(IdeaKind, event.kind) or IdeaKind.CHANGE,
        patch=event.patch,
        changes=_changes(event.changes),
    )
    experiment = Experiment(
        number=event.experiment,
        idea=idea,
        idea_id=event.idea,
        source_digest=event.source_digest or "",
        sources=event.sources,
        started_at=at,
    )
    numbers = history.experiments
    known = event.experiment < len(numbers)
    numbers = numbers.set(event.experiment, experiment) if known else numbers.append(experiment)
    return evolve(
        history,
        experiments=numbers,
        queue=history.queue.discard(event.idea),
        tried=history.tried.add(event.idea),
    )


def _changes(told: Iterable[Mapping[str, Any]]) -> tuple[ValueChange, ...]:
    """Read changed values back; what another program recorded in another form is left out."""
    names = ("name", "old", "new")
    return tuple(
        ValueChange(
            name=str(item["name"]), old=item["old"], new=item["new"], file=str(item.get("file", ""))
        )
        for item in told
        if all(isinstance(item.get(name), (bool, int, float, str)) for name in names)
    )


@_on(events.IdeaDropped)
def _dropped(history: History, event: events.IdeaDropped, _: str) -> History:
    history = evolve(
        history,
        queue=history.queue.discard(event.idea),
        rejected=history.rejected.append(event),
    )
    current = history.current
    if current is None or event.experiment != current.number or current.decision is not None:
        return history
    return evolve(history, experiments=history.experiments[: current.number], open_run=None)


@_about(events.ReasoningRecorded)
def _reasoned(history: History, event: events.ReasoningRecorded, _: str) -> History:
    reasoning = Reasoning(
        hypothesis=event.hypothesis,
        evidence=event.evidence,
        risk=event.risk,
        cites=event.cites,
        predicted=event.predicted,
        read_to=event.read_to,
    )
    return _change(history, event.experiment, reasoning=reasoning)


@_about(events.ChangeApplied)
def _applied(history: History, event: events.ChangeApplied, _: str) -> History:
    history = evolve(history, tried_sources=history.tried_sources.add(event.source_digest))
    old = history.experiments[event.experiment]
    added, removed = _lines(old, event)
    return _change(
        history,
        event.experiment,
        source_digest=event.source_digest,
        sources=event.sources,
        added_lines=added,
        removed_lines=removed,
    )


def _lines(old: Experiment, event: events.ChangeApplied) -> tuple[int, int]:
    """A change that is told again, after a crash of the loop, counts once; a fix adds to it."""
    if not old.commit:
        return event.added_lines, event.removed_lines
    if event.source_digest == old.source_digest:
        return old.added_lines, old.removed_lines
    return old.added_lines + event.added_lines, old.removed_lines + event.removed_lines


@_on(events.ChangeRejected)
def _rejected(history: History, event: events.ChangeRejected, _: str) -> History:
    return evolve(history, rejected=history.rejected.append(event))


@_about(events.AuditFailed)
def _failed(history: History, event: events.AuditFailed, _: str) -> History:
    found = Violation(rule=event.rule, detail=event.detail, line=event.line)
    old = history.experiments[event.experiment].violations
    return _change(history, event.experiment, violations=(*old, found))


@_about(events.CommitMade)
def _committed(history: History, event: events.CommitMade, _: str) -> History:
    return _change(history, event.experiment, commit=event.commit, parent_commit=event.parent)


@_about(events.RunRequested)
def _requested(history: History, event: events.RunRequested, _: str) -> History:
    runs = history.experiments[event.experiment].runs
    if any(run.name == event.run for run in runs):
        return history  # a name stands for one run for ever
    run = Run(index=event.index, name=event.run, seed=event.seed, script_digest=event.script_digest)
    history = _change(history, event.experiment, runs=(*runs, run), env=event.env, analysis=None)
    return evolve(history, open_run=OpenRun(request=event))


@_on(events.RunStarted)
def _run_started(history: History, event: events.RunStarted, _: str) -> History:
    if history.open_run is None or history.open_run.request.run != event.run:
        return history
    return evolve(history, open_run=evolve(history.open_run, reference=event.reference))


def _change_run(history: History, number: int, name: str, **changes: Any) -> History:
    runs = history.experiments[number].runs
    changed = tuple(evolve(run, **changes) if run.name == name else run for run in runs)
    return _change(history, number, runs=changed)


@_about(events.MetricObserved)
def _observed(history: History, event: events.MetricObserved, _: str) -> History:
    runs = history.experiments[event.experiment].runs
    old = next((run.observed for run in runs if run.name == event.run), None)
    if event.name != history.metric or event.step is None or old is None:
        return history
    seen = pmap(old).set(event.step, event.value)
    return _change_run(history, event.experiment, event.run, observed=seen)


@_about(events.RunFinished)
def _finished(history: History, event: events.RunFinished, _: str) -> History:
    status = _member(RunStatus, event.status)
    if status is None:
        return history
    if history.open_run is not None and history.open_run.request.run == event.run:
        history = evolve(history, open_run=None)
    history = _change_run(
        history,
        event.experiment,
        event.run,
        status=status,
        detail=event.detail,
        seconds=event.seconds,
    )
    return _scored(history, event.experiment)


@_about(events.MetricsExtracted)
def _extracted(history: History, event: events.MetricsExtracted, _: str) -> History:
    history = _change_run(history, event.experiment, event.run, metrics=event.metrics)
    return _scored(history, event.experiment)


def _scored(history: History, number: int) -> History:
    runs = history.experiments[number].runs
    return _change(history, number, metrics=_merged(runs, history.metric, history.size))


def _merged(runs: tuple[Run, ...], metric: str, size: str) -> dict[str, float]:
    """Over several seeds the score is the mean, the size the largest, all else the newest."""
    done = [run.metrics for run in runs if run.status is RunStatus.COMPLETED]
    merged: dict[str, float] = {}
    for metrics in done:
        merged.update(metrics)
    scores = [metrics[metric] for metrics in done if metric in metrics]
    sizes = [metrics[size] for metrics in done if size in metrics]
    if scores:
        merged[metric] = sum(scores) / len(scores)
    if sizes:
        merged[size] = max(sizes)
    return merged


@_about(events.RunLocked)
def _measured(history: History, event: events.RunLocked, _: str) -> History:
    return _change(history, event.experiment, measurement=event.measurement)


@_about(events.FixAttempted)
def _fixed(history: History, event: events.FixAttempted, _: str) -> History:
    return _change(history, event.experiment, fixes=event.attempt)


@_about(events.AnalysisRecorded)
def _analysed(history: History, event: events.AnalysisRecorded, _: str) -> History:
    analysis = Analysis(
        result=event.result,
        versus_expected=event.versus_expected,
        why=event.why,
        lesson=event.lesson,
        analyst=event.analyst,
    )
    return _change(history, event.experiment, analysis=analysis)


@_about(events.Decided)
def _decided(history: History, event: events.Decided, at: str) -> History:
    verdict = _member(Verdict, event.verdict)
    if verdict is None:
        return history
    decision = Decision(
        verdict=verdict,
        reason=event.reason,
        policy=event.policy,
        confidence=event.confidence,
        delta=event.delta,
    )
    history = _change(history, event.experiment, decision=decision, ended_at=at)
    if decision.verdict is Verdict.RERUN:
        return history
    history = evolve(
        history, timeline=history.timeline.append(event.experiment), reviewed=None, open_run=None
    )
    if decision.verdict is Verdict.KEEP:
        history = _crown(evolve(history, head=event.experiment), event.experiment)
    return history


def _crown(history: History, number: int) -> History:
    score = history.score(history.experiments[number])
    best = history.best_metric
    if score is None and history.best_number is not None:
        return history
    if best is None or (score is not None and history.better(score, best)):
        return evolve(history, best_number=number)
    return history


@_about(events.QuarantineResolved)
def _resolved(history: History, event: events.QuarantineResolved, _: str) -> History:
    verdict = Verdict.KEEP if event.released else Verdict.DISCARD
    word = "released" if event.released else "confirmed"
    old = history.experiments[event.experiment].decision
    reason = f"{word} by {event.person}: {event.reason}"
    if old is not None:
        reason = f"{reason} (was: {old.reason})"
    decision = Decision(verdict=verdict, reason=reason, policy="a person")
    history = _change(history, event.experiment, decision=decision)
    return _crown(history, event.experiment) if event.released else history


@_about(events.PredictionScored)
def _predicted(history: History, event: events.PredictionScored, _: str) -> History:
    return _change(history, event.experiment, prediction=event.outcome)


@_on(events.LessonLearned)
def _learned(history: History, event: events.LessonLearned, _: str) -> History:
    lesson = Lesson(text=event.lesson, experiment=event.experiment, direction=event.direction)
    return evolve(history, lessons=history.lessons.append(lesson))


@_on(events.DirectionDeclaredDead)
def _dead(history: History, event: events.DirectionDeclaredDead, _: str) -> History:
    return evolve(history, dead_ends=history.dead_ends.set(event.direction, event))


@_on(events.PlateauDeclared)
def _plateau(history: History, event: events.PlateauDeclared, _: str) -> History:
    return evolve(history, plateaus=history.plateaus.append(event))


@_on(events.Backtracked)
def _backtracked(history: History, event: events.Backtracked, _: str) -> History:
    if not 0 <= event.to_experiment < len(history.experiments):
        return history
    return evolve(history, head=event.to_experiment, timeline=history.timeline.append(event))


@_on(events.NoteAdded)
def _noted(history: History, event: events.NoteAdded, _: str) -> History:
    return evolve(history, notes=history.notes.append(event))


@_on(events.CostIncurred)
def _spent(history: History, event: events.CostIncurred, _: str) -> History:
    old = history.spent
    new = evolve(
        old,
        seconds=old.seconds + event.seconds,
        gpu_seconds=old.gpu_seconds + event.gpu_seconds,
        usd=old.usd + event.usd,
        tokens=old.tokens + event.tokens_in + event.tokens_out,
    )
    return evolve(history, spent=new)


def empty(campaign: str) -> History:
    """Return the History of a campaign of which nothing is known yet."""
    return History(campaign=campaign, queue=pmap())
