"""How an experiment begins: review the memory, find an idea, hear objections, reason."""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from random import Random
from typing import Any

from attrs import asdict

from autoresearch import events
from autoresearch.cycle import minds
from autoresearch.cycle.kit import Kit
from autoresearch.folding import foresee
from autoresearch.frozen import alike
from autoresearch.history import History, QueuedIdea
from autoresearch.model import Experiment, Idea
from autoresearch.projections.blocks import reasoning_block
from autoresearch.text import one_line


def propose_baseline(kit: Kit) -> None:
    """Make the first experiment since the start: the script as it is."""
    if kit.history.experiments:
        review_memory(kit)
    sources, number = kit.store(kit.pristine()), kit.history.next_number
    kit.recorder.record(
        events.IdeaProposed(
            experiment=number,
            idea=f"baseline-{number}" if number else "baseline",
            direction="baseline",
            description=f"baseline: {kit.lab.script} as it is",
            hypothesis="the unchanged script gives the score that every change is measured against",
            author="protocol",
            risk="none: nothing is changed",
            source_digest=sources[kit.lab.script],
            sources=sources,
        ),
    )


def review_memory(kit: Kit) -> None:
    """Read results.tsv and notes.md, and record that and what was read."""
    kit.recorder.refresh()
    digests = kit.show_files()
    kit.recorder.record(
        events.MemoryReviewed(
            experiment=kit.history.next_number,
            read_to=kit.history.position,
            results_digest=digests["results.tsv"],
            notes_digest=digests["notes.md"],
            tip_hash=kit.history.tip_hash,
        )
    )


def propose(kit: Kit, skip: Collection[str] = ()) -> bool:
    """Ask the generators but those to ``skip`` for the next idea; False when none has one."""
    history = kit.history
    files = kit.files_at_head()
    seed = f"{history.campaign}/{history.next_number}/{len(history.rejected)}"
    idea = kit.plugins.propose_idea(
        history,
        files[kit.lab.script],
        Random(seed),
        files,
        {**dict.fromkeys(skip, ""), **minds.resting(kit)},
        minds.desk(kit),
    )
    minds.answered(kit)
    kit.record_costs()
    if idea is not None:
        put_forward(kit, idea)
    return idea is not None


def put_forward(kit: Kit, idea: Idea) -> None:
    """Make an idea the next experiment, or drop it when somebody objects fatally."""
    history = kit.history
    number = history.next_number
    sources = kit.store(idea.texts(kit.lab.script))
    proposed = alike(
        events.IdeaProposed,
        idea,
        experiment=number,
        idea=idea.id,
        direction=one_line(idea.direction, 80),
        description=one_line(idea.description, 300),
        hypothesis=one_line(idea.hypothesis, 2_000),
        evidence=tuple(one_line(text, 500) for text in idea.evidence),
        risk=one_line(idea.risk, 1_000),
        kind=idea.kind.value,
        env=dict(idea.env),
        source_digest=sources.get(kit.lab.script),
        sources=sources,
        changes=tuple(asdict(item) for item in idea.changes),
    )
    objections = kit.plugins.review_idea(idea, foresee(history, proposed))
    objected = [
        alike(events.IdeaObjected, item, experiment=number, idea=idea.id) for item in objections
    ]
    fatal = [f"{item.author} objected: {item.reason}" for item in objections if item.fatal]
    # Together: a kill between them would let an idea run that somebody objected to.
    if fatal:
        drop(kit, fatal[0], "objection", proposed, *objected)
    else:
        kit.recorder.record_many([(event, None) for event in (proposed, *objected)])
    kit.record_costs()


def drop(kit: Kit, reason: str, stage: str, *before: events.Event) -> None:
    """Give up the idea under way without a run; the next idea gets its number.

    The facts that led to it are recorded with it: a kill between them would have them told twice.
    """
    experiment = reduce(foresee, before, kit.history).current
    assert experiment is not None
    kit.tell(f"experiment {experiment.number}: dropped, {reason}")
    reason = one_line(reason, 1_000)
    refused = refusal(experiment, stage, reason)
    dropped = events.IdeaDropped(
        idea=experiment.idea_id, reason=reason, experiment=experiment.number
    )
    kit.recorder.record_many([(event, None) for event in (*before, refused, dropped)])


def refusal(experiment: Experiment, stage: str, reason: str) -> events.ProposalRefused:
    """Return the fact that tells an author why its idea, or its repair, was not run."""
    return events.ProposalRefused(
        author=experiment.idea.author,
        stage=stage,
        reason=one_line(reason, 1_000),
        idea=experiment.idea_id,
        experiment=experiment.number,
    )


def queued(idea: Idea | QueuedIdea, name: str, **other: Any) -> events.IdeaQueued:
    """Return the event that an idea waits in the queue, with ``other`` fields than its own."""
    changes = tuple(asdict(item) for item in idea.changes)
    own = {"env": dict(idea.env), "changes": changes, **other}
    return alike(events.IdeaQueued, idea, idea=name, **own)


def put_back(kit: Kit, why: str, waits_for: str) -> None:
    """Give up the idea under way for now: it waits in the queue for who can write its code."""
    experiment = current(kit)
    idea, number = experiment.idea, experiment.number
    kit.tell(f"experiment {number}: {why}; the idea waits in the queue")
    dropped = events.IdeaDropped(
        idea=experiment.idea_id, reason=one_line(why, 1_000), experiment=number
    )
    waiting = queued(idea, experiment.idea_id, patch=None, env={}, waits_for=waits_for)
    kit.recorder.record_many([(dropped, None), (waiting, None)])


def reason(kit: Kit) -> None:
    """Write the REASONING block; it cites what was read."""
    if kit.history.reviewed is None and current(kit).number:  # another one was decided meanwhile
        review_memory(kit)
    experiment, history = current(kit), kit.history
    idea = experiment.idea
    cites = tuple(sorted({n for n in idea.cites if 0 <= n < experiment.number}))
    if experiment.number > 0 and not cites:
        cites = (history.best_number if history.best_number is not None else 0,)
    kit.recorder.record(
        events.ReasoningRecorded(
            experiment=experiment.number,
            hypothesis=idea.hypothesis,
            evidence="; ".join(idea.evidence) or _known(history, cites),
            risk=idea.risk,
            cites=cites,
            predicted=idea.predicted,
            read_to=history.reviewed.read_to if history.reviewed else 0,
        )
    )
    recorded = current(kit).reasoning
    assert recorded is not None
    kit.tell(f"experiment {experiment.number}: {idea.description} (by {idea.author})")
    kit.tell(reasoning_block(recorded))


def _known(history: History, cites: tuple[int, ...]) -> str:
    parts = []
    for number in cites:
        experiment = history.experiments[number]
        score = history.score(experiment)
        shown = f"{history.metric} {score:.6f}" if score is not None else "no score"
        parts.append(f"experiment {number} ({experiment.idea.description}): {shown}")
    return "; ".join(parts) or "none: this run establishes the baseline"


def current(kit: Kit) -> Experiment:
    """Return the experiment under way, the newest of several: the one in preparation."""
    experiment = kit.history.current
    assert experiment is not None
    return experiment
