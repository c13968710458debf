"""What a hook may not answer is refused, told in one line, and the next plugin is asked."""

from pathlib import Path
from random import Random

import pytest

from autoresearch import (
    Analysis,
    Backtrack,
    Decision,
    History,
    Idea,
    Objection,
    Parent,
    Violation,
    hookimpl,
)
from autoresearch.testing import (
    KeepBetter,
    analysis,
    candidate,
    change,
    experiment,
    history,
    idea,
    run_output,
    run_request,
    story,
    workspace,
)

WORDS = {"direction": "a", "description": "b", "hypothesis": "c"}


def answering(hook: str, answer: object) -> object:
    """Return a plugin that gives one answer in one hook."""

    def implementation(self):
        return answer

    return type("Odd", (), {hook: hookimpl(specname=hook)(implementation)})()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("wider", "'wider' is not of type Idea"),
        (Idea(**{**WORDS, "direction": " "}), "Idea.direction is ' '; give text"),
        (Idea(**{**WORDS, "hypothesis": None}), "Idea.hypothesis is None; give text"),
        (idea(source="x", patch="y"), "an Idea has both a source and a patch; give one of them"),
        (idea(source=" "), "Idea.source is ' '; give text"),
        (idea(env={"LR": 0.1}), "Idea.env holds 0.1; give text"),
        (
            idea(env={"A": "x" * 6_000, "B": "x" * 6_000}),
            "Idea.env has 12002 characters, more than 10000; no run may be able to start with it; "
            "put large values into a file",
        ),
        (idea(cites=["3"]), "Idea.cites is ('3',); give numbers of experiments"),
        (idea(predicted=float("nan")), "Idea.predicted is nan; give a finite number"),
        (idea(expected_gain="much"), "Idea.expected_gain is 'much'; give a finite number"),
    ],
)
def test_ideas(only, answer, error):
    """An idea says in words what and why, brings one kind of code, and finite numbers."""
    plugins, failures = only(answering("propose_idea", answer))
    assert plugins.propose_idea(History(), "", Random(1)) is None
    assert [failure.error for failure in failures] == [f"answer refused: {error}"]


def test_several_ideas(only):
    """Each is checked and gets its author; what was tried is left out, and nothing is no answer."""
    wide, deep = idea("wide", author=""), idea("deep", author="")
    plugins, failures = only(answering("propose_idea", [wide, deep]))
    found = plugins.propose_ideas(History(), "", Random(1))
    assert [(item.id, item.author) for item in found] == [(wide.id, "odd"), (deep.id, "odd")]
    assert plugins.propose_idea(History(), "", Random(1)).id == wide.id
    tried = story([1.1, experiment(1.2, verdict="discard", idea=wide)]).history
    assert [item.id for item in plugins.propose_ideas(tried, "", Random(1))] == [deep.id]
    assert failures == []
    assert only(answering("propose_idea", []))[0].propose_ideas(History(), "", Random(1)) == ()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([idea(), "wider"], "'wider' is not of type Idea"),
        ([idea(f"idea {n}") for n in range(101)],
         "101 ideas in one answer, more than 100; give the best first"),
    ],
)  # fmt: skip
def test_several_ideas_of_which_one_is_wrong(only, answer, error):
    """An answer is taken as a whole or not at all."""
    plugins, failures = only(answering("propose_idea", answer))
    assert plugins.propose_ideas(History(), "", Random(1)) == ()
    assert [failure.error for failure in failures] == [f"answer refused: {error}"]


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "GIT_CEILING_DIRECTORIES", "SEED"],
)
def test_an_idea_loads_no_code_by_its_environment(only, name):
    """Variables that make a loader, an interpreter or git run other code are refused.

    So is the seed, which would change nothing.
    """
    plugins, failures = only(answering("propose_idea", idea(env={name: "x"})))
    assert plugins.propose_idea(History(), "", Random(1)) is None
    own = "which the loop gives to every run; leave it out"
    why = own if name == "SEED" else "which loads code; change the script"
    line = f"Idea.env sets {name!r}, {why}"
    assert [failure.error for failure in failures] == [f"answer refused: {line}"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("keep", "'keep' is not of type Decision"),
        (Decision(verdict="keep", reason=""), "Decision.reason is ''; give text"),
        (
            Decision(verdict="keep", reason="x", confidence=1.2),
            "confidence is 1.2; give a probability from 0 to 1",
        ),
        (
            Decision(verdict="keep", reason="x", delta=float("inf")),
            "Decision.delta is inf; give a finite number",
        ),
    ],
)
def test_decisions(only, answer, error):
    """A decision has a reason and finite numbers; the next policy decides instead."""
    plugins, failures = only(KeepBetter(), answering("decide", answer))
    assert plugins.decide(candidate(1.0), History()).author == "keep_better"
    assert [failure.error for failure in failures] == [f"answer refused: {error}"]


