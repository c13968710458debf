"""The facts of one told experiment, in the order in which the loop records them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from autoresearch import events
from autoresearch.config import Config
from autoresearch.history import History
from autoresearch.model import Experiment, RunStatus, Verdict
from autoresearch.testing.builders import analysis

_BASE = "base"


def digest(text: str) -> str:
    """Return a sha256 that stands for something of this name."""
    return hashlib.sha256(text.encode()).hexdigest()


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
    yield events.IdeaProposed(
        experiment=number,
        idea=idea.id,
        direction=idea.direction if number else "baseline",
        description=idea.description if number else "baseline",
        hypothesis=idea.hypothesis,
        generator=idea.generator,
        evidence=idea.evidence,
        cites=idea.cites,
        risk=idea.risk,
        env=idea.env,
        predicted=idea.predicted,
        expected_gain=idea.expected_gain,
    )
    yield events.ReasoningRecorded(
        experiment=number,
        hypothesis=idea.hypothesis,
        evidence="the baseline",
        risk=idea.risk,
        cites=(0,) if number else (),
        predicted=idea.predicted,
        read_to=position if number else 0,
    )


def run(past: History, config: Config, told: Experiment) -> Iterator[events.Event]:
    """Yield the change, its commit, and one run with its numbers."""
    number, name = told.number, f"{past.campaign}-{told.number}-0"
    parent = digest(_BASE)[:40] if past.head is None else past.experiments[past.head].commit
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
    """Yield the analysis, the lesson and the decision."""
    number, written = told.number, told.analysis or analysis()
    verdict = told.verdict or _verdict(past, told)
    score, best = past.score(told), past.best_metric
    yield events.AnalysisRecorded(
        experiment=number,
        result=written.result,
        versus_expected=written.versus_expected,
        why=written.why,
        lesson=written.lesson,
        analyst=written.analyst,
    )
    direction = told.idea.direction if number else "baseline"
    yield events.LessonLearned(experiment=number, direction=direction, lesson=written.lesson)
    size = told.metrics.get(past.size)
    yield events.Decided(
        experiment=number,
        verdict=verdict.value,
        reason=told.decision.reason if told.decision else "a test says so",
        policy="a test",
        metric=score,
        delta=None if score is None or best is None else score - best,
        artifact_bytes=None if size is None else int(size),
    )


def _verdict(past: History, told: Experiment) -> Verdict:
    score, best = past.score(told), past.best_metric
    if score is None:
        return Verdict.CRASH
    better = best is None or past.better(score, best)
    return Verdict.KEEP if better else Verdict.DISCARD
