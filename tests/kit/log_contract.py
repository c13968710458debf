"""What every event log must do, whatever it keeps its events in."""

from __future__ import annotations

from datetime import datetime

import pytest

from autoresearch import events
from autoresearch.errors import CodecError, LogError, StreamHeldError
from autoresearch.log import EventLog, Writer

AT = "2026-03-18T02:00:00.000000Z"


def note(text: str) -> events.NoteAdded:
    """Return the plainest of facts."""
    return events.NoteAdded(text=text, author="contract")


class EventLogContract:
    """Conformance of an EventLog: subclass it and give a fixture ``log`` that returns an empty one.

    The log is opened for this test alone; the contract closes the writers that it opens.
    """

    @pytest.fixture
    def log(self) -> EventLog:
        """The empty log under test."""
        pytest.fail(f"{type(self).__name__} has no log; give it a fixture of this name")

    def test_implements_the_protocol(self, log: EventLog) -> None:
        """The log and its writers have every method of the protocols."""
        assert isinstance(log, EventLog)
        with log.writer("a") as writer:
            assert isinstance(writer, Writer)

    def test_an_empty_log(self, log: EventLog) -> None:
        """A log without events ends at position 0 and yields nothing."""
        assert log.tip().position == 0
        assert list(log.read()) == []

    def test_reads_back_what_was_appended(self, log: EventLog) -> None:
        """Events come back equal, in their order, at positions 1 to N, with their envelope."""
        with log.writer("camp", "camp/notes", actor="ann") as writer:
            receipts = [writer.append(note(str(n)), at=AT) for n in range(3)]
        found = list(log.read())
        assert [record.position for record in found] == [1, 2, 3]
        assert [record.event for record in found] == [note("0"), note("1"), note("2")]
        assert [record.hash for record in found] == [receipt.hash for receipt in receipts]
        assert [record.version for record in found] == [1, 2, 3]
        one = found[0]
        assert (one.campaign, one.stream, one.actor, one.at) == ("camp", "camp/notes", "ann", AT)
        assert (one.type, one.schema_version) == ("note_added", 1)

    def test_reads_a_part(self, log: EventLog) -> None:
        """``after`` is not read again, ``until`` is the last one, ``campaign`` chooses."""
        with log.writer("a") as first, log.writer("b") as second:
            for n in range(3):
                first.append(note(f"a{n}"))
            second.append(note("b"))
        assert [record.position for record in log.read(after=1, until=3)] == [2, 3]
        assert [record.position for record in log.read(after=4)] == []
        assert [record.position for record in log.read(until=99)] == [1, 2, 3, 4]
        assert [record.event for record in log.read(campaign="b")] == [note("b")]

    def test_the_order_never_changes(self, log: EventLog) -> None:
        """What was read once is read again at the same position, whatever came after."""
        with log.writer("a") as first, log.writer("b") as second:
            second.append(note("1"))
            before = list(log.read())
            first.append(note("2"))
            second.append(note("3"))
            after = list(log.read())
        assert after[:1] == before
        assert len(after) == 3
        assert list(log.read()) == after

    def test_the_tip_moves_with_every_event(self, log: EventLog) -> None:
        """The tip is stable between appends and differs after each."""
        with log.writer("a") as writer:
            tips = [log.tip()]
            for n in range(3):
                writer.append(note(str(n)))
                tips.append(log.tip())
                assert log.tip() == tips[-1]
        assert [tip.position for tip in tips] == [0, 1, 2, 3]
        assert len({tip.hash for tip in tips}) == 4

    def test_events_can_be_appended_together(self, log: EventLog) -> None:
        """Several events given at once get consecutive versions in their order."""
        with log.writer("a") as writer:
            receipts = writer.append_many([note(str(n)) for n in range(5)])
            assert writer.append_many([]) == ()
        assert [receipt.version for receipt in receipts] == [1, 2, 3, 4, 5]
        assert [record.event for record in log.read()] == [note(str(n)) for n in range(5)]

    def test_the_same_event_id_is_appended_once(self, log: EventLog) -> None:
        """A second append under an id that the log has returns the first and adds nothing."""
        with log.writer("a") as writer, log.writer("b") as other:
            first = writer.append(note("once"), event_id="row-17")
            again = writer.append(note("twice"), event_id="row-17")
            elsewhere = other.append(note("thrice"), event_id="row-17")
        assert again.event == elsewhere.event == note("once")
        assert first.hash == again.hash == elsewhere.hash
        assert log.tip().position == 1

    def test_events_with_ids_are_appended_together_once(self, log: EventLog) -> None:
        """Of several events those whose id is known stay out, also when it came before in them."""
        with log.writer("a") as writer:
            first = writer.append(note("known"), event_id="k")
            batch = [note("again"), note("new"), note("none"), note("twice"), note("last")]
            receipts = writer.append_many(batch, event_ids=["k", "n", None, "n", "l"])
            again = writer.append_many(batch[3:], event_ids=["n", "l"])
            with pytest.raises(LogError, match="2 events have 1 ids"):
                writer.append_many(batch[:2], event_ids=["x"])
        told = [record.event for record in log.read()]
        assert told == [note("known"), note("new"), note("none"), note("last")]
        assert [receipt.version for receipt in receipts] == [1, 2, 3, 2, 4]
        assert receipts[0].hash == first.hash
        assert [receipt.hash for receipt in again] == [receipts[1].hash, receipts[4].hash]

    def test_an_id_that_the_log_gave_counts_as_known(self, log: EventLog) -> None:
        """The id of any event, also one that the log chose, is never appended again."""
        with log.writer("a") as writer, log.writer("b") as other:
            first = writer.append(note("once"))
            again = other.append(note("twice"), event_id=first.event_id)
        assert again.hash == first.hash
        assert log.tip().position == 1

    def test_a_stream_has_one_writer(self, log: EventLog) -> None:
        """A second writer is refused by name until the first lets go; versions then go on."""
        with log.writer("a", actor="the loop") as writer:
            writer.append(note("1"))
            with pytest.raises(StreamHeldError, match=r"'a'.*the loop"):
                log.writer("a")
        with log.writer("a") as writer:
            assert writer.append(note("2")).version == 2

    def test_streams_do_not_hinder_each_other(self, log: EventLog) -> None:
        """Other streams, of the same campaign too, have writers of their own."""
        with log.writer("a") as first, log.writer("a", "a-notes") as second:
            first.append(note("1"))
            second.append(note("2"))
        assert {record.stream for record in log.read(campaign="a")} == {"a", "a-notes"}

    def test_a_closed_writer_refuses(self, log: EventLog) -> None:
        """After ``close`` nothing can be appended any more."""
        writer = log.writer("a")
        writer.close()
        with pytest.raises(LogError, match="closed"):
            writer.append(note("late"))

    def test_refuses_what_cannot_be_recorded(self, log: EventLog) -> None:
        """A number that is not finite is refused by name, and nothing of the batch is recorded."""
        bad = events.MetricObserved(run="r", experiment=0, name="loss", value=float("nan"))
        with log.writer("a") as writer:
            with pytest.raises(CodecError, match=r"metric_observed\.value"):
                writer.append_many([note("good"), bad])
            assert log.tip().position == 0
            assert writer.append(note("after")).version == 1

    @pytest.mark.parametrize("name", ["", 'a"b', "a\\b", "a\nb", "x" * 201, "\ud800"])
    def test_refuses_names_that_break_lines(self, log: EventLog, name: str) -> None:
        """A campaign, stream, actor or event id must be able to stand in a line as it is."""
        with pytest.raises(LogError):
            log.writer(name)
        with log.writer("a") as writer, pytest.raises(LogError):
            writer.append(note("x"), event_id=name)

    def test_refuses_a_time_in_another_form(self, log: EventLog) -> None:
        """``at`` has one form, so that times sort as text."""
        with log.writer("a") as writer, pytest.raises(LogError, match="yesterday"):
            writer.append(note("x"), at="yesterday")

    def test_sql_sees_every_event(self, log: EventLog) -> None:
        """A connection sees all events with typed columns, synced or not, and changes none."""
        with log.writer("a") as writer:
            writer.append(note("1"), at=AT)
            log.sync()
            writer.append(note("2"), at=AT)
            with log.connect() as connection:
                query = "SELECT position, recorded_at, payload->>'text' FROM events ORDER BY 1"
                moment = datetime(2026, 3, 18, 2)
                found = connection.execute(query).fetchall()
                assert found == [(1, moment, "1"), (2, moment, "2")]
                with pytest.raises(Exception, match=r"append-only|read-only|base table"):
                    connection.execute("DELETE FROM events")
        assert log.tip().position == 2

    def test_sql_as_of_a_position(self, log: EventLog) -> None:
        """A connection can be made that sees the log as it was at a position."""
        with log.writer("a") as writer:
            for n in range(4):
                writer.append(note(str(n)))
        log.sync()
        for at in (0, 2, 4, 99):
            with log.connect(at=at) as connection:
                found = connection.execute("SELECT count(*) FROM events").fetchall()
                assert found == [(min(at, 4),)]
