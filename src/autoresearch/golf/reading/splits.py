"""What is publicly known about the validation splits that Parameter Golf is scored on."""

from __future__ import annotations

import re

from attrs import frozen

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
    """Return how many bytes `tokens` of `dataset` must stand for; None where nobody can know."""
    split = split_of_count(tokens)
    if split is not None:
        return split.bytes
    return PUBLISHED_BYTES if is_published(dataset) else None
