"""The endless loop: review, propose, advance to a verdict, settle, look for signals, again."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from autoresearch import events
from autoresearch.cycle import proposals
from autoresearch.cycle.experiment import advance, failed_in_a_row, needs_a_run
from autoresearch.cycle.kit import Kit
from autoresearch.cycle.retention import Retention
from autoresearch.cycle.trouble import pause_seconds
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.model import Backtrack, Experiment, Notice, Signal, Verdict
from autoresearch.text import one_line

REFUSALS = 2  # ideas of one author that are refused before the next author has the turn
WAIT_SECONDS = 5.0
NO_IDEA = "no generator has an idea"


@define
class Loop:
    """Runs experiments until a person, a budget or ``target`` decided experiments stop it.

    ``wait`` True: it waits whatever it lacks; False: it ends instead; None: it ends where it has a
    target and no generator can have another idea, and waits for everything else.
    """

    kit: Kit
    target: int | None = None
    wait: bool | None = None
    _refused: Counter[str] = field(factory=Counter, init=False)
    _author: str = field(default="", init=False)
    _waits: int = field(default=0, init=False)
    _waited_for: str = field(init=False)  # a fault from before the start is tried at once
    _said: str = field(default="", init=False)
    _retention: Retention = field(init=False)

    @_waited_for.default
    def _newest_run(self) -> str:
        current = self.kit.history.current
        return current.runs[-1].name if current is not None and current.runs else ""

    @_retention.default
    def _retain(self) -> Retention:
        return Retention(self.kit)

    def run(self) -> str:
        """Run, and return the reason for stopping."""
        self.kit.recorder.patience.through(self.settle)
        reason = None
        while reason is None:
            reason = self._step()
        return reason

    def _step(self) -> str | None:
        """Take one step, repeated while the disk or git is in its way; or say why to stop."""
        kit, through = self.kit, self.kit.recorder.patience.through
        reason = self.reason_to_wait()
        if reason:
            return reason
        under_way = kit.history.current
        if under_way is None:
            return None if through(self._begin) else through(self._without_idea)
        through(lambda: advance(kit))
        self.after(under_way.number)
        return None

    def reason_to_wait(self) -> str | None:
        """Return why no step may be taken now: a person, a budget, a machine that fails."""
        through = self.kit.recorder.patience.through
        reason = through(self._obey) or through(self._reason_to_stop)
        under_way = self.kit.history.current
        # Also a rerun, a retry or a fixed crash is paid for.
        if reason or under_way is None or not needs_a_run(self.kit.history):
            return reason
        return through(lambda: self._after_failures(under_way)) or through(self._budget)

    def after(self, number: int) -> None:
        """Do what follows a step of experiment ``number``: settle it once it is decided."""
        through, current = self.kit.recorder.patience.through, self.kit.history.current
        if current is None or current.number != number:
            through(lambda: self._after(number))
        elif current.commit and not failed_in_a_row(current):
            through(self._end_pause)

    # --- what a person or trouble wants ---------------------------------------------------------

    def _obey(self) -> str | None:
        """Do what people asked for meanwhile: return the reason to stop, or wait while paused."""
        kit, told = self.kit, False
        while True:
            history = kit.recorder.refresh()
            if history.stop is not None:
                return f"stopped by {history.stop.by}"
            if kit.config.strict and kit.recorder.failed is not None:
                raise PluginError(
                    f"{kit.recorder.failed}; it was stopped for that (strict = true): correct the "
                    "plugin, or block it with no:NAME"
                )
            paused = history.paused
            if paused is None or not paused.by:
                return None
            said = f"paused by {paused.by} ({paused.reason})"
            if self.wait is False:
                return said
            if not told:
                kit.tell(f"{said}; autoresearch resume goes on")
                told = True
            kit.clock.sleep(WAIT_SECONDS / 5)

    def _after_failures(self, experiment: Experiment) -> str | None:
        """Wait before another run when the machine failed too often; or return the reason."""
        kit, count = self.kit, failed_in_a_row(experiment)
        beyond = count - kit.config.limits.infra_retries
        if beyond <= 0 or self._waited_for == experiment.runs[-1].name:
            return None
        said = f"no run of experiment {experiment.number} could be made: "
        said += one_line(experiment.runs[-1].detail or "the machine failed", 400)
        if self.wait is False:
            return said
        self._pause(said, "needs_human")
        self._sleep(beyond - 1)
        self._waited_for = experiment.runs[-1].name
        return None

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
        kit = self.kit
        if kit.history.baseline is None:
            proposals.propose_baseline(kit)
            return True
        proposals.review_memory(kit)
        skip = {name for name, count in self._refused.items() if count >= REFUSALS}
        found = proposals.propose(kit, skip)
        self._author = kit.plugins.calls.answered if found else ""
        if found and kit.history.current is None:
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
        """Settle what was decided, or count the refusal of an idea that was dropped."""
        if number >= len(self.kit.history.experiments):
            self._refused[self._author] += 1
            return
        self._refused.clear()
        self._waits, self._said = 0, ""
        self._end_pause()
        self.settle()
        self._announce(number)

    # --- between experiments --------------------------------------------------------------------

    def settle(self) -> None:
        """Bring branch, worktrees and files to what the log says; safe to repeat."""
        kit = self.kit
        if kit.history.current is None and kit.history.experiments:
            self._signals()
            kit.move_branch()
            kit.lab.drop_worktree(len(kit.history.experiments) - 1)
            self._retention.apply()
        kit.show_files()
        kit.recorder.sync()

    def _signals(self) -> None:
        """Hear each of the signals once; head moves once at the most for one decision."""
        kit = self.kit
        for _ in Signal:
            answer = kit.plugins.backtrack(kit.history)
            if answer is None or not self._is_new(answer):
                return
            timeline = kit.history.timeline
            moved = bool(timeline) and isinstance(timeline[-1], events.Backtracked)
            if answer.to_experiment is not None and moved:
                return  # two rules that disagree would send head to and fro
            kit.tell(f"{answer.signal.value.replace('_', ' ')}: {answer.reason}")
            self._follow(answer)

    def _is_new(self, answer: Backtrack) -> bool:
        history = self.kit.history
        if answer.signal is Signal.DEAD_END:
            return answer.direction is not None and history.dead(answer.direction) is None
        if answer.to_experiment is not None:
            return answer.to_experiment != history.head
        newest = history.plateaus[-1].experiments if history.plateaus else ()
        return not newest or newest[-1] != len(history.experiments) - 1

    def _follow(self, answer: Backtrack) -> None:
        facts = facts_of(answer, self.kit.history)
        self.kit.recorder.record_many([(fact, None) for fact in facts])
        if answer.signal is Signal.PLATEAU:
            self._notify("stuck", f"plateau: {answer.reason}")

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
        if history.current is not None:
            return None
        if self.target is not None and len(history.decided) >= self.target:
            return f"{self.target} experiments are done, as asked"
        return self._budget()

    def _budget(self) -> str | None:
        history, limits = self.kit.history, self.kit.config.limits
        used = {
            "experiments": (float(len(history.decided)), float(limits.experiments)),
            "hours": (history.spent.seconds / 3600, limits.hours),
            "usd": (history.spent.usd, limits.usd),
            "gpu_hours": (history.spent.gpu_seconds / 3600, limits.gpu_hours),
        }
        for name, (amount, limit) in used.items():
            if limit > 0 and amount >= limit:
                self.kit.recorder.record(
                    events.BudgetExhausted(budget=name, limit=limit, used=amount)
                )
                self._notify("budget_gone", f"{name}: {amount:g} of {limit:g} used")
                return f"the budget of {limit:g} {name} is used up"
        return None


def facts_of(answer: Backtrack, history: History) -> list[events.Event]:
    """Return what a rule's answer is in the log."""
    facts: list[events.Event] = []
    if answer.signal is Signal.DEAD_END:
        facts.append(_abandoned(answer))
    elif answer.signal is Signal.PLATEAU:
        facts.append(_plateau(answer, history))
    if answer.to_experiment is not None:
        facts.append(_gone_back(answer, answer.to_experiment, history))
    return facts


def _abandoned(answer: Backtrack) -> events.DirectionDeclaredDead:
    return events.DirectionDeclaredDead(
        direction=answer.direction or "",
        reason=one_line(answer.reason, 500),
        experiments=answer.experiments,
        author=answer.author,
    )


def _plateau(answer: Backtrack, history: History) -> events.PlateauDeclared:
    return events.PlateauDeclared(
        experiments=answer.experiments or (len(history.experiments) - 1,),
        reason=one_line(answer.reason, 500),
        author=answer.author,
    )


def _gone_back(answer: Backtrack, number: int, history: History) -> events.Backtracked:
    return events.Backtracked(
        after_experiment=len(history.experiments) - 1,
        to_experiment=number,
        commit=history.experiments[number].commit,
        reason=one_line(answer.reason, 500),
        author=answer.author,
        experiments=answer.experiments,
    )
