"""The chain: one changed byte anywhere is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from autoresearch import events
from autoresearch.log.journal import (
    BadJournalError,
    BadLineError,
    Line,
    could_be_torn,
    read_lines,
    seal,
    unpack,
)
from autoresearch.log.order import ENTRY_START, Entry, pack_entry, unpack_entry
from autoresearch.log.records import GENESIS

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), min_size=1, max_size=9
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def packed(previous: str, text: str, name: str = "s", version: int = 1) -> tuple[bytes, str]:
    line, receipt = seal(
        events.NoteAdded(text=text, author=name),
        actor=name,
        at="2026-03-18T02:00:00.000000Z",
        campaign=name,
        event_id=f"{name}:{version}:00000000",
        stream=name,
        version=version,
        previous_hash=previous,
    )
    return line, receipt.hash


def taken_apart(data: bytes, previous: str = GENESIS) -> Line:
    return unpack(data.removesuffix(b"\n"), previous)


@given(NAMES, TEXT, st.integers(1, 10**12))
def test_a_line_is_canonical_json_and_comes_back(name: str, text: str, version: int) -> None:
    """A line is canonical JSON as a whole, and taking it apart gives back what was put in."""
    data, digest = packed(GENESIS, text, name, version)
    assert rfc8785.dumps(json.loads(data)) + b"\n" == data
    line = taken_apart(data)
    assert (line.campaign, line.stream, line.version) == (name, name, version)
    assert json.loads(line.payload) == {"author": name, "text": text}
    assert (line.hash, line.size) == (digest, len(data))


@given(TEXT, st.data())
def test_any_changed_byte_is_found(text: str, data: st.DataObject) -> None:
    """A line with one byte changed is refused, wherever the byte is."""
    line, _ = packed(GENESIS, text)
    at = data.draw(st.integers(0, len(line) - 2))
    new = data.draw(st.integers(32, 126).filter(lambda byte: byte != line[at]))
    changed = line[:at] + bytes([new]) + line[at + 1 :]
    with pytest.raises((BadLineError, UnicodeDecodeError)):
        taken_apart(changed)


@given(TEXT, TEXT)
def test_a_payload_cannot_pretend_to_be_an_envelope(before: str, after: str) -> None:
    """Text that looks like the rest of a line stays text."""
    trap = f'{before}"}},"schema_version":9,"stream":"z","type":"y","version":8}}{after}'
    line = taken_apart(packed(GENESIS, trap)[0])
    assert json.loads(line.payload) == {"author": "s", "text": trap}
    assert (line.schema_version, line.stream, line.version) == (1, "s", 1)


def journal(path: Path, texts: list[str]) -> list[bytes]:
    lines, previous = [], GENESIS
    for version, text in enumerate(texts, 1):
        line, previous = packed(previous, text, version=version)
        lines.append(line)
    path.write_bytes(b"".join(lines))
    return lines


@pytest.mark.parametrize(
    ("broken", "bad_line"),
    [
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [*lines[:3], lines[3].replace(b"text 3", b"text 9")], 4),
        (lambda lines: [*lines, b"{}\n"], 5),
        (lambda lines: [*lines, b"\n"], 5),
        (lambda lines: [lines[0], b"\xff\xfe\n", *lines[1:]], 2),
    ],
    ids=["reordered", "removed", "repeated", "edited", "appended", "empty line", "not text"],
)
def test_a_broken_chain_is_located(tmp_path: Path, broken: object, bad_line: int) -> None:
    """The first line that does not follow the one before it is named."""
    path = tmp_path / "s.jsonl"
    lines = journal(path, [f"text {n}" for n in range(4)])
    path.write_bytes(b"".join(broken(lines)))  # type: ignore[operator]
    with pytest.raises(BadJournalError, match=f"s.jsonl line {bad_line} ") as caught:
        list(read_lines(path, 0, path.stat().st_size))
    assert caught.value.line == bad_line


@given(st.lists(TEXT, max_size=8), st.integers(0, 8))
def test_a_chain_can_be_read_from_any_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], skipped: int
) -> None:
    """Reading from the middle needs only the hash before it."""
    path = tmp_path_factory.mktemp("j") / "s.jsonl"
    lines = journal(path, texts)
    size = path.stat().st_size
    found = list(read_lines(path, 0, size))
    skipped = min(skipped, len(found))
    start = sum(map(len, lines[:skipped]))
    previous = found[skipped - 1].hash if skipped else GENESIS
    assert list(read_lines(path, start, size, previous, skipped)) == found[skipped:]


@given(TEXT, st.integers(1, 400))
def test_a_torn_line_looks_like_one(text: str, length: int) -> None:
    """Every beginning of a line passes for a torn one; other bytes do not."""
    line, _ = packed(GENESIS, text)
    assert could_be_torn(line[:length])
    assert not could_be_torn(b"x" + line[:length])


@given(st.integers(1, 10**9), st.sampled_from([None, "duplicate"]), NAMES)
def test_a_manifest_line_comes_back(number: int, reason: str | None, stream: str) -> None:
    """An entry is chained like an event and comes back equal; a changed one is refused."""
    entry = Entry(
        journal="j",
        start=number,
        end=number + 7,
        count=number,
        first=number,
        given=0,
        last_hash=GENESIS,
        stream=stream,
        version=number,
        reason=reason,
    )
    data, digest = pack_entry(entry, GENESIS)
    text = data.decode().removesuffix("\n")
    assert unpack_entry(text, GENESIS) == (entry, digest)
    assert could_be_torn(data[:20], ENTRY_START)
    with pytest.raises(ValueError, match="does not match its hash"):
        unpack_entry(text, "1" * 64)
