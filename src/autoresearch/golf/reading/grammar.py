"""Lines of a log that say something: scores, by name and stage, and signs that a run failed."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import NamedTuple

from attrs import define, evolve, field, frozen

from autoresearch.text import one_line

CANONICAL = "final_int8_zlib_roundtrip_exact"
"""The name that the challenge's own script prints its score under, and that many others keep."""

SUMMARY = "val_bpb"
"""What a trailer calls the score, after every named line."""


class Stage(StrEnum):
    """Where in a run a score was measured, from the training loop to the last evaluation."""

    DIAGNOSTIC = "diagnostic"
    ROUNDTRIP = "roundtrip"
    SLIDING = "sliding"
    TTT = "ttt"
    MIXTURE = "mixture"
    OTHER = "other"
    SUMMARY = "summary"

    @property
    def rank(self) -> int:
        """How late the stage comes in an evaluation; 0 for what is never a final score."""
        return _RANKS[self]

    @property
    def is_final(self) -> bool:
        """Whether a score of this stage can be the score of the run."""
        return self.rank > 0


_RANKS = {
    Stage.DIAGNOSTIC: 0,
    Stage.OTHER: 0,
    Stage.SUMMARY: 0,
    Stage.ROUNDTRIP: 1,
    Stage.SLIDING: 2,
    Stage.TTT: 3,
    Stage.MIXTURE: 4,
}

# Names that are never a final score, whatever else they say.
_NEVER = re.compile(
    r"diag|pre[-_ ]?(?:quant|ttt|slot|gptq|export)|unquant|probe|running|fp32|float32"
)
# The same, unless the name starts like a final one ("final_...", "quantized...", "legal_...").
_PROGRESS = re.compile(r"chunk|epoch|iter|step|batch|warmup|train|debug|partial|progress|calib")
_FINAL_START = re.compile(r"final|quanti[sz]ed|legal|submission|official")
# A later stage is looked for first: "ttt_sliding" is test-time training on a sliding window.
_STAGE_WORDS: tuple[tuple[Stage, re.Pattern[str]], ...] = (
    (
        Stage.MIXTURE,
        re.compile(
            r"slot|n[-_]?gram|ppm|knn|hedge|mixer|two[-_]?pass|(?<![a-z])(?:cache|mix|mixture|blend)(?![a-z])"
        ),
    ),
    (Stage.TTT, re.compile(r"ttt|test[-_ ]?time|score[-_]?first")),
    (Stage.SLIDING, re.compile(r"slid|stride|overlap|(?<![a-z])s\d+(?![\da-z])")),
    (
        Stage.ROUNDTRIP,
        re.compile(
            r"round[-_ ]?trip|post[-_]?quant|quanti[sz]ed|dequant|int\d|ternary|binary|xnor|"
            r"temped|packed|gptq|^final|submission|official|reload"
        ),
    ),
)


def stage_of(name: str, extras: str = "") -> Stage:
    """Return the stage that a metric's name stands for; `extras` are what else its line says."""
    lowered = name.lower()
    if _NEVER.search(lowered):
        return Stage.DIAGNOSTIC
    if _PROGRESS.search(lowered) and not _FINAL_START.match(lowered):
        return Stage.DIAGNOSTIC
    for stage, words in _STAGE_WORDS:
        if words.search(lowered):
            return _stage_said_beside(stage, extras.lower())
    return (
        Stage.DIAGNOSTIC if re.search(r"(?<![a-z])(?:ema|swa)(?![a-z])", lowered) else Stage.OTHER
    )


def _stage_said_beside(stage: Stage, extras: str) -> Stage:
    if stage is Stage.ROUNDTRIP and "ttt" in extras:
        return Stage.TTT
    if stage is Stage.ROUNDTRIP and re.search(r"\bstride[:=]\s*\d", extras):
        return Stage.SLIDING
    return stage


_ANNOUNCED = re.compile(
    r"(?:beginning |starting |running )?(?:legal_|quantized_|eval_|final_)*"
    r"(ttt|ttp|slot|sliding|n-?gram|ppm)(?!_enabled|\w*=)",
    re.IGNORECASE,
)
_STARTED = re.compile(r"start|begin|warm|chunk|phase|\d+/\d+|running", re.IGNORECASE)
_OVER = re.compile(
    r"done|elapsed|complete|finish|disabled|skip|enabled\s*[:=]\s*(?:0|false)", re.IGNORECASE
)


def announced_stage(text: str) -> Stage | None:
    """Return the stage whose beginning or progress a line reports, if it reports one."""
    found = _ANNOUNCED.match(text.lstrip(" =-*>"))
    if found is None or not _STARTED.search(text) or _OVER.search(text):
        return None
    what = found[1].lower()
    if what == "sliding":
        return Stage.SLIDING
    return Stage.TTT if what.startswith("tt") else Stage.MIXTURE


