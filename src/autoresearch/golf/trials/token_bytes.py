"""How many bytes of text tokens stand for, counted from the tokenizer and not by the script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from autoresearch.errors import DataError

_SPACE = "\u2581"  # SentencePiece writes a space in front of a word as this character
Ids = NDArray[np.int64]


@frozen(eq=False, kw_only=True)
class ByteTable:
    """For each id its bytes without a leading space, whether it has one, and whether it bounds."""

    base: NDArray[np.int64]
    leading: NDArray[np.bool_]
    boundary: NDArray[np.bool_]

    @property
    def vocabulary(self) -> int:
        """Number of ids of the tokenizer."""
        return len(self.base)

    def count(self, targets: Ids, previous: Ids) -> int:
        """Bytes of the targets, each after its previous token.

        The space in front of a word counts one byte, but not after a boundary: a control, unknown
        or unused piece, which stands for no text itself.
        """
        spaces = self.leading[targets] & ~self.boundary[previous]
        return int(self.base[targets].sum() + spaces.sum())


def byte_table(tokenizer: Path) -> ByteTable:
    """Read the table from a SentencePiece model; raises ``DataError`` where it is none."""
    try:
        import sentencepiece
    except ImportError:
        raise DataError("sentencepiece is missing: pip install 'autoresearch[train]'") from None
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    except (RuntimeError, OSError, TypeError):
        raise DataError(f"{tokenizer} is not a SentencePiece model: get the data again") from None
    size = int(pieces.vocab_size())
    base, leading, boundary = np.zeros(size, np.int64), np.zeros(size, bool), np.zeros(size, bool)
    for token in range(size):
        if pieces.is_control(token) or pieces.is_unknown(token) or pieces.is_unused(token):
            boundary[token] = True
        elif pieces.is_byte(token):
            base[token] = 1
        else:
            piece: str = pieces.id_to_piece(token)
            leading[token] = piece.startswith(_SPACE)
            base[token] = len(piece.removeprefix(_SPACE).encode("utf-8"))
    return ByteTable(base=base, leading=leading, boundary=boundary)
