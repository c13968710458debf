"""Which documents are held out, and how their lines reach the tokenizer."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = st.lists(st.text(max_size=30), max_size=30)


@given(texts=TEXTS, more=TEXTS, fraction=st.floats(0.05, 0.95))
def test_adding_documents_never_moves_one_between_the_splits(
    documents: Any, texts: list[str], more: list[str], fraction: float
) -> None:
    """The split depends on each document alone."""
    few = documents.from_texts(texts)
    many = documents.from_texts([*more, *texts])
    held = {document for document in many if documents.held_out(document, fraction)}
    assert {d for d in few if documents.held_out(d, fraction)} == held & set(few)


@given(texts=TEXTS, fraction=st.floats(0.05, 0.95))
def test_held_out_documents_come_first(documents: Any, texts: list[str], fraction: float) -> None:
    """The order is by digest, so validation is the head of the list whatever the input order."""
    ordered = documents.from_texts(texts)
    held = [documents.held_out(document, fraction) for document in ordered]
    assert held == sorted(held, reverse=True)
    assert ordered == documents.from_texts(reversed(texts))


@settings(max_examples=50)
@given(texts=TEXTS, limit=st.integers(4, 40))
def test_cut_lines_fit_and_lose_nothing_but_spaces(
    documents: Any, texts: list[str], limit: int
) -> None:
    """No line exceeds the limit in bytes, and all other characters stay in order."""
    ordered = documents.from_texts(texts)
    lines = list(documents.training_lines(ordered, limit))
    assert all(0 < len(line.encode()) <= limit for line in lines)
    whole = "".join("".join(document.text.split()) for document in ordered)
    assert "".join("".join(line.split()) for line in lines) == whole
