"""A strategy that fails is told with its traceback and passed over; a wrapper may veto."""

from random import Random

import pytest
from attrs import evolve

from autoresearch import Backtrack, Decision, History, Idea, hookimpl
from autoresearch.errors import PluginError
from autoresearch.model import RunStatus, Verdict
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    FakeLauncher,
    KeepBetter,
    PlainAnalysis,
    ScriptedIdeas,
    candidate,
    experiment,
    history,
    idea,
    run_request,
    workspace,
)


class Raises:
    """Fails in whatever it is asked."""

    @hookimpl
    def propose_idea(self) -> None:
        raise ValueError("no idea today")

    @hookimpl
    def decide(self) -> None:
        raise SystemExit("I would rather leave")

    @hookimpl
    def backtrack(self) -> None:
        raise RuntimeError("lost")

    @hookimpl
    def launch_run(self) -> None:
        raise ConnectionError("the cloud is away")


class Veto:
    """Turns every keep into a discard."""

    @hookimpl(wrapper=True)
    def decide(self):
        decision = yield
        if decision.verdict is Verdict.KEEP:
            return evolve(decision, verdict="discard", reason="vetoed")
        return decision


def test_a_generator_that_raises_is_passed_over(only):
    """The next one answers, and the traceback shows the plugin's own frames alone."""
    plugins, failures = only(ScriptedIdeas([idea("wider")]), Raises())
    found = plugins.propose_idea(history([1.1]), "", Random(1))
    assert found is not None
    assert found.description == "wider"
    (failure,) = failures
    assert (failure.plugin, failure.hook) == ("raises", "propose_idea")
    assert failure.error == "ValueError: no idea today"
    assert 'raise ValueError("no idea today")' in failure.traceback
    assert "autoresearch/plugins" not in failure.traceback


def test_a_plugin_cannot_end_the_process(only):
    """sys.exit() in a policy is a failure like any other."""
    plugins, failures = only(KeepBetter(), Raises())
    assert plugins.decide(candidate(1.0), History()).verdict is Verdict.KEEP
    assert failures[0].error == "SystemExit: I would rather leave"


def test_a_person_can_end_the_process(only):
    """Control-C while a plugin works is not swallowed."""

    class Slow:
        @hookimpl
        def backtrack(self):
            raise KeyboardInterrupt

    plugins, failures = only(Slow())
    with pytest.raises(KeyboardInterrupt):
        plugins.backtrack(History())
    assert failures == []


def test_every_failure_of_a_strategy_is_told(only):
    """A generator that fails before each experiment is in the log each time."""
    plugins, failures = only(Raises())
    for _ in range(5):
        assert plugins.propose_idea(History(), "", Random(1)) is None
    assert len(failures) == 5


def test_without_a_listener_a_failure_is_one_line(capsys):
    """A facade that nobody listens to prints the failure where errors go."""
    Plugins.only(Raises()).backtrack(History())
    printed = capsys.readouterr()
    assert printed.err == "warning: plugin raises failed in backtrack: RuntimeError: lost\n"
    assert printed.out == ""


def test_authors_are_filled_in(only):
    """Who answered stands in the value, when the plugin left it empty."""

    class Mine:
        @hookimpl
        def propose_idea(self):
            return Idea(direction="a", description="b", hypothesis="c")

        @hookimpl
        def backtrack(self):
            return Backtrack(signal="plateau", reason="no progress")

    plugins, _ = only(Mine(), KeepBetter())
    assert plugins.propose_idea(History(), "", Random(1)).author == "mine"
    assert plugins.backtrack(History()).author == "mine"
    assert plugins.decide(candidate(1.0), History()).author == "keep_better"


def test_an_author_of_its_own_is_left_alone(only):
    """A generator that speaks for somebody else says so."""
    plugins, _ = only(ScriptedIdeas([idea("wider", author="Ada")]))
    assert plugins.propose_idea(history([1.1]), "", Random(1)).author == "Ada"


