"""Tables fit where they are shown: a terminal, a narrow one, or a pipe."""

from __future__ import annotations

import pytest

from autoresearch.cli.shared import print_table

COLUMNS = ("experiment", "val_bpb", "description")
ROWS = [
    (0, 1.2345, "baseline"),
    (1, 1.2, "a wider model with a longer warmup and a smaller learning rate for matrices " * 3),
]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_table_fits_the_columns_there_are(monkeypatch, capsys, width: int) -> None:
    """No line is longer than COLUMNS, and no header or number is broken."""
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, ROWS)
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= width
    assert lines[0].split() == list(COLUMNS)
    assert any("1.2345" in line for line in lines)


def test_pipe_has_all_the_room_there_is(monkeypatch, capsys) -> None:
    """Without COLUMNS a row in a pipe is one line, however long, and no wider than it needs."""
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, ROWS)
    lines = lines_of(capsys)
    assert len(lines) == 4
    assert len(lines[-1]) > 200
    print_table(COLUMNS, ROWS[:1])
    assert max(map(len, lines_of(capsys))) < 40


def test_row_that_cannot_fit_is_a_block(monkeypatch, capsys) -> None:
    """Where the headers alone are too wide together, each value gets a line of its own."""
    monkeypatch.setenv("COLUMNS", "40")
    names = tuple(f"long_name_{number}" for number in range(12))
    print_table(names, [tuple(range(12)), tuple(range(12))])
    lines = lines_of(capsys)
    assert lines[0] == "long_name_0   0"
    assert lines.count("") == 2
    assert max(map(len, lines)) <= 40


def test_words_are_not_broken_for_want_of_room(monkeypatch, capsys) -> None:
    """Where the words of a row have no room beside each other, each row is a block."""
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("name", "hooks", "summary"), [("search", "propose_idea", "hyperparameters first")])
    assert "hyperparameters" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("name", "hooks", "summary"), [("search", "propose_idea", "word " * 20)])
    assert len(lines_of(capsys)) < 6


def test_table_without_rows_has_its_headers(monkeypatch, capsys) -> None:
    """An empty answer still says what was asked."""
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, [])
    assert lines_of(capsys)[0].split() == list(COLUMNS)
