"""Which of a log's scores, if any, is the score of the run, and whether it is to be believed.

The rule is the order of the evaluation, never the lowest number: the last line with a final
metric, of the last run, provided that nothing says that a later stage was still to come. A score is
judged only where the log says enough: an unknown split has no expected byte count, a clock is
compared with the cap that the log itself declares, and what an honest run could also show is a
warning, never a violation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from attrs import evolve, frozen

from autoresearch.golf import plausibility as known
from autoresearch.golf.plausibility import (
    Findings,
    broken,
    doubt,
    hidden_payload,
    implied_bytes,
    over_limit,
)
from autoresearch.golf.reading.grammar import (
    CANONICAL,
    SUMMARY,
    Candidate,
    Cause,
    Failure,
    Stage,
    Validation,
    base_name,
    root_cause,
)
from autoresearch.golf.reading.scan import Run, Scan

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


def rule(
    scan: Scan, *, exit_code: int | None = None, timed_out: bool = False, line: str | None = None
) -> Ruling:
    """Decide over the last run of a log; `exit_code` and `timed_out` are the launcher's word.

    `line` is the name of the one line that counts, where that was settled before the run.
    """
    run = scan.last
    finals = [c for c in run.candidates if c.stage.is_final]
    if run.summary is not None and (line == SUMMARY or not finals):
        number, val_bpb = run.summary
        finals = [Candidate(name=SUMMARY, line=number, stage=Stage.SUMMARY, val_bpb=val_bpb)]
    if line is not None:
        printed = ", ".join(dict.fromkeys(c.name for c in finals)) or "none"
        finals = [c for c in finals if c.base_name == base_name(line)]
        if not finals:
            reason = f"no line {line!r}, which the score is read from; final lines: {printed}"
            return evolve(_without_final(run, exit_code, timed_out), reason=reason)
    if not finals:
        return _without_final(run, exit_code, timed_out)
    last = _most_precise(finals)
    if not last.is_number:
        failure = root_cause(run.failures.failures)
        reason = f"the final score in line {last.line} is {last.val_bpb}, not a positive number"
        return Ruling(status=LogStatus.CRASHED, score=None, reason=reason, failure=failure)
    failure = root_cause([f for f in run.failures.failures if f.line > last.line])
    clean = failure is None and not timed_out and exit_code in (None, 0)
    if clean and line is not None:
        reason = f"the line that the score is read from, stage {last.stage.value}"
        return Ruling(status=LogStatus.COMPLETED, score=last, reason=reason, last=last)
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
    status, reason = LogStatus.COMPLETED, _missing_stage(run, finals, last)
    if reason is not None and (said := _summed_up(run, finals)) is not None:
        reason = f"the line that the summary in line {run.summary[0]} repeats"  # type: ignore[index]
        return Ruling(status=status, score=said, reason=reason)
    unread = [line for line in run.unread if line > last.line]
    pending = _pending_stage(run, last)
    if reason is None and unread:
        reason = f"line {unread[-1]} states a score in an unknown form, after {last.name}"
    elif reason is None and pending is not None:
        status = LogStatus.NO_SCORE
        reason = f"the log ends in the {pending.value} evaluation, which has no final line yet"
    if reason is not None:
        return Ruling(status=status, score=None, reason=reason)
    reason = f"the last final metric line, stage {last.stage.value}"
    return Ruling(status=status, score=last, reason=reason)


def _ended_badly(run: Run, last: Candidate, failure: Failure | None, timed_out: bool) -> Ruling:
    cause = failure.cause if failure is not None else Cause.STOPPED
    cause = Cause.CLOCK if timed_out else cause
    pending = _pending_stage(run, last)
    # Scripts that keep the canonical name print it last; after any other roundtrip more may come.
    lost = unofficial = last.stage is Stage.ROUNDTRIP and last.name != CANONICAL
    if failure is not None and cause is Cause.EXCEPTION:
        scoring = failure.in_evaluation and last.stage.rank < Stage.TTT.rank
        unexplained = unofficial and (failure.of_launcher or not failure.frames)
        lost = pending is not None or scoring or unexplained
    if not lost:
        reason = f"the last final metric line, stage {last.stage.value}; the run ended badly only "
        reason += "after it was complete"
        status = LogStatus.TERMINATED
        return Ruling(status=status, score=last, reason=reason, failure=failure)
    status = LogStatus.TIMED_OUT if cause is Cause.CLOCK else LogStatus.CRASHED
    stage = pending.value if pending is not None else "later"
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


def _summed_up(run: Run, finals: Sequence[Candidate]) -> Candidate | None:
    """The score that the last word of the log repeats, where that comes after all of them."""
    if run.summary is None or run.summary[0] < finals[-1].line:
        return None
    said = Candidate(name=SUMMARY, line=0, stage=Stage.SUMMARY, val_bpb=run.summary[1])
    return next((c for c in reversed(finals) if c.agrees_with(said)), None)


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


def _pending_stage(run: Run, last: Candidate) -> Stage | None:
    """The first later stage that was announced after the last score."""
    later = (s for line, s in run.announced if line > last.line and s.rank > last.stage.rank)
    return next(later, None)


def _most_precise(finals: Sequence[Candidate]) -> Candidate:
    last = finals[-1]
    for other in reversed(finals[:-1]):
        twin = other.base_name == last.base_name and other.agrees_with(last)
        if twin and other.name.lower().count("exact") > last.name.lower().count("exact"):
            return other
    return last


FEW = 0.98
"""Relative: a split with fewer tokens than this of its known count was cut short."""

FULL_TOKENS = 20_000_000
"""No vocabulary of up to 65,536 entries packs the published text into fewer tokens."""

TRAIN_GAP = 0.25
"""Nats: text seen once is not predicted so much better in validation than in training."""

PAYLOAD = 500_000
"""Bytes of an artifact that are neither model nor code before anybody asks what they are."""


def judge(run: Run, score: Candidate, eval_ms: float | None) -> Findings:
    """Return every finding about the score of a run, violations and warnings."""
    facts = run.facts
    return (
        *_bytes(facts, score),
        *_one_byte_count(run.candidates),
        *_whole_split(facts, score),
        *_gaps(run, score),
        *known.beyond_audited(score.val_bpb),
        *_paid_prefix(run),
        *_clocks(run, eval_ms),
        *over_limit(run.sizes),
    )


def judge_claims(run: Run, last: Candidate) -> Findings:
    """Return what is wrong with the lowest number of a run whose log does not say what counts."""
    claims = [c for c in run.candidates if c.stage.is_final and c.is_number]
    lowest = min(claims, key=lambda c: c.val_bpb, default=last)
    if lowest.val_bpb >= last.val_bpb:
        return ()
    return (*_gaps(run, lowest), *known.beyond_audited(lowest.val_bpb))


def dataset_of(facts: Mapping[str, str]) -> str:
    """Return the name of the data set that a log says it used, "" where it says nothing."""
    stated = facts.get("dataset") or facts.get("val_path", "")
    parts = [part for part in stated.split("/") if part and not part.endswith(".bin")]
    return parts[-1] if parts else ""


def expected_of(facts: Mapping[str, str], tokens: int) -> int | None:
    """Return the bytes that the tokens of a log must stand for, None where it is unknown.

    Exports with vocabularies of their own have names of their own: what only has the challenge's
    file names is held to the published text if it is as large as that text in any vocabulary.
    """
    expected = known.expected_bytes(dataset_of(facts), tokens)
    if expected is not None:
        return expected
    files = facts.get("val_path", facts.get("dataset", ""))
    return known.PUBLISHED_BYTES if known.is_published(files) and tokens >= FULL_TOKENS else None


def _bytes(facts: Mapping[str, str], score: Candidate) -> Findings:
    tokens = int(facts.get("val_tokens", 0))
    if score.val_loss is None:
        return ()
    if not tokens:
        return _unverifiable(facts, implied_bytes(1, score.val_loss, score.val_bpb))
    expected = expected_of(facts, tokens)
    if expected is None:
        return doubt("D9", f"no byte count is known for {tokens:,} tokens of this dataset")
    ratio = implied_bytes(1, score.val_loss, score.val_bpb)
    if abs(ratio - 1) < 0.0005 and tokens < FEW * known.SPLITS["byte260"].tokens:
        return doubt("D9", "loss and score are the same number in other units: no tokens to check")
    return known.conservation(tokens, score.val_loss, score.val_bpb, expected)


def _unverifiable(facts: Mapping[str, str], ratio: float) -> Findings:
    """Say that a score is hardly one of the split it names, where no token count was printed."""
    split = known.named_split(dataset_of(facts))
    if split is None or abs(ratio / split.bytes_per_token - 1) <= known.TOLERANCE:
        return ()
    return doubt(
        "D9", f"the log states no validation tokens, and {ratio:.3f} bytes per token are not those "
        f"of the published {split.name} split ({split.bytes_per_token:.3f})"
    )  # fmt: skip


def _one_byte_count(candidates: Sequence[Candidate]) -> Findings:
    ratios = {
        implied_bytes(1, c.val_loss, c.val_bpb): c
        for c in candidates
        if c.stage.is_final and c.val_loss is not None and c.is_number and c.val_bpb > 0.05
    }
    if not ratios:
        return ()
    low, high = min(ratios), max(ratios)
    if high / low - 1 <= 2 * known.TOLERANCE:
        return ()
    return broken(
        "D9", f"{ratios[low].name} and {ratios[high].name} imply {low:.4f} and {high:.4f} bytes "
        "per token; the text has one length"
    )  # fmt: skip


def _whole_split(facts: Mapping[str, str], score: Candidate) -> Findings:
    found: Findings = ()
    tokens = int(facts.get("val_tokens", 0))
    split = known.named_split(dataset_of(facts))
    if tokens and split is not None and tokens < FEW * split.tokens:
        found += broken(
            "D8", f"{tokens:,} validation tokens, the {split.name} split has {split.tokens:,}"
        )  # fmt: skip
    elif (expected := expected_of(facts, tokens)) is not None and score.val_loss is not None:
        share = implied_bytes(tokens, score.val_loss, score.val_bpb) / expected
        if tokens and share < 0.9:
            found += broken("D8", f"{tokens:,} validation tokens are {share:.0%} of the text")
    documents = int(facts.get("documents", known.PUBLISHED_DOCUMENTS))
    if documents < FEW * known.PUBLISHED_DOCUMENTS:
        found += broken(
            "D8", f"{documents:,} documents scored, expected {known.PUBLISHED_DOCUMENTS:,}"
        )
    return found


def _gaps(run: Run, score: Candidate) -> Findings:
    earlier = [
        c for c in run.candidates
        if c.line < score.line and c.is_number and not c.agrees_with(score)
    ]  # fmt: skip
    sliding = [c.val_bpb for c in earlier if c.stage is Stage.SLIDING]
    others = {
        f"{c.name} of line {c.line}": c.val_bpb
        for c in earlier
        if c.stage in (Stage.DIAGNOSTIC, Stage.ROUNDTRIP)
    }
    last = run.validations[-1] if run.validations else None
    if last is not None and _is_last_step(run, last):
        others[f"validation at step {last.step}"] = _in_units_of(score, last)
    return known.stage_gaps(score.val_bpb, sliding=min(sliding, default=None), others=others)


def _in_units_of(score: Candidate, validation: Validation) -> float:
    """Return a validation's bits per byte; a script may print it in bits per token instead."""
    per_token = implied_bytes(1, validation.val_loss, validation.val_bpb)
    if abs(per_token - 1) > known.TOLERANCE or score.val_loss is None:
        return validation.val_bpb
    return validation.val_loss * score.val_bpb / score.val_loss


