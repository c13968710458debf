"""How many bytes an artifact has: as a log prints it, and as its shape lets it be estimated."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from autoresearch.golf.plausibility import ARTIFACT_LIMIT, Findings, broken, doubt

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
