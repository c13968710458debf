"""How a run in a log ended and which of its scores, if any, is its score.

The rule is the order of the evaluation, never the lowest number: the last line with a final
metric, of the last run, provided that nothing says that a later stage was still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import evolve, frozen

from autoresearch.golf.reading.candidates import Candidate
from autoresearch.golf.reading.failures import Cause, Failure, root_cause
from autoresearch.golf.reading.scan import Run, Scan
from autoresearch.golf.reading.stages import CANONICAL, Stage

LOST_BY_ADAPTING = 0.007
"""Bits per byte: what gets so much worse by adapting to the text is no entry of anybody's.

Of the public logs in which the adapted score is the worse one, the adapted one was handed in up to
0.0058 and the earlier one from 0.0083 on.
"""


class LogStatus(StrEnum):
    """How the last run in a log ended, as far as the log tells.

    `terminated` is a run that was stopped, or failed while tidying up, after its score was
    complete: the score stands. `no_score` is a log that just ends without a score.
    """

    COMPLETED = "completed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    TERMINATED = "terminated"
    NO_SCORE = "no_score"


@frozen(kw_only=True)
class Ruling:
    """The status of a run, its score line where there is one, and why.

    `last` is the last final metric line, also where it is not the score.
    """

    status: LogStatus
    score: Candidate | None
    reason: str
    last: Candidate | None = None
    failure: Failure | None = None


def rule(scan: Scan, *, exit_code: int | None = None, timed_out: bool = False) -> Ruling:
    """Decide over the last run of a log; `exit_code` and `timed_out` are the launcher's word."""
    run = scan.last
    finals = [c for c in run.candidates if c.stage.is_final]
    if not finals and run.summary is not None:
        finals = [_from_summary(*run.summary)]
    if not finals:
        return _without_final(run, exit_code, timed_out)
    last = _most_precise(finals)
    if not last.is_number:
        failure = root_cause(run.failures.failures)
        reason = f"the final score in line {last.line} is {last.val_bpb}, not a positive number"
        return Ruling(status=LogStatus.CRASHED, score=None, reason=reason, failure=failure)
    failure = root_cause([f for f in run.failures.failures if f.line > last.line])
    clean = failure is None and not timed_out and exit_code in (None, 0)
    if clean:
        return evolve(_ended_well(run, finals, last), last=last)
    return evolve(_ended_badly(run, last, failure, timed_out), last=last)


def _without_final(run: Run, exit_code: int | None, timed_out: bool) -> Ruling:
    failure = root_cause([f for f in run.failures.failures if f.line > run.body_end])
    status, reason = LogStatus.NO_SCORE, "the log ends without a final metric line"
    if timed_out or exit_code == 124 or (failure is not None and failure.cause is Cause.CLOCK):
        status, reason = LogStatus.TIMED_OUT, "the run ran out of time before its final metric line"
    elif failure is not None or exit_code not in (None, 0):
        status, reason = LogStatus.CRASHED, "the run failed before its final metric line"
    elif run.not_a_number is not None:
        status = LogStatus.CRASHED
        reason = f"the loss is not a number from line {run.not_a_number} on"
    if any(c.stage is Stage.DIAGNOSTIC for c in run.candidates):
        reason += "; what it printed are diagnostics"
    return Ruling(status=status, score=None, reason=reason, failure=failure)


def _ended_well(run: Run, finals: Sequence[Candidate], last: Candidate) -> Ruling:
    missing = _missing_stage(run, finals, last)
    if missing is not None:
        return Ruling(status=LogStatus.COMPLETED, score=None, reason=missing)
    unread = [line for line in run.unread if line > last.line]
    if unread:
        reason = f"line {unread[-1]} states a score in a form that nobody knows, after {last.name}"
        return Ruling(status=LogStatus.COMPLETED, score=None, reason=reason)
    begun = _begun_later(run, last)
    if begun is not None:
        reason = f"the log ends in the {begun.value} evaluation, which has no final line yet"
        return Ruling(status=LogStatus.NO_SCORE, score=None, reason=reason)
    reason = f"the last final metric line, stage {last.stage.value}"
    return Ruling(status=LogStatus.COMPLETED, score=last, reason=reason)


def _ended_badly(run: Run, last: Candidate, failure: Failure | None, timed_out: bool) -> Ruling:
    cause = failure.cause if failure is not None else Cause.STOPPED
    cause = Cause.CLOCK if timed_out else cause
    begun = _begun_later(run, last)
    # Scripts that keep the canonical name print it last; after any other roundtrip more may come.
    unofficial = last.stage is Stage.ROUNDTRIP and last.name != CANONICAL
    if failure is not None and cause is Cause.EXCEPTION:
        scoring = failure.in_evaluation and last.stage.rank < Stage.TTT.rank
        unexplained = unofficial and (failure.of_launcher or not failure.frames)
        lost = begun is not None or scoring or unexplained
    else:
        lost = unofficial
    if not lost:
        reason = f"the last final metric line, stage {last.stage.value}; the run ended badly only "
        reason += "after it was complete"
        return Ruling(
            status=LogStatus.TERMINATED, score=last, reason=reason, failure=failure
        )  # fmt: skip
    status = LogStatus.TIMED_OUT if cause is Cause.CLOCK else LogStatus.CRASHED
    stage = begun.value if begun is not None else "later"
    reason = f"nothing shows that the {stage} evaluation after line {last.line} was finished"
    return Ruling(status=status, score=None, reason=reason, failure=failure)


def _missing_stage(run: Run, finals: Sequence[Candidate], last: Candidate) -> str | None:
    if last.name == CANONICAL or last.stage is Stage.SUMMARY:
        return None
    reached = max(c.stage.rank for c in finals)
    for stage, on in run.switched.items():
        if on and stage.rank > reached:
            return f"the configuration switches {stage.value} on, and no line states its score"
    for other in finals:
        if other.stage.rank > last.stage.rank:
            return (
                f"{last.name} (line {last.line}) follows {other.name} (line {other.line}), which "
                "is of a later stage: the log does not say which of them counts"
            )
    return _lost_by_adapting(finals, last)


def _lost_by_adapting(finals: Sequence[Candidate], last: Candidate) -> str | None:
    if last.stage.rank < Stage.TTT.rank:
        return None
    earlier = [c for c in finals if c.is_number and c.stage.rank < last.stage.rank]
    best = min(earlier, key=lambda c: c.val_bpb, default=last)
    if last.val_bpb - best.val_bpb <= LOST_BY_ADAPTING:
        return None
    return (
        f"{last.name} (line {last.line}) is worse than {best.name} (line {best.line}), from which "
        "it started: the log does not say which of them counts"
    )


def _begun_later(run: Run, last: Candidate) -> Stage | None:
    for line, stage in run.announced:
        if line > last.line and stage.rank > last.stage.rank:
            return stage
    return None


def _most_precise(finals: Sequence[Candidate]) -> Candidate:
    last = finals[-1]
    for other in reversed(finals[:-1]):
        twin = other.base_name == last.base_name and other.agrees_with(last)
        if twin and other.name.lower().count("exact") > last.name.lower().count("exact"):
            return other
    return last


def _from_summary(line: int, val_bpb: float) -> Candidate:
    return Candidate(name="val_bpb", line=line, stage=Stage.SUMMARY, val_bpb=val_bpb)
