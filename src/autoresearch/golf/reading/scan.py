"""One pass over a log of any size, encoding and state: what each run in it said, unjudged.

A line is numbered by its newline, as editors do. Progress that overwrites itself with carriage
returns gives several pieces with one number. Memory is bounded: of a piece longer than 64 KiB
only the beginning is kept.
"""

from __future__ import annotations

import codecs
import io
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from attrs import define, field

from autoresearch.errors import AutoresearchError, why
from autoresearch.golf.plausibility import Size, parse_size
from autoresearch.golf.reading.grammar import (
    Candidate,
    FailureReader,
    Stage,
    TrainLine,
    Validation,
    announced_stage,
    claims_score,
    enabled_stage,
    parse_candidate,
    parse_summary,
    parse_training,
)
from autoresearch.text import encoding_of, without_escapes

Source = Path | str | bytes

LONGEST = 65_536
_BLOCK = 1 << 20

# What loggers, launchers and job systems put in front: a time, a rank, a stream, a level.
_PREFIX = re.compile(
    r"""(?:
      \[?\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?
    | \[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?
    | \d{10}(?:\.\d+)?
    | \[(?:default)?rank\ ?\d+\]:?
    | rank\ ?\d+:
    | \[\d+,\d+\]<std(?:out|err)>:?
    | std(?:out|err)\ [FP]
    | \(\w[\w.\- ]*pid=\d+(?:,[^)]{0,60})?\)
    | [\w.\-]{1,40}\ +\|(?=\ )
    | \d{1,7}:(?=[A-Za-z\ ])
    | \[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\]?(?:\ -|:)?(?=\ )
    | \[(?:eval|evaluation|final|result)\](?=\ )
    )[ \t]?[-|]?[ \t]?""",
    re.VERBOSE,
)
# What a prefix that starts with a letter starts with, for a quick no to nearly every line.
_WORDS = ("rank", "std", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Line(NamedTuple):
    """One printed line: its 1-based ``number``, its text, and whether a newline ended it."""

    number: int
    text: str
    ended: bool = True


def open_source(source: Source) -> BinaryIO:
    """Open a path, or the text itself: bytes, or a string that has more than one line.

    Raises AutoresearchError where a one-line string or a path names no readable file.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str) and ("\n" in source or "\r" in source or not source):
        return io.BytesIO(source.encode("utf-8", "surrogatepass"))
    try:
        return Path(source).open("rb")
    except (OSError, ValueError) as error:
        raise AutoresearchError(
            f"cannot read the log {str(source)[:200]!r}: {why(error)}; give the path of a log file"
        ) from error


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a stream as text; a broken byte becomes a replacement character."""
    number, held, skipping = 1, "", False
    for text in _decoded(stream):
        rows = (held + text).split("\n")
        held = rows.pop()
        for row in rows:
            yield from _pieces(number, row, from_middle=skipping)
            number, skipping = number + 1, False
        if len(held) > LONGEST:
            before, _, held = held.rpartition("\r")
            yield from _pieces(number, before, from_middle=skipping, ended=False)
            skipping = skipping and not before
            if len(held) > LONGEST:
                yield from _pieces(number, held, from_middle=skipping, ended=False)
                held, skipping = "", True
    if held:
        yield from _pieces(number, held, from_middle=skipping, ended=False)


def bare(text: str) -> str:
    """Return a line without escapes and without the times, ranks and levels in front of it."""
    text = without_escapes(text)
    if text[:1].isalpha() and not text.startswith(_WORDS) and "|" not in text[:45]:
        return text
    for _ in range(4):
        found = _PREFIX.match(text)
        if found is None:
            break
        text = text[found.end() :]
    return text


def _decoded(stream: BinaryIO) -> Iterator[str]:
    head = stream.read(_BLOCK)
    decoder = codecs.getincrementaldecoder(encoding_of(head))("replace")
    while head:
        yield decoder.decode(head)
        head = stream.read(_BLOCK)
    yield decoder.decode(b"", True)


def _pieces(number: int, row: str, *, from_middle: bool, ended: bool = True) -> Iterator[Line]:
    if "\r" not in row:
        if not from_middle:
            yield Line(number, row[:LONGEST], ended)
        return
    pieces = row.removesuffix("\r").split("\r")
    for piece in pieces[1:] if from_middle else pieces:
        yield Line(number, piece[:LONGEST], ended)


TAIL_LINES = 20
_SIZES = ("ize", "artifact", "budget:", "ubmission", "MB model")  # a line with a size has one
_MOST = 10_000  # of candidates, sizes and validations; of more, the older half is forgotten
_Item = TypeVar("_Item")


@define
class Run:
    """Everything that one run in a log printed, collected line by line."""

    start: int = 0
    candidates: list[Candidate] = field(factory=list)
    validations: list[Validation] = field(factory=list)
    train_text: str = ""
    train_losses: deque[TrainLine] = field(factory=lambda: deque(maxlen=4000))
    sizes: list[Size] = field(factory=list)
    failures: FailureReader = field(factory=FailureReader)
    facts: dict[str, str] = field(factory=dict)
    inherited: dict[str, str] = field(factory=dict)
    switched: dict[Stage, bool] = field(factory=dict)
    announced: list[tuple[int, Stage]] = field(factory=list)
    unread: list[int] = field(factory=list)
    summary: tuple[int, float] | None = None
    eval_mode: Stage | None = None
    last_step: int | None = None
    body_end: int = 0
    train_time_ms: float | None = None
    not_a_number: int | None = None
    appendix: int | None = None
    headers: set[str] = field(factory=set)

    @property
    def all_facts(self) -> dict[str, str]:
        """What the run said, and where it said nothing, what stood in the log before it began."""
        return {**self.inherited, **self.facts}

    @property
    def step_ms(self) -> float:
        """The average time of a step in milliseconds, 0 where no line said it."""
        found = re.search(r"step_avg:\s*(\d+(?:\.\d+)?)ms", self.train_text)
        return float(found[1]) if found else 0.0

    @property
    def has_body(self) -> bool:
        """Whether anything was trained or scored yet."""
        return self.last_step is not None or bool(self.candidates)


@define
class Scan:
    """The runs of a log in order; the first one collects what stands before any run began."""

    preamble: Run = field(factory=Run)
    runs: list[Run] = field(factory=list)
    tail: deque[str] = field(factory=lambda: deque(maxlen=TAIL_LINES))
    lines: int = 0

    @property
    def last(self) -> Run:
        """The run that counts: the last, or all there is where no run ever began."""
        return self.runs[-1] if self.runs else self.preamble


_STARTS = re.compile(
    r"(val_bpb:enabled|train_loader:dataset|-* ?Hyperparameters|train_shards:|"
    r"warmup(?:_step)?: ?1/)"
)
_MAY_START = ("val_bpb:", "train_", "-", "Hyper", "warmup", "step", "0/", "1/", " ")
_FIRST_STEP = re.compile(r"(?:step[: ])?\s*[01]/\d+\s+(?:val_|train_)?loss")
_FACTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("dataset", re.compile(r"^train_loader:dataset:(\S+)")),
    ("dataset", re.compile(r"^\s{0,8}datasets_dir\s*:\s*(\S+)")),
    ("dataset", re.compile(r"\bdata_path=(\S+)")),
    ("val_path", re.compile(r"^\s{0,8}val_files\s*:\s*(\S+)")),
    ("val_path", re.compile(r"^val_loader:shards pattern=(\S+)")),
    ("val_tokens", re.compile(r"^val_loader:.*\btokens:(\d{1,15})(?!\d)")),
    ("val_tokens", re.compile(r"^val_tokens\s*[:=]\s*(\d[\d,]{0,18})\s*$")),
    ("model_params", re.compile(r"^(?:model_)?params\s*[:=]\s*(\d{1,15})(?!\d)")),
    ("model_params", re.compile(r"^.{0,40}\| params:(\d{1,15})(?!\d)")),
    ("world_size", re.compile(r"\b(?:world_size\s*|ws):\s*(\d{1,9})(?!\d)")),
    ("cap", re.compile(r"\bmax_wallclock_seconds\s*[:=]\s*(\d{1,15}(?:\.\d{1,9})?)")),
    ("seed", re.compile(r"^\s{0,8}seed\s*:\s*(\d{1,15})\s*$")),
    ("documents", re.compile(r"^ttt_phased:.*\btotal_docs:(\d{1,15})(?!\d)")),
    ("mtp", re.compile(r"\bmtp_num_heads:([1-9]\d{0,9})")),
    ("paid_prefix", re.compile(r"\bpaid_\w{0,40}(?:bytes|tokens)\s*[:=]\s*([1-9]\d{0,15})")),
    ("stop_step", re.compile(r"^stopping_early:.*?\bstep:\s*(\d{1,15})(?!\d)")),
    ("stop_ms", re.compile(r"^stopping_early:.*?\btrain_time:\s*(\d{1,15}(?:\.\d{1,9})?)ms")),
)
# Settings are said at the beginning; what a later stage says about its own part is not the run's.
_FIRST = {"dataset", "val_path", "val_tokens", "model_params", "world_size", "cap", "seed"}


