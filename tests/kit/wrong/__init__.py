"""Deliberately wrong plugins: for every property of every contract one that breaks only that.

They prove that the contracts can fail. Do not learn from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from autoresearch.testing import (
    AuditContract,
    BacktrackingRuleContract,
    DecisionPolicyContract,
    IdeaGeneratorContract,
    LauncherContract,
    MetricExtractorContract,
    ObserverContract,
    ProjectionContract,
)
from wrong import launchers, readers, strategies, views


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
        strategies.Ideas,
        proposes_something=strategies.NoIdeas,
        survives_every_history=strategies.NeedsABaseline,
        same_history_same_idea=strategies.Counts,
        leaves_global_chance_alone=strategies.Gambles,
        cites_what_exists=strategies.CitesNothingReal,
        changes_something=strategies.ChangesNothing,
        new_source_compiles=strategies.WritesNoPython,
        gives_each_idea_once=strategies.Stutters,
        does_not_repeat_itself=strategies.Forgets,
        leaves_dropped_ideas=strategies.InsistsOnDropped,
        leaves_dead_ends=strategies.InsistsOnDeadEnds,
    ),
    *_table(
        DecisionPolicyContract,
        strategies.Policy,
        implements_its_hook=strategies.NoPolicy,
        survives_every_candidate=strategies.NeedsABest,
        same_candidate_same_verdict=strategies.ChangesItsMind,
        keeps_nothing_without_a_score=strategies.KeepsCrashes,
        knows_which_way_the_metric_points=strategies.LikesLowOnly,
        ends_its_reruns=strategies.RerunsForEver,
    ),
    Wrong(DecisionPolicyContract, "", strategies.Anneals),
    Wrong(IdeaGeneratorContract, "test_leaves_global_chance_alone", strategies.Reseeds),
    *_table(
        BacktrackingRuleContract,
        strategies.Rule,
        implements_its_hook=strategies.NoRule,
        survives_every_history=strategies.GoesNowhere,
        same_history_same_answer=strategies.Wavers,
        names_its_proof=strategies.ProvesNothing,
        is_silent_at_the_start=strategies.Hasty,
        is_silent_while_things_get_better=strategies.Pessimist,
        is_content_once_followed=strategies.Nags,
    ),
    *_table(
        LauncherContract,
        lambda: launchers.Launcher,
        leaves_other_launchers_alone=launchers.TakesAll,
        runs_to_the_end=launchers.HidesErrors,
        reports_a_crash=launchers.CallsCrashesTimeouts,
        gives_the_environment=launchers.ForgetsTheSeed,
        gives_no_credentials=launchers.Leaks,
        starts_a_name_once=launchers.StartsTwice,
        finds_a_run_after_a_restart=lambda: launchers.Forgets,
        polls_without_waiting=launchers.PollsSlowly,
        stops_a_run=launchers.CallsStopsCrashes,
        ends_a_run_at_its_deadline=launchers.IgnoresDeadlines,
    ),
    *_table(
        MetricExtractorContract,
        readers.Extractor,
        reads_numbers=readers.FindsNothing,
        invents_nothing=readers.InventsZero,
        gives_only_finite_numbers=readers.BelievesNan,
        believes_the_last_word=readers.BelievesTheFirst,
        survives_garbage=readers.WantsText,
        only_reads=readers.KeepsNotes,
    ),
    *_table(
        AuditContract,
        readers.Audit,
        implements_its_hook=readers.NoAudit,
        passes_what_was_not_changed=readers.RefusesAll,
        survives_every_change=readers.WantsPython,
        same_change_same_findings=readers.CountsFindings,
        only_reads=readers.Marks,
        survives_every_run=readers.WantsALog,
    ),
    *_table(
        ProjectionContract,
        views.View,
        has_a_file_name=views.InAFolder,
        renders_every_history=views.NeedsABest,
        same_history_same_text=views.ShowsTheTime,
        shows_foreign_text_safely=views.ShowsEscapes,
        writes_nothing=views.WritesItself,
    ),
    *_table(
        ObserverContract,
        views.Observer,
        implements_its_hook=views.NoObserver,
        sees_every_event=views.Raises,
        sees_events_of_newer_releases=views.KnowsItAll,
        takes_every_notice=views.WantsANumber,
    ),
    Wrong(ObserverContract, "test_sees_every_event", views.Hangs),
)
