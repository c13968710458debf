"""The score of the project's own script: one machine-readable last line, and nothing else.

The line is `autoresearch_result {json}`. It counts only when it is there exactly once, as the
last line that the run printed, and the run ended with exit status 0; everything else in the log
is evidence that the line is compared with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import attrs
from attrs import define, field, frozen

from autoresearch.errors import AutoresearchError
from autoresearch.golf.plausibility import Findings, broken, conservation, reload
from autoresearch.golf.reading.grammar import CANONICAL, Candidate
from autoresearch.golf.reading.scan import Line, Run, Scan, bare
from autoresearch.text import one_line

MARK = "autoresearch_result"
SCHEMA = 1

# Said by the launcher's client after the run's own output has ended.
_CLIENT = re.compile(
    r"\s*(?:✓|Stopping app\b|View (?:app|run)\b|Runner terminated\b|App completed\b)"
)
_SAME = 1e-8  # half a unit of the eighth decimal, twice: both sides were rounded


@frozen(kw_only=True)
class OwnResult:
    """What the script measured: losses in nats per token, scores in bits per byte, times in ms.

    `reload_val_bpb` is None where the script was told not to score its artifact again.
    """

    val_bpb: float
    val_loss: float
    val_tokens: int
    val_bytes: int
    artifact_bytes: int
    code_bytes: int
    model_bytes: int
    model_params: int
    steps: int
    train_time_ms: float
    eval_time_ms: float
    seed: int
    world_size: int
    val_digest: str
    tokenizer_digest: str
    code_digest: str
    artifact_digest: str
    script_stage: str
    hardware: str
    dtype: str
    versions: Mapping[str, str]
    reload_val_bpb: float | None
    data_dir: str
    train_shards: int
    schema: int = SCHEMA

    def metrics(self) -> dict[str, float]:
        """Return the measured numbers by name; a number that was not measured is left out."""
        return {
            name: value
            for name, value in attrs.asdict(self, recurse=False).items()
            if type(value) in (int, float) and name not in ("schema", "seed", "world_size")
        }


def parse_result(text: str) -> OwnResult:
    """Return the result that the JSON after the mark states.

    Raises AutoresearchError for broken JSON, another schema, a missing or mistyped value, a
    number that is not finite, or a key that is there twice.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise AutoresearchError(f"the result line is not valid JSON: {error}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise AutoresearchError(f"the result line has another schema than {SCHEMA}")
    return OwnResult(**{item.name: _typed(item, values) for item in attrs.fields(OwnResult)})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _typed(item: attrs.Attribute[Any], values: Mapping[str, Any]) -> Any:
    name, kind = item.name, str(item.type)
    if name not in values:
        raise AutoresearchError(f"the result line has no {name}")
    value = values[name]
    good = {
        "int": type(value) is int and 0 <= value < 2**63,
        # A loss or a score of zero is none; a time may be.
        "float": _finite(value) and value >= 0 and not (name.startswith("val_") and value == 0),
        "float | None": value is None or (_finite(value) and value > 0),
        "str": isinstance(value, str),
    }
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if not good.get(kind, texts):
        raise AutoresearchError(
            f"the result line has {name} {str(value)[:60]!r}, not a valid value"
        )
    return one_line(value, 200) if kind == "str" else value


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]


class Outcome(StrEnum):
    """What a log says of the result line: it counts, there is none, or why it does not count."""

    RESULT = "result"
    ABSENT = "absent"
    REFUSED = "refused"
    FAILED = "failed"


@frozen(kw_only=True)
class OwnReading:
    """A result, or why there is none; `violations` are disagreements inside the log."""

    outcome: Outcome
    result: OwnResult | None = None
    reason: str = ""
    violations: Findings = ()


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

        Raises AutoresearchError, with the reason, where there is more than one result line, one
        that is not the last line, or one that is not a valid result.
        """
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


def own_reading(watch: ResultWatch, scanned: Scan, exit_code: int | None) -> OwnReading:
    """Read the result of the watched output.

    `exit_code` is the launcher's word; None means that it is unknown, and then nothing counts.
    """
    if exit_code != 0:
        said = "unknown" if exit_code is None else str(exit_code)
        return OwnReading(outcome=Outcome.FAILED, reason=f"exit status {said}, expected 0")
    if not watch.results:
        reason = f"the output has no line `{MARK} {{json}}`"
        return OwnReading(outcome=Outcome.ABSENT, reason=reason)
    try:
        result = watch.result()
    except AutoresearchError as error:
        return OwnReading(outcome=Outcome.REFUSED, reason=one_line(str(error), 300))
    found = cross_check(result, scanned)
    return OwnReading(outcome=Outcome.RESULT, result=result, violations=found)


def cross_check(result: OwnResult, scanned: Scan) -> Findings:
    """Compare a result with the challenge's own lines in the same log; each difference counts."""
    run, runs = scanned.last, len(scanned.runs)
    found = broken("D2", f"{runs} runs in one log, expected exactly one") if runs > 1 else ()
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


def _canonical_pair(result: OwnResult, run: Run) -> Findings:
    short = [c for c in run.candidates if c.name == CANONICAL.removesuffix("_exact")]
    exact = [c for c in run.candidates if c.name == CANONICAL]
    if len(short) != 1 or len(exact) != 1:
        counted = f"{len(short)} and {len(exact)} lines of the canonical pair"
        return broken("D2", f"{counted}, expected one of each")
    return (*_same_score(result, short[0], 0.000_050_1), *_same_score(result, exact[0], _SAME))


def _same_score(result: OwnResult, line: Candidate, tolerance: float) -> Findings:
    loss = line.val_loss if line.val_loss is not None else math.nan
    if max(abs(line.val_bpb - result.val_bpb), abs(loss - result.val_loss)) <= tolerance:
        return ()
    shown = f"val_loss {loss} and val_bpb {line.val_bpb}"
    return broken(
        "D2", f"{line.name} says {shown}, the result says {result.val_loss} and {result.val_bpb}"
    )


def _sizes(result: OwnResult, run: Run) -> Findings:
    found: Findings = ()
    total = result.code_bytes + result.model_bytes
    if total != result.artifact_bytes:
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
