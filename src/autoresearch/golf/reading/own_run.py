"""The score of a run of ours: one machine-readable last line, and nothing else in the log.

The line is `autoresearch_result {json}`. It counts only when it is there exactly once, as the
last line that the run printed, and the run ended with exit status 0; everything else in the log
is evidence that the line is compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from attrs import define, field, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.golf.plausibility import Findings, broken, conservation, reload
from autoresearch.golf.reading.candidates import Candidate
from autoresearch.golf.reading.lines import Line, Source, bare, open_source, read_lines
from autoresearch.golf.reading.own_result import MARK, OwnResult, parse_result
from autoresearch.golf.reading.scan import Run, Scan, scan
from autoresearch.golf.reading.stages import CANONICAL
from autoresearch.model import Violation
from autoresearch.text import one_line

# Said by the launcher's client after the run's own output has ended.
_CLIENT = re.compile(
    r"\s*(?:✓|Stopping app\b|View (?:app|run)\b|Runner terminated\b|App completed\b)"
)
_SAME = 1e-8  # half a unit of the eighth decimal, twice: both sides were rounded


@frozen(kw_only=True)
class OwnReading:
    """A result or the reason why there is none; `violations` are disagreements inside the log."""

    result: OwnResult | None
    reason: str
    violations: tuple[Violation, ...] = ()


@define
class ResultWatch:
    """Passes lines through; remembers the result lines and the last line that says anything."""

    results: list[tuple[int, str]] = field(factory=list)
    last: int = 0

    def over(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Yield every line unchanged."""
        for line in lines:
            if line.text and not line.text.isspace() and not _CLIENT.match(line.text):
                self.last = line.number
                if MARK in line.text:
                    self._remember(line)
            yield line

    def result(self) -> OwnResult:
        """Return the one result of the output that was watched.

        Raises AutoresearchError, with the reason, where there is no such line, more than one, one
        that is not the last line, or one that is not a valid result.
        """
        if not self.results:
            raise AutoresearchError(f"the output has no line `{MARK} {{json}}`")
        if len(self.results) > 1:
            lines = ", ".join(str(number) for number, _ in self.results[:5])
            count = len(self.results)
            raise AutoresearchError(f"{count} result lines ({lines}), expected exactly one")
        number, text = self.results[0]
        if number != self.last:
            raise AutoresearchError(
                f"the result stands in line {number}, expected it in the last line, {self.last}"
            )
        return parse_result(text)

    def _remember(self, line: Line) -> None:
        text = bare(line.text).strip()
        if text.startswith(MARK + " {"):
            self.results.append((line.number, text.removeprefix(MARK).strip()))
            del self.results[1000:]


def read_result(source: Source, exit_code: int | None) -> OwnReading:
    """Read the result of a run of ours from its output: a path, or the text itself.

    `exit_code` is the launcher's word; None means that nobody knows it, and then nothing counts.
    Raises AutoresearchError where there is no such file.
    """
    watch = ResultWatch()
    with open_source(source) as stream:
        scanned = scan(watch.over(read_lines(stream)))
    if exit_code != 0:
        said = "unknown" if exit_code is None else str(exit_code)
        return OwnReading(result=None, reason=f"exit status {said}, expected 0")
    try:
        result = watch.result()
    except AutoresearchError as error:
        return OwnReading(result=None, reason=one_line(str(error), 300))
    return OwnReading(result=result, reason="", violations=cross_check(result, scanned))


def cross_check(result: OwnResult, scanned: Scan) -> Findings:
    """Compare a result with the challenge's own lines in the same log; each difference counts."""
    run = scanned.last
    found: Findings = _one_run(scanned)
    found += _canonical_pair(result, run)
    found += _sizes(result, run)
    for rule, name, key in _STATED:
        stated, value = run.all_facts.get(key), getattr(result, name)
        slack = 1 if name == "train_time_ms" else 0  # the log rounds to whole milliseconds
        if stated is not None and abs(float(stated) - value) > slack:
            found += _differs(rule, name, stated, value)
    found += conservation(
        result.val_tokens, result.val_loss, result.val_bpb, result.val_bytes, tolerance=1e-6
    )
    if result.reload_val_bpb is not None:
        found += reload(result.val_bpb, result.reload_val_bpb)
    return found


_STATED = (
    ("D8", "val_tokens", "val_tokens"),
    ("D2", "model_params", "model_params"),
    ("D2", "seed", "seed"),
    ("D2", "world_size", "world_size"),
    ("D3", "steps", "stop_step"),
    ("D3", "train_time_ms", "stop_ms"),
)


def _one_run(scanned: Scan) -> Findings:
    if len(scanned.runs) <= 1:
        return ()
    return broken("D2", f"{len(scanned.runs)} runs in one log, expected exactly one")


def _canonical_pair(result: OwnResult, run: Run) -> Findings:
    short = [c for c in run.candidates if c.name == CANONICAL.removesuffix("_exact")]
    exact = [c for c in run.candidates if c.name == CANONICAL]
    if len(short) != 1 or len(exact) != 1:
        counted = f"{len(short)} and {len(exact)} lines of the canonical pair"
        return broken("D2", f"{counted}, expected one of each")
    return (*_same_score(result, short[0], 0.000_050_1), *_same_score(result, exact[0], _SAME))


def _same_score(result: OwnResult, line: Candidate, tolerance: float) -> Findings:
    loss = line.val_loss if line.val_loss is not None else math.nan
    apart = max(abs(line.val_bpb - result.val_bpb), abs(loss - result.val_loss))
    if apart <= tolerance:
        return ()
    shown = f"val_loss {loss} and val_bpb {line.val_bpb}"
    return broken(
        "D2", f"{line.name} says {shown}, the result says {result.val_loss} and {result.val_bpb}"
    )


def _sizes(result: OwnResult, run: Run) -> Findings:
    found: Findings = ()
    if result.code_bytes + result.model_bytes != result.artifact_bytes:
        total = result.code_bytes + result.model_bytes
        found += _differs("D6", "artifact_bytes", f"{total} (code + model)", result.artifact_bytes)
    stated = {(s.what, s.label): s.bytes for s in run.sizes}
    for key, name in (
        (("total", "int8+zlib"), "artifact_bytes"),
        (("model", "int8+zlib"), "model_bytes"),
        (("code", ""), "code_bytes"),
    ):
        if key in stated and stated[key] != getattr(result, name):
            found += _differs("D6", name, stated[key], getattr(result, name))
    return found


def _differs(rule: str, name: str, stated: object, value: object) -> Findings:
    return broken(rule, f"the log says {name} {stated}, the result says {value}")
