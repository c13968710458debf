"""A hook is declared in one place, and everything else that is known of it follows from there."""

import subprocess
import sys

import pytest

from autoresearch import hookimpl, hookspecs, testing
from autoresearch.plugins import answers
from autoresearch.testing import run_output


@pytest.fixture
def pretend(monkeypatch):
    """A hook that is declared for one test alone, by a function and nothing else."""
    monkeypatch.setattr(hookspecs, "HOOKS", dict(hookspecs.HOOKS))
    for module in ("calls", "registry", "answers"):
        monkeypatch.setattr(f"autoresearch.plugins.{module}.HOOKS", hookspecs.HOOKS)

    def pretend(history):
        """Say why."""

    made = hookspecs.hook(first_result=True, check="reason", may_be_silenced=True)(pretend)
    monkeypatch.setattr(hookspecs, "pretend", made, raising=False)


class Answers:
    """Answers the pretended hook."""

    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def pretend(self, history):
        return self.answer


class Silences(Answers):
    """Takes every answer back."""

    @hookimpl(wrapper=True)
    def pretend(self):
        yield


@pytest.mark.usefixtures("pretend")
def test_a_hook_that_is_declared_is_found_checked_and_called(only):
    """Its name, its arguments, its kind and its check come from the declaration."""
    plugins, failures = only(Answers("because"))
    assert plugins.infos()[0].hooks == ("pretend",)
    assert plugins.calls.first("pretend", history=None) == "because"
    plugins, failures = only(Answers(1))
    assert plugins.calls.first("pretend", history=None) is None
    assert failures[0].error == "answer refused: 1 is not a reason"
    plugins, failures = only(Answers("because"), Silences(None))
    assert plugins.calls.first("pretend", history=None) is None
    assert failures == []


def test_each_declaration_names_what_exists():
    """Checks stand in ``answers``, contracts in the kit."""
    for hook in hookspecs.HOOKS.values():
        assert not hook.check or callable(getattr(answers, hook.check)), hook.name
        assert not hook.contract or hasattr(testing, hook.contract), hook.name
    assert testing.AuditContract.hooks == ("audit_change", "audit_run")


class Former:
    """Was written when the hook measure_run was called lock_run."""

    @hookimpl
    def lock_run(self, output):
        return {"data": "abc"}


class Named(Former):
    """Gives the former name to a function of another name."""

    lock_run = None

    @hookimpl(specname="lock_run")
    def measure(self):
        return {"code": "x"}


def test_a_hooks_former_name_still_works(only, tmp_path):
    """A plugin that implements lock_run measures runs, and its function is left as it was."""
    plugins, failures = only(Former(), Named())
    assert plugins.measure_run(run_output(tmp_path)) == {"data": "abc", "code": "x"}
    assert [item.hooks for item in plugins.infos()] == [("measure_run",), ("measure_run",)]
    assert failures == []
    assert Former.lock_run.autoresearch_impl["specname"] is None


def test_the_library_does_without_the_command_line():
    """A program that imports autoresearch does not load click."""
    code = "import sys, autoresearch, autoresearch.plugins; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
