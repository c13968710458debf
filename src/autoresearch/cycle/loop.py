"""The endless loop: review, propose, advance to a verdict, settle, look for signals, again."""

from __future__ import annotations

from attrs import define, field

from autoresearch import events
from autoresearch.cycle import proposals
from autoresearch.cycle.experiment import advance, needs_a_run
from autoresearch.cycle.kit import Kit
from autoresearch.history import History
from autoresearch.model import Backtrack, Notice, Signal, Verdict
from autoresearch.text import one_line

DROPS_IN_A_ROW = 25
WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 300.0


@define
class Loop:
    """Runs experiments until a person, a budget or ``target`` decided experiments stop it.

    ``wait`` says whether a loop without ideas waits for one; otherwise it stops.
    """

    kit: Kit
    target: int | None = None
    wait: bool = True
    _drops: int = field(default=0, init=False)
    _waits: int = field(default=0, init=False)

    def run(self) -> str:
        """Run, and return the reason for stopping."""
        kit = self.kit
        self._settle()
        while True:
            reason = self._reason_to_stop()
            if reason:
                return reason
            if kit.history.current is None and not self._begin():
                if not self.wait:
                    return "no generator has an idea"
                self._wait()
                continue
            before = kit.history.current
            assert before is not None
            while kit.history.current is not None and kit.history.current.number == before.number:
                # Also a rerun, a retry or a fixed crash is paid for.
                reason = self._budget() if needs_a_run(kit) else None
                if reason:
                    return reason
                advance(kit)
            self._after(before.number)

    def _begin(self) -> bool:
        kit = self.kit
        if kit.history.baseline is None:
            if kit.history.experiments:
                proposals.review_memory(kit)
            proposals.propose_baseline(kit)
            return True
        proposals.review_memory(kit)
        if self._drops >= DROPS_IN_A_ROW or not proposals.propose(kit):
            self._drops = 0
            return False
        if kit.history.current is None:
            self._drops += 1
            return self._begin()
        self._waits = 0
        return True

    def _after(self, number: int) -> None:
        decided = number < len(self.kit.history.experiments)
        self._drops = 0 if decided else self._drops + 1
        if decided:
            self._settle()
            self._announce(number)

    def _settle(self) -> None:
        """Bring branch, worktrees and files to what the log says; safe to repeat."""
        kit = self.kit
        if kit.history.current is None and kit.history.experiments:
            self._signals()
            kit.move_branch()
            kit.lab.drop_worktree(len(kit.history.experiments) - 1)
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
            return answer.direction is not None and answer.direction not in history.dead_ends
        if answer.to_experiment is not None:
            return answer.to_experiment != history.head
        newest = history.plateaus[-1].experiments if history.plateaus else ()
        return not newest or newest[-1] != len(history.experiments) - 1

    def _follow(self, answer: Backtrack) -> None:
        facts: list[events.Event] = []
        if answer.signal is Signal.DEAD_END:
            facts.append(_abandoned(answer))
        elif answer.signal is Signal.PLATEAU:
            facts.append(_plateau(answer, self.kit.history))
        if answer.to_experiment is not None:
            facts.append(_gone_back(answer, answer.to_experiment, self.kit.history))
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

    def _wait(self) -> None:
        """Wait longer each time, since every attempt is in the log, but not when an idea comes."""
        kit = self.kit
        if self._waits == 0:
            kit.tell("no generator has an idea; add one with autoresearch idea add")
            self._notify("stuck", "no generator has an idea")
        until = kit.clock.now() + min(WAIT_SECONDS * 2**self._waits, LONGEST_WAIT_SECONDS)
        self._waits = min(self._waits + 1, 20)
        queue = kit.history.queue
        while kit.clock.now() < until and kit.recorder.refresh().queue == queue:
            kit.clock.sleep(WAIT_SECONDS / 5)


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