def scan(lines: Iterable[Line]) -> Scan:
    """Collect what a log says; linear in its length, with bounded memory."""
    result = Scan()
    for line in lines:
        result.lines = line.number
        text = bare(line.text)
        if text.strip():
            result.tail.append(line.text[:400])
        _enter_run(result, text, line.number)
        _read(result.last, text, line)
    return result


def _enter_run(result: Scan, text: str, number: int) -> None:
    if not text.startswith(_MAY_START):
        return
    found = _STARTS.match(text)
    kind = found[1] if found else ("first step" if _FIRST_STEP.match(text) else "")
    if not kind:
        return
    current = result.runs[-1] if result.runs else None
    if current is not None and _same_run(current, kind):
        current.headers.add(kind)
        return
    started = Run(start=number, headers={kind})
    before = result.preamble if current is None else current
    if current is None or kind == "first step":  # steps that begin again print no settings again
        started.inherited, started.switched = before.all_facts, dict(before.switched)
    result.runs.append(started)


def _same_run(run: Run, kind: str) -> bool:
    if kind == "first step":
        return run.last_step is None or run.last_step <= 1
    if kind.startswith("warmup"):
        return not run.has_body
    return not run.has_body and kind not in run.headers


def _read(run: Run, text: str, line: Line) -> None:
    run.failures.read(text, line.number)
    if "loss" in text and _read_training(run, text, line):
        return
    if "bpb" in text and run.appendix is None:
        _read_score(run, text, line)
    if any(word in text for word in _SIZES):
        size = parse_size(text, line.number)
        if size is not None:
            _keep(run.sizes, size)
    if ":" in text or "=" in text:
        _read_facts(run, text)
    _read_stage(run, text, line.number)