def test_a_veto_wraps_the_policies(only):
    """The wrapper sees the decision, changes it, and is named as its author."""
    plugins, failures = only(Veto(), KeepBetter())
    decision = plugins.decide(candidate(1.0), History())
    assert (decision.verdict, decision.reason) == (Verdict.DISCARD, "vetoed")
    assert decision.author == "veto"
    assert failures == []


def test_a_wrapper_that_lets_a_decision_pass_is_not_its_author(only):
    """Only who changed it answers for it."""
    plugins, _ = only(Veto(), KeepBetter())
    assert plugins.decide(candidate(None), History()).author == "keep_better"


def before(candidate):
    raise ValueError("before")
    yield


def after(candidate):
    yield
    raise ValueError("after")


def lost(candidate):
    yield


def nonsense(candidate):
    yield
    return "keep it"


def twice(candidate):
    yield
    yield


def never(candidate):
    if candidate:
        return
    yield


@pytest.mark.parametrize(
    ("wrapper", "error"),
    [
        (before, "ValueError: before"),
        (after, "ValueError: after"),
        (lost, "answer refused: the wrapper lost the answer; return what its yield gave"),
        (nonsense, "answer refused: 'keep it' is not of type Decision"),
        (twice, "answer refused: the wrapper yields twice; yield once"),
        (never, "answer refused: the wrapper ended without yield"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrapper_that_fails_is_passed_over(only, wrapper, error):
    """The decision that it wrapped stands, and the failure is told."""

    class Wrapper:
        decide = staticmethod(hookimpl(wrapper=True, specname="decide")(wrapper))

    plugins, failures = only(KeepBetter(), Wrapper())
    assert plugins.decide(candidate(1.0), History()).author == "keep_better"
    assert [failure.error for failure in failures] == [error]


def test_a_veto_may_silence_a_rule(only):
    """None from a wrapper of backtrack means to carry on from head."""

    class Stay:
        @hookimpl(wrapper=True)
        def backtrack(self):
            yield

    class Rule:
        @hookimpl
        def backtrack(self):
            return Backtrack(signal="plateau", reason="no progress")

    plugins, failures = only(Rule(), Stay())
    assert plugins.backtrack(History()) is None
    assert failures == []


def test_order_among_plugins_can_be_asked_for(only):
    """tryfirst and trylast mean what they mean in pluggy."""

    class First:
        @hookimpl(tryfirst=True)
        def decide(self):
            return Decision(verdict="discard", reason="first")

    plugins, _ = only(First(), KeepBetter())
    assert plugins.decide(candidate(1.0), History()).reason == "first"


def test_no_policy_decides(only):
    """A campaign without a policy is told what to do about it."""
    plugins, _ = only()
    with pytest.raises(PluginError, match="no policy decided about experiment 0; make plugin gre"):
        plugins.decide(candidate(1.0), History())
    with pytest.raises(PluginError, match="no plugin analysed experiment 1; make plugin analysis"):
        plugins.analyze_run(experiment(1.0), History())


def test_nobody_launches(only, tmp_path):
    """The request's launcher is named, and those that there are."""
    plugins, _ = only(FakeLauncher([1.0]))
    asked = run_request(tmp_path, launcher="moon")
    with pytest.raises(PluginError, match=r"no launcher answers to 'moon'; .*: fake_launcher$"):
        plugins.launch_run(asked, workspace(tmp_path))


def test_a_launcher_that_raises_leaves_a_failed_run(only, tmp_path):
    """A cloud that is away is the machine's fault: the loop can try again, or go on."""
    plugins, failures = only(Raises(), PlainAnalysis())
    handle = plugins.launch_run(run_request(tmp_path), workspace(tmp_path))
    output = handle.poll()
    assert output.status is RunStatus.INFRA_FAILED
    assert output.detail == "launcher raises: ConnectionError: the cloud is away"
    assert output.log_path.read_text() == f"{output.detail}\n"
    assert len(failures) == 1
