"""The SentencePiece model of a local data set: training it, encoding with it, counting bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import sentencepiece as spm
from console import DataError
from numpy.typing import NDArray
from shards import Tokens

PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)
MAX_LINE_BYTES = 4192  # SentencePiece's default max_sentence_length
SPACE = "\u2581"  # SentencePiece's visible space
ONLY_WARNINGS = 1


def train(lines: Iterable[str], vocab_size: int) -> bytes:
    """Train a byte-fallback BPE model with the challenge's settings; returns the model file.

    The vocabulary limit is soft: little text gives fewer pieces. The number of threads is left
    alone because SentencePiece stores it in the model.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="nfkc",
            add_dummy_prefix=False,
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            hard_vocab_limit=False,
            minloglevel=ONLY_WARNINGS,
        )
    except RuntimeError as error:
        raise DataError(
            f"no tokenizer of {vocab_size} pieces from this text ({error});"
            " change --vocab-size or give more text"
        ) from error
    return model.getvalue()


@dataclass(frozen=True, slots=True)
class ByteTables:
    """How many bytes of text each token stands for, as the challenge's score counts them."""

    base: NDArray[np.int16]
    leading_space: NDArray[np.bool_]
    boundary: NDArray[np.bool_]

    def count(self, tokens: Tokens) -> int:
        """Bytes of every token but the first, which is only context.

        A leading space counts one byte unless the previous token is a boundary.
        """
        previous, current = tokens[:-1], tokens[1:]
        spaces = self.leading_space[current] & ~self.boundary[previous]
        return int(self.base[current].sum(dtype=np.int64)) + int(spaces.sum())


class Tokenizer:
    """A trained model that turns documents into tokens."""

    def __init__(self, model: bytes) -> None:
        self._processor = spm.SentencePieceProcessor(model_proto=model)
        self.vocab_size = int(self._processor.vocab_size())

    def encode(self, texts: list[str], workers: int) -> list[Tokens]:
        """Encode each text as BOS and its tokens, no EOS, on `workers` threads."""
        encoded = self._processor.encode(texts, out_type=int, num_threads=workers)
        return [np.array([BOS_ID, *ids], dtype=np.uint16) for ids in encoded]

    def vocabulary(self) -> str:
        """Return the text of the `.vocab` file: piece, tab, score, one line a piece."""
        pieces = range(self.vocab_size)
        scores = ((self._processor.id_to_piece(i), self._processor.get_score(i)) for i in pieces)
        return "".join(f"{piece}\t{score:g}\n" for piece, score in scores)

    def byte_tables(self) -> ByteTables:
        """Build the byte tables of the challenge's score from the model's pieces."""
        base = np.zeros(self.vocab_size, dtype=np.int16)
        leading_space = np.zeros(self.vocab_size, dtype=np.bool_)
        boundary = np.ones(self.vocab_size, dtype=np.bool_)
        for token in range(self.vocab_size):
            if self._is_silent(token):
                continue
            piece = self._processor.id_to_piece(token)
            boundary[token] = False
            leading_space[token] = piece.startswith(SPACE)
            is_byte = self._processor.is_byte(token)
            base[token] = 1 if is_byte else len(piece.removeprefix(SPACE).encode())
        return ByteTables(base, leading_space, boundary)

    def _is_silent(self, token: int) -> bool:
        processor = self._processor
        silent = (processor.is_control, processor.is_unknown, processor.is_unused)
        return any(test(token) for test in silent)