def _read_training(run: Run, text: str, line: Line) -> bool:
    seen = parse_training(text, line.number)
    if seen is None:
        return False
    run.last_step, run.body_end = seen.step, line.number
    if seen.train_time_ms is not None:
        run.train_time_ms = seen.train_time_ms
    if isinstance(seen, TrainLine):
        loss, run.train_text = seen.loss, text
        run.train_losses.append(seen)
    else:
        loss = seen.val_loss
        _keep(run.validations, seen)
    if math.isfinite(loss):
        run.not_a_number = None
    elif run.not_a_number is None:
        run.not_a_number = line.number
    return True


def _read_score(run: Run, text: str, line: Line) -> None:
    summary = parse_summary(text) if "val_bpb" in text else None
    if summary is not None:
        run.summary = (line.number, summary)
        return
    candidate = parse_candidate(text.strip(), line.number, ended=line.ended)
    known = candidate is not None and candidate.stage.is_final
    if line.ended and not known and claims_score(text):
        _keep(run.unread, line.number)
    if candidate is not None:
        _keep(run.candidates, _at_true_stage(run, candidate))
        run.body_end = line.number


def _at_true_stage(run: Run, candidate: Candidate) -> Candidate:
    """See through an old name that was kept for the score of a later stage."""
    if not candidate.stage.is_final:
        return candidate
    if candidate.stage is Stage.ROUNDTRIP and run.eval_mode is not None:
        return candidate.at_stage(run.eval_mode)
    same = (other.stage for other in run.candidates[-20:] if other.agrees_with(candidate))
    return candidate.at_stage(max([candidate.stage, *same], key=lambda stage: stage.rank))


def _keep(items: list[_Item], item: _Item) -> None:
    items.append(item)
    if len(items) > _MOST:
        del items[: _MOST // 2]


def _read_facts(run: Run, text: str) -> None:
    if not _may_state(text):
        return
    for name, pattern in _FACTS:
        found = pattern.search(text)
        if found is not None and not (run.start and name in _FIRST and name in run.facts):
            run.facts[name] = found[1].replace(",", "")


def _may_state(text: str) -> bool:
    # A fact's line holds one of these; nearly every line holds none and is not looked at again.
    return (
        "params" in text or "val_" in text or "data" in text or "world_size" in text
        or "ws:" in text or "wallclock" in text or "seed" in text or "total_docs" in text
        or "mtp_num" in text or "paid_" in text
    )  # fmt: skip


def _read_stage(run: Run, text: str, number: int) -> None:
    switched = enabled_stage(text) if "_enabled" in text else None
    if switched is not None:
        run.switched[switched[0]] = switched[1]
    elif text.startswith("final_eval_mode:"):
        run.eval_mode = Stage.SLIDING if "sliding" in text else Stage.TTT if "ttt" in text else None
    elif run.candidates:
        if run.appendix is None and text.startswith(("# ", "## ", "### ", "```")):
            run.appendix = number
        stage = announced_stage(text) if len(text) < 2000 else None
        if stage is not None:
            _keep(run.announced, (number, stage))
