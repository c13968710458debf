"""An observer that raises, hangs or prints changes nothing for anybody else."""

import _thread
import sqlite3
import sys
import threading
import time

import pytest

from autoresearch import History, Notice, hookimpl
from autoresearch.testing import RecordingObserver, story

TOLD = story([1.1])
EVENTS = list(TOLD.log.read())
NOTICE = Notice(kind="new_best", campaign="test", text="score 1.0")


class Raises:
    """Fails at every event."""

    @hookimpl
    def event_recorded(self, event):
        raise RuntimeError(f"no {event.type}")

    @hookimpl
    def notify(self):
        sys.exit("gone")


class Hangs:
    """Waits for what never comes."""

    def __init__(self):
        self.calls = 0
        self.release = threading.Event()

    @hookimpl
    def event_recorded(self):
        self.calls += 1
        self.release.wait(30)
        print("awake again")


def wake(hangs, plugins):
    """Let a hung observer go on, and wait until its thread is over."""
    mine = [thread for thread in threading.enumerate() if thread.name == "observer hangs"]
    hangs.release.set()
    plugins.close()
    for thread in mine:
        thread.join(5)


def test_one_that_raises_disturbs_nobody(only):
    """The others see every event, and the failure is told."""
    seen = RecordingObserver()
    plugins, failures = only(seen, Raises())
    plugins.event_recorded(EVENTS[0], TOLD.history)
    plugins.notify(NOTICE)
    assert seen.events == [EVENTS[0]]
    assert seen.notices == [NOTICE]
    assert [failure.error for failure in failures] == [
        "RuntimeError: no campaign_started",
        "SystemExit: gone",
    ]


def test_one_that_always_raises_does_not_fill_the_log(only):
    """Only its 1st, 2nd, 4th, 8th ... failure is told, with the count."""
    plugins, failures = only(Raises())
    for _ in range(9):
        plugins.event_recorded(EVENTS[0], TOLD.history)
    assert len(failures) == 4
    assert failures[-1].error == "RuntimeError: no campaign_started (8 times by now)"


def test_one_that_hangs_is_switched_off(only):
    """The loop waits for it once; the others go on seeing everything."""
    seen, hangs = RecordingObserver(), Hangs()
    plugins, failures = only(seen, hangs, patience=0.2)
    begun = time.monotonic()
    for event in EVENTS[:3]:
        plugins.event_recorded(event, TOLD.history)
    assert time.monotonic() - begun < 2
    wake(hangs, plugins)
    assert seen.events == EVENTS[:3]
    assert hangs.calls == 1
    (failure,) = failures
    assert failure.error == (
        "HungError: took over 0.2 seconds; it is switched off for the rest of this process"
    )


def test_what_observers_print_is_not_shown(only, capsys):
    """Neither stream of the terminal gets anything; what others print meanwhile is shown."""
    talking, done = threading.Event(), threading.Event()

    class Prints:
        @hookimpl
        def event_recorded(self):
            print("to out")
            print("to err", file=sys.stderr)
            talking.set()
            done.wait(5)

    def talk():
        talking.wait(5)
        print("somebody else")
        done.set()

    other = threading.Thread(target=talk)
    other.start()
    plugins, failures = only(Prints())
    plugins.event_recorded(EVENTS[0], TOLD.history)
    other.join()
    print("the loop")
    assert capsys.readouterr() == ("somebody else\nthe loop\n", "")
    assert failures == []


def test_one_that_wakes_up_late_stays_quiet(only, capsys):
    """An observer that was switched off prints into nothing for the rest of the process."""
    hangs = Hangs()
    plugins, _ = only(hangs, patience=0.1)
    plugins.event_recorded(EVENTS[0], TOLD.history)
    wake(hangs, plugins)
    assert capsys.readouterr().out == ""


def test_streams_are_given_back(only):
    """After a call the process prints where it printed before."""
    plugins, _ = only(RecordingObserver())
    before = (sys.stdout, sys.stderr)
    plugins.event_recorded(EVENTS[0], TOLD.history)
    assert (sys.stdout, sys.stderr) == before


def test_streams_are_given_back_when_a_person_interrupts(only):
    """Control-C while an observer works leaves the terminal as it was."""

    class Interrupted(Hangs):
        @hookimpl
        def event_recorded(self):
            _thread.interrupt_main()
            self.release.wait(30)

    slow = Interrupted()
    plugins, _ = only(slow)
    before = (sys.stdout, sys.stderr)
    with pytest.raises(KeyboardInterrupt):
        plugins.event_recorded(EVENTS[0], TOLD.history)
    slow.release.set()
    assert (sys.stdout, sys.stderr) == before


def test_an_observer_has_one_thread(only):
    """What it opens for one event serves for the next, a database connection for instance."""

    class Table:
        connection = None

        @hookimpl
        def event_recorded(self, event):
            if self.connection is None:
                self.connection = sqlite3.connect(":memory:")
                self.connection.execute("create table seen (type text)")
            self.connection.execute("insert into seen values (?)", [event.type])

        @hookimpl
        def notify(self):
            self.connection.close()

    plugins, failures = only(Table())
    for event in EVENTS:
        plugins.event_recorded(event, TOLD.history)
    plugins.notify(NOTICE)
    assert failures == []


def test_threads_end_with_the_facade(only):
    """close() leaves no thread behind."""
    plugins, _ = only(RecordingObserver())
    plugins.notify(NOTICE)
    mine = [item for item in threading.enumerate() if item.name == "observer recording_observer"]
    plugins.close()
    for thread in mine:
        thread.join(5)
    assert mine
    assert not any(thread.is_alive() for thread in mine)


def test_a_failure_that_is_recorded_does_not_come_back_for_ever(only):
    """An observer that fails on its own plugin_failed event does not drive the log in a circle."""
    plugins, _ = only(Raises())
    told = []

    def record(failure):
        told.append(failure)
        plugins.event_recorded(EVENTS[0], History())

    plugins.on_failure = record
    plugins.event_recorded(EVENTS[0], History())
    assert len(told) < 5


@pytest.mark.parametrize("count", [1, 20])
def test_observers_see_events_in_order(only, count):
    """However many there are, each sees every event once and in its place."""
    classes = [type(f"Seen{number}", (RecordingObserver,), {}) for number in range(count)]
    observers = [cls() for cls in classes]
    plugins, _ = only(*observers)
    for event in EVENTS:
        plugins.event_recorded(event, TOLD.history)
    assert all(seen.events == EVENTS for seen in observers)
