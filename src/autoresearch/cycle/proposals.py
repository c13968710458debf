"""How an experiment begins: review the memory, find an idea, hear objections, reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import reduce
from random import Random
from typing import Any

from attrs import asdict, evolve

from autoresearch import events
from autoresearch.cycle import minds
from autoresearch.cycle.kit import Kit
from autoresearch.cycle.recorder import passes
from autoresearch.errors import WorkspaceError
from autoresearch.folding import foresee
from autoresearch.frozen import alike
from autoresearch.history import History, QueuedIdea
from autoresearch.launchers.environment import is_of_machine
from autoresearch.model import Experiment, Idea
from autoresearch.projections.files import reasoning_block
from autoresearch.text import one_line
from autoresearch.workspace import Lab


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
    ideas = kit.plugins.propose_ideas(
        history,
        files[kit.lab.script],
        Random(seed),
        files,
        {**dict.fromkeys(skip, ""), **minds.resting(kit)},
        minds.desk(kit),
        halt=kit.config.mind_down == "wait",
    )
    minds.answered(kit)
    kit.record_costs()
    if ideas:
        first, *further = ideas
        if further:
            queue(kit, first, further)
        put_forward(kit, first)
    return bool(ideas)


def queue(kit: Kit, first: Idea, further: Sequence[Idea]) -> None:
    """Let the ideas that came with ``first`` wait for their turn; tell why one of them cannot."""
    history, started = kit.history, kit.history.started
    assert started is not None
    known, facts = {first.id, *history.tried, *history.queue}, list[events.Event]()
    for idea in further:
        if idea.id in known:
            continue
        known.add(idea.id)
        try:
            found = as_queued(kit.lab, idea, kit.head_commit(), started.base_commit)
            if found.idea != idea.id and found.idea in known:  # a person's patch, for instance
                continue
            # Under the id that its generator knows, which looks for it among what was tried.
            facts.append(alike(events.IdeaQueued, found, idea=idea.id))
        except (WorkspaceError, UnicodeError) as error:
            if passes(error):
                raise  # the disk or git is to blame, and the idea is not
            why = one_line(str(error), 1_000)
            kit.tell(f"an idea by {idea.author} is not queued: {why}")
            facts.append(
                events.ProposalRefused(author=idea.author, stage="queue", reason=why, idea=idea.id)
            )
    kit.recorder.record_together(*facts)


def as_queued(
    lab: Lab, idea: Idea, head: str, base: str, *, anyway: bool = False
) -> events.IdeaQueued:
    """Return the fact that an idea waits in the queue, with its code as a patch of ``head``.

    Raises WorkspaceError for code that does not fit ``head``, nor as a change of ``base``, and,
    unless ``anyway``, for a variable that nothing at ``head`` mentions.
    """
    unread = [name for name in idea.env if not anyway and not _is_read(lab, name, head)]
    if unread:
        raise WorkspaceError(
            f"no file of the repository mentions {unread[0]}, so it would change nothing; "
            "correct the name, or say --anyway"
        )
    if texts := idea.texts(lab.script):  # as a patch it still fits when head has moved on elsewhere
        patch = lab.as_patch(lab.files_at(head), texts)
        idea = evolve(idea, source=None, files={}, patch=patch)
    elif idea.patch is not None:
        idea = evolve(idea, patch=_fitting(lab, idea.patch, head, base))
    return queued(idea, idea.id)


def _is_read(lab: Lab, name: str, head: str) -> bool:
    """Return whether a variable is the machine's, or a file of head mentions it."""
    asked = ("grep", "-q", "-w", "-F", "-e", name, head)
    return is_of_machine(name) or lab.clone.attempt(*asked).returncode == 0


def _fitting(lab: Lab, patch: str, head: str, base: str) -> str:
    """Return a patch of head, or one of the base that can be merged into head."""
    try:
        lab.patched(patch, lab.files_at(head))
        return patch
    except WorkspaceError:
        first = lab.files_at(base)
        with suppress(WorkspaceError):
            return lab.as_patch(first, lab.patched(patch, first))
        raise


def put_forward(kit: Kit, idea: Idea) -> None:
    """Make an idea the next experiment, or drop it when somebody objects fatally."""
    history = kit.history
    number, name = history.next_number, _name(idea, history)
    sources = kit.store(idea.texts(kit.lab.script))
    proposed = alike(
        events.IdeaProposed,
        idea,
        experiment=number,
        idea=name,
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
        alike(events.IdeaObjected, item, experiment=number, idea=name) for item in objections
    ]
    fatal = [f"{item.author} objected: {item.reason}" for item in objections if item.fatal]
    # Together: a kill between them would let an idea run that somebody objected to.
    if fatal:
        drop(kit, fatal[0], "objection", proposed, *objected)
    else:
        kit.recorder.record_together(proposed, *objected)
    kit.record_costs()


def _name(idea: Idea, history: History) -> str:
    """Return the id of an idea; that of a queued one is the one under which it was queued."""
    told = (idea.direction, idea.description, idea.patch, idea.source, dict(idea.files))
    for item in history.queue.values():
        waiting = (item.direction, item.description, item.patch, None, dict[str, str]())
        if waiting == told and dict(item.env) == dict(idea.env):
            return item.id
    return idea.id


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
    kit.recorder.record_together(*before, refused, dropped)


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
    kit.recorder.record_together(dropped, waiting)


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