_ENABLED = re.compile(
    r"\s*(ttt|sliding_window|slot)_enabled\s*[:=]\s*(true|1|false|0)\b", re.IGNORECASE
)
_SWITCHES = {"ttt": Stage.TTT, "sliding_window": Stage.SLIDING, "slot": Stage.MIXTURE}


def enabled_stage(text: str) -> tuple[Stage, bool] | None:
    """Return what a line of the printed configuration switches: a stage, and whether it is on."""
    found = _ENABLED.match(text)
    if found is None:
        return None
    return _SWITCHES[found[1].lower()], found[2].lower() in {"true", "1"}


NUMBER = r"(?:[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)\b)"

_LOSS = re.compile(rf"\bval_loss\s*[:=]\s*({NUMBER})", re.IGNORECASE)
_BPB = re.compile(rf"\bval_bpb\s*[:=]\s*({NUMBER})(?P<more>.*)", re.IGNORECASE)
_FIRST = re.compile(r"\b(?:val_loss|val_bpb)\s*[:=]")
_SETTING = re.compile(r"[\w.]+[:=]\S+$")
_HEAD = re.compile(r"[A-Za-z_][\w.+:/\-]*(?:\([\w=.,\-]{1,40}\)[\w.+:/\-]*)?$")
_WORD = re.compile(r"[A-Za-z][\w.+\-]*:?$")
_TIME = re.compile(r"\b(?:eval_time|time|elapsed)\s*[:=]\s*(\d+(?:\.\d+)?)\s*(ms|s)\b")
_TRAINING = re.compile(r"(?:step|iter|iteration)?[: ]?\s*(\d{1,12})(?:\s*/\s*\d+)?[\s|:,]+(.*)")
_TRAIN_LOSS = re.compile(rf"(?:train_)?loss\s*[:=]\s*({NUMBER})", re.IGNORECASE)
_CLOCK = re.compile(r"\btrain_time\s*:\s*(\d+(?:\.\d+)?)\s*ms")
_MOST_WORDS = 4
_CLAIM = re.compile(r"(?:final|legal|submission|official)[\w.+\-]*[\s:=]", re.IGNORECASE)
_CLAIMED = re.compile(rf"\b(\w*bpb)\s*[:=]\s*{NUMBER}", re.IGNORECASE)
_NO_CLAIM = re.compile(r"delta|gain|base|pre|target|best|diff|gap|improve|train|fp32|diag")


def base_name(name: str) -> str:
    """Return the name of a line without what only says how many decimals were printed."""
    return name.replace("_exact", "").lower()


@frozen(kw_only=True)
class Candidate:
    """A named score: losses in nats per token, scores in bits per byte, `line` counted from 1."""

    name: str
    line: int
    stage: Stage
    val_bpb: float
    val_loss: float | None = None
    eval_time_ms: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether the score is a number that a score can be."""
        losses = (self.val_bpb, self.val_loss if self.val_loss is not None else 1.0)
        return all(math.isfinite(value) and value > 0 for value in losses)

    @property
    def base_name(self) -> str:
        """The name without what only says how many decimals were printed."""
        return base_name(self.name)

    def agrees_with(self, other: Candidate) -> bool:
        """Whether the two print one measurement, perhaps with different numbers of decimals."""
        return abs(self.val_bpb - other.val_bpb) < 0.000_061

    def at_stage(self, stage: Stage) -> Candidate:
        """Return the same score, known to belong to another stage."""
        return evolve(self, stage=stage)


@frozen(kw_only=True)
class Validation:
    """A validation inside the training loop, which is never the score of a run."""

    line: int
    step: int
    val_bpb: float
    val_loss: float
    train_time_ms: float | None = None


class TrainLine(NamedTuple):
    """A line of the training loop: its step, loss in nats and clock where it is in milliseconds."""

    step: int
    loss: float
    train_time_ms: float | None = None


def parse_candidate(text: str, line: int, *, ended: bool = True) -> Candidate | None:
    """Return the named score that a line states, or None for anything else.

    A line that the end of the file cut off counts only if its two numbers have the same decimals.
    """
    first = _FIRST.search(text)
    bpb = _BPB.search(text)
    if first is None or bpb is None or not _is_number_end(bpb["more"]):
        return None
    name, settings = _name_and_settings(text[: first.start()])
    if name is None:
        return None
    loss = _LOSS.search(text)
    if not ended and not bpb["more"] and (loss is None or not _same_decimals(loss[1], bpb[1])):
        return None
    return Candidate(
        name=name,
        line=line,
        stage=stage_of(name, settings + bpb["more"]),
        val_bpb=float(bpb[1]),
        val_loss=float(loss[1]) if loss else None,
        eval_time_ms=_milliseconds(bpb["more"]),
    )


def claims_score(text: str) -> bool:
    """Whether a line that starts like a final one states a score under whatever name."""
    if len(text) > 1000 or not _CLAIM.match(text) or _NO_CLAIM.search(text.split()[0].lower()):
        return False
    return any(not _NO_CLAIM.search(name.lower()) for name in _CLAIMED.findall(text))


_TRAILER_SCORE = re.compile(
    rf"(?:submission[_ ]summary\b.{{0,2000}}?)?\bval_bpb\"?\s*[:=]\s*({NUMBER})(.*)", re.IGNORECASE
)


def parse_summary(text: str) -> float | None:
    """Return the score of a trailer: `val_bpb:   1.12278022` alone, or a SUBMISSION_SUMMARY."""
    found = _TRAILER_SCORE.match(text)
    if found is None or (text[:7].lower() == "val_bpb" and found[2].strip()):
        return None
    return float(found[1])


def parse_training(text: str, line: int) -> Validation | TrainLine | None:
    """Return what a line of the training loop says, in any of the loggers' forms."""
    found = _TRAINING.match(text)
    if found is None:
        return None
    step, rest = int(found[1]), found[2]
    bpb = _BPB.search(rest) if "val_bpb" in rest else None
    if bpb is None:
        trained = _TRAIN_LOSS.match(rest)
        return TrainLine(step, float(trained[1]), _clock(rest)) if trained else None
    loss = _LOSS.search(rest)
    if loss is None:
        return None
    return Validation(
        line=line,
        step=step,
        val_bpb=float(bpb[1]),
        val_loss=float(loss[1]),
        train_time_ms=_clock(rest),
    )


