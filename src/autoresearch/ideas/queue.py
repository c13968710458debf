"""Answers with the top of the ideas queue, so that what a person asked for is tried first."""

from __future__ import annotations

from autoresearch import events
from autoresearch.history import History, QueuedIdea
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Idea


class Plugin:
    """Has no settings; the rank is the expected gain, and the queue is the log's."""

    @hookimpl
    def propose_idea(self, history: History) -> Idea | None:
        """Return the highest ranked waiting idea that was neither tried nor refused, else None."""
        gone = set(history.tried) | {
            item.idea for item in history.rejected if isinstance(item, events.IdeaDropped)
        }
        for queued in history.ranked_queue:
            idea = as_idea(queued, history)
            if idea.id not in gone and queued.id not in gone:
                return idea
        return None


def as_idea(queued: QueuedIdea, history: History) -> Idea:
    """Return a queued idea as one to try now; it cites the best experiment, which it must beat."""
    best, score = history.best, history.best_metric
    evidence: tuple[str, ...] = ()
    if best is not None and score is not None:
        evidence = (f"experiment {best.number} is the best so far: {history.metric} {score:.4f}",)
    return Idea(
        direction=queued.direction,
        description=queued.description,
        hypothesis=queued.hypothesis,
        author=queued.author,
        evidence=evidence,
        cites=(best.number if best is not None else 0,),
        patch=queued.patch,
        env=queued.env,
        changes=queued.changes,
        predicted=_predicted(queued, history),
        expected_gain=queued.expected_gain,
    )


def _predicted(queued: QueuedIdea, history: History) -> float | None:
    if queued.expected_gain is None or history.best_metric is None:
        return None
    sign = -1 if history.lower_is_better else 1
    return history.best_metric + sign * queued.expected_gain
