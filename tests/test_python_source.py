"""One question, whether a text is a Python script, has one answer everywhere."""

from __future__ import annotations

import ast

import libcst
import pytest

from autoresearch.python_source import fault, tree

BROKEN = {
    "a word too many": ("x = 1\nx x\n", "invalid syntax", 2),
    "a null byte": ("x = 1\0", "null", None),
    "an endless expression": ("(" * 5000 + ")" * 5000, "", None),
    "endless signs": ("x = " + "-" * 50_000 + "1\nx x\n", "", None),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_python_refuses_is_told_with_its_line(what: str) -> None:
    """A script that does not compile has a reason, and no tree."""
    source, said, line = BROKEN[what]
    found = fault(source)
    assert found is not None
    assert said in found.message
    assert line is None or found.line == line
    assert tree(source) is None


def test_a_warning_is_the_scripts_own_affair() -> None:
    """An odd escape is no fault, and nobody is warned of it: here a warning would be an error."""
    assert fault('x = "\\d"\n') is None
    assert tree('x = "\\d"\n') is not None


def test_a_file_may_have_a_mark_and_a_coding_line() -> None:
    """As a file a text may begin with a byte order mark; as text in memory it may not."""
    assert fault("\ufeffx = 1\n", as_file=True) is None
    assert fault("# coding: nothing\nx = 1\n", as_file=True) is not None
    assert fault("x = '\ud800'\n", as_file=True) is not None


def test_a_text_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for its tree, a script that this Python reads is not read twice."""
    calls: list[str] = []
    monkeypatch.setattr(ast, "parse", lambda text: calls.append(text) or ast.Module([], []))
    assert tree("x = 1\n") is not None
    assert calls == ["x = 1\n"]


@pytest.mark.parametrize("mark", ["+1", ".b", "()", "[0]", "**2", " if b else a"])
def test_a_long_chain_is_no_newer_grammar(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another grammar helps only against a SyntaxError; libcst would sit for minutes over these."""
    asked: list[str] = []
    monkeypatch.setattr(libcst, "parse_module", asked.append)
    assert tree("a" + mark * 3000) is None
    assert fault("a" + mark * 3000) is not None
    assert asked == []
