"""Folds events into a History, one small function for each type of fact that changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from attrs import evolve, fields
from pyrsistent import pmap, pset

from autoresearch import events
from autoresearch.codec import UnknownEvent, decode, skim
from autoresearch.frozen import FrozenDict, alike
from autoresearch.history import History, Lease, OpenRun, QueuedIdea, Spent, Steering, Trail
from autoresearch.log import Recorded
from autoresearch.log.journal import Line
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
V = TypeVar("V", History, Experiment, Run)
T = TypeVar("T")


class Draft:
    """A History while events are folded into it: a copy of its own, changed in place.

    Wide frozen values are dear to copy, and a History folded from a long log would be copied for
    every event. Here it is copied once, and so is every experiment and every run that changes; what
    others hold is never touched, and nobody has the draft before it is `done`. What changes with
    every experiment is kept in plain collections until then.
    """

    def __init__(self, history: History) -> None:
        self.history = _copied(history)
        self._began = history
        self.open_runs, self.reserved = dict(history.open_runs), dict(history.reserved)
        self.tried: set[str] = set()
        self.tried_sources: set[str] = set()
        self._own: set[int] = set()  # experiments that were copied or made here
        self._own_runs: set[tuple[int, str]] = set()

    def done(self) -> History:
        """Return the History, with what was changed in it at the end of its trail."""
        made, began = self.history, self._began
        for name in ("open_runs", "reserved"):
            if (new := getattr(self, name)) != getattr(began, name):
                self.set(**{name: pmap(new)})
        for name in ("tried", "tried_sources"):
            old, new = getattr(began, name), getattr(self, name)
            if new:
                self.set(**{name: old.update(new) if len(new) < len(old) else pset(new.union(old))})
        if self._own or made.experiments is not began.experiments:
            known = began.trail.experiments is began.experiments
            trail = began.trail if known else Trail()
            self.set(trail=trail.after(self._own, made.experiments))
        return made

    def set(self, **changes: Any) -> None:
        """Change fields of the History."""
        _set(self.history, changes)

    def put(self, experiment: Experiment) -> None:
        """Add an experiment, or replace the one with its number."""
        numbers, number = self.history.experiments, experiment.number
        is_known = number < len(numbers)
        put = numbers.set(number, experiment) if is_known else numbers.append(experiment)
        self.set(experiments=put)
        self._own.add(number)

    def drop_last(self) -> None:
        """Remove the newest experiment."""
        numbers = self.history.experiments
        last = len(numbers) - 1
        self.set(experiments=numbers[:last])
        self.close(last)
        self._own.discard(last)

    def close(self, number: int) -> None:
        """Take an experiment out of those under way, with the run that it may have."""
        self.set(open_numbers=tuple(n for n in self.history.open_numbers if n != number))
        opened = self.open_runs.get(number)
        if opened is not None and not opened.request.control:  # which no verdict ends
            self.reserved.pop(opened.request.run, None)
            del self.open_runs[number]

    def open(self, number: int) -> None:
        """Put an experiment among those under way."""
        self.set(open_numbers=tuple(sorted({*self.history.open_numbers, number})))

    def change(self, number: int, **changes: Any) -> None:
        """Change fields of an experiment; tables and lists must be read-only already."""
        if number not in self._own:
            self.put(_copied(self.history.experiments[number]))
        _set(self.history.experiments[number], changes)

    def change_run(self, number: int, name: str, **changes: Any) -> None:
        """Change fields of a run; tables must be read-only already."""
        if (number, name) not in self._own_runs:
            runs = self.history.experiments[number].runs
            self.change(number, runs=tuple(_copied(x) if x.name == name else x for x in runs))
            self._own_runs.add((number, name))
        for run in self.history.experiments[number].runs:
            if run.name == name:
                _set(run, changes)


def _set(value: object, changes: Mapping[str, Any]) -> None:
    for name, new in changes.items():
        object.__setattr__(value, name, new)


Step = Callable[[Draft, Any, str], None]
Reader = Callable[[str, int, str], Any]
_STEPS: dict[str, tuple[Reader, Step]] = {}  # what nobody folds is not even decoded


def fold(history: History, records: Iterable[Recorded | Line]) -> History:
    """Fold recorded events, oldest first; events of other campaigns only move the position.

    A type that History has no use for, or that only a newer release knows, changes nothing.
    """
    draft, campaign, newest, own = Draft(history), history.campaign, None, None
    for newest in records:
        if newest.campaign != campaign:
            continue
        if newest.stream == campaign:
            own = newest
        known = _STEPS.get(newest.type)
        if known is not None:
            read, take = known
            event = read(newest.type, newest.schema_version, newest.payload)
            if type(event) is not UnknownEvent:
                take(draft, event, newest.at)
    if newest is None:
        return history
    if own is not None:
        draft.set(last_step=own.type, last_at=own.at)
    draft.set(position=newest.position, tip_hash=newest.hash)
    return draft.done()


def foresee(history: History, event: events.Event) -> History:
    """Return what History will be when this event is the next one."""
    draft = Draft(history)
    known = _STEPS.get(event.type_name)
    if known is not None:
        known[1](draft, event, "")
    draft.set(position=history.position + 1)
    return draft.done()


def step(history: History, record: Recorded) -> History:
    """Fold one event."""
    return fold(history, (record,))


def _copied(value: V) -> V:
    made = object.__new__(type(value))
    _set(made, {name: getattr(value, name) for name in _FIELDS[type(value)]})
    return made


_FIELDS = {kind: tuple(item.name for item in fields(kind)) for kind in (History, Experiment, Run)}


def _on(kind: type[E], read: Reader = decode) -> Callable[[Callable[[Draft, E, str], None]], Step]:
    """Register the step of a fact; one that keeps nothing but fields of it may `skim` it."""

    def register(function: Callable[[Draft, E, str], None]) -> Step:
        _STEPS[kind.type_name] = (read, function)
        return function

    return register


def _about(kind: type[E], read: Reader = skim) -> Callable[[Callable[[Draft, E, str], None]], Step]:
    """Register the step of a fact about an experiment; one that does not exist changes nothing.

    The log takes every well-formed event, so a fold must not fail on one that the loop would never
    have recorded.
    """

    def register(function: Callable[[Draft, E, str], None]) -> Step:
        def guarded(draft: Draft, event: Any, at: str) -> None:
            if 0 <= event.experiment < len(draft.history.experiments):
                function(draft, event, at)

        return _on(kind, read)(guarded)

    return register


def _member(kind: type[M], value: str) -> M | None:
    """Return the member of an enum, None for a value that this release does not know."""
    return kind._value2member_map_.get(value)  # type: ignore[return-value]


# Facts that change nothing but these fields of the History.
_TOLD: dict[type[events.Event], Callable[[History, Any], dict[str, Any]]] = {
    events.CampaignStopped: lambda _, event: {"stopped": event.reason, "stop": None},
    events.LeaseEnded: lambda _, __: {"lease": None},
    events.StopRequested: lambda _, event: {"stop": event},
    events.MemoryReviewed: lambda _, event: {"reviewed": event},
    events.PluginFailed: lambda history, event: {
        "failures": history.failures.set(event.plugin, history.failures.get(event.plugin, 0) + 1)
    },
    events.MindSuspended: lambda history, event: {
        "suspended": history.suspended.set(event.author, event)
    },
    events.DirectionDeclaredDead: lambda history, event: {
        "dead_ends": history.dead_ends.set(event.direction, event)
    },
    events.LessonLearned: lambda history, event: {
        "lessons": history.lessons.append(alike(Lesson, event, text=event.lesson))
    },
    events.ProposalRefused: lambda history, event: {"refusals": history.refusals.append(event)},
    events.ChangeRejected: lambda history, event: {"rejected": history.rejected.append(event)},
    events.PlateauDeclared: lambda history, event: {"plateaus": history.plateaus.append(event)},
    events.DigestWritten: lambda history, event: {
        "digests": history.digests.set(event.last, event)
    },
    events.NoteAdded: lambda history, event: {"notes": history.notes.append(event)},
}

# Facts that change nothing but these fields of their experiment.
_TOLD_OF_ONE: dict[type[events.Event], Callable[[Any], dict[str, Any]]] = {
    events.ReasoningRecorded: lambda event: {"reasoning": alike(Reasoning, event)},
    events.FixAttempted: lambda event: {"fixes": event.attempt},
    events.AnalysisRecorded: lambda event: {"analysis": alike(Analysis, event)},
    events.PredictionScored: lambda event: {"prediction": event.outcome},
    events.RunPromoted: lambda event: {"promoted": event.stage},
}


def _setting(told: Callable[[History, Any], dict[str, Any]]) -> Step:
    return lambda draft, event, _: draft.set(**told(draft.history, event))


def _changing(told: Callable[[Any], dict[str, Any]]) -> Step:
    return lambda draft, event, _: draft.change(event.experiment, **told(event))


for _kind, _told in _TOLD.items():
    _on(_kind)(_setting(_told))
for _kind, _told_of_one in _TOLD_OF_ONE.items():
    _about(_kind)(_changing(_told_of_one))


@_on(events.CampaignStarted)
def _started(draft: Draft, event: events.CampaignStarted, _: str) -> None:
    stages = _stages(event.config.get("stages"))
    draft.set(
        stages=stages,
        stage=stages[-1] if stages else "",
        metric=event.metric,
        lower_is_better=event.better == "lower",
        size=_size(event, draft.history.size),
        started=event,
        # A second start corrects what gave no score; what was tried keeps its number.
        baseline_number=len(draft.history.experiments),
        plugins=event.plugins,
        stopped=None,
    )


def _stages(told: object) -> tuple[str, ...]:
    tables = told if isinstance(told, (list, tuple)) else ()
    found = [item.get("name") for item in tables if isinstance(item, Mapping)]
    names = tuple(name for name in found if isinstance(name, str))
    sound = len(names) == len(tables) == len(set(names))
    return names if sound else ()


def _size(event: events.CampaignStarted, otherwise: str) -> str:
    metric = event.config.get("metric")
    size = metric.get("size") if isinstance(metric, Mapping) else None
    return size if isinstance(size, str) else otherwise


@_on(events.CampaignResumed)
def _resumed(draft: Draft, event: events.CampaignResumed, _: str) -> None:
    paused = draft.history.paused if _stands_above(draft, "") else None
    draft.set(plugins=event.plugins, stopped=None, stop=None, lease=None, paused=paused)
    draft.set(suspended=pmap())  # all minds are asked again
    _let_go(draft, "plugin", "outage")


@_on(events.LeaseTaken)
def _leased(draft: Draft, event: events.LeaseTaken, at: str) -> None:
    draft.set(lease=Lease(by=event.by, since=at))
    if draft.history.current is None:
        draft.set(reviewed=None)  # whoever drives reads for themselves


@_on(events.Paused)
def _paused(draft: Draft, event: events.Paused, at: str) -> None:
    if not _stands_above(draft, event.by):
        draft.set(paused=event, paused_at=at)


@_on(events.Resumed)
def _gone_on(draft: Draft, event: events.Resumed, _: str) -> None:
    if not _stands_above(draft, event.by):
        draft.set(paused=None)
    if event.by:
        draft.set(suspended=pmap())
    _let_go(draft, "outage")


def _stands_above(draft: Draft, by: str) -> bool:
    """Whether a person's pause holds, which the loop's own words do not touch."""
    paused = draft.history.paused
    return paused is not None and paused.by != "" and not by


def _let_go(draft: Draft, *causes: str) -> None:
    """Give queued ideas their turn that waited for one of these causes to pass."""
    for name, idea in draft.history.queue.items():
        if idea.waits_for in causes:
            draft.set(queue=draft.history.queue.set(name, evolve(idea, waits_for="")))


@_on(events.MindResumed)
def _mind_resumed(draft: Draft, event: events.MindResumed, _: str) -> None:
    draft.set(suspended=draft.history.suspended.discard(event.author))
    _let_go(draft, "outage")


@_on(events.IdeaQueued)
def _queued(draft: Draft, event: events.IdeaQueued, _: str) -> None:
    old = draft.history.queue.get(event.idea)
    idea = alike(
        QueuedIdea,
        event,
        id=event.idea,
        changes=_changes(event.changes),
        again=bool(event.waits_for) or (old is not None and old.again),
    )
    draft.set(queue=draft.history.queue.set(event.idea, idea))


@_on(events.IdeaProposed, skim)
def _proposed(draft: Draft, event: events.IdeaProposed, at: str) -> None:
    history = draft.history
    if event.experiment not in (history.next_number, len(history.experiments)):
        return  # numbers have no gaps, and what ran or was decided is not replaced
    kind = _member(IdeaKind, event.kind) or IdeaKind.CHANGE
    idea = alike(Idea, event, kind=kind, changes=_changes(event.changes))
    draft.put(
        Experiment(
            number=event.experiment,
            idea=idea,
            idea_id=event.idea,
            source_digest=event.source_digest or "",
            sources=event.sources,
            started_at=at,
        )
    )
    draft.open(event.experiment)
    draft.tried.add(event.idea)
    if event.idea in history.queue:
        draft.set(queue=history.queue.remove(event.idea))


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
def _dropped(draft: Draft, event: events.IdeaDropped, _: str) -> None:
    history = draft.history
    draft.set(
        queue=history.queue.discard(event.idea),
        rejected=history.rejected.append(event),
    )
    current, last = history.current, len(history.experiments) - 1
    if current is None or not event.experiment == current.number == last:
        return
    if current.decision is None:
        draft.drop_last()
        draft.set(reviewed=None)


@_about(events.ChangeApplied)
def _applied(draft: Draft, event: events.ChangeApplied, _: str) -> None:
    draft.tried_sources.add(event.source_digest)
    added, removed = _lines(draft.history.experiments[event.experiment], event)
    draft.change(
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


@_about(events.AuditFailed)
def _failed(draft: Draft, event: events.AuditFailed, _: str) -> None:
    found = alike(Violation, event)
    old = draft.history.experiments[event.experiment].violations
    draft.change(event.experiment, violations=(*old, found))


@_about(events.CommitMade)
def _committed(draft: Draft, event: events.CommitMade, _: str) -> None:
    old = draft.history.experiments[event.experiment]
    draft.change(
        event.experiment,
        commit=event.commit,
        parent_commit=event.parent,
        promoted="",  # nothing is known of another commit
        runs=tuple(evolve(run, superseded=True) for run in old.runs),
    )
    if not old.commit or event.parent != old.commit:  # and not a fix of the commit before
        draft.change(event.experiment, built_on=draft.history.head, rival=draft.history.best_number)
    if old.runs:
        _score(draft, event.experiment)


@_about(events.RunRequested, decode)
def _requested(draft: Draft, event: events.RunRequested, _: str) -> None:
    experiment = draft.history.experiments[event.experiment]
    if any(run.name == event.run for run in experiment.runs):
        return  # a name stands for one run for ever
    run = alike(Run, event, name=event.run)
    draft.change(event.experiment, runs=(*experiment.runs, run))
    if event.control:  # nothing is judged again for it
        history = draft.history
        decided = len(history.experiments) - len(history.open_numbers)
        draft.set(control=event, control_at=decided)
    else:
        draft.change(event.experiment, env=event.env, analysis=None)
        if experiment.runs and experiment.runs[-1].stage != event.stage:
            _score(draft, event.experiment)
    if (before := draft.open_runs.get(event.experiment)) is not None:
        draft.reserved.pop(before.request.run, None)
    draft.open_runs[event.experiment] = OpenRun(request=event)


@_about(events.BudgetReserved, decode)
def _reserved(draft: Draft, event: events.BudgetReserved, _: str) -> None:
    opened = draft.open_runs.get(event.experiment)
    if opened is not None and opened.request.run == event.run:
        draft.reserved[event.run] = event


@_on(events.RunStarted, skim)
def _run_started(draft: Draft, event: events.RunStarted, _: str) -> None:
    opened = draft.open_runs.get(event.experiment)
    if opened is not None and opened.request.run == event.run:
        draft.open_runs[event.experiment] = evolve(opened, reference=event.reference)


@_about(events.MetricObserved)
def _observed(draft: Draft, event: events.MetricObserved, _: str) -> None:
    if event.name != draft.history.metric or event.step is None:
        return
    runs = draft.history.experiments[event.experiment].runs
    old = next((run.observed for run in runs if run.name == event.run), None)
    if old is not None:
        seen = pmap(old).set(event.step, event.value)
        draft.change_run(event.experiment, event.run, observed=seen)


@_about(events.RunFinished)
def _finished(draft: Draft, event: events.RunFinished, _: str) -> None:
    status = _member(RunStatus, event.status)
    if status is None:
        return
    opened, order = draft.open_runs.get(event.experiment), draft.history.stop
    if opened is not None and opened.request.run == event.run:
        del draft.open_runs[event.experiment]
        draft.reserved.pop(event.run, None)
    at_once = order is not None and order.now
    draft.change_run(
        event.experiment,
        event.run,
        status=status,
        detail=event.detail,
        seconds=event.seconds,
        interrupted=at_once and status is RunStatus.STOPPED_EARLY,
    )
    _score(draft, event.experiment)


@_about(events.RunLocked)
def _measured(draft: Draft, event: events.RunLocked, _: str) -> None:
    runs = draft.history.experiments[event.experiment].runs
    draft.change_run(event.experiment, event.run, measurement=event.measurement)
    if not any(run.name == event.run and run.control for run in runs):
        draft.change(event.experiment, measurement=event.measurement)


@_about(events.MetricsExtracted)
def _extracted(draft: Draft, event: events.MetricsExtracted, _: str) -> None:
    draft.change_run(event.experiment, event.run, metrics=event.metrics)
    _score(draft, event.experiment)


def _score(draft: Draft, number: int) -> None:
    history = draft.history
    runs = history.experiments[number].runs
    draft.change(number, metrics=merged(runs, history.metric, history.size))
    if history.experiments[number].verdict is Verdict.KEEP:
        _crown_anew(draft)


def merged(runs: tuple[Run, ...], metric: str, size: str) -> Mapping[str, float]:
    """Over several seeds the score is the mean, the size the largest, all else the newest.

    Only the newest stage counts: what a smoke test scored is no part of the score of a whole run.
    """
    stage = next((run.stage for run in reversed(runs) if not run.control), "")
    done = [run.metrics for run in runs if run.counts and run.stage == stage]
    if len(done) == 1:
        return done[0]
    merged: dict[str, float] = {}
    for metrics in done:
        merged.update(metrics)
    scores = [metrics[metric] for metrics in done if metric in metrics]
    sizes = [metrics[size] for metrics in done if size in metrics]
    if scores:
        merged[metric] = sum(scores) / len(scores)
    if sizes:
        merged[size] = max(sizes)
    return FrozenDict(merged)


@_about(events.Decided)
def _decided(draft: Draft, event: events.Decided, at: str) -> None:
    verdict = _member(Verdict, event.verdict)
    if verdict is None:
        return
    judged = len(draft.history.experiments[event.experiment].runs)
    decision = alike(Decision, event, verdict=verdict)
    draft.change(event.experiment, decision=decision, ended_at=at, judged=judged)
    if verdict is Verdict.RERUN:
        draft.open(event.experiment)
        return
    draft.close(event.experiment)
    if draft.history.queue and not draft.history.suspended:
        _let_go(draft, "outage")  # whoever failed may answer now
    timeline = draft.history.timeline.append(event.experiment)
    draft.set(timeline=timeline, reviewed=None, lease=None)
    if verdict is Verdict.KEEP:
        draft.set(head=event.experiment)
        _crown(draft, event.experiment)


def _crown(draft: Draft, number: int) -> None:
    history = draft.history
    score = history.score(history.experiments[number])
    best = history.best_metric
    if score is None and history.best_number is not None:
        return
    if best is None or (score is not None and history.better(score, best)):
        draft.set(best_number=number)


@_about(events.QuarantineResolved)
def _resolved(draft: Draft, event: events.QuarantineResolved, _: str) -> None:
    verdict = Verdict.KEEP if event.released else Verdict.DISCARD
    _judged_by_a_person(draft, event, verdict, "released" if event.released else "confirmed")


@_about(events.Overruled)
def _overruled(draft: Draft, event: events.Overruled, _: str) -> None:
    verdict = _member(Verdict, event.verdict)
    if verdict in (Verdict.KEEP, Verdict.DISCARD):
        _judged_by_a_person(draft, event, verdict, "overruled")


def _judged_by_a_person(
    draft: Draft, event: events.QuarantineResolved | events.Overruled, verdict: Verdict, word: str
) -> None:
    number = event.experiment
    old = draft.history.experiments[number].decision
    reason = f"{word} by {event.author}: {event.reason}"
    if old is not None:
        reason = f"{reason} (was: {old.reason})"
    decision = Decision(verdict=verdict, reason=reason, author="a person")
    draft.change(number, decision=decision)
    draft.close(number)
    if verdict is Verdict.KEEP:
        _crown(draft, number)
    else:
        _step_down(draft, number)


def _crown_anew(draft: Draft) -> None:
    """Find the best again: its score got worse, or another's better, by a further run."""
    draft.set(best_number=None)
    for item in draft.history.experiments:
        if item.verdict is Verdict.KEEP:
            _crown(draft, item.number)


