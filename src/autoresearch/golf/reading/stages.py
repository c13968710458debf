"""What a metric's name says about the stage of the evaluation that it was measured at."""

from __future__ import annotations

import re
from enum import StrEnum

CANONICAL = "final_int8_zlib_roundtrip_exact"
"""The name that the challenge's own script prints its score under, and that many others keep."""


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
_BEGUN = re.compile(r"start|begin|warm|chunk|phase|\d+/\d+|running", re.IGNORECASE)
_OVER = re.compile(
    r"done|elapsed|complete|finish|disabled|skip|enabled\s*[:=]\s*(?:0|false)", re.IGNORECASE
)


def announced_stage(text: str) -> Stage | None:
    """Return the stage whose beginning or progress a line reports, if it reports one."""
    found = _ANNOUNCED.match(text.lstrip(" =-*>"))
    if found is None or not _BEGUN.search(text) or _OVER.search(text):
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
