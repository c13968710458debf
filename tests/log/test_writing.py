"""Appending: one writer a stream, nothing written behind strange bytes, one total order."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch import events
from autoresearch.errors import LogError, StreamHeldError
from autoresearch.log import FileLog, open_log
from autoresearch.log.journal import JournalFile

Open = Callable[[], FileLog]


def note(text: str) -> events.NoteAdded:
    return events.NoteAdded(text=text, author="a")


def texts(log: FileLog) -> list[str]:
    return [record.event.text for record in log.read()]  # type: ignore[attr-defined]


def journals(log: FileLog) -> list[Path]:
    return sorted((log.root / "journal").iterdir())


def in_another_process(code: str, *arguments: object) -> str:
    """Run Python code in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_handles_see_what_was_appended(store: FileLog, reopen: Open) -> None:
    """An append is seen by every log object of the store at once, from where it last read."""
    other = reopen()
    with store.writer("a") as writer:
        for n in range(3):
            writer.append(note(str(n)))
            assert [record.position for record in other.read(after=n)] == [n + 1]
    assert store.tip() == other.tip() == reopen().tip()


def test_the_next_writer_goes_on_in_the_same_journal(store: FileLog) -> None:
    """A journal that ends whole is continued, so that restarts do not litter."""
    for n in range(3):
        with store.writer("a") as writer:
            writer.append(note(str(n)))
    assert texts(store) == ["0", "1", "2"]
    assert len(journals(store)) == 1


def test_nothing_is_written_behind_a_torn_line(store: FileLog, reopen: Open) -> None:
    """What a killed writer left of a line stays where it is; the next one starts a journal."""
    with store.writer("a") as writer:
        writer.append(note("whole"))
    torn = journals(store)[0]
    with torn.open("ab") as file:
        file.write(b'{"event":{"actor":"lo')
    with reopen().writer("a") as writer:
        assert writer.append(note("next")).version == 2
    assert texts(reopen()) == ["whole", "next"]
    assert len(journals(store)) == 2
    report = reopen().verify()
    assert report.ok
    assert any("torn line of 21 bytes" in text for text in report.notes)


def test_a_living_writer_moves_on_from_strange_bytes(
    store: FileLog, reopen: Open, said: list[str]
) -> None:
    """Bytes that appear behind a writer cost it a new file, not an event."""
    with store.writer("a") as writer:
        writer.append(note("1"))
        with journals(store)[0].open("ab") as file:
            file.write(b"x")
        writer.append(note("2"))
        writer.append(note("3"))
    assert texts(reopen()) == ["1", "2", "3"]
    assert any("did not write" in line for line in said)
    assert not reopen().verify().ok


def test_a_damaged_line_does_not_stop_other_journals(
    store: FileLog, reopen: Open, said: list[str]
) -> None:
    """What cannot be trusted is left out with one line; everything else is read."""
    with store.writer("a") as first, store.writer("b") as second:
        first.append(note("lost"))
        second.append(note("kept"))
        path = next(path for path in journals(store) if path.name.startswith("a@"))
        path.write_bytes(path.read_bytes().replace(b"lost", b"LOST"))
        assert texts(reopen()) == ["kept"]
        assert texts(store) == ["kept"]
    assert sum("left out" in line for line in said) == 2
    with reopen().writer("a") as writer:
        assert writer.append(note("later")).version == 2


def test_an_edited_line_that_was_ordered_is_an_error(store: FileLog, reopen: Open) -> None:
    """Reading an event that has its position and was changed since fails with its line."""
    with store.writer("a") as writer:
        writer.append_many([note("one"), note("two")])
    store.tip()
    path = journals(store)[0]
    path.write_bytes(path.read_bytes().replace(b"two", b"TWO"))
    with pytest.raises(LogError, match=r"jsonl line 2 does not match its hash \(event a:2:"):
        list(reopen().read())


def test_a_held_stream_names_its_holder(store: FileLog, reopen: Open) -> None:
    """The refusal says who writes, in which process, since when, and what to do."""
    with store.writer("a", actor="loop"):
        with pytest.raises(StreamHeldError) as caught:
            reopen().writer("a", actor="someone")
        text = str(caught.value)
    assert "'a'" in text
    assert f"loop (process {os.getpid()} on " in text
    assert "since 20" in text
    assert text.endswith("autoresearch stop ends a loop")


def test_a_killed_holder_lets_go(store: FileLog) -> None:
    """A stream whose writer was killed is free at once, and its events are there."""
    code = """
import os, signal, sys
from autoresearch import events
from autoresearch.log import open_log
writer = open_log(sys.argv[1]).writer("a")
writer.append(events.NoteAdded(text="last words", author="a"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], timeout=60)
    assert done.returncode == -9
    with store.writer("a") as writer:
        assert writer.append(note("next")).version == 2
    assert texts(store) == ["last words", "next"]


def test_a_forked_child_cannot_use_the_writer(store: FileLog) -> None:
    """An inherited writer refuses in the child, and the parent goes on."""
    with store.writer("a") as writer:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                writer.append(note("from the child"))
            except LogError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as pipe:
            assert f"belongs to process {os.getpid()}" in pipe.read()
        writer.append(note("from the parent"))
    assert texts(store) == ["from the parent"]


def test_a_child_that_lives_on_does_not_keep_the_stream(store: FileLog) -> None:
    """The stream is free once its writer closed it, whatever children were forked meanwhile."""
    writer = store.writer("a")
    child = os.fork()
    if child == 0:
        os.execv("/bin/sleep", ["sleep", "30"])
    try:
        writer.close()
        with store.writer("a") as again:
            assert again.append(note("after")).version == 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_many_processes_append_at_once(store: FileLog) -> None:
    """Every event of every process is there once, in the order of its stream."""
    code = """
