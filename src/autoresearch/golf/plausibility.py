"""The checks of a finished run as plain functions: each takes values and returns what is wrong.

Rule ids are those of the guard's checklist: D2 one final result, D3 training clock, D5 evaluation
clock, D6 artifact, D7 reload, D8 validation data, D9 conservation of bytes, D10 gaps between the
stages, D11 plausibility. A ``warning`` is worth reading and never blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from attrs import frozen

from autoresearch.golf import ARTIFACT_BYTES, IMPLAUSIBLE_GAIN
from autoresearch.model import Violation

PUBLISHED_BYTES = 151_080_363
"""UTF-8 bytes of the 50,000 published validation documents, as every public SP1024 log implies."""

PUBLISHED_DOCUMENTS = 50_000
"""Documents in the published validation split; some logs print how many they scored."""

TOLERANCE = 0.005
"""Relative: honest exports with other vocabularies sit at -0.22 %, rounding stays under 0.05 %."""


@frozen(kw_only=True)
class Split:
    """One known export of validation text: scored ``tokens`` and the ``bytes`` they stand for."""

    name: str
    tokens: int
    bytes: int = PUBLISHED_BYTES

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that one scored token stands for on average."""
        return self.bytes / self.tokens


LAUNCH = Split(name="launch export", tokens=63_779_840, bytes=155_769_746)
"""The export that the very first public baseline was scored on; nobody can download it now."""

SPLITS = {
    "sp1024": Split(name="sp1024", tokens=62_021_632),
    "sp4096": Split(name="sp4096", tokens=45_508_608),
    "sp8192": Split(name="sp8192", tokens=40_540_160),
    "caseops": Split(name="caseops", tokens=47_851_520),
    "byte260": Split(name="byte260", tokens=151_130_112, bytes=151_080_113),
}

_SAME_COUNT = 0.0005  # sequence lengths and tails move a count by thousands, not by tens of them
_VARIANT = re.compile(r"(?<![a-z])(sp\d+|byte260)", re.IGNORECASE)


def is_published(dataset: str) -> bool:
    """Whether a dataset name or path says that it is FineWeb, the text of the challenge."""
    return "fineweb" in dataset.lower()


def named_split(dataset: str) -> Split | None:
    """Return the known split that a dataset name or path stands for, if there is one."""
    if not is_published(dataset):
        return None
    if "caseops" in dataset.lower():
        return SPLITS["caseops"]
    variant = _VARIANT.search(dataset)
    return SPLITS.get(variant[1].lower()) if variant else None


def split_of_count(tokens: int) -> Split | None:
    """Return the known split that has this many scored tokens, within 0.05 %."""
    for split in (LAUNCH, *SPLITS.values()):
        if abs(tokens - split.tokens) <= _SAME_COUNT * split.tokens:
            return split
    return None


def expected_bytes(dataset: str, tokens: int) -> int | None:
    """Return how many bytes `tokens` of `dataset` must stand for; None where it is unknown."""
    split = split_of_count(tokens)
    if split is not None:
        return split.bytes
    return PUBLISHED_BYTES if is_published(dataset) else None


Findings = tuple[Violation, ...]

ARTIFACT_LIMIT = ARTIFACT_BYTES
"""Bytes, decimal; an artifact has to stay under it (rule 1 of the challenge)."""

CLOCK_MS = 600_000
WARN_MS = 600_200
REJECT_MS = 601_000
"""One step over is normal: 1,307 of 2,661 public logs pass 600.0 s, only 40 pass 600.2 s."""

GAP_LIMIT = 0.06
SLIDING_GAP_LIMIT = 0.03
"""Bits per byte; honest sliding windows win 0.017 to 0.034 and honest test-time training 0.013."""

GAIN_LIMIT = IMPLAUSIBLE_GAIN
"""Bits per byte in one step; honest single changes win 0.0005 to 0.003."""

AUDITED_BEST = 1.0565
"""Bits per byte of the audited public leader; what claims much less needs a person's look."""

