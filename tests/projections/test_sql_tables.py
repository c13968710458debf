"""The tables for people: what they say while an experiment runs and after it was decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from attrs import evolve

from autoresearch import events
from autoresearch.log import EventLog, EventTable, MemoryLog, View, Writer
from autoresearch.projections.tables import event_table, open_store, people_schema


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(people_schema())


def ask(log: EventLog, query: str, at: int | None = None) -> list[tuple[Any, ...]]:
    with log.connect(at=at) as connection:
        return connection.execute(query).fetchall()


def started(metric: str = "val_bpb") -> events.CampaignStarted:
    return events.CampaignStarted(
        tag="mar18",
        branch="autoresearch/mar18",
        base_commit="c0",
        script="train.py",
        script_digest="d0",
        metric=metric,
        better="lower",
        config={"metric": {"size": "artifact_bytes"}},
        plugins={},
        environment={},
    )


def proposed(number: int, idea: str = "") -> events.IdeaProposed:
    return events.IdeaProposed(
        experiment=number,
        idea=idea or f"idea{number}",
        direction="muon momentum",
        description=f"try {number}",
        hypothesis="less is more",
        author="catalogue",
    )


def run(writer: Writer, number: int, index: int, **metrics: float) -> None:
    """Record a whole completed run."""
    name = f"mar18-{number}-{index}"
    writer.append_many(
        [
            events.RunRequested(
                experiment=number,
                run=name,
                index=index,
                seed=1337 + index,
                launcher="local",
                command=("python", "train.py"),
                timeout_seconds=900,
            ),
            events.RunStarted(run=name, experiment=number, reference="pid 1"),
            events.RunFinished(run=name, experiment=number, status="completed", seconds=10.5),
            events.MetricsExtracted(run=name, experiment=number, metrics=metrics),
        ]
    )


def decided(number: int, verdict: str, reason: str = "because") -> events.Decided:
    return events.Decided(experiment=number, verdict=verdict, reason=reason, author="greedy")


def test_an_experiment_is_one_row_from_its_proposal_on(log: MemoryLog) -> None:
    """The row is there while the run goes on and gets its verdict and numbers afterwards."""
    query = "SELECT experiment, status, val_bpb, artifact_bytes, seconds, runs FROM experiments"
    with log.writer("mar18") as writer:
        writer.append_many([started(), proposed(0)])
        assert ask(log, query) == [(0, "running", None, None, None, 0)]
        run(writer, 0, 0, val_bpb=1.25, artifact_bytes=15_000_000)
        assert ask(log, query) == [(0, "running", 1.25, 15_000_000, 10.5, 1)]
        writer.append(decided(0, "keep"))
    assert ask(log, query) == [(0, "keep", 1.25, 15_000_000, 10.5, 1)]
    assert ask(log, query, at=2) == [(0, "running", None, None, None, 0)]
    assert ask(log, query, at=1) == []


def test_several_runs_give_their_mean(log: MemoryLog) -> None:
    """After a rerun the score is the mean over completed runs, the size the largest."""
    with log.writer("mar18") as writer:
        writer.append_many([started(), proposed(0)])
        run(writer, 0, 0, val_bpb=1.0, artifact_bytes=10)
        writer.append(decided(0, "rerun"))
        assert ask(log, "SELECT status FROM experiments") == [("rerun",)]
        run(writer, 0, 1, val_bpb=2.0, artifact_bytes=30)
        writer.append(decided(0, "discard", "worse on average"))
    query = "SELECT status, val_bpb, artifact_bytes, seconds, runs, reason FROM experiments"
    assert ask(log, query) == [("discard", 1.5, 30, 21.0, 2, "worse on average")]


def test_a_failed_run_gives_no_score(log: MemoryLog) -> None:
    """Numbers of a run that did not complete do not count, and an absent number is NULL."""
    with log.writer("mar18") as writer:
        writer.append_many([started(), proposed(0)])
        run(writer, 0, 0, train_loss=3.0)
        finished = events.RunFinished(run="mar18-0-0", experiment=0, status="timed_out")
        writer.append_many([finished, decided(0, "crash")])
    query = "SELECT status, metric, val_bpb, artifact_bytes FROM experiments"
    assert ask(log, query) == [("crash", None, None, None)]
    assert ask(log, "SELECT status, metric FROM runs") == [("timed_out", None)]


def test_another_metric_is_not_called_val_bpb(log: MemoryLog) -> None:
    """The campaign's own metric has its own column with its name."""
    with log.writer("mar18") as writer:
        writer.append_many([started("accuracy"), proposed(0)])
        run(writer, 0, 0, accuracy=0.75)
    query = "SELECT metric_name, metric, val_bpb FROM experiments"
    assert ask(log, query) == [("accuracy", 0.75, None)]


def test_a_dropped_idea_is_no_experiment(log: MemoryLog) -> None:
    """The number of a dropped idea belongs to the next one."""
    query = "SELECT experiment, idea, status FROM experiments"
    with log.writer("mar18") as writer:
        drop = events.IdeaDropped(idea="first", reason="audit", experiment=0)
        writer.append_many([started(), proposed(0, "first"), drop])
        assert ask(log, query) == []
        writer.append(proposed(0, "second"))
    assert ask(log, query) == [(0, "second", "running")]
    states = ask(log, "SELECT idea, state, experiment, reason FROM ideas ORDER BY idea")
    assert states == [("first", "dropped", None, "audit"), ("second", "tried", 0, None)]


