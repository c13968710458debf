"""Wrong idea generators, policies and rules; the first of each kind is right."""

from __future__ import annotations

import itertools
import random
from random import Random

from attrs import evolve

from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Backtrack, Candidate, Decision, Idea, Notice, Signal, Verdict
from autoresearch.testing import KeepBetter


class Elsewhere:
    """Implements a hook that no contract asks for."""

    @hookimpl
    def notify(self, notice: Notice) -> None:
        """Do nothing."""


class Ideas:
    """A right generator: an untried width in a direction that is not dead."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Return the first idea that is allowed."""
        offset = rng.randrange(3)
        for number in range(1, 40):
            direction = f"direction {number % 4}"
            idea = Idea(
                direction=direction,
                description=f"comment {number + offset}",
                hypothesis="it matters",
                source=f"# {number + offset}\n{source}",
            )
            if self.allows(history, idea):
                return idea
        return None

    def allows(self, history: History, idea: Idea) -> bool:
        """Return whether an idea is new and its direction alive."""
        return idea.id not in history.tried and idea.direction not in history.dead_ends

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        """Propose."""
        return self.propose(history, source, rng)


class NoIdeas(Ideas):
    """Never has an idea."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Pass."""
        return None


class NeedsABaseline(Ideas):
    """Fails before anything was tried."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Look at an experiment that need not be there."""
        assert history.experiments[0] is not None
        return super().propose(history, source, rng)


class Counts(Ideas):
    """Remembers how often it was asked."""

    def __init__(self) -> None:
        self._asked = itertools.count()

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Put the count into the risk."""
        idea = super().propose(history, source, rng)
        return idea and evolve(idea, risk=f"asked {next(self._asked)} times")


class Gambles(Ideas):
    """Uses the chance of everybody."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Throw a die that is not its own."""
        random.random()
        return super().propose(history, source, rng)


class Reseeds(Ideas):
    """Makes the chance of everybody its own, always in the same way."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Reseed, and draw from the given one all the same."""
        random.seed(1337)
        return super().propose(history, source, rng)


class CitesNothingReal(Ideas):
    """Refers to an experiment that was never made."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Cite."""
        idea = super().propose(history, source, rng)
        return idea and evolve(idea, cites=(999,))


class ChangesNothing(Ideas):
    """Proposes the script as it is."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Give the script back."""
        idea = super().propose(history, source, rng)
        return idea and evolve(idea, source=source)

    def allows(self, history: History, idea: Idea) -> bool:
        """Take every idea's number as new, since its source is not."""
        tried = {item.idea.description for item in history.experiments}
        alive = idea.direction not in history.dead_ends
        return idea.description not in tried and alive and not history.rejected


class WritesNoPython(Ideas):
    """Leaves a bracket open."""

    def propose(self, history: History, source: str, rng: Random) -> Idea | None:
        """Open it."""
        return super().propose(history, f"{source}print(\n", rng)


class Stutters(Ideas):
    """Gives several ideas, of which two are one."""

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> list[Idea]:
        """Propose the same twice."""
        idea = self.propose(history, source, rng)
        return [idea, idea] if idea else []


class InsistsOnDropped(Ideas):
    """Looks only at what ran: an idea that was dropped is in no experiment."""

    def allows(self, history: History, idea: Idea) -> bool:
        """Look at the experiments and the dead ends."""
        ran = {item.idea_id for item in history.experiments}
        return idea.id not in ran and idea.direction not in history.dead_ends


class Forgets(Ideas):
    """Does not look at what ran."""

    def allows(self, history: History, idea: Idea) -> bool:
        """Look at what was dropped and at the dead ends only."""
        dropped = {getattr(item, "idea", None) for item in history.rejected}
        return idea.id not in dropped and idea.direction not in history.dead_ends


class InsistsOnDeadEnds(Ideas):
    """Does not look at the dead ends."""

    def allows(self, history: History, idea: Idea) -> bool:
        """Look at what was tried only."""
        return idea.id not in history.tried


class Policy(KeepBetter):
    """A right policy."""


class NoPolicy(Elsewhere):
    """No policy."""


class NeedsABest:
    """Compares with a best that need not be there."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        assert history.best_metric is not None
        return KeepBetter().decide(candidate, history)


class ChangesItsMind:
    """Gives another reason each time."""

    def __init__(self) -> None:
        self._asked = itertools.count()

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        decision = KeepBetter().decide(candidate, history)
        return evolve(decision, reason=f"{decision.reason}, answer {next(self._asked)}")


class KeepsCrashes:
    """Keeps what has no score."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        if candidate.metric is None:
            return Decision(verdict=Verdict.KEEP, reason="nothing is lost")
        return KeepBetter().decide(candidate, history)


class LikesLowOnly:
    """Takes lower to be better wherever it is."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        return KeepBetter().decide(candidate, evolve(history, lower_is_better=True))


class RerunsForEver:
    """Wants one more run of whatever is close."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        best, score = history.best_metric, candidate.metric
        if best is not None and score is not None and abs(score - best) < 0.01:
            return Decision(verdict=Verdict.RERUN, reason="it is close")
        return KeepBetter().decide(candidate, history)


class Anneals:
    """A right policy of another taste: it keeps what is up to a fifth worse."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Decide."""
        best, score = history.best_metric, candidate.metric
        if best is not None and score is not None and abs(score - best) < 0.2 * abs(best):
            return Decision(verdict=Verdict.KEEP, reason="near enough")
        return KeepBetter().decide(candidate, history)


def plateau(history: History, reason: str) -> Backtrack:
    """Return a plateau that the newest experiments prove."""
    proof = tuple(item.number for item in history.decided[-3:])
    return Backtrack(signal=Signal.PLATEAU, reason=reason, experiments=proof)


class Rule:
    """A right rule: after three failures in a row it declares a plateau, once."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        last = history.decided[-3:]
        failed = [item for item in last if item.verdict in (Verdict.DISCARD, Verdict.CRASH)]
        if len(failed) < 3 or history.plateaus:
            return None
        return plateau(history, "three failures in a row")

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Answer."""
        return self.answer(history)


class NoRule(Elsewhere):
    """No rule."""


class GoesNowhere(Rule):
    """Goes back to an experiment that was discarded."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        answer = super().answer(history)
        return answer and evolve(answer, to_experiment=history.decided[-1].number)


class ProvesNothing(Rule):
    """Names no experiments."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        answer = super().answer(history)
        return answer and evolve(answer, experiments=())


class Wavers(Rule):
    """Gives another reason each time."""

    def __init__(self) -> None:
        self._asked = itertools.count()

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        answer = super().answer(history)
        return answer and evolve(answer, reason=f"answer {next(self._asked)}")


class Hasty(Rule):
    """Gives up after the baseline."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        if len(history.experiments) == 1 and not history.plateaus:
            return plateau(history, "nothing has happened yet")
        return super().answer(history)


class Pessimist(Rule):
    """Sees a plateau after ten experiments, whatever they brought."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        if len(history.experiments) >= 10 and not history.plateaus:
            return plateau(history, "ten experiments are enough")
        return super().answer(history)


class Nags(Rule):
    """Does not see that it was followed."""

    def answer(self, history: History) -> Backtrack | None:
        """Return the answer."""
        return super().answer(evolve(history, plateaus=history.plateaus[:0]))