def test_nothing_is_kept_without_a_score(only):
    """A policy cannot keep what has no score."""
    plugins, failures = only(
        KeepBetter(), answering("decide", Decision(verdict="keep", reason="I like it"))
    )
    assert plugins.decide(candidate(None), History()).verdict == "crash"
    assert failures[0].error == "answer refused: experiment 0 has no score and cannot be kept"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (3, "3 is not of type Backtrack"),
        (Backtrack(signal="plateau", reason=" "), "Backtrack.reason is ' '; give text"),
        (
            Backtrack(signal="dead_end", reason="x"),
            "a dead end names no direction; set Backtrack.direction",
        ),
        (
            Backtrack(signal="regression", reason="x", to_experiment=2),
            "experiment 2 was never kept; go back to a kept one",
        ),
        (
            Backtrack(signal="plateau", reason="x", experiments=(1, 3)),
            "Backtrack.experiments names [3], which do not exist",
        ),
        (
            Backtrack(signal="plateau", reason="x", experiments=("1",)),
            "Backtrack.experiments is ('1',); give numbers of experiments",
        ),
    ],
)
def test_ways_back(only, answer, error):
    """A rule goes back to what was kept, and names the direction that is dead."""
    plugins, failures = only(answering("backtrack", answer))
    assert plugins.backtrack(history([1.1, 1.0, 1.2])) is None
    assert [failure.error for failure in failures] == [f"answer refused: {error}"]


def test_parents(only):
    """Only what was kept is built on, and a reason is given."""
    for answer, error in (
        (Parent(experiment=2, reason="x"), "experiment 2 was never kept; go back to a kept one"),
        (Parent(experiment=0, reason=""), "Parent.reason is ''; give text"),
    ):
        plugins, failures = only(answering("choose_parent", answer))
        assert plugins.choose_parent(history([1.1, 1.0, 1.2]), Random(1)) is None
        assert [failure.error for failure in failures] == [f"answer refused: {error}"]


@pytest.mark.parametrize("name", ["result", "versus_expected", "why", "lesson"])
def test_analyses(only, name):
    """None of the four lines of an analysis is empty."""
    fallback = answering("analyze_run", analysis())
    plugins, failures = only(fallback)
    assert isinstance(plugins.analyze_run(experiment(1.0), History()), Analysis)

    class Hasty:
        @hookimpl
        def analyze_run(self):
            return analysis(**{name: ""})

    plugins, failures = only(fallback, Hasty())
    plugins.analyze_run(experiment(1.0), History())
    assert [failure.error for failure in failures] == [
        f"answer refused: Analysis.{name} is ''; give text"
    ]


@pytest.mark.parametrize("answer", ["", 5, "   \n"])
def test_sources_and_reasons_to_stop(only, tmp_path, answer):
    """A new script and a reason to stop a run are text."""
    plugins, failures = only(answering("implement_idea", answer))
    assert plugins.implement_idea(idea(), workspace(tmp_path)) is None
    stop, more = only(answering("should_stop_run", answer))
    assert stop.should_stop_run(run_request(tmp_path), {"score": 1.0}, History()) is None
    assert len(failures) == len(more) == 1


def test_objections_come_alone_or_together(only):
    """One objection or several; each names its reviewer and has a reason."""
    plugins, failures = only(
        answering("review_idea", Objection(author="", reason="tried before")),
    )
    (found,) = plugins.review_idea(idea(), History())
    assert (found.author, found.reason) == ("odd", "tried before")
    plugins, failures = only(answering("review_idea", [Objection(author="", reason="")]))
    assert plugins.review_idea(idea(), History()) == ()
    assert failures[0].error == "answer refused: Objection.reason is ''; give text"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Violation(rule="r", detail="d"), "is not a sequence of Violation"),
        ("violation", "'violation' is not a sequence of Violation"),
        ([Violation(rule="", detail="d")], "Violation.rule is ''; give text"),
        ([Violation(rule="r", detail="d", severity="bad")], "severity is 'bad'; use violation or"),
    ],
)
def test_an_audit_that_fails_blocks(only, tmp_path, answer, error):
    """A script must not pass by breaking its auditor: a failed audit counts as a violation."""
    plugins, failures = only(answering("audit_change", answer))
    (found,) = plugins.audit_change(change(), workspace(tmp_path))
    assert found.blocks
    assert found.rule == "audit_failed"
    assert error in failures[0].error


def test_an_audit_that_raises_quarantines(only, tmp_path):
    """The same holds after the run."""

    class Breaks:
        @hookimpl
        def audit_run(self):
            raise RecursionError("too deep")

    plugins, failures = only(Breaks())
    (found,) = plugins.audit_run(experiment(1.0), run_output(tmp_path), History())
    assert found.blocks
    assert found.detail == "audit_run of breaks failed: RecursionError: too deep"
    assert len(failures) == 1


def test_a_handle_can_be_asked_and_found_again(only, tmp_path):
    """What a launcher returns has a reference, a log, poll and stop."""

    class Half:
        reference, log_path = 12, Path("log")

        def poll(self): ...

        def stop(self, reason): ...

    for answer, error in [("pid 1", "is not a RunHandle"), (Half(), "has text as reference")]:
        plugins, failures = only(answering("launch_run", answer))
        handle = plugins.launch_run(run_request(tmp_path), workspace(tmp_path))
        assert handle.poll().status == "infra_failed"
        assert error in failures[0].error