def _name_and_settings(before: str) -> tuple[str | None, str]:
    words = before.replace(",", " ").split()
    kept = [word for place, word in enumerate(words) if place == 0 or not _SETTING.match(word)]
    settings = " ".join(word for word in words[1:] if _SETTING.match(word))
    if not kept or len(kept) > _MOST_WORDS or not _HEAD.match(kept[0]):
        return None, ""
    if not all(_WORD.match(word) for word in kept[1:]) or not re.search(r"[A-Za-z]{2}", kept[0]):
        return None, ""
    return " ".join(kept).rstrip(":"), settings + " "


def _is_number_end(more: str) -> bool:
    return not more or not (more[0].isalnum() or more[0] in "_{%\"'.")


def _same_decimals(one: str, other: str) -> bool:
    return len(one.partition(".")[2]) == len(other.partition(".")[2])


def _milliseconds(text: str) -> float | None:
    found = _TIME.search(text)
    if found is None:
        return None
    return float(found[1]) * (1000.0 if found[2] == "s" else 1.0)


def _clock(text: str) -> float | None:
    found = _CLOCK.search(text)
    return float(found[1]) if found else None


# --- signs that a run failed ---------------------------------------------------------------------


class Cause(StrEnum):
    """Who ended the run: its own exception, somebody from outside, or a clock."""

    EXCEPTION = "exception"
    STOPPED = "stopped"
    CLOCK = "clock"


@frozen(kw_only=True)
class Failure:
    """A sign of failure at a line; ``frames`` is the code that a traceback went through."""

    line: int
    cause: Cause
    text: str
    frames: str = ""

    @property
    def in_evaluation(self) -> bool:
        """Whether the traceback went through code that scores something."""
        if self.of_launcher:
            return False
        code = [row for row in self.frames.split("\n") if not row.startswith("File ")]
        code += re.findall(r", in (\w+)", self.frames)
        return any(_SCORING.search(row) for row in code)

    @property
    def of_launcher(self) -> bool:
        """Whether this only reports that another process failed."""
        return bool(_LAUNCHER.search(self.text))


