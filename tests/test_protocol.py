"""The order of steps is enforced, not described."""

from __future__ import annotations

import pytest

from autoresearch import events
from autoresearch.cycle.recorder import check
from autoresearch.errors import ProtocolError
from autoresearch.history import History
from autoresearch.testing import history


def proposal(number: int) -> events.IdeaProposed:
    """An idea for an experiment."""
    return events.IdeaProposed(
        experiment=number,
        idea="0" * 12,
        direction="width",
        description="wider",
        hypothesis="it helps",
        author="test",
    )


def check_refused(past: History, event: events.Event, said: str) -> None:
    """Check that an event is refused with these words."""
    with pytest.raises(ProtocolError, match=said):
        check(past, event)


def test_no_idea_before_the_memory_was_read() -> None:
    """An idea right after a decision is refused until memory_reviewed stands in the log."""
    check_refused(history([1.10]), proposal(1), "without reading the memory")


def test_baseline_needs_no_review() -> None:
    """There is no memory before the baseline."""
    check(history([]), proposal(0))


def test_numbers_cannot_be_skipped() -> None:
    """The next experiment has the next number."""
    check_refused(history([1.10]), proposal(5), "1 is next")


def test_review_must_be_at_the_newest_position() -> None:
    """Reading an older state of the memory does not count."""
    past = history([1.10, 1.09])
    review = events.MemoryReviewed(
        experiment=2, read_to=past.position - 1, results_digest="a", notes_digest="b"
    )
    check_refused(past, review, "read it again")


def test_run_needs_an_experiment_under_way() -> None:
    """A run cannot be asked for when nothing was proposed."""
    request = events.RunRequested(
        experiment=1,
        run="t-1-0",
        index=0,
        seed=1,
        launcher="local",
        command=("x",),
        timeout_seconds=1.0,
    )
    check_refused(history([1.10]), request, "not under way")


def test_decision_of_an_experiment_that_is_not_under_way_is_refused() -> None:
    """Nothing is decided twice."""
    decided = events.Decided(experiment=0, verdict="keep", reason="r", author="p")
    check_refused(history([1.10]), decided, "not under way")


def test_reasoning_must_cite_what_was_read() -> None:
    """A reasoning without a citation, or citing the future, is refused."""
    past = history([1.10])
    reviewed = _with(past, review=True)
    for cites, said in (((), "no earlier experiment"), ((7,), r"\[7\]")):
        reasoning = events.ReasoningRecorded(
            experiment=1,
            hypothesis="h",
            evidence="e",
            risk="r",
            cites=cites,
            read_to=past.position,
        )
        check_refused(reviewed, reasoning, said)


def test_decision_needs_an_analysis_and_run_a_reasoning() -> None:
    """An experiment that was only proposed can be neither run nor decided."""
    past = _with(history([1.10]), review=True)
    decided = events.Decided(experiment=1, verdict="keep", reason="r", author="p")
    check_refused(past, decided, "has no analysis")
    request = events.RunRequested(
        experiment=1,
        run="t-1-0",
        index=0,
        seed=1,
        launcher="local",
        command=("x",),
        timeout_seconds=1.0,
    )
    check_refused(past, request, "has no reasoning")


def _with(past: History, *, review: bool) -> History:
    from attrs import evolve

    from autoresearch.model import Experiment, Idea

    idea = Idea(direction="width", description="wider", hypothesis="it helps")
    opened = past.experiments.append(Experiment(number=len(past.experiments), idea=idea))
    read = events.MemoryReviewed(
        experiment=1, read_to=past.position, results_digest="a", notes_digest="b"
    )
    number = len(past.experiments)
    told = {"experiments": opened, "open_numbers": (number,)}
    return evolve(past, **told, reviewed=read if review else None)  # type: ignore[arg-type]
