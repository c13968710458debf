"""Text from outside cannot break a table, a note or a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.text import block, one_line, without_users

ATTACKS = {
    "colours": ("\x1b[31mred\x1b[0m alert", "red alert"),
    "window title ended by a bell": ("\x1b]0;owned\x07after", "after"),
    "link ended by a string terminator": ("\x1b]8;;http://x\x1b\\click", "click"),
    "unfinished sequence": ("before \x1b[", "before"),
    "eight-bit introducer": ("\x9b2Jcleared", "cleared"),
    "clear screen by short escape": ("\x1bcreset", "reset"),
    "bidirectional override": ("abc\u202efed", "abcfed"),
    "zero width": ("a\u200bb\ufeffc", "abc"),
    "line separators": ("a\u2028b\x85c\x0bd", "a b c d"),
    "tab and newline": ("a\tb\r\nc\nd", "a b c d"),
    "backspaces": ("safe\x08\x08\x08\x08evil", "safeevil"),
    "half a surrogate pair": ("a\ud800b", "ab"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_one_line_removes_whatever_a_terminal_would_obey(name: str) -> None:
    """No escape sequence, control or invisible character survives, and the words do."""
    dirty, clean = ATTACKS[name]
    assert one_line(dirty) == clean


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_one_line_is_printable_and_short(text: str, limit: int) -> None:
    """Whatever comes in, one printable line within the limit comes out."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """A text that was cleaned once is clean."""
    assert one_line(one_line(text)) == one_line(text)


@given(st.text(), st.integers(min_value=0, max_value=60))
def test_block_keeps_newlines_and_nothing_else_unseen(text: str, limit: int) -> None:
    """The only control character that a block may hold is the newline between its lines."""
    shown = block(text, limit)
    assert len(shown) <= limit
    assert all(c == "\n" or unicodedata.category(c) not in {"Cc", "Cf", "Cs"} for c in shown)


def test_block_keeps_lines_apart() -> None:
    """Lines stay lines, with every kind of line end and without trailing blanks."""
    assert block("one  \r\ntwo\rthree\n\n\tfour\x1b[0m\n\n") == "one\ntwo\nthree\n\n    four"


def test_a_long_text_ends_in_three_dots() -> None:
    """A reader can tell that something was left out."""
    assert one_line("word " * 100, 20) == "word word word wo..."
    assert one_line("x" * 10_000_000, 8) == "xxxxx..."
    assert one_line(" " * 10_000_000 + "x", 8) == "..."
    assert block("a\n" * 100, 10) == "a\na\na\na..."


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://user:pw@host/path", "https://***@host/path"),
        (
            "see http://token@host:8000/v1 and ftp://a:p@ss@h",
            "see http://***@host:8000/v1 and ftp://***@h",
        ),
        ("https://host/@user/post, mail a@b.c", "https://host/@user/post, mail a@b.c"),
        ("postgresql+psycopg://u:p@db", "postgresql+psycopg://***@db"),
        ("git@github.com:a/b", "git@github.com:a/b"),
    ],
)
def test_users_in_addresses_are_masked(text: str, safe: str) -> None:
    """A password that stands in an address reaches no log through a line or a block of text."""
    assert without_users(text) == safe
    assert one_line(text) == safe
    assert block(text) == safe