def _step_down(draft: Draft, number: int) -> None:
    """Find another best and another head where an experiment that was kept is no longer."""
    # Asked of the draft itself: `History.kept` remembers by identity, and a draft changes in place.
    kept = [item for item in draft.history.experiments if item.verdict is Verdict.KEEP]
    if draft.history.best_number == number:
        _crown_anew(draft)
    if draft.history.head == number:
        commits = {item.commit: item.number for item in draft.history.experiments}
        below = commits.get(draft.history.experiments[number].parent_commit, number)
        heads = [item.number for item in kept if item.number <= below]
        draft.set(head=heads[-1] if heads else None)


@_on(events.Backtracked)
def _backtracked(draft: Draft, event: events.Backtracked, _: str) -> None:
    history = draft.history
    if 0 <= event.to_experiment < len(history.experiments):
        draft.set(
            head=event.to_experiment,
            timeline=history.timeline.append(event),
            backtracks=history.backtracks.append(event),
        )


@_on(events.SteeringGiven)
def _steered(draft: Draft, event: events.SteeringGiven, _: str) -> None:
    history = draft.history
    begun = history.current is not None and history.current.reasoning is not None
    item = Steering(
        number=len(history.steering) + 1,
        text=event.text,
        author=event.author,
        until=history.next_number + begun + event.experiments if event.experiments > 0 else None,
    )
    draft.set(steering=history.steering.append(item))


