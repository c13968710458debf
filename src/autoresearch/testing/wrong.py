"""Deliberately wrong plugins: for every property of every contract one that breaks only that.

They prove that the contracts can fail. Do not learn from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from autoresearch.testing import (
    wrong_launchers,
    wrong_readers,
    wrong_strategies,
    wrong_views,
)
from autoresearch.testing.contracts_audits import AuditContract
from autoresearch.testing.contracts_ideas import IdeaGeneratorContract
from autoresearch.testing.contracts_runs import LauncherContract, MetricExtractorContract
from autoresearch.testing.contracts_verdicts import BacktrackingRuleContract, DecisionPolicyContract
from autoresearch.testing.contracts_views import ObserverContract, ProjectionContract


@frozen
class Wrong:
    """A plugin that must fail exactly the test ``breaks`` of ``contract``; "" is a right one."""

    contract: type[Any]
    breaks: str
    make: Callable[[], object]


def _table(
    contract: type[Any], right: Callable[[], object], **broken: Callable[[], object]
) -> tuple[Wrong, ...]:
    wrong = (Wrong(contract, f"test_{name}", make) for name, make in broken.items())
    return (Wrong(contract, "", right), *wrong)


WRONG: tuple[Wrong, ...] = (
    *_table(
        IdeaGeneratorContract,
        wrong_strategies.Ideas,
        proposes_something=wrong_strategies.NoIdeas,
        survives_every_history=wrong_strategies.NeedsABaseline,
        same_history_same_idea=wrong_strategies.Counts,
        leaves_global_chance_alone=wrong_strategies.Gambles,
        cites_what_exists=wrong_strategies.CitesNothingReal,
        changes_something=wrong_strategies.ChangesNothing,
        does_not_repeat_itself=wrong_strategies.Forgets,
        leaves_dead_ends=wrong_strategies.InsistsOnDeadEnds,
    ),
    *_table(
        DecisionPolicyContract,
        wrong_strategies.Policy,
        implements_its_hook=wrong_strategies.NoPolicy,
        survives_every_candidate=wrong_strategies.NeedsABest,
        same_candidate_same_verdict=wrong_strategies.ChangesItsMind,
        keeps_nothing_without_a_score=wrong_strategies.KeepsCrashes,
        keeps_nothing_clearly_worse=wrong_strategies.LikesLowOnly,
    ),
    *_table(
        BacktrackingRuleContract,
        wrong_strategies.Rule,
        implements_its_hook=wrong_strategies.NoRule,
        survives_every_history=wrong_strategies.GoesNowhere,
        same_history_same_answer=wrong_strategies.Wavers,
        is_silent_at_the_start=wrong_strategies.Hasty,
        is_silent_while_things_get_better=wrong_strategies.Pessimist,
        is_content_once_followed=wrong_strategies.Nags,
    ),
    *_table(
        LauncherContract,
        lambda: wrong_launchers.Launcher,
        leaves_other_launchers_alone=wrong_launchers.TakesAll,
        runs_to_the_end=wrong_launchers.HidesErrors,
        reports_a_crash=wrong_launchers.CallsCrashesTimeouts,
        gives_the_environment=wrong_launchers.ForgetsTheSeed,
        gives_no_credentials=wrong_launchers.Leaks,
        starts_a_name_once=wrong_launchers.StartsTwice,
        finds_a_run_after_a_restart=lambda: wrong_launchers.Forgets,
        polls_without_waiting=wrong_launchers.PollsSlowly,
        stops_a_run=wrong_launchers.CallsStopsCrashes,
        ends_a_run_at_its_deadline=wrong_launchers.IgnoresDeadlines,
    ),
    *_table(
        MetricExtractorContract,
        wrong_readers.Extractor,
        reads_numbers=wrong_readers.FindsNothing,
        invents_nothing=wrong_readers.InventsZero,
        gives_only_finite_numbers=wrong_readers.BelievesNan,
        believes_the_last_word=wrong_readers.BelievesTheFirst,
        survives_garbage=wrong_readers.WantsText,
        only_reads=wrong_readers.KeepsNotes,
    ),
    *_table(
        AuditContract,
        wrong_readers.Audit,
        implements_its_hook=wrong_readers.NoAudit,
        passes_what_was_not_changed=wrong_readers.RefusesAll,
        survives_every_change=wrong_readers.WantsPython,
        same_change_same_findings=wrong_readers.CountsFindings,
        only_reads=wrong_readers.Marks,
        survives_every_run=wrong_readers.WantsALog,
    ),
    *_table(
        ProjectionContract,
        wrong_views.View,
        has_a_file_name=wrong_views.InAFolder,
        renders_every_history=wrong_views.NeedsABest,
        same_history_same_text=wrong_views.ShowsTheTime,
        shows_foreign_text_safely=wrong_views.ShowsEscapes,
        writes_nothing=wrong_views.WritesItself,
    ),
    *_table(
        ObserverContract,
        wrong_views.Observer,
        implements_its_hook=wrong_views.NoObserver,
        sees_every_event=wrong_views.Raises,
        sees_events_of_newer_releases=wrong_views.KnowsItAll,
        takes_every_notice=wrong_views.WantsANumber,
    ),
    Wrong(ObserverContract, "test_sees_every_event", wrong_views.Hangs),
)
