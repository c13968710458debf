"""Histories for tests, told as real events so that they are what the loop would have made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import attrs
from attrs import evolve

from autoresearch import events
from autoresearch.config import Config, MetricConfig
from autoresearch.cycle import beginning
from autoresearch.cycle.proposals import queued
from autoresearch.cycle.recorder import check
from autoresearch.durable import digest
from autoresearch.folding import empty, fold, step
from autoresearch.frozen import alike
from autoresearch.history import History
from autoresearch.log import MemoryLog, Recorded
from autoresearch.model import Decision, Experiment, Idea, RunStatus, Verdict, Violation
from autoresearch.testing import builders

Told = float | Experiment | None
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Story:
    """A campaign told step by step into a MemoryLog; the protocol is checked as in the loop.

    Equal stories give equal histories: times and event ids are counted, not taken.
    """

    def __init__(self, config: Config | None = None, campaign: str = "test") -> None:
        self.config: Config = config or Config(preset="plain")
        self.log: MemoryLog = MemoryLog()
        self.history: History = empty(campaign)
        self._writer = self.log.writer(campaign)
        base = digest("base")[:40]
        self.tell(beginning(campaign, self.config, base, builders.SOURCE))

    def tell(self, event: events.Event) -> Recorded:
        """Record one event and fold it; ProtocolError when the loop could not have done so."""
        check(self.history, event)
        number = self.history.position + 1
        moment = (_BEGIN + timedelta(seconds=number)).isoformat(timespec="microseconds")
        at = moment.replace("+00:00", "Z")
        self._writer.append(event, event_id=f"{self.history.campaign}:{number}", at=at)
        record = next(iter(self.log.read(after=number - 1)))
        self.history = step(self.history, record)
        return record

    def add(self, told: Told = None, **fields: Any) -> Story:
        """Tell one experiment from the idea to the decision.

        A number is its score and None a crash; ``fields`` are those of
        :func:`~autoresearch.testing.experiment`. Without a verdict the better score is kept.
        """
        metric = self.history.metric
        given = told
        if not isinstance(given, Experiment):
            given = builders.experiment(given, metric=metric, **fields)
        number = self.history.next_number
        given = evolve(given, number=number)
        for event in (
            *proposal(self.history, given),
            *run(self.history, self.config, given),
            *judgement(self.history, given),
        ):
            self.tell(event)
        return self

    def declare_dead(self, direction: str, reason: str = "it never helped") -> Story:
        """Tell that a direction was abandoned."""
        numbers = tuple(sorted(item.number for item in self.history.recent(direction)))
        self.tell(
            events.DirectionDeclaredDead(
                direction=direction, reason=reason, experiments=numbers, author="a test"
            )
        )
        return self

    def declare_plateau(self, reason: str = "nothing moved") -> Story:
        """Tell that the last experiments brought nothing."""
        window = self.history.decided[-self.config.rules.plateau_experiments :]
        numbers = tuple(item.number for item in window)
        self.tell(events.PlateauDeclared(experiments=numbers, reason=reason, author="a test"))
        return self

    def go_back(self, number: int, reason: str = "it got worse") -> Story:
        """Tell that the branch went back to the commit of a kept experiment."""
        self.tell(
            events.Backtracked(
                after_experiment=self.history.next_number - 1,
                to_experiment=number,
                commit=self.history.experiments[number].commit,
                reason=reason,
                author="a test",
            )
        )
        return self

    def drop(self, idea: Idea, reason: str = "a reviewer objected") -> Story:
        """Tell that an idea was proposed and dropped before it ran."""
        number = self.history.next_number
        made = builders.experiment(number=number, idea=idea)
        for event in islice(proposal(self.history, made), 2):  # up to the idea itself
            self.tell(event)
        self.tell(events.IdeaDropped(idea=idea.id, reason=reason, experiment=number))
        return self

    def queue(self, description: str, expected_gain: float | None = None) -> Story:
        """Tell that a person queued an idea."""
        made = builders.idea(description, env={"WIDTH": str(len(self.history.queue) + 5)})
        gain = {"expected_gain": expected_gain}
        self.tell(queued(made, made.id, author="a person", **gain))
        return self


def story(
    scores: Iterable[Told],
    *,
    directions: Sequence[str] = (),
    better: str = "lower",
    metric: str = "score",
    config: Config | None = None,
) -> Story:
    """Return a story of experiments, the baseline first; ``directions`` are repeated in turn."""
    settings = config or Config(
        preset="plain", metric=MetricConfig(name=metric, better=better, sd=0.001)
    )
    made = Story(settings)
    for number, told in enumerate(scores):
        fields = {"direction": directions[number % len(directions)]} if directions else {}
        made.add(told, **({} if isinstance(told, Experiment) else fields))
    return made


def history(scores: Iterable[Told] = (), **options: Any) -> History:
    """Return the History after these experiments: ``history([1.10, 1.08, None, 1.09])``.

    The first is the baseline, None is a crash, and what beats the best so far is kept. ``options``
    are those of :func:`story`; an :func:`experiment` stands for one with more to say.
    """
    return story(scores, **options).history


def refold(log: MemoryLog, campaign: str = "test") -> History:
    """Return the History that a log folds to."""
    return fold(empty(campaign), log.read())


# --- the facts of one experiment, in the order in which the loop records them ---------------


def proposal(past: History, told: Experiment) -> Iterator[events.Event]:
    """Yield the review of the memory, the idea and its reasoning."""
    number, idea, position = told.number, told.idea, past.position
    if number:
        yield events.MemoryReviewed(
            experiment=number,
            read_to=position,
            results_digest=digest(f"results {number}"),
            notes_digest=digest(f"notes {number}"),
        )
    words = {} if number else {"direction": "baseline", "description": "baseline"}
    changes = tuple(attrs.asdict(item) for item in idea.changes)  # an event holds plain values
    more = {"idea": idea.id, "kind": idea.kind.value, "patch": None, "changes": changes, **words}
    yield alike(events.IdeaProposed, idea, experiment=number, **more)
    yield alike(
        events.ReasoningRecorded,
        idea,
        experiment=number,
        evidence="the baseline",
        cites=(0,) if number else (),
        read_to=position if number else 0,
    )


def run(past: History, config: Config, told: Experiment) -> Iterator[events.Event]:
    """Yield the change, its commit, and one run with its numbers."""
    number, name = told.number, f"{past.campaign}-{told.number}-0"
    parent = digest("base")[:40] if past.head is None else past.experiments[past.head].commit
    source = told.source_digest or digest(f"source {number}")
    yield events.ChangeApplied(
        experiment=number,
        source_digest=source,
        parent_digest=digest(parent),
        files=(config.script,),
        added_lines=1,
        removed_lines=1,
    )
    yield events.AuditPassed(experiment=number)
    yield events.CommitMade(
        experiment=number,
        commit=told.commit or digest(f"commit {number}")[:40],
        parent=parent,
        ref=f"refs/autoresearch/{past.campaign}/{number}",
        source_digest=source,
    )
    yield events.RunRequested(
        experiment=number,
        run=name,
        index=0,
        seed=config.seed,
        launcher="fake",
        command=("python", config.script),
        timeout_seconds=config.limits.timeout_seconds,
        script_digest=source,
    )
    yield events.RunStarted(run=name, experiment=number, reference="pid 1")
    yield from _end(told, name)


def _end(told: Experiment, name: str) -> Iterator[events.Event]:
    number, done = told.number, told.runs[0]
    status = done.status or RunStatus.COMPLETED
    completed = status is RunStatus.COMPLETED
    yield events.RunFinished(
        run=name,
        experiment=number,
        status=status.value,
        exit_code=0 if completed else 1,
        seconds=done.seconds or 1.0,
        detail="" if completed else status.value.replace("_", " "),
    )
    yield events.MetricsExtracted(run=name, experiment=number, metrics=told.metrics)
    for found in told.violations:
        yield events.AuditFailed(
            experiment=number, rule=found.rule, detail=found.detail, stage="after_run"
        )


def judgement(past: History, told: Experiment) -> Iterator[events.Event]:
    """Yield the analysis, the lesson and the decision, with what the one told says of it."""
    number, written = told.number, told.analysis or builders.analysis()
    said = told.decision or Decision(verdict=Verdict.KEEP, reason="a test says so")
    verdict = told.verdict or _verdict(past, told)
    score, best = past.score(told), past.best_metric
    yield alike(events.AnalysisRecorded, written, experiment=number)
    direction = told.idea.direction if number else "baseline"
    yield events.LessonLearned(experiment=number, direction=direction, lesson=written.lesson)
    size = told.metrics.get(past.size)
    yield events.Decided(
        experiment=number,
        verdict=verdict.value,
        reason=said.reason,
        author="a test",
        metric=score,
        delta=None if score is None or best is None else score - best,
        confidence=said.confidence,
        artifact_bytes=None if size is None else int(size),
    )


def _verdict(past: History, told: Experiment) -> Verdict:
    score, best = past.score(told), past.best_metric
    if score is None:
        return Verdict.CRASH
    better = best is None or past.better(score, best)
    return Verdict.KEEP if better else Verdict.DISCARD


# --- the situations in which every strategy is asked; contracts run through all of them -----


def _violated() -> Story:
    found = (Violation(rule="artifact_size", detail="16,000,001 bytes"),)
    return story([1.1, builders.experiment(0.2, verdict="quarantine", violations=found)])


def _regressed() -> Story:
    worse = (builders.experiment(1.12 + 0.01 * step, verdict="keep") for step in range(4))
    return story([1.10, 1.08, *worse])


def _settled() -> Story:
    made = story([1.10, 1.12, 1.13, 1.14, 1.09], directions=["width"])
    made.declare_dead("width").queue("a deeper model", 0.01).queue("another optimizer")
    return made.declare_plateau().go_back(0)


EXAMPLES: Mapping[str, Callable[[], Story]] = {
    "nothing yet": lambda: story([]),
    "a baseline": lambda: story([1.1]),
    "a baseline that crashed": lambda: story([None]),
    "steady progress": lambda: story([1.1 - 0.02 * step for step in range(8)]),
    "discards in a row": lambda: story([1.1, 1.12, 1.13, 1.14, 1.15], directions=["width"]),
    "crashes in a row": lambda: story([1.1, None, None, None, None]),
    "a plateau": lambda: story([1.1, *(1.09 - 0.00001 * step for step in range(9))]),
    "a regression": _regressed,
    "higher is better": lambda: story([0.5, 0.6, 0.55, None, 0.7], better="higher"),
    "a violation": _violated,
    "dead ends, a plateau and a queue": _settled,
}
