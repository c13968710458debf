"""How an experiment begins: review the memory, find an idea, hear objections, reason.

Also what minds are given for it, and what the loop does for them: it lends hands to their desk,
lets them rest, has them look back.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

from attrs import asdict, evolve, frozen

from autoresearch import events
from autoresearch.config import BoundaryConfig
from autoresearch.cycle import Kit, cost_of, write_text
from autoresearch.cycle.recorder import passes
from autoresearch.desk import Desk, Hands
from autoresearch.durable import digest
from autoresearch.errors import WorkspaceError
from autoresearch.folding import foresee
from autoresearch.frozen import alike
from autoresearch.history import History, QueuedIdea, gain_of
from autoresearch.launchers import log_in
from autoresearch.launchers.environment import Boundary, clean_environment, is_of_machine
from autoresearch.model import Experiment, Idea, Remark, RunOutput, RunRequest, Workspace
from autoresearch.projections.files import reasoning_block
from autoresearch.projections.memory import newest_ten
from autoresearch.text import one_line
from autoresearch.workspace import Lab

REMARKS = 3  # on ten experiments
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


@frozen
class LoopHands(Hands):
    """The hands of a loop, as `Hands` says: its store, its runs, its lab, its log."""

    kit: Kit

    def text(self, name: str) -> str:
        return self.kit.sources.get(name)

    def keep(self, text: str) -> str:
        return self.kit.sources.put(text)

    def record(self, *facts: events.Event) -> None:
        self.kit.recorder.record_together(*facts)

    def output(self, run: str) -> Path | None:
        path = log_in(self.kit.lab.run_folder(Path(run).name))
        return path if path.is_file() else None

    def document(self, path: str) -> str:
        shown = self.kit.lab.clone.attempt("show", f"{self.kit.head_commit()}:{path}")
        return shown.stdout if shown.returncode == 0 else ""

    def copy(self, folder: Path) -> None:
        self.kit.lab.export(self.kit.head_commit(), folder)

    def job(
        self, beside: RunOutput, name: str, source: str, seconds: float, files: Sequence[Path]
    ) -> RunOutput:
        """Run a script of a plugin's beside a run that is over, with its environment, to its end.

        The launcher finds it again under its name, so that it is started and paid for once.
        """
        kit, asked = self.kit, f"{beside.name}-{name}"
        history = kit.history
        runs = {run.name: item.number for item in history.experiments for run in item.runs}
        place = Workspace(
            path=kit.lab.folder / "jobs" / asked, script=kit.lab.script, project=kit.lab.project
        )
        place.script_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(place.script_path, source)
        folder = kit.lab.run_folder(asked)
        for file in files:
            folder.mkdir(exist_ok=True)
            shutil.copy(file, folder)
        launcher = kit.config.launcher
        request = RunRequest(
            name=asked,
            campaign=history.campaign,
            experiment=runs[beside.name],
            index=0,
            command=(sys.executable, str(place.script_path)),
            env=beside.env,
            launcher="local" if launcher == "torchrun" else launcher,  # one process and one GPU
            timeout_seconds=seconds,
            max_log_bytes=kit.config.limits.max_log_bytes,
            script_digest=digest(source),
            folder=folder,
            campaign_id=kit.campaign_id,
            beside=beside.name,
        )
        ended = kit.wait(request, kit.plugins.launch_run(request, place))
        kit.recorder.record(cost_of(request, ended), event_id=f"{asked}/cost")
        return ended

    def environment(self, passed: Sequence[str]) -> Mapping[str, str]:
        """Return what a run would see, and the names to pass."""
        return clean_environment(os.environ, {}, passed)

    def around(self, folder: Path, settings: BoundaryConfig) -> Sequence[str]:
        """Return bubblewrap's words, where it works: the folder to write in, the store hidden."""
        boundary = Boundary(settings=settings)
        if not boundary.on:
            return ()
        beside = folder.with_name("beside")
        beside.mkdir(exist_ok=True)
        lab = self.kit.lab
        place = Workspace(path=folder, script=lab.script, project=lab.project)
        return boundary.around(place, beside, os.environ)

    def beat(self) -> str:
        """Take in what people said meanwhile; an order to stop at once ends the command."""
        order = self.kit.recorder.refresh().stop
        return f"stopped by {order.by}" if order is not None and order.now else ""


