"""Notices reach a person through apprise, over a real connection to this machine."""

import threading

import pytest

from autoresearch import AutoresearchError, Config, Notice
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing import ObserverContract

# One of the services that apprise imports still uses a module that Python 3.13 removes.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

BEST = Notice(kind="new_best", campaign="nov23", text="val_bpb 1.0712", experiment=7)


@pytest.fixture
def address(httpserver) -> str:
    """An apprise address of a web hook on this machine, which says yes to everything."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    return f"json://{httpserver.host}:{httpserver.port}/hook"


@pytest.fixture
def load(single_file, monkeypatch):
    """Makes a facade of the plugin alone, and the list of its failures."""
    monkeypatch.delenv("APPRISE_URLS", raising=False)
    opened = []

    def make(**settings) -> tuple[Plugins, list[PluginFailure]]:
        config = Config(preset="plain", plugins={"apprise_notify": settings})
        plugins = Plugins.only(single_file("apprise_notify"), config=config)
        failures: list[PluginFailure] = []
        plugins.on_failure = failures.append
        opened.append(plugins)
        return plugins, failures

    yield make
    for plugins in opened:
        plugins.close()


class TestContract(ObserverContract):
    @pytest.fixture
    def plugin(self, single_file):
        return single_file("apprise_notify")

    @pytest.fixture
    def config(self, address):
        return Config(preset="plain", plugins={"apprise_notify": {"urls": [address]}})


def told(httpserver) -> list[tuple[str, str]]:
    """Return the title and the text of each message that arrived."""
    bodies = [request.get_json() for request, _ in httpserver.log]
    return [(body["title"], body["message"]) for body in bodies]


def test_a_notice_arrives_with_who_and_what(load, address, httpserver):
    """The title says which campaign and what happened, the text says the rest."""
    plugins, failures = load(urls=[address])
    plugins.notify(BEST)
    plugins.notify(Notice(kind="budget_gone", campaign="nov23", text="usd: 5 of 5 used"))
    assert told(httpserver) == [
        ("nov23: new best (experiment 7)", "val_bpb 1.0712"),
        ("nov23: budget gone", "usd: 5 of 5 used"),
    ]
    assert failures == []


def test_addresses_come_from_the_environment_too(load, address, httpserver, monkeypatch):
    """A password need not stand in a file that the log records."""
    monkeypatch.setenv("APPRISE_URLS", address)
    load()[0].notify(BEST)
    assert len(told(httpserver)) == 1


def test_only_the_chosen_kinds_are_passed_on(load, address, httpserver):
    """Who wants to hear of trouble alone hears of nothing else."""
    plugins, _ = load(urls=[address], kinds=["stuck", "needs_human"])
    plugins.notify(BEST)
    plugins.notify(Notice(kind="stuck", campaign="nov23", text="no idea"))
    assert [title for title, _ in told(httpserver)] == ["nov23: stuck"]


def test_without_an_address_it_is_silent(load):
    """Nobody is told, and nothing fails."""
    plugins, failures = load()
    plugins.notify(BEST)
    assert failures == []


def test_a_service_that_hangs_holds_up_nobody_for_long(load, httpserver):
    """It gives up in time, says so, and stays switched on for the next notice."""
    awake = threading.Event()
    httpserver.expect_request("/slow").respond_with_handler(lambda _: awake.wait(20) and None)
    plugins, failures = load(urls=[f"json://{httpserver.host}:{httpserver.port}/slow"], seconds=0.3)
    plugins.notify(BEST)
    plugins.notify(BEST)
    awake.set()
    assert [item.error for item in failures] == [
        "TimeoutError: no answer within 0.3 s",
        "TimeoutError: no answer within 0.3 s (2 times by now)",
    ]


def test_a_refusal_is_reported_and_not_printed(load, httpserver, capfd):
    """A service that says no becomes a failure that names no password."""
    httpserver.expect_request("/no").respond_with_data("no", status=500)
    plugins, failures = load(urls=[f"json://me:secret@{httpserver.host}:{httpserver.port}/no"])
    plugins.notify(BEST)
    assert failures[0].error.startswith("AutoresearchError: an address refused the message")
    assert "secret" not in failures[0].traceback
    assert capfd.readouterr() == ("", "")


def test_an_address_that_apprise_does_not_know_is_an_error(load):
    """The mistake shows when the campaign starts, without the rest of the address."""
    with pytest.raises(
        AutoresearchError, match=r"address 1 of 1 \(jsno:\.\.\.\) is none that"
    ) as e:
        load(urls=["jsno://me:secret@host"])
    assert "secret" not in str(e.value)