def test_a_person_settles_a_quarantine(log: MemoryLog) -> None:
    """A released experiment counts as kept, and who said so is in decisions."""
    word = events.QuarantineResolved(experiment=0, released=True, reason="checked", author="ann")
    with log.writer("mar18") as writer:
        writer.append_many([started(), proposed(0), decided(0, "quarantine", "too good")])
        assert ask(log, "SELECT status FROM experiments") == [("quarantine",)]
        writer.append(word)
    query = "SELECT status, reason, decided_by FROM experiments"
    assert ask(log, query) == [("keep", "checked", "ann")]
    verdicts = ask(log, "SELECT verdict, author FROM decisions ORDER BY position")
    assert verdicts == [("quarantine", "greedy"), ("keep", "ann")]


def test_campaigns_are_kept_apart(log: MemoryLog) -> None:
    """Experiments of two campaigns with the same numbers do not mix."""
    with log.writer("one") as first, log.writer("two") as second:
        first.append_many([started(), proposed(0), decided(0, "keep")])
        second.append_many([started("accuracy"), proposed(0)])
    query = "SELECT campaign, status, metric_name FROM experiments ORDER BY campaign"
    assert ask(log, query) == [("one", "keep", "val_bpb"), ("two", "running", "accuracy")]


def test_the_smaller_tables(log: MemoryLog) -> None:
    """Metrics, lessons, dead ends and costs are rows of their events."""
    with log.writer("mar18") as writer:
        writer.append_many(
            [
                started(),
                proposed(0),
                events.MetricObserved(run="r", experiment=0, name="loss", value=3.5, step=100),
                events.MetricsExtracted(run="r", experiment=0, metrics={"val_bpb": 1.25}),
                events.LessonLearned(experiment=0, direction="muon", lesson="slower is better"),
                events.DirectionDeclaredDead(direction="muon", reason="no", experiments=(1, 2)),
                events.CostIncurred(kind="run", source="modal", gpu_seconds=4800, usd=2.5),
            ]
        )
    metrics = ask(log, "SELECT name, value, step, final FROM metrics ORDER BY position")
    assert metrics == [("loss", 3.5, 100, False), ("val_bpb", 1.25, None, True)]
    assert ask(log, "SELECT lesson FROM lessons") == [("slower is better",)]
    assert ask(log, "SELECT direction, experiments FROM dead_ends") == [("muon", [1, 2])]
    assert ask(log, "SELECT sum(usd), sum(gpu_seconds) FROM costs") == [(2.5, 4800.0)]


def test_sources_know_who_tried_them(tmp_path: Path) -> None:
    """A stored text is one row with the experiment that tried it first."""
    log = open_store(tmp_path / "s")
    digest = log.sources.put("a\nb\n")
    with log.writer("mar18") as writer:
        for number in (4, 5):
            writer.append(
                events.ChangeApplied(experiment=number, source_digest=digest, parent_digest="")
            )
    query = "SELECT campaign, experiment, uses, lines, bytes, text FROM sources"
    assert ask(log, query) == [("mar18", 4, 2, 2, 4, "a\nb\n")]


def test_typed_columns(log: MemoryLog) -> None:
    """Fields come with their types: lists, maps, times, and NULL for what is not there."""
    with log.writer("mar18") as writer:
        idea = events.IdeaQueued(
            idea="i", direction="d", description="x", hypothesis="h", author="g", env={"A": "1"}
        )
        writer.append(idea, at="2026-03-18T02:00:00.000001Z")
    query = "SELECT recorded_at, env['A'], expected_gain, patch FROM idea_queued"
    moment = datetime(2026, 3, 18, 2, 0, 0, 1)
    assert ask(log, query) == [(moment, "1", None, None)]
    kinds = {column.name: column.kind for column in event_table("idea_proposed").columns}
    assert kinds["experiment"] == "BIGINT"
    assert kinds["cites"] == "BIGINT[]"
    assert kinds["predicted"] == "DOUBLE"
    assert kinds["env"] == "MAP(VARCHAR, VARCHAR)"


@pytest.fixture(scope="module")
def empty() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the tables of a log without events."""
    with MemoryLog(people_schema()).connect() as connection:
        yield connection


@pytest.mark.parametrize("table", [*people_schema().tables, *people_schema().views])
def test_every_column_is_what_the_page_says(
    empty: duckdb.DuckDBPyConnection, table: EventTable | View
) -> None:
    """Names and types in the database are the documented ones, and every column has a meaning."""
    query = f'SELECT column_name, column_type FROM (DESCRIBE "{table.name}")'
    described = empty.execute(query).fetchall()
    assert described == [(column.name, column.kind) for column in table.columns]
    assert all(column.doc for column in table.columns)
    assert table.doc.endswith(".")


def test_changes_are_rows(log: MemoryLog) -> None:
    """One row a value, as text and as a number; another program's odd changes hide no other row."""
    writer = log.writer("mar18", "loop")
    writer.append(started())
    values = [
        {"name": "lr", "old": 0.1, "new": 0.2, "file": "conf.toml"},
        {"name": "tied", "old": True, "new": False},
        {"name": "OPT", "old": "adam", "new": "muon", "file": ""},
    ]
    writer.append(evolve(proposed(1), changes=tuple(values)))
    writer.append(evolve(proposed(2), changes=({"name": "x"},)))
    query = "SELECT * EXCLUDE (campaign, position) FROM changes ORDER BY experiment, name"
    assert ask(log, query) == [
        (1, "train.py", "OPT", "adam", "muon", None, None),
        (1, "conf.toml", "lr", "0.1", "0.2", 0.1, 0.2),
        (1, "train.py", "tied", "true", "false", None, None),
        (2, "train.py", "x", None, None, None, None),
    ]