def desk(kit: Kit) -> Desk:
    """Return the desk for the question that is asked now."""
    return Desk(history=kit.history, hands=LoopHands(kit))


def resting(kit: Kit) -> dict[str, str]:
    """Return the minds that are not asked now, each with the reason why it gives no answer."""
    found, now = {}, kit.clock.now()
    suspended = kit.history.suspended
    for author, times in tuple(kit.rests):
        if author not in suspended:  # it answered since, and counts from one again
            del kit.rests[author, times]
    for author, event in suspended.items():
        until = kit.rests.setdefault((author, event.times), now + event.seconds)
        if event.permanent or now < until:
            found[author] = event.reason
    return found


def answered(kit: Kit) -> None:
    """Say that a mind that gave no answer has given one."""
    author = kit.plugins.calls.answered
    if author in kit.history.suspended:
        kit.recorder.record(events.MindResumed(author=author))
        kit.tell(f"{author} answers again")


def look_back(kit: Kit) -> None:
    """Have ten experiments that are done looked back on, once; the rules do it where nobody can.

    What an author says that is not true of the log is left out, and told to it.
    """
    history = kit.history
    ten = newest_ten(history)
    if not ten or ten[-1].number in history.digests or ten[-1].number in kit.looked_back:
        return
    first, last = ten[0].number, ten[-1].number
    kit.looked_back.add(last)
    remarks = kit.plugins.summarize(history, first, resting(kit), desk(kit))
    author, errors = kit.plugins.calls.answered, kit.plugins.calls.outcomes
    answered(kit)
    kit.record_costs()
    told, facts = f"looking back on experiments {first} to {last}", list[events.Event]()
    lines = list[str]()
    for item in remarks:
        if why := untrue(item, history):
            kit.tell(f"{told}: a remark by {author} is left out: {why}")
            facts.append(events.ProposalRefused(author=author, stage="digest", reason=why))
        else:
            lines.append(_shown(item, history))
    if lines:
        written = events.DigestWritten(
            first=first, last=last, remarks=tuple(lines[:REMARKS]), author=author
        )
        facts.append(written)
    elif remarks or any(errors.values()):
        kit.tell(f"{told}: no mind worded it, so the rules do")
    kit.recorder.record_together(*facts)


def _shown(remark: Remark, history: History) -> str:
    """Return a remark with the verdicts of the experiments that it cites, which are not its own."""
    verdicts = (f"{n} {history.experiments[n].verdict}" for n in dict.fromkeys(remark.cites))
    return f"{one_line(remark.text, 160)} ({', '.join(verdicts)})"


def untrue(remark: Remark, history: History) -> str:
    """Say what of a remark is not true of the log: experiments, and numbers that are not theirs."""
    decided = {item.number for item in history.decided}
    unknown = [number for number in remark.cites if number not in decided]
    if unknown or not remark.cites:
        return f"it cites experiment {unknown[0]}, which was not decided" if unknown else "no cites"
    known = [abs(value) for value in _numbers(remark.cites, history)]
    for text in _NUMBER.findall(one_line(remark.text, 2_000)):
        value, digits = abs(float(text)), len(text.partition(".")[2])
        if not any(math.isclose(round(item, digits), value, abs_tol=1e-12) for item in known):
            numbers = ", ".join(map(str, remark.cites))
            return f"{text} is no number of experiment {numbers}: {one_line(remark.text, 160)}"
    return ""


def _numbers(cites: Iterable[int], history: History) -> Iterator[float]:
    """Yield the numbers that a remark on experiments may tell: theirs and the campaign's."""
    yield from (len(history.decided), history.noise.sd, history.best_metric or 0.0)
    for number in dict.fromkeys(cites):
        item = history.experiments[number]
        before = history.score(history.experiments[item.rival]) if item.rival is not None else None
        found = (number, gain_of(item, history), before, item.idea.predicted)
        yield from (value for value in (*found, *item.metrics.values()) if value is not None)
        said = f"{item.idea.description} {' '.join(item.idea.env.values())}"
        yield from (float(text) for text in _NUMBER.findall(said))
        for change in item.idea.changes:
            values = (change.old, change.new)
            yield from (float(value) for value in values if not isinstance(value, str))


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
        {**dict.fromkeys(skip, ""), **resting(kit)},
        desk(kit),
        halt=kit.config.mind_down == "wait",
    )
    answered(kit)
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