_SCORING = re.compile(r"eval|ttt|slid|slot|n_?gram|score|logits|forward|loss", re.IGNORECASE)
_LAUNCHER = re.compile(
    r"ChildFailedError|SignalException|CalledProcessError|ProcessExitedException|ProcessRaised"
)
_OUT_OF_TIME = re.compile(
    r"TIME LIMIT|FunctionTimeoutError|TimeoutExpired|hit its timeout|timeout: sending signal|"
    r"(?:deadline|time limit|wall[- ]?clock limit|timeout) (?:was )?exceeded|"
    r"exceeded (?:its |the )?(?:\w+ )?(?:deadline|time limit|timeout)|"
    r"(?:run|job|task|process|command|function|experiment)\b.{0,40} timed out|"
    r"exit(?:ed with)? (?:code|status):? 124\b|killed after \d+",
    re.IGNORECASE,
)
_STOPPED = re.compile(
    r"Received \d+ death signal|got signal: \d+|exitcode\s*: -\d+|\(exitcode: -\d+\)|"
    r"\bSignal \d+ \(SIG\w+\)|^(?:Killed|Terminated|Hangup|Aborted)(?: \(core dumped\))?\s*$|"
    r"^\S{1,200}: line \d+:\s+\d+ (?:Killed|Terminated|Hangup)|"
    r"^\^C\s*(?:$|Traceback)|^KeyboardInterrupt|"
    r"\*\*\* JOB \d+ .{0,200}CANCELLED|oom-kill|Out of memory: Killed|[Pp]reempted|"
    r"^Received SIG(?:TERM|INT|HUP)|caught SIG(?:TERM|INT|HUP)"
)
_CRASHED = re.compile(
    r"Segmentation fault|Bus error|Floating point exception|.{0,200}core dumped|"
    r"terminate called after|Fatal Python error|\S{1,200}: line \d+:\s+\d+ (?:Segm|Abort|Bus)|"
    r"[A-Za-z_][\w.]{0,200}(?:Error|Exception): |torchrun: error|make: \*\*\* .*Error \d+|"
    r"\S{0,200}python\S{0,20}: can't open file"
)
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Hit|Warning)\b(?::|$)")
_LOOSE_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*:(?:\s|$)|[A-Za-z_]\w*(?:\.\w+)+$")
_OPENING = re.compile(r"[\s│╭─|+]*Traceback \(most recent call last\)")
_MOST_FRAMES = 8_000


@define
class FailureReader:
    """Collects failures line by line; tracebacks of several ranks may be interleaved."""

    failures: list[Failure] = field(factory=list)
    _opened: int = 0
    _harmless: bool = False
    _frames: list[str] = field(factory=list)
    _length: int = 0

    def read(self, text: str, line: int) -> None:
        """Look at one line, whose times and ranks have been taken off."""
        if "raceback (most" in text and _OPENING.match(text):
            self._opened, self._frames, self._length = line, [], 0
        elif self._opened:
            self._inside(text, line)
        elif text.startswith("Exception ignored in"):
            self._harmless = True  # said by the interpreter while it shuts down
        else:
            self._outside(text, line)

    def _inside(self, text: str, line: int) -> None:
        if not text.strip() or text[0] in " \t│╭╰|+-~^":
            if self._length < _MOST_FRAMES:
                self._frames.append(text.strip())
                self._length += len(text)
        elif _EXCEPTION.match(text) or _LOOSE_EXCEPTION.match(text):
            self._opened, harmless, self._harmless = 0, self._harmless, False
            if not harmless:
                self._add(text, line, "\n".join(self._frames))
        elif line - self._opened > 400:
            self._opened = 0

    def _add(self, text: str, line: int, frames: str) -> None:
        cause = Cause.EXCEPTION
        if _STOPPED.search(text):
            cause = Cause.STOPPED
        elif _OUT_OF_TIME.search(text):
            cause = Cause.CLOCK
        self._keep(Failure(line=line, cause=cause, text=one_line(text, 300), frames=frames))

    def _outside(self, text: str, line: int) -> None:
        cause = _cause_outside(text)
        if cause is not None:
            self._keep(Failure(line=line, cause=cause, text=one_line(text, 300)))

    def _keep(self, failure: Failure) -> None:
        if len(self.failures) < 1000:
            self.failures.append(failure)
        else:
            self.failures[-1] = failure


def _cause_outside(text: str) -> Cause | None:
    # Each pattern is asked only where a piece of it is there: nearly every line is no failure.
    if (
        "imeout" in text or "imed out" in text or "TIME LIMIT" in text or "xceeded" in text
        or " 124" in text or "illed after" in text
    ) and _OUT_OF_TIME.search(text):  # fmt: skip
        return Cause.CLOCK
    if (
        "ignal" in text or "SIG" in text or "exitcode" in text or "illed" in text
        or "CANCELLED" in text or "oom-kill" in text or "reempted" in text
        or text.startswith(("Terminated", "Hangup", "Aborted", "^C", "KeyboardInterrupt"))
        or "Terminated" in text or "Hangup" in text
    ) and _STOPPED.search(text):  # fmt: skip
        return Cause.STOPPED
    if ("rror" in text or "xception" in text or "fault" in text or "dumped" in text) or (
        text.startswith(("terminate called", "Fatal", "Floating"))
    ):
        return Cause.EXCEPTION if _CRASHED.match(text) else None
    return None


def root_cause(failures: list[Failure]) -> Failure | None:
    """Return the failure that the others follow from: the first that is not a launcher's report."""
    for failure in failures:
        if not failure.of_launcher:
            return failure
    return failures[0] if failures else None
