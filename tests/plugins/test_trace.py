"""AUTORESEARCH_TRACE_PLUGINS=1 prints each hook call with its result and time."""

import re
from random import Random

import pytest

from autoresearch import History
from autoresearch.testing import candidate

PLUGIN = """
@hookimpl
def propose_idea():
    raise ValueError("no\\nidea")

@hookimpl(wrapper=True)
def decide():
    return (yield)

@hookimpl
def notify(): ...
"""


def lines(text):
    """Return what was traced without the times, which are checked to be there."""
    found = [re.fullmatch(r"trace +\d+\.\d{3} ms  (.*)", line) for line in text.splitlines()]
    assert all(found), text
    return [match[1] for match in found]


def test_each_call_is_a_line_on_stderr(load, write, capsys):
    """Plugin, hook and the short result stand in one line, whatever the plugin answers."""
    write("mine", PLUGIN)
    plugins = load(environ={"AUTORESEARCH_TRACE_PLUGINS": "1"})
    plugins.on_failure = lambda failure: None
    capsys.readouterr()
    plugins.decide(candidate(1.0), History())
    plugins.propose_idea(History(), "", Random(1))
    printed = capsys.readouterr()
    assert printed.out == ""
    told = lines(printed.err)
    assert told[0] == "decide evidence -> None"
    assert told[1].startswith("decide greedy -> Decision(verdict=")
    assert told[2].startswith("decide (wrapper) mine -> Decision(verdict=")
    assert told[3] == "propose_idea mine -> ValueError('no\\nidea')"


@pytest.mark.parametrize("value", ["", "0"])
def test_it_is_silent_otherwise(load, write, capsys, value):
    """Nothing is printed unless the switch is on."""
    write("mine", PLUGIN)
    load(environ={"AUTORESEARCH_TRACE_PLUGINS": value}).decide(candidate(1.0), History())
    assert capsys.readouterr() == ("", "")


def test_configuring_is_traced(load, write, capsys):
    """The first hook of all is a call like any other."""
    write("mine", PLUGIN + "@hookimpl\ndef configure(config): ...\n")
    load(environ={"AUTORESEARCH_TRACE_PLUGINS": "1"})
    assert "configure mine -> None" in lines(capsys.readouterr().err)
