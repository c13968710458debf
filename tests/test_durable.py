"""Files that are whole or not there, and their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autoresearch.durable import digest, digest_files, make_folder, replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole(tmp_path: Path, durable: bool) -> None:
    """The new content is there, and nothing else is left in the folder."""
    path = tmp_path / "file"
    for data in (b"old", b"new content"):
        replace_file(path, data, durable=durable)
        assert path.read_bytes() == data
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the name cannot be taken, no temporary file stays behind."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        replace_file(tmp_path / "taken", b"x")
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]


def test_digests(tmp_path: Path) -> None:
    """A text, its bytes, and files that hold it one after the other have one digest."""
    make_folder(tmp_path / "a" / "b")
    first, second = tmp_path / "a" / "1", tmp_path / "a" / "b" / "2"
    first.write_text("é", encoding="utf-8")
    second.write_text("x", encoding="utf-8")
    expected = hashlib.sha256("éx".encode()).hexdigest()
    assert digest("éx") == digest("éx".encode()) == digest_files(first, second) == expected