RELOAD_TOLERANCE = 1e-4


def broken(rule: str, detail: str) -> Findings:
    """Return one finding that blocks."""
    return (Violation(rule=rule, detail=detail),)


def doubt(rule: str, detail: str) -> Findings:
    """Return one finding that only warns."""
    return (Violation(rule=rule, detail=detail, severity="warning"),)


def implied_bytes(tokens: int, val_loss: float, val_bpb: float) -> float:
    """Return the bytes that make a loss in nats per token and a score in bits per byte agree."""
    return tokens * val_loss / (math.log(2) * val_bpb)


def conservation(
    tokens: int,
    val_loss: float,
    val_bpb: float,
    expected_bytes: int = PUBLISHED_BYTES,
    tolerance: float = TOLERANCE,
) -> Findings:
    """D9: the validation text has the same number of bytes whatever the model thinks of it."""
    if not (_positive(val_loss) and _positive(val_bpb) and tokens > 0 and expected_bytes > 0):
        return broken("D9", f"tokens {tokens}, loss {val_loss} and score {val_bpb} imply no bytes")
    implied = implied_bytes(tokens, val_loss, val_bpb)
    off = implied / expected_bytes - 1
    if abs(off) <= tolerance:
        return ()
    said = f"{tokens:,} tokens imply {implied:,.0f} validation bytes"
    return broken("D9", f"{said}, expected {expected_bytes:,} ({off:+.1%})")


def gap(earlier: float, final: float, *, stage: str = "earlier stages") -> Findings:
    """D10: a final score far below an earlier score of the same weights was not earned.

    The limit is 0.06 bpb, or 0.03 below a sliding window (`stage` "sliding"); for scores over 1.2
    it is 5 % (2.5 %), because a weak model has more to gain from context and adaptation.
    """
    if not (_positive(earlier) and _positive(final)):
        return broken("D10", f"no gap between {earlier} and {final}: expected two positive scores")
    base = SLIDING_GAP_LIMIT if stage == "sliding" else GAP_LIMIT
    limit = base * max(1.0, earlier / 1.2)
    if earlier - final <= limit:
        return ()
    return broken(
        "D10", f"final {final:.4f} is {earlier - final:.4f} below {stage} {earlier:.4f} "
        f"(plausible up to {limit:.3f})"
    )  # fmt: skip


def stage_gaps(
    final: float, *, sliding: float | None = None, others: Mapping[str, float] | None = None
) -> Findings:
    """D10 over every stage of one run: `others` are scores by stage name, before the final one."""
    found: Findings = ()
    if sliding is not None:
        found += gap(sliding, final, stage="sliding")
    if others and not found:
        name, lowest = min(others.items(), key=lambda item: item[1])
        found += gap(lowest, final, stage=name)
    return found


def beyond_audited(final: float) -> Findings:
    """D11 against the best audited public score, for a log that has no incumbent."""
    if AUDITED_BEST - final <= GAIN_LIMIT:
        return ()
    return broken("D11", f"{final:.4f} is far below the best audited score, {AUDITED_BEST}")


def training_clock(train_ms: float, *, step_ms: float = 0.0, cap_ms: float = CLOCK_MS) -> Findings:
    """D3: training ends within the cap; one step of overshoot is normal, a second is not."""
    over = train_ms - cap_ms
    if over > max(REJECT_MS - CLOCK_MS, 1.05 * step_ms):
        return broken("D3", f"trained {train_ms:,.0f} ms, expected at most {cap_ms:,.0f} ms")
    if over > max(WARN_MS - CLOCK_MS, 1.05 * step_ms):
        return doubt("D3", f"trained {train_ms:,.0f} ms, over the cap of {cap_ms:,.0f} ms")
    return ()


def evaluation_clock(eval_ms: float, *, cap_ms: float = CLOCK_MS) -> Findings:
    """D5: evaluation, compiling included, has its own 600 seconds."""
    if eval_ms <= cap_ms:
        return ()
    return broken("D5", f"evaluated for {eval_ms:,.0f} ms, expected at most {cap_ms:,.0f} ms")


