"""A tokenizer of the kind that the challenge has, and far smaller."""

from __future__ import annotations

import random
from pathlib import Path


def small_tokenizer(folder: Path) -> Path:
    """Train a SentencePiece model of 512 pieces with byte pieces on invented words."""
    import sentencepiece as spm

    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz\u00e9\u00fc"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(400)]
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(500)))
    spm.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "words"), vocab_size=512, model_type="bpe",
        byte_fallback=True, add_dummy_prefix=False, pad_id=0, bos_id=1, eos_id=2, unk_id=3,
        minloglevel=2,
    )  # fmt: skip
    return folder / "words.model"
