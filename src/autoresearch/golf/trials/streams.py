"""The sealed texts of the canary: uniformly random tokens from a secret seed."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from autoresearch.golf.trials.token_bytes import ByteTable

Tokens = NDArray[np.int64]
SCORED = 16_384  # the allowance of T5 is then 0.002 bits a token
NARROW = 16  # ids of the narrow text: contexts recur in it, as a cache needs them to
DISTRIBUTIONS = 48
TRAINING = 40_000


@frozen(eq=False, kw_only=True)
class Streams:
    """``flipped`` equals ``base`` up to the token ``first``; ``shorter`` is a prefix of ``base``.

    ``narrow`` is uniform over a few ids only, ``asked`` are target indexes for distributions.
    """

    base: Tokens
    flipped: Tokens
    shorter: Tokens
    narrow: Tokens
    train: Tokens
    first: int
    asked: tuple[int, ...]
    alphabet: int

    @property
    def scored(self) -> int:
        """Targets of the base text."""
        return len(self.base) - 1


def draw_streams(seed: int, table: ByteTable, sequence: int, scored: int = SCORED) -> Streams:
    """Draw the texts for a tokenizer and a sequence length; the same seed draws the same ones.

    Texts are whole sequences plus the first input. The flip is in the middle of a sequence, so that
    tokens on both sides of it share a window.
    """
    rng = np.random.default_rng(seed)
    sequences = max(scored // sequence, 8)
    length = sequences * sequence + 1
    base = rng.integers(0, table.vocabulary, length)
    index = sequence * (sequences * 3 // 5) + sequence // 2
    flipped = base.copy()
    flipped[index + 1 :] = rng.integers(0, table.vocabulary, length - index - 1)
    flipped[index + 1] = (
        base[index + 1] + 1 + rng.integers(table.vocabulary - 1)
    ) % table.vocabulary
    others = rng.choice(sequences * sequence, size=DISTRIBUTIONS - 1, replace=False)
    ids = np.flatnonzero(table.base > 0)
    few = rng.choice(ids, size=min(NARROW, len(ids)), replace=False)
    return Streams(
        base=base,
        flipped=flipped,
        shorter=base[: (sequences * 5 // 8) * sequence + 1],
        narrow=rng.choice(few, size=length),
        train=rng.integers(0, table.vocabulary, TRAINING),
        first=index + 1,
        asked=tuple(sorted({int(i) for i in others} | {index - 1, index})),
        alphabet=len(few),
    )
