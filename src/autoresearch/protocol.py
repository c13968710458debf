"""The order of steps that the research protocol fixes; a step out of order is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from autoresearch import events
from autoresearch.errors import ProtocolError
from autoresearch.history import History
from autoresearch.model import Verdict


def check(history: History, event: events.Event) -> None:
    """Refuse an event that the protocol does not allow after this history.

    Raises ProtocolError: an idea without a review of the memory at its newest position, a
    reasoning that cites nothing, a run without reasoning, a decision without an analysis.
    """
    rule = _RULES.get(type(event))
    if rule is not None:
        rule(history, event)


def _idea(history: History, event: events.IdeaProposed) -> None:
    if event.experiment != history.next_number:
        raise ProtocolError(
            f"experiment {event.experiment} was proposed, but {history.next_number} is next; "
            "finish preparing the open experiment first"
        )
    if event.experiment > 0 and history.reviewed is None:
        raise ProtocolError(
            f"experiment {event.experiment} was proposed without reading the memory; "
            "record memory_reviewed first"
        )


def _review(history: History, event: events.MemoryReviewed) -> None:
    if event.read_to < history.position:
        raise ProtocolError(
            f"the memory was read up to {event.read_to}, but the log stands at "
            f"{history.position}; read it again"
        )


def _reasoning(history: History, event: events.ReasoningRecorded) -> None:
    _must_exist(history, event.experiment)
    if event.experiment == 0:
        return
    if history.reviewed is None or event.read_to != history.reviewed.read_to:
        raise ProtocolError(
            f"the reasoning of experiment {event.experiment} does not rest on the memory that was "
            "read; review the memory first"
        )
    unknown = [number for number in event.cites if number >= event.experiment or number < 0]
    if not event.cites or unknown:
        raise ProtocolError(
            f"the reasoning of experiment {event.experiment} cites "
            f"{unknown or 'no earlier experiment'}; cite experiments below {event.experiment}"
        )


def _run(history: History, event: events.RunRequested) -> None:
    if event.control:
        _must_be_kept(history, event.experiment)
    else:
        _must_exist(history, event.experiment)
    opened = history.open_runs.get(event.experiment)
    if opened is not None:
        raise ProtocolError(
            f"run {opened.request.run} is still open; finish it before starting another"
        )
    due = next_stage(history, event.experiment, control=event.control)
    if history.stages and event.stage != due:
        raise ProtocolError(
            f"experiment {event.experiment} was not promoted to the stage {event.stage!r}; "
            f"run it in {due!r}"
        )
    if history.experiments[event.experiment].reasoning is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no reasoning; record it before the run"
        )


def next_stage(history: History, number: int, *, control: bool = False) -> str:
    """Return the stage of an experiment's next run; empty where the campaign has none.

    A control measures what decisions compare with, so it runs in the last one.
    """
    if control:
        return history.stages[-1] if history.stages else ""
    return history.experiments[number].promoted or next(iter(history.stages), "")


def stage_after(history: History, stage: str) -> str | None:
    """Return the stage that follows another, None after the last."""
    return dict(pairwise(history.stages)).get(stage)


def _promotion(history: History, event: events.RunPromoted) -> None:
    _must_exist(history, event.experiment)
    experiment = history.experiments[event.experiment]
    if event.experiment in history.open_runs or experiment.analysis is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no analysis; record it before the promotion"
        )
    if event.stage != stage_after(history, experiment.stage):
        raise ProtocolError(f"the stage {event.stage!r} does not follow {experiment.stage!r}")


def _decision(history: History, event: events.Decided) -> None:
    _must_exist(history, event.experiment)
    opened = history.open_runs.get(event.experiment)
    if opened is not None:
        raise ProtocolError(f"run {opened.request.run} is still open; wait for its end")
    if history.experiments[event.experiment].analysis is None:
        raise ProtocolError(
            f"experiment {event.experiment} has no analysis; record it before the decision"
        )
    stage = history.experiments[event.experiment].stage
    if event.verdict == Verdict.KEEP and stage in history.stages[:-1]:
        raise ProtocolError(
            f"experiment {event.experiment} ran in the stage {stage!r} alone; promote it, since "
            f"only what ran in {history.stages[-1]!r} is kept"
        )


def _must_exist(history: History, number: int) -> None:
    if number not in history.open_numbers:
        raise ProtocolError(f"experiment {number} is not under way; propose it first")


def _must_be_kept(history: History, number: int) -> None:
    known = history.experiments[number : number + 1] if number >= 0 else ()
    if not known or known[0].verdict is not Verdict.KEEP:
        raise ProtocolError(f"experiment {number} is not kept; a control measures one that is")


_RULES: dict[type[events.Event], Callable[[History, Any], None]] = {
    events.IdeaProposed: _idea,
    events.MemoryReviewed: _review,
    events.ReasoningRecorded: _reasoning,
    events.RunRequested: _run,
    events.RunPromoted: _promotion,
    events.Decided: _decision,
}