def artifact(
    measured: int, *, logged: int | None = None, limit: int = ARTIFACT_LIMIT
) -> Findings:  # fmt: skip
    """D6: the bytes on disk are under the limit and equal what the log says, to the byte."""
    found: Findings = ()
    if measured >= limit:
        found += broken("D6", f"artifact of {measured:,} bytes, expected under {limit:,}")
    if logged is not None and logged != measured:
        found += broken("D6", f"the log says {logged:,} bytes, the files have {measured:,}")
    return found


def reload(val_bpb: float, reloaded: float | None) -> Findings:
    """D7: a fresh process that has only the artifact gets the same score within 1e-4."""
    if reloaded is None:
        return broken("D7", "the artifact was not scored again in a fresh process")
    if abs(val_bpb - reloaded) <= RELOAD_TOLERANCE:
        return ()
    return broken("D7", f"the reloaded artifact scores {reloaded:.6f}, the run said {val_bpb:.6f}")


def same_digests(reported: Mapping[str, str], expected: Mapping[str, str]) -> Findings:
    """D8: validation shards, tokenizer and code are the ones that the campaign began with."""
    found: Findings = ()
    for name, digest in expected.items():
        seen = reported.get(name)
        if seen != digest:
            shown = f"digest of {name} is {_short(seen)}, expected {_short(digest)}"
            found += broken("D8", shown)
    return found


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "absent"


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


# --- how many bytes an artifact has, as a log prints them ----------------------------------------

UNLABELLED_LIMIT = 16_500_000
"""Bytes; a bare "Total submission size" over this is the uncompressed checkpoint plus code."""

_COUNT = r"(\d[\d,_]{0,18})"
_LINE = re.compile(
    rf"(?P<what>Serialized model|Code size|Total submission size)\b(?P<label>[^:]{{0,60}}?)"
    rf"\s*:\s*(?P<bytes>{_COUNT})(?=\s*(?:bytes|B\b|$))",
    re.IGNORECASE,
)
_BUDGET = re.compile(rf"budget:{_COUNT}/{_COUNT}")
_ROUNDED = re.compile(r"artifact:(\d{1,9}(?:\.\d+)?)MB\b(?:\s+(\w+):)?.*?\bcode:(\d{1,12})")
_JOINED = re.compile(
    rf"(?:(?P<label>.{{1,40}}?) model\s*:\s*{_COUNT} bytes\s*\|\s*)?"
    rf"Total submission\s*:\s*(?P<bytes>{_COUNT})(?=\s*(?:bytes|B\b|$))",
    re.IGNORECASE,
)
_SUM = re.compile(
    r"(?P<label>\S{1,40}):\s*(\d{1,9}(?:\.\d+)?)MB model \+ (\d{1,9}(?:\.\d+)?)MB code\b"
)
_TRAILER = re.compile(rf"artifact_bytes\s*[:=]\s*{_COUNT}\s*$")


@frozen(kw_only=True)
class Size:
    """One printed size in bytes; `what` is model, code, total, budget, rounded or trailer."""

    what: str
    label: str
    bytes: int
    line: int = 0


_KINDS = {"serialized model": "model", "code size": "code", "total submission size": "total"}


