"""The files that a campaign shows: written once, where they changed, and restored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch import Campaign
from autoresearch.cycle import Shown
from autoresearch.durable import digest
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.testing import FakeLauncher, ScriptedIdeas, set_constant


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("campaign", "project"):
        (tmp_path / name).mkdir()
    return tmp_path / "campaign", tmp_path / "project"


def show(shown: Shown, folders: tuple[Path, Path], text: str) -> os.stat_result:
    """Show a text, check that both places have it, and return what the system says of it."""
    shown.write(folders[0], "a.md", text)
    shown.check(*folders)
    assert [(folder / "a.md").read_text() for folder in folders] == [text] * 2
    assert shown.digests == {"a.md": digest(text)}
    return (folders[1] / "a.md").stat()


def test_the_same_text_is_not_written_again(folders: tuple[Path, Path]) -> None:
    """Neither file is touched, and one file serves both places."""
    shown = Shown()
    first = show(shown, folders, "one\n")
    second = show(shown, folders, "one\n")
    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)
    assert (folders[0] / "a.md").samefile(folders[1] / "a.md")
    assert first.st_nlink == 2


def test_further_lines_are_appended(folders: tuple[Path, Path]) -> None:
    """A table that only grew stays the same file; any other change makes a new one."""
    shown = Shown()
    first = show(shown, folders, "one\n")
    longer = show(shown, folders, "one\nzwölf\n")
    assert longer.st_ino == first.st_ino
    assert show(shown, folders, "two\nzwölf\n").st_ino != first.st_ino


@pytest.mark.parametrize("place", [0, 1], ids=["campaign", "project"])
def test_what_somebody_changed_or_removed_is_restored(
    folders: tuple[Path, Path], place: int
) -> None:
    """The memory that is read is the one that the log gives."""
    shown = Shown()
    show(shown, folders, "one\n")
    (folders[place] / "a.md").write_text("something else\n")
    show(shown, folders, "one\n")
    (folders[place] / "a.md").write_text("something else again\n")
    show(shown, folders, "one\ntwo\n")
    (folders[place] / "a.md").unlink()
    show(shown, folders, "one\ntwo\n")


def test_where_there_are_no_hard_links_there_is_a_copy(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have none."""

    def refuse(*_: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    shown = Shown()
    show(shown, folders, "one\n")
    show(shown, folders, "one\ntwo\n")
    assert not (folders[0] / "a.md").samefile(folders[1] / "a.md")


def test_the_recorded_digests_are_those_of_what_was_read(
    campaign: Callable[..., Campaign], project: Path
) -> None:
    """The review before the last experiment names the bytes that any other rendering gives."""
    ideas = ScriptedIdeas([set_constant("RATE", value) for value in (0.4, 0.35)])
    made = campaign(3, (FakeLauncher([1.1, 1.0, 0.9]), ideas))
    reviews = [r.event for r in made.log.read() if r.type == "memory_reviewed"]
    for review in reviews:
        then = made.at(review.read_to)
        assert digest(NotesMd().render(then)) == review.notes_digest
        assert digest(ResultsTsv().render(then)) == review.results_digest
    assert len(reviews) == 2
    assert (project / "notes.md").read_text() == NotesMd().render(made.history)