import sys
from autoresearch import events
from autoresearch.log import open_log
log = open_log(sys.argv[1])
with log.writer("c", f"s{sys.argv[2]}") as writer:
    for n in range(50):
        writer.append(events.NoteAdded(text=f"{sys.argv[2]}.{n}", author="a"))
        if n % 10 == 0:
            log.tip()
            log.sync()
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store.root), str(k)]) for k in range(4)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0, 0]
    found = texts(store)
    for k in range(4):
        mine = [text for text in found if text.startswith(f"{k}.")]
        assert mine == [f"{k}.{n}" for n in range(50)]
    assert store.verify().ok


def test_an_id_from_before_is_known_to_a_new_process(store: FileLog) -> None:
    """An import that is run again in another process adds nothing."""
    with store.writer("a") as writer:
        for row in range(20):
            writer.append(note(f"row {row}"), event_id=f"file.tsv:{row}")
    code = """
import sys
from autoresearch import events
from autoresearch.log import open_log
with open_log(sys.argv[1]).writer("other") as writer:
    for row in range(25):
        writer.append(events.NoteAdded(text=f"row {row}", author="a"), event_id=f"file.tsv:{row}")
"""
    in_another_process(code, store.root)
    assert texts(store) == [f"row {row}" for row in range(25)]


def test_a_store_must_be_a_folder(tmp_path: Path) -> None:
    """A store that cannot be made is one clear line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"cannot make the store .*choose a writable folder"):
        open_log(tmp_path / "file" / "store")


def test_an_interrupt_leaves_the_writer_whole(store: FileLog, reopen: Open) -> None:
    """Ctrl-C at any step of an append costs at most the event that was not acknowledged."""
    code = """
import signal, sys
from autoresearch import events
from autoresearch.log import open_log
armed, interrupted = False, 0
def ring(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, ring)
with open_log(sys.argv[1]).writer("a") as writer:
    for n in range(400):
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, (n % 40 + 1) / 40 * 0.0006)
            writer.append(events.NoteAdded(text=str(n), author="a"))
            armed = False
            print(n)
        except KeyboardInterrupt:
            interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print("interrupted", interrupted)
"""
    *acknowledged, last = in_another_process(code, store.root).splitlines()
    assert int(last.split()[1]) > 20
    found = texts(reopen())
    assert set(acknowledged) <= set(found)
    assert len(set(found)) == len(found)
    with reopen().connect() as connection:
        assert connection.execute("SELECT count(*) FROM rejected_events").fetchall() == [(0,)]
    assert reopen().verify().ok


def test_bytes_that_have_a_place_are_not_taken_back(
    store: FileLog, reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that a reader saw before its append failed is appended: its position was given."""
    writer = store.writer("a")
    writer.append(note("before"))
    plain = JournalFile.append

    def seen_then_failed(self: JournalFile, data: bytes, last_hash: str) -> None:
        plain(self, data, last_hash)
        assert reopen().tip().position == 2
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(JournalFile, "append", seen_then_failed)
    assert writer.append(note("seen")).version == 2
    monkeypatch.undo()
    assert writer.append(note("next")).version == 3
    writer.close()
    assert texts(reopen()) == texts(store) == ["before", "seen", "next"]
    with reopen().writer("a") as again:
        assert again.append(note("after")).version == 4
    assert reopen().verify().ok


def test_a_writer_goes_on_when_it_can_cut_nothing(
    store: FileLog, reopen: Open, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Bytes of a failed append that cannot be taken back cost a new file, and no later event."""
    writer = store.writer("a")
    writer.append(note("before"))

    def half_written(self: JournalFile, data: bytes, last_hash: str) -> None:
        os.write(self._handle, data[:-5])
        raise OSError(errno.EIO, "Input/output error")

    def refused(self: JournalFile, end: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(JournalFile, "append", half_written)
    monkeypatch.setattr(JournalFile, "cut", refused)
    with pytest.raises(LogError, match="Input/output error; nothing was recorded"):
        writer.append(note("lost"))
    monkeypatch.undo()
    monkeypatch.setattr(JournalFile, "cut", refused)
    assert writer.append(note("next")).version == 3  # 2 stands in the torn line
    assert writer.append(note("last")).version == 4
    writer.close()
    assert texts(reopen()) == ["before", "next", "last"]
    assert len(journals(store)) == 2
    assert reopen().verify().ok
    assert any("going on in a new file" in line for line in said)


def test_a_stream_is_held_where_no_file_may_grow(store: FileLog) -> None:
    """A stream is held, and read, also where its holder's name cannot be written down."""
    code = """
import resource, sys
from autoresearch import events
from autoresearch.errors import LogError
from autoresearch.log import open_log
with open_log(sys.argv[1]).writer("a") as writer:
    writer.append(events.NoteAdded(text="before", author="a"))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
log = open_log(sys.argv[1])
with log.writer("a") as writer:
    try:
        writer.append(events.NoteAdded(text="refused", author="a"))
    except LogError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.append(events.NoteAdded(text="after", author="a"))
print([record.event.text for record in log.read()])
"""
    said, found = in_another_process(code, store.root).splitlines()
    assert "File too large; nothing was recorded" in said
    assert found == "['before', 'after']"