@_on(events.SteeringWithdrawn)
def _unsteered(draft: Draft, event: events.SteeringWithdrawn, _: str) -> None:
    given, place = draft.history.steering, event.number - 1
    if 0 <= place < len(given):
        draft.set(steering=given.set(place, evolve(given[place], withdrawn=True)))


@_on(events.CostIncurred, skim)
def _spent(draft: Draft, event: events.CostIncurred, _: str) -> None:
    history = draft.history
    draft.set(spent=_more(history.spent, event))
    opened = draft.open_runs.get(-1 if event.experiment is None else event.experiment)
    if opened is not None and opened.request.stage and event.kind == "run":
        stage = opened.request.stage
        spent = _more(history.spent_in.get(stage, Spent()), event)
        draft.set(spent_in=history.spent_in.set(stage, spent))


def _more(old: Spent, event: events.CostIncurred) -> Spent:
    return Spent(
        seconds=old.seconds + event.seconds,
        gpu_seconds=old.gpu_seconds + event.gpu_seconds,
        usd=old.usd + event.usd,
        tokens=old.tokens + event.tokens_in + event.tokens_out,
    )


def in_stage(history: History, stage: str, *numbers: int) -> History:
    """Return the history as a stage shows it, for whoever judges there.

    Scores are those of the stage; head, best, baseline and the experiments of these numbers have
    nothing but their runs there. Without stages it is the history itself.
    """
    if not history.stages:
        return history
    named = {history.head, history.best_number, history.baseline_number, *numbers}
    experiments = history.experiments
    for number in named:
        if number is None or not 0 <= number < len(experiments):
            continue
        item = experiments[number]
        runs = tuple(run for run in item.runs if run.stage == stage)
        measured = [run.measurement for run in runs if run.counts and not run.control]
        experiments = experiments.set(
            number,
            evolve(
                item,
                runs=runs,
                metrics=merged(runs, history.metric, history.size),
                measurement=measured[-1] if measured else {},
            ),
        )
    return evolve(history, stage=stage, experiments=experiments)


def empty(campaign: str) -> History:
    """Return the History of a campaign of which nothing is known yet."""
    return History(campaign=campaign, queue=pmap())
