"""Those who do the research themselves, agents and people: the protocol's steps as calls.

Each step is the loop's own, with its events, audits and limits; only the words and the code come
from outside. The log alone says which step is due, so a driver that was killed goes on with the
next call, and a step that is not due is refused with the one that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import evolve, frozen

from autoresearch import events
from autoresearch.campaign import Campaign, person, silent
from autoresearch.cycle import Kit, Tell, changes, proposals, runs
from autoresearch.cycle.experiment import (
    analyse,
    decide,
    fix,
    last_words,
    may_be_fixed,
    needs_a_run,
    prepare,
    tell_nothing,
)
from autoresearch.cycle.loop import Loop
from autoresearch.cycle.recorder import Clock
from autoresearch.errors import ProtocolError, StreamHeldError, WorkspaceError
from autoresearch.history import History
from autoresearch.ideas.queue import as_idea
from autoresearch.launchers.supervisor import run_around
from autoresearch.model import Decision, Experiment, Idea, RunStatus
from autoresearch.plugins import answers
from autoresearch.text import one_line

# How each step is taken, as a command to type.
HOW = {
    "review": "autoresearch step review",
    "reason": 'autoresearch step reason "WHAT YOU CHANGE" --direction FAMILY --hypothesis "..." '
    '--evidence "..." --risk "..." --cites NUMBER',
    "edit": "autoresearch step edit",
    "run": "autoresearch step run",
    "analyze": 'autoresearch step analyze --why "..." --lesson "..."',
    "decide": "autoresearch step decide",
}


@frozen(kw_only=True)
class Stand:
    """Where a campaign stands for whoever drives it, after a step or as asked.

    ``step`` is the one that was taken, ``told`` what it had to say, ``next`` the one that is due
    and ``how`` its command; ``facts`` are JSON values that the step found out.
    """

    experiment: int
    next: str
    how: str
    step: str = ""
    told: tuple[str, ...] = ()
    facts: Mapping[str, Any] = {}


def due(history: History) -> str:
    """Return the step that the protocol has next."""
    experiment = history.current
    if experiment is None:
        return "review" if history.lease is None or history.reviewed is None else "reason"
    if experiment.number == history.baseline_number and not experiment.commit:
        return "review"
    if experiment.reasoning is None:
        return "reason"
    if not experiment.commit:
        return "edit"
    if experiment.number in history.open_runs or needs_a_run(history, experiment):
        return "run"
    return "analyze" if experiment.analysis is None else "decide"


def number_due(history: History) -> int:
    """Return the number of the experiment whose step is next."""
    return history.current.number if history.current else history.next_number


class Driver:
    """Takes a campaign through the protocol, one call a step; ``by`` is the name that is recorded.

    Every step raises ProtocolError when another one is due, and WorkspaceError while the loop or
    another driver acts, or a person, a budget or the machine says no; nothing is recorded then.
    """

    def __init__(
        self,
        campaign: Campaign,
        by: str = "",
        *,
        plugins: Sequence[object] = (),
        accepted: bool = False,
        tell: Tell = silent,
        tick: Tell = silent,
        clock: Clock | None = None,
    ) -> None:
        self.campaign: Campaign = campaign
        self.by: str = person(by)
        self._told: list[str] = []
        self._tell = tell
        self._kit: Kit | None = None
        self._at_work = partial(
            campaign.at_work, plugins=plugins, accepted=accepted, tick=tick, clock=clock
        )

    # --- the steps ------------------------------------------------------------------------------

    def review(self) -> Stand:
        """Read the memory: results.tsv, notes.md, the queue, what was refused; record that.

        In the middle of an experiment it only reads. The baseline needs no idea: it begins here.
        """
        if self.campaign.history.current is not None and due(self.campaign.history) != "review":
            return self._stand(self.campaign.history, "review", memory(self.campaign))
        with self._step("review") as (kit, loop):
            if kit.history.current is None:
                kit.recorder.patience.through(loop.settle)
                if kit.history.baseline is None:
                    proposals.propose_baseline(kit)
                else:
                    proposals.review_memory(kit)
            while kit.history.current is not None and due(kit.history) == "review":
                prepare(kit)
        return self._stand(kit.history, "review", memory(self.campaign))

    def reason(
        self,
        description: str = "",
        *,
        direction: str = "",
        hypothesis: str = "",
        evidence: str | Sequence[str] = (),
        risk: str = "",
        cites: Sequence[int] = (),
        predicted: float | None = None,
        env: Mapping[str, str] | None = None,
        queued: str = "",
    ) -> Stand:
        """Write the REASONING block of the next idea: an own one, or the ``queued`` one.

        ``evidence`` says what supports it, ``cites`` are the experiments it rests on, ``predicted``
        is the metric expected. A fatal objection drops the idea; then the review is due again.
        """
        with self._step("reason") as (kit, _):
            if kit.history.current is None:
                given = {
                    "description": description,
                    "direction": direction,
                    "hypothesis": hypothesis,
                    "evidence": (evidence,) if isinstance(evidence, str) else tuple(evidence),
                    "risk": risk,
                    "cites": tuple(cites),
                    "predicted": predicted,
                    "env": dict(env or {}),
                }
                proposals.put_forward(kit, self._idea(kit.history, given, queued))
            facts: dict[str, Any] = {}
            if kit.history.current is not None:
                proposals.reason(kit)
                made = kit.lab.worktree(kit.history.current.number, kit.head_commit())
                facts = {"folder": str(made.path), "files": sorted(kit.files_at_head())}
        return self._stand(kit.history, "reason", facts)

    def edit(
        self, files: Mapping[str, str] | None = None, patch: str = "", *, empty: bool = False
    ) -> Stand:
        """Audit and commit the change: the experiment's folder as it is now, or what is given.

        ``files`` maps paths to whole new texts, ``patch`` is a unified diff against head. After a
        crash it commits a fix. What an audit blocks is dropped, as the loop would; what cannot be
        tried (another file, no change, no valid Python) is refused, and may be corrected.
        """
        with self._step("edit", or_fix=True) as (kit, loop):
            experiment = proposals.current(kit)
            texts = self._texts(kit, experiment, files, patch, empty)
            if experiment.commit:
                output = runs.output_of(kit, experiment)
                refused = fix(kit, experiment.number, output, texts)
                if refused:
                    raise WorkspaceError(f"this fix is refused: {refused}")
            else:
                clean = kit.lab.worktree(experiment.number, kit.head_commit())
                changes.submit(kit, changes.prepare(kit, clean, texts, empty))
            loop.after(experiment.number)
        return self._stand(kit.history, "edit", {})

    def run(self, seconds: float = math.inf) -> Stand:
        """Run the experiment, or go on watching its run, for so many seconds at the most.

        A run goes on by itself; as long as it does, this step is due again.
        """
        with self._step("run") as (kit, loop):
            number = proposals.current(kit).number
            if number not in kit.history.open_runs:
                runs.request_run(kit, number)
            output = runs.finish_run(kit, number, seconds)
            experiment = proposals.current(kit)
            run = experiment.runs[-1]
            facts: dict[str, Any] = {"run": run.name, "status": run.status or "running"}
            if output is None:
                kit.tell(f"run {run.name} goes on by itself; run this step again to watch it")
            elif run.says_nothing:
                tell_nothing(kit, experiment)
            else:
                facts |= {"metrics": dict(run.metrics), "detail": run.detail}
                facts |= {"log": str(output.log_path), "seconds": run.seconds}
                kit.tell(f"experiment {number}: {run.status}{_numbers(run.metrics)}")
                if run.status is RunStatus.CRASHED:
                    facts["log_tail"] = last_words(output.log_path)
                    kit.lab.worktree(number, experiment.commit)  # what the run left is collected
                    told = "fix it in its folder and take the step edit, or analyze the crash"
                    kit.tell(
                        f"{run.detail}; {told}" if may_be_fixed(kit, experiment) else run.detail
                    )
            loop.after(number)
        return self._stand(kit.history, "run", facts)

    def analyze(self, why: str, lesson: str, versus_expected: str = "") -> Stand:
        """Audit the finished run and write the ANALYSIS block; its first line is what was measured.

        ``why`` is the best explanation, ``lesson`` what it tells about future experiments.
        """
        words = {"why": why, "lesson": lesson, "versus_expected": versus_expected}
        words = {name: text for name, text in words.items() if one_line(text)}
        if len(words.keys() & {"why", "lesson"}) < 2:
            raise ProtocolError("the analysis says no why or no lesson; write both")
        with self._step("analyze") as (kit, _):
            experiment = proposals.current(kit)
            output = runs.output_of(kit, experiment)
            analyse(kit, experiment.number, output, {**words, "author": self.by})
        return self._stand(kit.history, "analyze", {})

    def decide(self, told: Decision | None = None) -> Stand:
        """Let the policies decide, record the verdict, and settle branch, memory and signals."""
        with self._step("decide") as (kit, loop):
            number = proposals.current(kit).number
            decide(kit, number, runs.output_of(kit, proposals.current(kit)), told)
            loop.after(number)
            if kit.history.current is None:
                said = f"experiment {number} is decided, driven by {self.by}"
                kit.recorder.record(events.CampaignStopped(reason=said))
                kit.recorder.sync()
        made = kit.history.experiments[number].decision
        facts = {"verdict": made.verdict.value, "reason": made.reason} if made else {}
        if stage := kit.history.experiments[number].promoted:
            facts |= {"promoted": stage}
        return self._stand(kit.history, "decide", facts)

    def look(self) -> Stand:
        """Say which step is due, without taking one."""
        return self._stand(self.campaign.history, "", {})

    # --- what they share ------------------------------------------------------------------------

    @contextmanager
    def _step(self, step: str, *, or_fix: bool = False) -> Iterator[tuple[Kit, Loop]]:
        if run := run_around():
            raise WorkspaceError(f"this is inside the run {run}, and a run drives no campaign")
        self._told.clear()
        try:
            with self._open() as kit:
                kit.recorder.patience.endless = False
                kit.recorder.at = number_due(kit.history)
                self._check_turn(kit, step, or_fix)
                loop = Loop(kit=kit, wait=False)
                if reason := loop.reason_to_wait():
                    raise WorkspaceError(f"the step {step} has to wait: {reason}")
                if kit.history.lease is None or kit.history.lease.by != self.by:
                    self._take_lease(kit)
                yield kit, loop
        except StreamHeldError as error:
            raise WorkspaceError(
                f"{error}; let the loop end with autoresearch stop before driving by hand"
            ) from None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the steps inside share one opening of the campaign, which is quicker."""
        with self._open() as self._kit:
            try:
                yield
            finally:
                self._kit = None

    @contextmanager
    def _open(self) -> Iterator[Kit]:
        if self._kit is not None:
            yield self._kit
            return
        with self._at_work(actor=self.by, tell=self._hear) as kit:
            yield kit

    def _hear(self, text: str) -> None:
        self._told.append(text)
        self._tell(text)

    def _check_turn(self, kit: Kit, step: str, or_fix: bool) -> None:
        history, lease = kit.history, kit.history.lease
        if lease is not None and lease.by != self.by and not lease.lapsed(history):
            raise WorkspaceError(
                f"campaign {history.campaign} is driven by {lease.by} since {lease.since}; "
                "autoresearch step release ends that"
            )
        now = due(history)
        fixable = or_fix and now == "analyze" and may_be_fixed(kit, proposals.current(kit))
        crashed = fixable and proposals.current(kit).runs[-1].status is RunStatus.CRASHED
        if step != now and not crashed:
            what = f"experiment {number_due(history)} of {history.campaign}"
            raise ProtocolError(
                f"{step} is not the next step of {what}: {now} is; take it with {HOW[now]}"
            )

    def _take_lease(self, kit: Kit) -> None:
        started = kit.history.started
        assert started is not None
        resumed = events.CampaignResumed(plugins=dict(kit.plugins.active))
        taken = events.LeaseTaken(by=self.by)
        kit.recorder.record_together(resumed, taken)
        kit.recorder.patience.through(lambda: kit.lab.create(started.base_commit))

    def _idea(self, history: History, given: dict[str, Any], queued: str) -> Idea:
        if queued:
            waiting = history.queue.get(queued)
            if waiting is None:
                raise WorkspaceError(f"idea {queued} is not queued; autoresearch idea list")
            own = {name: value for name, value in given.items() if value not in ("", (), None, {})}
            # Its direction and description are its identity.
            kept = {"direction", "description", "env"}
            idea = evolve(
                as_idea(waiting, history),
                **{name: value for name, value in own.items() if name not in kept},
            )
        else:
            missing = [name for name in _BLOCK if not given[name]]
            if missing:
                told = _BLOCK[missing[0]]
                raise ProtocolError(f"the reasoning has no {missing[0]}; write {told}")
            idea = Idea(**given, author=self.by)
        unknown = [n for n in idea.cites if not 0 <= n < history.next_number]
        if unknown or not idea.cites:
            cited = f"experiment {unknown[0]}, which is not there" if unknown else "no experiment"
            raise ProtocolError(
                f"the reasoning cites {cited}; cite those of 0 to {history.next_number - 1} "
                "that it rests on"
            )
        try:
            return answers.idea(idea, self.by)
        except answers.InvalidAnswerError as error:
            raise WorkspaceError(f"this idea cannot be tried: {error}") from None

    def _texts(
        self,
        kit: Kit,
        experiment: Experiment,
        files: Mapping[str, str] | None,
        patch: str,
        empty: bool,
    ) -> Mapping[str, str]:
        """Return the new texts of the files that differ from what the change builds on."""
        base = kit.files_of(experiment) if experiment.commit else kit.files_at_head()
        workspace = kit.lab.workspace(experiment.number)
        if patch:
            files = kit.lab.patched(patch, base)
        if files is not None:
            outside = [path for path in files if not workspace.allows(path)]
            if outside:
                raise WorkspaceError(
                    f"{outside[0]} may not be changed; only {', '.join(sorted(base))} may"
                )
        elif (workspace.path / ".git").exists():
            since = experiment.commit or kit.head_commit()
            found = kit.lab.changed_files(workspace, since)
            gone = [path for path, text in found.items() if text is None]
            if gone:
                raise WorkspaceError(f"{gone[0]} is deleted; an idea changes files or adds some")
            files = {path: text for path, text in found.items() if text is not None}
        texts = {path: text for path, text in (files or {}).items() if base.get(path) != text}
        has_code = experiment.idea.has_code or bool(experiment.sources)
        if not texts and not empty and (experiment.commit or not has_code):
            raise WorkspaceError(
                f"nothing is changed in {workspace.path} yet; make the change there"
            )
        return texts

    def _stand(self, history: History, step: str, facts: Mapping[str, Any]) -> Stand:
        now = due(history)
        how = HOW[now]
        if now == "edit":
            folder = self.campaign.lab.workspace(number_due(history)).path
            how = f"change the files in {folder}, then {how}"
        told = tuple(self._told) if step else ()
        return Stand(
            step=step, experiment=number_due(history), told=told, next=now, how=how, facts=facts
        )


_BLOCK = {
    "description": "what you change in a few words",
    "direction": "the family of the change",
    "hypothesis": "what you expect to happen and why",
    "evidence": "what prior results, scaling laws or theory supports it",
    "risk": "what could go wrong",
}


def memory(campaign: Campaign) -> dict[str, Any]:
    """Return what must be read before an experiment: the two files, and what they leave out."""
    history, folder = campaign.history, campaign.lab.folder
    best = history.best
    return {
        "results_tsv": (folder / "results.tsv").read_text(encoding="utf-8"),
        "notes_md": (folder / "notes.md").read_text(encoding="utf-8"),
        "best": None if best is None else best.number,
        "best_metric": history.best_metric,
        "noise": history.noise.source,
        "steering": [f"{item.text} (by {item.author})" for item in history.steered],
        "queue": [
            {"id": item.id, "description": item.description, "author": item.author}
            for item in history.ranked_queue[:20]
        ],
        "refused": [one_line(item.reason, 300) for item in history.rejected[-5:]],
    }


def _numbers(metrics: Mapping[str, float]) -> str:
    return "".join(f", {name} {value:g}" for name, value in list(metrics.items())[:8])
