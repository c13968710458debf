"""What every strategy must do: idea generators, decision policies, backtracking rules.

The plugin under test stands behind the real facade, as in a campaign.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from attrs import evolve

from autoresearch.config import Config, MetricConfig
from autoresearch.durable import digest_files
from autoresearch.history import History
from autoresearch.hookspecs import HOOKS
from autoresearch.model import Backtrack, Candidate, Idea, Run, RunStatus, Signal, Verdict
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.python_source import fault
from autoresearch.testing.builders import SOURCE, candidate, experiment
from autoresearch.testing.fakes import KeepBetter
from autoresearch.testing.story import EXAMPLES, Story, history, story

PATIENCE = 2.0  # seconds; an observer that needs longer is taken to hang
_RERUNS = 20  # more runs of one experiment than any noise is worth


class PluginContract:
    """Subclass a contract, give it the fixture ``plugin``, and pytest checks the rest.

    ``plugin`` returns a module, an instance, a class that can be called without arguments, or the
    path of a file. ``config`` may be given too, for a plugin with settings. ``hooks`` are those of
    which the plugin implements at least one: the ones whose declarations name the contract.
    """

    hooks: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Take the hooks from their declarations."""
        super().__init_subclass__(**options)
        declared = tuple(hook.name for hook in HOOKS.values() if hook.contract == cls.__name__)
        cls.hooks = declared or cls.hooks

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin under test."""
        pytest.fail(f"{type(self).__name__} has no plugin; give it a fixture of this name")

    @pytest.fixture
    def config(self) -> Config:
        """The configuration that the plugin is given."""
        return Config(preset="plain", metric=MetricConfig(sd=0.001))

    @pytest.fixture
    def companions(self) -> tuple[object, ...]:
        """Plugins that stand behind the one under test."""
        return ()

    @pytest.fixture
    def failures(self) -> list[PluginFailure]:
        """What the facade reported about the plugin."""
        return []

    @pytest.fixture
    def plugins(
        self,
        plugin: object,
        config: Config,
        companions: tuple[object, ...],
        failures: list[PluginFailure],
    ) -> Iterator[Plugins]:
        """The facade with the plugin under test and no built-in."""
        made = Plugins.only(*companions, plugin, config=config, patience=PATIENCE)
        made.on_failure = failures.append
        yield made
        made.close()

    def test_implements_its_hook(self, plugins: Plugins) -> None:
        """The plugin can be loaded and implements the hook that its kind is named after."""
        implemented = plugins.infos()[-1].hooks
        assert set(self.hooks) & set(implemented), (
            f"it implements {', '.join(implemented)}, but none of {', '.join(self.hooks)}"
        )


def sound(failures: list[PluginFailure], situation: str) -> None:
    """Fail the test when the facade reported anything."""
    assert not failures, f"{situation}: {failures[0]}\n{failures[0].traceback}"


def situations() -> Iterator[tuple[str, History]]:
    """Yield every example history with its name."""
    return ((name, _told(name)) for name in EXAMPLES)


@cache  # telling them all takes 0.1 s, and a History cannot be changed
def _told(name: str) -> History:
    return EXAMPLES[name]().history


def snapshot(folder: Path) -> dict[str, str]:
    """Return the digest of every file under a folder, to see what was written."""
    return {
        str(path.relative_to(folder)): digest_files(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class IdeaGeneratorContract(PluginContract):
    """Conformance of ``propose_idea``; give ``plugin``, and ``source`` when it needs a certain one.

    A generator may have no idea in any of the situations, but what it proposes must be sound: each
    idea of an answer that has several.
    """

    @pytest.fixture
    def source(self) -> str:
        """The script at head."""
        return SOURCE

    def test_proposes_something(
        self, plugins: Plugins, source: str, failures: list[PluginFailure]
    ) -> None:
        """After a baseline, or in one of the other situations, it has an idea."""
        found = [plugins.propose_idea(past, source, Random(1)) for _, past in situations()]
        assert any(found), "it has no idea in any situation" + "".join(
            f"; {failure}" for failure in failures[:1]
        )

    def test_survives_every_history(
        self, plugins: Plugins, source: str, failures: list[PluginFailure]
    ) -> None:
        """It neither raises nor gives an invalid answer, whatever the campaign looks like."""
        for name, past in situations():
            plugins.propose_idea(past, source, Random(1))
            sound(failures, name)

    def test_same_history_same_idea(self, plugins: Plugins, source: str) -> None:
        """The idea follows from history, script and ``rng`` alone, so that it can be replayed."""
        for name, past in situations():
            first, second = _ask(plugins, past, source), _ask(plugins, past, source)
            assert first == second, f"{name}: asked twice, it proposed {first} and then {second}"

    def test_leaves_global_chance_alone(self, plugins: Plugins, source: str) -> None:
        """It draws from ``rng`` and neither reads nor reseeds the module ``random``."""
        kept = random.getstate()
        try:
            # A state of its own: a generator that reseeds with a constant left the last one.
            random.seed("a seed that no plugin uses")
            before = random.getstate()
            for _, past in situations():
                _ask(plugins, past, source)
            after = random.getstate()
        finally:
            random.setstate(kept)
        assert after == before, "it used the module random; use the rng it is given"

    def test_cites_what_exists(self, plugins: Plugins, source: str) -> None:
        """It refers only to experiments that were made."""
        for name, past in situations():
            ideas = _ask(plugins, past, source)
            unknown = [n for idea in ideas for n in idea.cites if not 0 <= n < past.next_number]
            assert not unknown, f"{name}: it cites experiments {unknown}, which do not exist"

    def test_changes_something(self, plugins: Plugins, source: str) -> None:
        """New source differs from the script at head."""
        for name, past in situations():
            unchanged = [
                idea
                for idea in _ask(plugins, past, source)
                if idea.source == source and not idea.env and not idea.files
            ]
            assert not unchanged, f"{name}: it proposed the script as it is"

    def test_new_source_compiles(self, plugins: Plugins, source: str) -> None:
        """New source is Python that compiles, so that no run is spent on a slip."""
        for name, past in situations():
            texts = [
                (path, text)
                for idea in _ask(plugins, past, source)
                for path, text in {"script.py": idea.source or "", **idea.files}.items()
            ]
            for path, text in texts:
                found = fault(text) if path.endswith(".py") else None
                assert found is None, f"{name}: the new {path} does not compile: {found.message}"

    def test_gives_each_idea_once(self, plugins: Plugins, source: str) -> None:
        """Of several ideas in one answer no two are the same."""
        for name, past in situations():
            ids = [idea.id for idea in _ask(plugins, past, source)]
            assert len(ids) == len(set(ids)), f"{name}: one of its {len(ids)} ideas is there twice"

    def test_does_not_repeat_itself(self, plugins: Plugins, source: str) -> None:
        """An idea that was tried is not proposed again."""
        told, ideas = _first_ideas(plugins, source)
        for idea in ideas:
            told.add(experiment(1.2, verdict="discard", idea=idea))
        again = {idea.id for idea in _ask(plugins, told.history, source)}
        repeated = [idea.description for idea in ideas if idea.id in again]
        assert not repeated, f"it proposed {repeated[0]!r} again"

    def test_leaves_dropped_ideas(self, plugins: Plugins, source: str) -> None:
        """An idea that was dropped before it ran is not proposed again."""
        told, (idea, *_) = _first_ideas(plugins, source)
        again = _ask(plugins, told.drop(idea).history, source)
        assert idea.id not in {item.id for item in again}, (
            f"{idea.description!r} was dropped, and it proposed it again; see history.tried"
        )

    def test_leaves_dead_ends(self, plugins: Plugins, source: str) -> None:
        """It does not propose anything in a direction that was declared dead."""
        told, (idea, *_) = _first_ideas(plugins, source)
        told.declare_dead(idea.direction)
        again = _ask(plugins, told.history, source)
        dead = [item.description for item in again if item.direction == idea.direction]
        assert not dead, f"it proposed {dead[0]!r} in the dead direction {idea.direction!r}"


def _ask(plugins: Plugins, past: History, source: str) -> tuple[Idea, ...]:
    return plugins.propose_ideas(past, source, Random(7))


def _first_ideas(plugins: Plugins, source: str) -> tuple[Story, tuple[Idea, ...]]:
    told = story([1.1, 1.05])
    ideas = _ask(plugins, told.history, source)
    if not ideas:
        pytest.skip("it has no idea after a baseline and one success")
    return told, ideas


class Fallback(KeepBetter):
    """Answers where the policy under test passes, under a name of its own."""


class DecisionPolicyContract(PluginContract):
    """Conformance of ``decide``, also of a wrapper that vetoes; give ``plugin``.

    A policy that passes, or only wraps, stands before one that keeps what is better. How much worse
    a kept result may be is the policy's own taste: an annealing policy passes.
    """

    @pytest.fixture
    def companions(self) -> tuple[object, ...]:
        """A policy that answers when the one under test does not."""
        return (Fallback(),)

    def test_survives_every_candidate(
        self, plugins: Plugins, failures: list[PluginFailure]
    ) -> None:
        """It gives valid answers to better, equal and worse scores in every situation."""
        for name, past in situations():
            for score in (past.best_metric or 1.0, 0.001, 0.9, 1e9):
                plugins.decide(candidate(score, past), past)
                sound(failures, f"{name}, score {score}")

    def test_same_candidate_same_verdict(self, plugins: Plugins) -> None:
        """The decision follows from candidate and history alone."""
        for name, past in situations():
            judged = candidate(0.9, past)
            first, second = plugins.decide(judged, past), plugins.decide(judged, past)
            assert first == second, f"{name}: asked twice, it said {first} and then {second}"

    @pytest.mark.parametrize("status", ["crashed", "timed_out", "stopped_early", "infra_failed"])
    def test_keeps_nothing_without_a_score(
        self, plugins: Plugins, failures: list[PluginFailure], status: str
    ) -> None:
        """A run that gave no score is never kept."""
        past = history([1.1, 1.05])
        decision = plugins.decide(candidate(None, past, status=status), past)
        sound(failures, f"a run that {status}")
        assert decision.verdict is not Verdict.KEEP, f"it kept a run that {status}"

    @pytest.mark.parametrize("better", ["lower", "higher"])
    def test_knows_which_way_the_metric_points(self, plugins: Plugins, better: str) -> None:
        """It does not keep a score a tenth worse where it turns down one a tenth better."""
        past = history([1.1, 1.0] if better == "lower" else [1.0, 1.1], better=better)
        best = past.best_metric or 1.0
        good, bad = (best * 0.9, best * 1.1) if better == "lower" else (best * 1.1, best * 0.9)
        kept = [
            plugins.decide(candidate(score, past), past).verdict is Verdict.KEEP
            for score in (good, bad)
        ]
        assert kept != [False, True], (
            f"{better} is better, the best is {best:g}, and it kept {bad:g} but not {good:g}"
        )

    def test_ends_its_reruns(self, plugins: Plugins) -> None:
        """However close a result is, it does not ask for one more run for ever."""
        past = history([1.1, 1.05])
        for score in (1.05, 1.0499, 1.0501):
            judged = _run_often(candidate(score, past))
            verdict = plugins.decide(judged, past).verdict
            assert verdict is not Verdict.RERUN, (
                f"after {_RERUNS} runs that gave {score} it asked for another one"
            )


def _run_often(judged: Candidate) -> Candidate:
    """Return a candidate whose experiment was run again and again with the same result."""
    made = judged.experiment
    runs = tuple(
        Run(
            index=index,
            name=f"test-{made.number}-{index}",
            seed=1337 + index,
            status=RunStatus.COMPLETED,
            metrics=made.metrics,
        )
        for index in range(_RERUNS)
    )
    return evolve(judged, experiment=evolve(made, runs=runs))


class BacktrackingRuleContract(PluginContract):
    """Conformance of ``backtrack``; give ``plugin``. ``None`` is a valid answer everywhere."""

    def test_survives_every_history(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It neither raises nor goes back to what was never kept."""
        for name, past in situations():
            plugins.backtrack(past)
            sound(failures, name)

    def test_same_history_same_answer(self, plugins: Plugins) -> None:
        """The answer follows from the history alone."""
        for name, past in situations():
            first, second = plugins.backtrack(past), plugins.backtrack(past)
            assert first == second, f"{name}: asked twice, it said {first} and then {second}"

    def test_names_its_proof(self, plugins: Plugins) -> None:
        """A dead end and a plateau name the experiments that show it."""
        for name, past in situations():
            answer = plugins.backtrack(past)
            if answer is not None and answer.signal in (Signal.DEAD_END, Signal.PLATEAU):
                assert answer.experiments, f"{name}: {answer} names no experiments"

    def test_is_silent_at_the_start(self, plugins: Plugins) -> None:
        """Before anything was tried there is nothing to go back from."""
        for past in (history(), history([1.1])):
            answer = plugins.backtrack(past)
            assert answer is None, f"after {past.next_number} experiments it said {answer}"

    def test_is_silent_while_things_get_better(self, plugins: Plugins) -> None:
        """A campaign in which every experiment is a clear success needs no way back."""
        answer = plugins.backtrack(history([1.1 - 0.02 * step for step in range(10)]))
        assert answer is None, f"ten clear successes in a row, and it said {answer}"

    def test_is_content_once_followed(self, plugins: Plugins) -> None:
        """After its answer was carried out it does not give the same answer again."""
        for name, make in EXAMPLES.items():
            told = make()
            answer = plugins.backtrack(told.history)
            if answer is not None:
                _follow(told, answer)
                again = plugins.backtrack(told.history)
                assert again != answer, f"{name}: after {answer} was done it asked for it again"


def _follow(told: Story, answer: Backtrack) -> None:
    """Carry an answer out as the loop does."""
    if answer.signal is Signal.DEAD_END and answer.direction:
        told.declare_dead(answer.direction)
    elif answer.signal is Signal.PLATEAU:
        told.declare_plateau()
    if answer.to_experiment is not None:
        told.go_back(answer.to_experiment)