def parse_size(text: str, line: int) -> Size | None:
    """Return the size that a line prints, or None."""
    found = _LINE.match(text)
    if found is not None:
        kind = _KINDS[found["what"].lower()]
        return Size(what=kind, label=found["label"].strip(), bytes=_int(found["bytes"]), line=line)
    if (joined := _JOINED.match(text)) is not None:
        return Size(
            what="total", label=joined["label"] or "", bytes=_int(joined["bytes"]), line=line
        )
    if (parts := _SUM.match(text.strip())) is not None:
        total = round((float(parts[2]) + float(parts[3])) * 1_000_000)
        label = f"{parts['label']} (MB rounded to 5 kB)"
        return Size(what="rounded", label=label, bytes=total, line=line)
    if (budget := _BUDGET.match(text)) is not None:
        return Size(what="budget", label="budget line", bytes=_int(budget[1]), line=line)
    if (rounded := _ROUNDED.match(text)) is not None:
        total = round(float(rounded[1]) * 1_000_000) + int(rounded[3])
        label = f"artifact:{rounded[2] or 'MB'} (MB rounded to 5 kB, plus code)"
        return Size(what="rounded", label=label, bytes=total, line=line)
    if (trailer := _TRAILER.match(text)) is not None:
        return Size(what="trailer", label="artifact_bytes", bytes=_int(trailer[1]), line=line)
    return None


def artifact_of(sizes: Sequence[Size]) -> Size | None:
    """Return the artifact's size: the last labelled total, else the best of what else there is."""
    for wanted in ("total", "budget", "trailer", "rounded"):
        found = [s for s in sizes if s.what == wanted and (s.label or wanted != "total")]
        if found:
            return found[-1]
    bare = [s for s in sizes if s.what == "total"]
    packed = [s.bytes for s in sizes if s.what == "model" and s.label]
    code = {s.bytes for s in sizes if s.what == "code"}
    for size in reversed(bare):  # what is the sum of the packed model and the code is the artifact
        if packed and size.bytes - packed[-1] in code:
            return size
    if bare and len({s.bytes for s in bare}) == 1 and bare[-1].bytes < UNLABELLED_LIMIT:
        return bare[-1]
    return None


def over_limit(sizes: Sequence[Size]) -> Findings:
    """D6 as far as a log can tell: the artifact that was counted is not under 16,000,000 bytes.

    Where packing the script could still bring it under, as one public entry did, it only warns.
    """
    artifact = artifact_of(sizes)
    if artifact is None or artifact.bytes < ARTIFACT_LIMIT:
        return ()
    detail = f"artifact of {artifact.bytes:,} bytes ({artifact.label or 'unlabelled'})"
    detail += f", expected under {ARTIFACT_LIMIT:,}"
    model = _model_bytes(sizes, artifact.label)
    if model is None or model + _packed_bytes(sizes) >= ARTIFACT_LIMIT:
        return broken("D6", detail)
    return doubt("D6", detail + "; a packed script might bring it under")


def packed_model(sizes: Sequence[Size]) -> int | None:
    """Return the bytes of the packed model alone, None where no line states them."""
    artifact = artifact_of(sizes)
    return _model_bytes(sizes, artifact.label) if artifact is not None else None


def hidden_payload(sizes: Sequence[Size]) -> int:
    """Return the bytes of the artifact that are neither the model nor the code, at least 0."""
    artifact = artifact_of(sizes)
    if artifact is None or artifact.what != "total":
        return 0
    model = _model_bytes(sizes, artifact.label)
    code = max((s.bytes for s in sizes if s.what == "code"), default=None)
    if model is None or code is None:
        return 0
    return max(0, artifact.bytes - model - code)


_SMALLEST_SCRIPT = 10_000  # bytes that the most tightly packed public scripts still take


def _model_bytes(sizes: Sequence[Size], label: str) -> int | None:
    same = [s.bytes for s in sizes if s.what == "model" and s.label == label]
    labelled = [s.bytes for s in sizes if s.what == "model" and s.label]
    chosen = same or labelled
    return chosen[-1] if chosen else None


def _packed_bytes(sizes: Sequence[Size]) -> int:
    """Return the size of the packed script, or the least that it could be packed to."""
    packed = [
        s.bytes
        for s in sizes
        if s.what == "code" and re.search(r"(?<!un)(?:compress|pack)ed", s.label)
    ]
    return packed[-1] if packed else _SMALLEST_SCRIPT


def _int(text: str) -> int:
    return int(re.sub(r"[,_]", "", text))
