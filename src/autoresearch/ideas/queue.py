"""Answers with the top of the ideas queue, so that what a person asked for is tried first."""

from __future__ import annotations

from autoresearch.frozen import alike
from autoresearch.history import History, QueuedIdea
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas.script import is_new
from autoresearch.model import Idea


class Plugin:
    """Has no settings; the rank is the expected gain, and the queue is the log's.

    Words that wait for a plugin to turn them into code are left where they are.
    """

    @hookimpl
    def propose_idea(self, history: History) -> Idea | None:
        """Return the highest ranked waiting idea that was neither tried nor refused, else None."""
        for queued in history.ranked_queue:
            if queued.waits_for:
                continue
            idea = as_idea(queued, history)
            if queued.again or is_new(history, idea.id, queued.id):
                return idea
        return None

    @hookimpl
    def explain_no_idea(self, history: History) -> str:
        """Say whether the queue is empty or what its ideas wait for."""
        waiting = [queued.waits_for for queued in history.queue.values() if queued.waits_for]
        if not waiting:
            return "the queue is empty; add to it with autoresearch idea add"
        ideas = "1 idea waits" if len(waiting) == 1 else f"{len(waiting)} ideas wait"
        cause = (
            "one that failed to answer again" if "outage" in waiting else "one that writes its code"
        )
        return f"{ideas} in words for a plugin: {cause}"


def as_idea(queued: QueuedIdea, history: History) -> Idea:
    """Return a queued idea as one to try now; it cites the best experiment, which it must beat."""
    best, score = history.best, history.best_metric
    evidence: tuple[str, ...] = ()
    if best is not None and score is not None:
        evidence = (f"experiment {best.number} is the best so far: {history.metric} {score:.4f}",)
    cites = (best.number if best is not None else 0,)
    predicted = _predicted(queued, history)
    return alike(Idea, queued, evidence=evidence, cites=cites, predicted=predicted)


def _predicted(queued: QueuedIdea, history: History) -> float | None:
    if queued.expected_gain is None or history.best_metric is None:
        return None
    sign = -1 if history.lower_is_better else 1
    return history.best_metric + sign * queued.expected_gain
