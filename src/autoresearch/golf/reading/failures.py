"""Signs in a log that a run failed, was stopped from outside, or ran out of time."""

from __future__ import annotations

import re
from enum import StrEnum

from attrs import define, field, frozen

from autoresearch.text import one_line


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
_CLOCK = re.compile(
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
        elif _CLOCK.search(text):
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
    ) and _CLOCK.search(text):  # fmt: skip
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
