"""The endless loop: review, propose, advance to a verdict, settle, look for signals, again."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from typing import Any

from attrs import Factory, define, field

from autoresearch import events
from autoresearch.cycle import Kit, budget, proposals, runs
from autoresearch.cycle.experiment import (
    conclude,
    failed_in_a_row,
    is_preparing,
    needs_a_run,
    prepare,
)
from autoresearch.cycle.recorder import next_stage, pause_seconds
from autoresearch.cycle.traces import Retention
from autoresearch.errors import PluginError
from autoresearch.frozen import alike
from autoresearch.history import History
from autoresearch.model import Backtrack, Experiment, Notice, Parent, Signal, Verdict
from autoresearch.text import one_line

REFUSALS = 2  # ideas of one author that are refused before the next author has the turn
WAIT_SECONDS = 5.0
NO_IDEA = "no generator has an idea"


@define
class Loop:
    """Runs experiments until a person, a budget or ``target`` decided experiments stop it.

    Up to ``parallel`` of them are under way at once: their runs go on side by side, preparing and
    judging them is one after the other. ``wait`` True: it waits whatever it lacks; False: it ends
    instead; None: it ends where it has a target and no generator can have another idea, and waits
    for everything else.
    """

    kit: Kit
    target: int | None = None
    wait: bool | None = None
    parallel: int = 1
    _flights: dict[int, runs.Flight] = field(factory=dict, init=False)
    _ending: str | None = field(default=None, init=False)  # once the runs in flight are judged
    _refused: Counter[str] = field(factory=Counter, init=False)
    _author: str = field(default="", init=False)
    _waits: int = field(default=0, init=False)
    _due: dict[str, float] = field(factory=dict, init=False)
    _nothing_at: object = field(default=None, init=False)
    _waited_for: set[str] = field(init=False)  # a fault from before the start is tried at once
    _said: str = field(default="", init=False)
    _retention: Retention = field(
        default=Factory(lambda loop: Retention(loop.kit), takes_self=True), init=False
    )

    @_waited_for.default
    def _newest_runs(self) -> set[str]:
        return {item.runs[-1].name for item in self.kit.history.in_flight}

    def run(self) -> str:
        """Run, and return the reason for stopping."""
        self.kit.recorder.patience.through(self.settle)
        reason = None
        try:
            while reason is None:
                reason = self._step()
        except KeyboardInterrupt:
            for flight in self._flights.values():
                flight.leave()
            raise
        return reason

    def _step(self) -> str | None:
        """Take one step, repeated while the disk or git is in its way; or say why to stop."""
        kit, through = self.kit, self.kit.recorder.patience.through
        preparing = kit.history.current is not None and is_preparing(kit.history.current)
        over = None if preparing else self._over()
        if over is not None:
            through(partial(self._conclude, over))
            return None
        reason, held = through(self._obey)
        self._ending = self._ending or reason or through(self._reason_to_stop)
        if self._ending is None and not held and through(self._go_on):
            return None
        if not self._flights and (self._ending or not held):
            return self._ending
        over = self._wait()  # also while a preparation is held up
        if over is not None:
            through(partial(self._conclude, over))
        return None

    def _go_on(self) -> bool:
        """Do what is next; False when there is nothing to do but to wait for a run."""
        kit = self.kit
        history = kit.history
        for number in sorted(history.open_runs.keys() - self._flights.keys()):
            self._at(number)
            self._flights[number] = runs.launch(kit, history.open_runs[number].request)
            return True
        current = history.current
        if current is not None and is_preparing(current):
            self._prepare(current.number)
            return True
        for number in history.open_numbers:
            experiment = history.experiments[number]
            if number in history.open_runs:
                continue
            if not needs_a_run(history, experiment):  # it ended before the loop was interrupted
                self._conclude(number)
                return True
            if self._may_run(experiment):  # also a rerun, a retry or a fixed crash is paid for
                self._at(number)
                runs.request_run(kit, number)
                self.after(number)
                return True
            if self._ending:
                return False
        return self._has_room() and (self._controls() or self._next())

    def _at(self, number: int) -> None:
        self.kit.recorder.at = number

    def _has_room(self) -> bool:
        """Whether one more experiment may be under way."""
        history, baseline = self.kit.history, self.kit.history.baseline
        count = len({*history.open_numbers, *history.open_runs})
        first = baseline is None or baseline.number in history.open_numbers  # all rest on its score
        return not self._has_enough() and count < (1 if first else self.parallel)

    def _controls(self) -> bool:
        """Have the best measured again where that is due and no budget is against it."""
        kit, history = self.kit, self.kit.history
        every, best = kit.config.controls.every, history.best_number
        decided = len(history.experiments) - len(history.open_numbers)
        if not every or best is None or decided - history.control_at < every:
            return False
        flies = history.control is not None and history.control.experiment in history.open_runs
        stage = next_stage(history, best, control=True)
        full = budget.refusal(kit, new=False, stage=stage) is not None
        if flies or full or not history.experiments[best].commit:
            return False
        self._at(best)
        runs.request_run(kit, best, control=True)
        return True

    def _has_enough(self) -> bool:
        """Whether as many experiments as were asked for are decided or under way."""
        return self.target is not None and len(self.kit.history.experiments) >= self.target

    def _next(self) -> bool:
        """Begin another experiment, or wait for an idea; False while runs may lead to one."""
        history = self.kit.history
        known = (len(history.timeline), len(history.rejected), history.queue, history.notes)
        if self._flights and known == self._nothing_at:
            return False
        if not self._affords(new=True):
            return not self._flights
        if self._begin():
            return True
        self._nothing_at = known
        if not self._flights:
            self._ending = self._without_idea()
        return not self._flights

    def _prepare(self, number: int) -> None:
        self._at(number)
        prepare(self.kit)
        self.after(number)

    def after(self, number: int) -> None:
        """Do what follows a step of experiment ``number``: settle it once it is decided."""
        history, through = self.kit.history, self.kit.recorder.patience.through
        if number >= len(history.experiments):  # the idea was dropped
            self._refused[self._author] += 1
        elif number not in history.open_numbers:
            through(partial(self._after, number))
        elif history.experiments[number].commit and not failed_in_a_row(
            history.experiments[number]
        ):
            through(self._end_pause)

    def _over(self) -> int | None:
        """Return the experiment of a run that is over, if there is one."""
        for number, flight in self._flights.items():
            self._at(number)
            if flight.is_over():
                return number
        return None

    def _wait(self) -> int | None:
        """Wait a little, at most until a run is over; return its experiment."""
        clock = self.kit.clock
        until = clock.now() + runs.WATCH_SECONDS
        while (over := self._over()) is None and clock.now() < until:
            clock.sleep(runs.POLL_SECONDS)
        return over

    def _conclude(self, number: int) -> None:
        """Judge an experiment whose run is over; what follows from a verdict, follows."""
        kit, through = self.kit, self.kit.recorder.patience.through
        self._at(number)
        experiment, flight = kit.history.experiments[number], self._flights.get(number)
        if number not in kit.history.open_numbers and flight is not None:  # a control
            conclude(kit, number, flight.land())
            del self._flights[number]
            through(partial(kit.lab.drop_worktree, number))
            through(self._show)
            return
        if number in kit.history.open_numbers and not needs_a_run(kit.history, experiment):
            output = flight.land() if flight else runs.output_of(kit, experiment)
            conclude(kit, number, output)
        self._flights.pop(number, None)
        self.after(number)

    # --- what a person or trouble wants ---------------------------------------------------------

    def _obey(self) -> tuple[str | None, bool]:
        """Do what people asked for meanwhile: return the reason to stop, or whether to wait."""
        kit, told = self.kit, False
        while True:
            history = kit.recorder.refresh()
            if history.stop is not None:
                return f"stopped by {history.stop.by}", False
            if kit.config.strict and kit.recorder.failed is not None:
                if self._flights:
                    return None, True
                raise PluginError(
                    f"{kit.recorder.failed}; it was stopped for that (strict = true): correct the "
                    "plugin, or block it with no:NAME"
                )
            paused = history.paused
            if paused is None or not paused.by:
                return None, False
            said = f"paused by {paused.by} ({paused.reason})"
            if self.wait is False:
                return said, False
            if not told and said != self._said:
                kit.tell(f"{said}; autoresearch resume goes on")
                told = True
            if self._flights:
                self._said = said
                return None, True
            kit.clock.sleep(WAIT_SECONDS / 5)

    def reason_to_wait(self) -> str | None:
        """Return why no step may be taken now: a person, a budget, a machine that fails."""
        through, history = self.kit.recorder.patience.through, self.kit.history
        reason = through(self._obey)[0] or through(self._reason_to_stop)
        under_way = self.kit.history.current
        if not reason and under_way is None:
            through(partial(self._affords, new=True))
        elif not reason and under_way is not None and needs_a_run(history, under_way):
            through(partial(self._may_run, under_way))
        return reason or self._ending

    def _may_run(self, experiment: Experiment) -> bool:
        """Whether another run may start now: not while the machine fails, nor beyond a budget."""
        stage = next_stage(self.kit.history, experiment.number)
        return not self._must_wait(experiment) and self._affords(stage=stage)

    def _must_wait(self, experiment: Experiment) -> bool:
        """Wait before another run when the machine failed too often."""
        kit, count = self.kit, failed_in_a_row(experiment)
        beyond = count - kit.config.limits.infra_retries
        if beyond <= 0 or (name := experiment.runs[-1].name) in self._waited_for:
            return False
        said = f"no run of experiment {experiment.number} could be made: "
        said += one_line(experiment.runs[-1].detail or "the machine failed", 400)
        if self.wait is False:
            self._ending = said
            return True
        self._pause(said, "needs_human")
        if not self._flights:
            self._sleep(beyond - 1)
        else:
            due = kit.clock.now() + pause_seconds(beyond - 1, WAIT_SECONDS)
            if kit.clock.now() < self._due.setdefault(name, due):
                return True
        self._waited_for.add(name)
        return False

    def _pause(self, reason: str, kind: str) -> None:
        """Record that the loop waits, and tell it once for every reason."""
        kit, now = self.kit, self.kit.history.paused
        if now is None or now.reason != reason:
            kit.recorder.record(events.Paused(reason=reason))
        if reason != self._said:
            self._said = reason
            kit.tell(f"{reason} (waiting, then trying again)")
            self._notify(kind, reason)

    def _end_pause(self) -> None:
        """Say that the loop goes on, once what it waited for has come."""
        paused = self.kit.history.paused
        if paused is not None and not paused.by:
            self.kit.recorder.record(events.Resumed())
            self.kit.tell("going on")

    def _sleep(self, count: int) -> None:
        """Wait longer each time, but not when a person acts."""
        kit, before = self.kit, self.kit.history
        until = kit.clock.now() + pause_seconds(count, WAIT_SECONDS)
        while kit.clock.now() < until:
            now = kit.recorder.refresh()
            if now.stop is not None or (now.queue, now.notes) != (before.queue, before.notes):
                self._waits = 0
                return
            if now.paused != before.paused:
                return
            kit.clock.sleep(WAIT_SECONDS / 5)

    # --- ideas ----------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Begin an experiment; False when no generator that may be asked has an idea."""
        kit, number = self.kit, self.kit.history.next_number
        self._at(number)
        if kit.history.baseline is None:
            proposals.propose_baseline(kit)
            return True
        proposals.look_back(kit)
        proposals.review_memory(kit)
        skip = {name for name, count in self._refused.items() if count >= REFUSALS}
        found = proposals.propose(kit, skip)
        self._author = kit.plugins.calls.answered if found else ""
        if found and number >= len(kit.history.experiments):
            self._refused[self._author] += 1
        return found

    def _without_idea(self) -> str | None:
        """Wait for an idea, or return the reason to stop when none can come."""
        kit = self.kit
        said, failed = self._no_idea()
        outage = any(idea.waits_for == "outage" for idea in kit.history.queue.values())
        ends = self.wait is None and self.target is not None and not (failed or outage)
        if self.wait is False or ends:
            return said
        self._refused.clear()
        if kit.history.paused is None or not kit.history.paused.reason.startswith(NO_IDEA):
            self._pause(one_line(said, 500), "stuck")
        self._sleep(self._waits)
        self._waits += 1
        if outage:
            kit.recorder.record(events.Resumed())  # the ideas that wait for its end get their turn
        return None

    def _no_idea(self) -> tuple[str, bool]:
        """Return what was looked for by whom, and whether a generator only failed to answer."""
        kit, asked = self.kit, dict(self.kit.plugins.calls.outcomes)
        files = kit.files_at_head()
        told = kit.plugins.explain_no_idea(kit.history, files[kit.lab.script], files)
        parts = [f"{name}: {error or told.get(name, 'passed')}" for name, error in asked.items()]
        for name, count in self._refused.items():
            if count >= REFUSALS:
                parts.append(f"{name or 'others'}: its ideas were refused {count} times")
        looked = "; ".join(parts) or "no plugin proposes any; make script_ideas active"
        said = f"{NO_IDEA} ({looked}); add one with autoresearch idea add --patch FILE"
        return said, any(asked.values())

    def _after(self, number: int) -> None:
        """Settle what was decided."""
        self._refused.clear()
        self._waits, self._said = 0, ""
        self._end_pause()
        self._settle_after(number)
        self._announce(number)

    # --- between experiments --------------------------------------------------------------------

    def _settle_after(self, number: int) -> None:
        """Bring branch, worktree and files to what the log says of a decision; safe to repeat."""
        kit = self.kit
        self._signals()
        self._branch_off()
        kit.move_branch()
        kit.lab.drop_worktree(number)
        self._retention.apply()
        self._show()

    def _show(self) -> None:
        """Bring the files and the tables to what the log says."""
        self.kit.show_files()
        self.kit.recorder.sync()

    def settle(self) -> None:
        """Settle what a loop that was interrupted left; safe to repeat."""
        kit, last = self.kit, self.kit.history.last_decided
        for number in kit.lab.worktrees():
            if number not in (*kit.history.open_numbers, *kit.history.open_runs):
                kit.lab.drop_worktree(number)
        if last is not None and (self.parallel > 1 or not kit.history.open_numbers):
            self._settle_after(last)
        else:
            self._show()

    def _signals(self) -> None:
        """Hear each of the signals once; head moves once at the most for one decision."""
        kit = self.kit
        for _ in Signal:
            answer = kit.plugins.backtrack(kit.history)
            if answer is None or not self._is_new(answer):
                return
            if answer.to_experiment is not None and _just_moved(kit.history):
                return  # two rules that disagree would send head to and fro
            of = f" of {answer.direction}" if answer.direction else ""
            kit.tell(f"{answer.signal.value.replace('_', ' ')}{of}: {answer.reason}")
            kit.recorder.record_together(*facts_of(answer, kit.history))
            if answer.signal is Signal.PLATEAU:
                self._notify("stuck", f"plateau: {answer.reason}")

    def _branch_off(self) -> None:
        """Let head be what a plugin chooses to build on, unless this decision moved it already."""
        kit, history = self.kit, self.kit.history
        if _just_moved(history) or history.head is None or history.open_numbers:
            return
        rng = Random(f"{history.campaign}/{history.next_number}/parent")
        found = kit.plugins.choose_parent(history, rng)
        if found is not None and found.experiment != history.head:
            kit.tell(f"experiment {found.experiment} is built on next: {found.reason}")
            kit.recorder.record(_gone_back(found, found.experiment, history))

    def _is_new(self, answer: Backtrack) -> bool:
        history = self.kit.history
        if answer.signal is Signal.DEAD_END:
            return answer.direction is not None and history.dead(answer.direction) is None
        if answer.to_experiment is not None:
            return answer.to_experiment != history.head
        newest = history.plateaus[-1].experiments if history.plateaus else ()
        return not newest or newest[-1] != history.last_decided

    def _announce(self, number: int) -> None:
        history = self.kit.history
        experiment = history.experiments[number]
        score = history.score(experiment)
        if history.best_number == number and score is not None:
            self._notify("new_best", f"{history.metric} {score:.6f}", number)
        if experiment.verdict is Verdict.QUARANTINE and experiment.decision:
            self._notify("needs_human", f"quarantined: {experiment.decision.reason}", number)

    def _notify(self, kind: str, text: str, number: int | None = None) -> None:
        campaign = self.kit.history.campaign
        self.kit.plugins.notify(
            Notice(kind=kind, campaign=campaign, text=one_line(text, 500), experiment=number)
        )

    def _reason_to_stop(self) -> str | None:
        history = self.kit.history
        baseline = history.baseline
        if baseline is not None and baseline.verdict in (Verdict.CRASH, Verdict.QUARANTINE):
            assert baseline.decision is not None
            why = baseline.runs[-1].detail if baseline.runs else ""
            said = baseline.decision.reason
            said = said if why in said else f"{said}: {why}"
            return f"the baseline gave no score to build on: {said}"
        if history.open_numbers or history.open_runs:
            return None
        if self._has_enough():
            return f"as many experiments as asked for are done: {self.target} in all"
        return None

    def _affords(self, *, new: bool = False, stage: str = "") -> bool:
        """Whether the worst case of one more run fits; where none may release some, it is over."""
        found = budget.refusal(self.kit, new=new, stage=stage)
        if found is None:
            return True
        line = found.line
        if not self._flights:
            self._ending = str(found)
            self.kit.recorder.record(
                events.BudgetExhausted(budget=line.name, limit=line.limit, used=line.spent)
            )
            text = f"{line.name}: {line.spent:g} of {line.limit:g} used"
            self._notify("budget_gone", f"{text}, {line.reserved:g} reserved")
        return False


def facts_of(answer: Backtrack, history: History) -> list[events.Event]:
    """Return what a rule's answer is in the log."""
    facts: list[events.Event] = []
    known: dict[str, Any] = {"reason": one_line(answer.reason, 500)}
    if answer.signal is Signal.DEAD_END:
        known["direction"] = answer.direction or ""
        facts.append(alike(events.DirectionDeclaredDead, answer, **known))
    elif answer.signal is Signal.PLATEAU:
        known["experiments"] = answer.experiments or (history.last_decided or 0,)
        facts.append(alike(events.PlateauDeclared, answer, **known))
    if answer.to_experiment is not None:
        facts.append(_gone_back(answer, answer.to_experiment, history))
    return facts


def _just_moved(history: History) -> bool:
    """Whether a decision was followed by a move of head already."""
    return bool(history.timeline) and isinstance(history.timeline[-1], events.Backtracked)


def _gone_back(answer: Backtrack | Parent, number: int, history: History) -> events.Backtracked:
    return alike(
        events.Backtracked,
        answer,
        after_experiment=history.last_decided or 0,
        to_experiment=number,
        commit=history.experiments[number].commit,
        reason=one_line(answer.reason, 500),
    )
