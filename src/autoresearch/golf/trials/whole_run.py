"""The score that a whole run printed, read from its output for the canary."""

from __future__ import annotations

import json
import math
import re

from attrs import frozen

_PAIR = re.compile(r"val_loss:\s*([-+.\w]+)\s+val_bpb:\s*([-+.\w]+)")
_RESULT = "autoresearch_result "


@frozen(kw_only=True)
class WholeScore:
    """Nats a token and bits a byte; ``val_bytes`` only where the script states it."""

    val_loss: float
    val_bpb: float
    val_bytes: int | None = None


def read_score(output: str) -> WholeScore | None:
    """The last score of an output: of the result line where there is one, else of a printed pair.

    None where there is neither, or where it is no number.
    """
    lines = output.splitlines()
    for line in reversed(lines):
        if line.startswith(_RESULT):
            return _from_json(line.removeprefix(_RESULT))
    found = [match for line in lines if (match := _PAIR.search(line))]
    return _score(found[-1][1], found[-1][2], None) if found else None


def _from_json(text: str) -> WholeScore | None:
    try:
        values = json.loads(text)
        return _score(values["val_loss"], values["val_bpb"], int(values["val_bytes"]))
    except (ValueError, KeyError, TypeError):
        return None


def _score(loss: object, bpb: object, val_bytes: int | None) -> WholeScore | None:
    try:
        score = WholeScore(val_loss=float(str(loss)), val_bpb=float(str(bpb)), val_bytes=val_bytes)
    except ValueError:
        return None
    return score if math.isfinite(score.val_loss + score.val_bpb) else None
