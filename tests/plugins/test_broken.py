"""What is wrong with a plugin is one line that names it and the way round it."""

import pytest

from autoresearch.errors import PluginError
from autoresearch.plugins import Plugins
from autoresearch.testing import KeepBetter


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def broken(:\n", r"broken at line \d+: SyntaxError"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
        ("raise AutoresearchError('not here')\n", "AutoresearchError: not here"),
    ],
)
def test_a_broken_file_is_one_line_with_a_way_round(load, write, text, problem):
    """Whatever an import throws, the file is named, and so is how to go on without it."""
    write("mine", text)
    with pytest.raises(PluginError, match=problem) as caught:
        load()
    message = str(caught.value)
    assert message.startswith("plugin 'mine' (plugins/mine.py)")
    assert message.endswith("--plugin no:mine")
    assert "\n" not in message


def test_the_way_round_works(load, write):
    """no:NAME leaves a broken file alone; the rest takes part."""
    write("mine", "1 / 0\n")
    plugins = load("no:mine")
    assert "greedy" in plugins.active
    told = next(item for item in plugins.infos() if item.name == "mine")
    assert "ZeroDivisionError" in told.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "@hookimpl\ndef decid(candidate): ...",
            "'decid', which is not a hook; did you mean 'decide'?",
        ),
        ("@hookimpl\ndef xyzzy(): ...", "'xyzzy', which is not a hook; hooks are configure"),
        (
            "@hookimpl(specname='decid')\ndef f(candidate): ...",
            "'decid', which is not a hook; did you mean 'decide'?",
        ),
        (
            "@hookimpl\ndef decide(canditate): ...",
            "decide has no argument 'canditate'; did you mean 'candidate'?",
        ),
        ("@hookimpl\ndef notify(x): ...", "notify has no argument 'x'; it gets notice"),
        ("@hookimpl\ndef notify(notice=None): ...", "notify always gets 'notice'; remove its"),
        ("@hookimpl\ndef decide(**all): ...", "by name, so **all would stay empty; name what"),
        ("def decide(candidate): ...", "decide is named like a hook but not marked; put @hookimpl"),
        ("from autoresearch import Idea", "has no hook; mark one with @hookimpl"),
        (
            "@hookimpl(wrapper=True)\ndef audit_run(output):\n    return (yield)",
            "audit_run asks every plugin and cannot be wrapped",
        ),
        (
            "@hookimpl(hookwrapper=True)\ndef decide(candidate):\n    yield",
            "decide is an old hookwrapper; use wrapper=True",
        ),
        (
            "@hookimpl(wrapper=True)\ndef decide(candidate):\n    return None",
            "the wrapper of decide has no yield; add one",
        ),
        (
            "class Settings: ...\n@hookimpl\ndef notify(notice): ...",
            "Settings is not an attrs class; add @frozen",
        ),
        (
            "class Plugin:\n    def __init__(self):\n        1 / 0\n"
            "    @hookimpl\n    def notify(self, notice): ...",
            "is broken: ZeroDivisionError",
        ),
    ],
)
def test_a_slip_is_found_before_any_hook_is_called(load, write, text, problem):
    """Misspelt hooks and arguments, missing marks and wrong wrappers are told at once."""
    write("mine", text)
    with pytest.raises(PluginError) as caught:
        load()
    assert problem in str(caught.value)
    assert str(caught.value).startswith("plugin 'mine' (plugins/mine.py)")


def test_a_file_that_is_no_python_is_named(load, tmp_path):
    """A path without .py cannot be a plugin."""
    (tmp_path / "mine.txt").write_text("autoresearch")
    with pytest.raises(PluginError, match=r"mine\.txt is not a Python file; name it NAME\.py"):
        load("./mine.txt")


def test_one_object_twice_is_refused():
    """Two plugins of one class have one name."""
    with pytest.raises(PluginError, match="two plugins are called 'keep_better'"):
        Plugins.only(KeepBetter(), KeepBetter())