def _is_last_step(run: Run, validation: Validation) -> bool:
    return validation.step > 0 and validation.step >= 0.98 * (run.last_step or 0)


def _paid_prefix(run: Run) -> Findings:
    stored = run.facts.get("paid_prefix")
    if stored is not None:
        return broken("D10", f"the log declares a paid prefix: {int(stored):,} of validation text")
    payload, ahead = hidden_payload(run.sizes), _ahead_of_training(run)
    large = payload >= PAYLOAD
    suspect = ahead is not None and ahead > TRAIN_GAP and "mtp" not in run.facts
    if large and suspect:
        return broken(
            "D10", f"validation is {ahead:.2f} nats better than training and {payload:,} bytes of "
            "the artifact are neither model nor code: validation text is stored in it"
        )  # fmt: skip
    if large:
        return doubt("D10", f"{payload:,} bytes of the artifact are neither model nor code")
    if suspect:
        return doubt("D10", f"validation is {ahead:.2f} nats better than training")
    return ()


def _ahead_of_training(run: Run) -> float | None:
    """Return by how many nats late validations beat the training losses around them."""
    differences = []
    for validation in run.validations[-10:]:
        if validation.step < 500:
            continue
        reach = max(200, 0.03 * validation.step)
        near = [t.loss for t in run.train_losses if abs(t.step - validation.step) <= reach]
        differences += [loss - validation.val_loss for loss in near]
    return sum(differences) / len(differences) if len(differences) >= 3 else None


def _clocks(run: Run, eval_ms: float | None) -> Findings:
    cap_s = float(run.facts.get("cap", 0))
    if not 0 < cap_s <= 600:
        return ()
    found: Findings = ()
    train_ms = float(run.facts.get("stop_ms", run.train_time_ms or 0))
    found += known.training_clock(train_ms, step_ms=run.step_ms)
    if eval_ms is not None and eval_ms > known.WARN_MS:
        detail = f"evaluated for {eval_ms:,.0f} ms, expected at most 600,000 ms"
        on_eight = run.facts.get("world_size") == "8"
        found += (broken if on_eight and eval_ms > known.REJECT_MS else doubt)("D5", detail)
    return found
