"""The SQL tables of the store: a typed one for each event type, and the views for people.

A typed table's columns are those of its event's class. The views here have lineage, gains, numbers,
changes, ideas, memory, money and texts; a positive gain is an improvement.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from autoresearch.events import EVENT_TYPES
from autoresearch.log import Column, EventTable, FileLog, Schema, View, open_log, to_stderr
from autoresearch.presets import metric_columns
from autoresearch.projections.views_runs import (
    CAMPAIGN,
    CAMPAIGNS,
    DECISIONS,
    EXPERIMENT,
    EXPERIMENTS,
    POSITION,
    RUNS,
    column,
    with_metrics,
)

LINEAGE = View(
    name="lineage",
    doc="One row for each experiment with what it builds on, down to the baseline.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("parent", "BIGINT", "experiment whose commit it builds on; null for the baseline"),
        column("depth", "BIGINT", "experiments below it"),
        column("path", "BIGINT[]", "those experiments, the baseline first, and itself"),
        column("children", "BIGINT", "experiments that build on it"),
        column("status", "VARCHAR", "as in experiments"),
        column("direction", "VARCHAR", "family of the change"),
        column("description", "VARCHAR", "what is changed"),
    ),
    # A parent has the smaller number: so the recursion ends, whatever commits the events name.
    query="""
        WITH RECURSIVE numbered AS (
            SELECT e.campaign, e.experiment, max(p.experiment) AS parent,
                any_value(e.status) AS status, any_value(e.direction) AS direction,
                any_value(e.description) AS description
            FROM experiments e LEFT JOIN experiments p ON p.campaign = e.campaign
                AND p.commit = e.parent_commit AND p.commit <> '' AND p.experiment < e.experiment
            GROUP BY e.campaign, e.experiment
        ), walked AS (
            SELECT *, 0::BIGINT AS depth, [experiment] AS path FROM numbered WHERE parent IS NULL
            UNION ALL
            SELECT n.*, w.depth + 1, list_append(w.path, n.experiment)
            FROM numbered n JOIN walked w
                ON w.campaign = n.campaign AND w.experiment = n.parent
        ), counted AS (
            SELECT campaign, parent AS experiment, count(*) AS children
            FROM numbered WHERE parent IS NOT NULL GROUP BY ALL
        )
        SELECT w.*, coalesce(c.children, 0) AS children
        FROM walked w LEFT JOIN counted c USING (campaign, experiment)
    """,
)

BEST_SO_FAR = View(
    name="best_so_far",
    doc="The best kept score after each decided experiment, and which one it is.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("status", "VARCHAR", "as in experiments"),
        column("metric", "DOUBLE", "score of this experiment", "metric"),
        column("best", "DOUBLE", "best kept score up to here", "metric"),
        column("best_experiment", "BIGINT", "experiment that has it"),
        column("gained", "DOUBLE", "how much better that is than the first kept score", "metric"),
        column("gpu_hours", "DOUBLE", "GPU time that experiments had taken by then", "h"),
        column("run_hours", "DOUBLE", "wall clock that runs had taken by then", "h"),
    ),
    query="""
        WITH signed AS (
            SELECT e.campaign, e.experiment, e.status, e.metric, e.seconds, s.sign,
                e.metric * s.sign AS worth, e.status = 'keep' AND e.metric IS NOT NULL AS counts
            FROM experiments e JOIN (
                SELECT campaign, CASE WHEN better = 'lower' THEN -1 ELSE 1 END AS sign
                FROM campaigns
            ) s USING (campaign)
            WHERE e.status NOT IN ('running', 'rerun')
        ), spent AS (
            SELECT campaign, experiment, sum(gpu_seconds) AS gpu_seconds FROM costs GROUP BY ALL
        )
        SELECT campaign, experiment, status, metric,
            sign * max(worth) FILTER (counts) OVER so_far AS best,
            arg_max(experiment, worth) FILTER (counts) OVER so_far AS best_experiment,
            max(worth) FILTER (counts) OVER so_far
                - arg_min(worth, experiment) FILTER (counts) OVER so_far AS gained,
            sum(coalesce(gpu_seconds, 0)) OVER so_far / 3600 AS gpu_hours,
            sum(coalesce(seconds, 0)) OVER so_far / 3600 AS run_hours
        FROM signed LEFT JOIN spent USING (campaign, experiment)
        WINDOW so_far AS (PARTITION BY campaign ORDER BY experiment)
    """,
)

GAIN = View(
    name="gain",
    doc="What each scored experiment brought; positive is better, whichever way the metric points.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("status", "VARCHAR", "as in experiments"),
        column("direction", "VARCHAR", "family of the change"),
        column("description", "VARCHAR", "what is changed"),
        column("metric", "DOUBLE", "score of this experiment", "metric"),
        column("parent", "BIGINT", "experiment that it builds on"),
        column("gain", "DOUBLE", "how much better it is than the one that it builds on", "metric"),
        column("on_best", "DOUBLE", "how much better it is than the best kept before", "metric"),
        column("expected", "DOUBLE", "gain on the best before that was predicted", "metric"),
        column("confidence", "DOUBLE", "probability that the gain is real, 0 to 1"),
    ),
    query="""
        WITH past AS (
            SELECT campaign, experiment, lag(best) OVER (
                PARTITION BY campaign ORDER BY experiment) AS before
            FROM best_so_far
        )
        SELECT e.campaign, e.experiment, e.status, e.direction, e.description, e.metric, l.parent,
            s.sign * (e.metric - p.metric) AS gain, s.sign * (e.metric - b.before) AS on_best,
            s.sign * (e.predicted - b.before) AS expected, e.confidence
        FROM experiments e
        JOIN (
            SELECT campaign, CASE WHEN better = 'lower' THEN -1 ELSE 1 END AS sign FROM campaigns
        ) s USING (campaign)
        LEFT JOIN lineage l USING (campaign, experiment)
        LEFT JOIN experiments p ON p.campaign = e.campaign AND p.experiment = l.parent
        LEFT JOIN past b ON b.campaign = e.campaign AND b.experiment = e.experiment
        WHERE e.metric IS NOT NULL
    """,
)


METRICS = View(
    name="metrics",
    doc="Every number that a run gave, in the long form.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("run", "VARCHAR", "name of the run"),
        column("name", "VARCHAR", "name of the number"),
        column("value", "DOUBLE", "its value", "metric"),
        column("step", "BIGINT", "training step; null for a final number", "steps"),
        column("final", "BOOLEAN", "whether it was read after the run was over"),
        column("recorded_at", "TIMESTAMP", "when, UTC"),
        POSITION,
    ),
    query="""
        SELECT campaign, experiment, run, item.key AS name, item.value AS value, NULL AS step,
            true AS final, recorded_at, position
        FROM (SELECT *, unnest(map_entries(metrics)) AS item FROM metrics_extracted)
        UNION ALL
        SELECT campaign, experiment, run, name, value, step, false, recorded_at, position
        FROM metric_observed
    """,
)

CHANGES = View(
    name="changes",
    doc="One row for each value that an experiment changes, where the author of its idea named it.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("file", "VARCHAR", "file that holds it; the training script where none was named"),
        column("name", "VARCHAR", "name of the value; dotted in files of settings"),
        column("old", "VARCHAR", "value before, as text"),
        column("new", "VARCHAR", "value after, as text"),
        column("old_number", "DOUBLE", "value before; null when it is no number"),
        column("new_number", "DOUBLE", "value after; null when it is no number"),
        POSITION,
    ),
    query="""
        SELECT p.campaign, p.experiment,
            coalesce(nullif(p.change->>'$.file', ''), c.script) AS file,
            p.change->>'$.name' AS name, p.change->>'$.old' AS old, p.change->>'$.new' AS new,
            CASE WHEN json_type(p.change->'$.old') <> 'BOOLEAN'
                THEN TRY_CAST(p.change->>'$.old' AS DOUBLE) END AS old_number,
            CASE WHEN json_type(p.change->'$.new') <> 'BOOLEAN'
                THEN TRY_CAST(p.change->>'$.new' AS DOUBLE) END AS new_number,
            p.position
        FROM (
            SELECT campaign, experiment, position, unnest(TRY_CAST(changes AS JSON[])) AS change
            FROM (
                SELECT * FROM idea_proposed QUALIFY row_number()
                    OVER (PARTITION BY campaign, experiment ORDER BY position DESC) = 1
            )
        ) p LEFT JOIN campaigns c ON c.campaign = p.campaign
    """,
)

IDEAS = View(
    name="ideas",
    doc="One row for each idea that was queued or proposed.",
    columns=(
        CAMPAIGN,
        column("idea", "VARCHAR", "id of the idea: 12 hex digits over what it does"),
        column("state", "VARCHAR", "queued, tried or dropped"),
        column("experiment", "BIGINT", "experiment that tried it last; null when none did"),
        column("direction", "VARCHAR", "family of the change"),
        column("description", "VARCHAR", "what to change"),
        column("hypothesis", "VARCHAR", "what is expected and why"),
        column("author", "VARCHAR", "who proposed it"),
        column("expected_gain", "DOUBLE", "expected improvement; positive is better", "metric"),
        column("reason", "VARCHAR", "why it was dropped"),
        column("first_at", "TIMESTAMP", "when it was first heard of, UTC"),
        column("position", "BIGINT", "place of the newest event about it"),
    ),
    query="""
        WITH facts AS (
            SELECT campaign, idea, 'queued' AS state, NULL AS experiment, direction, description,
                hypothesis, author, expected_gain, NULL AS reason, recorded_at, position
            FROM idea_queued
            UNION ALL
            SELECT campaign, idea, 'tried', experiment, direction, description, hypothesis,
                author, expected_gain, NULL, recorded_at, position
            FROM idea_proposed
            UNION ALL
            SELECT campaign, idea, 'dropped', NULL, NULL, NULL, NULL, NULL, NULL, reason,
                recorded_at, position
            FROM idea_dropped
        )
        SELECT campaign, idea, arg_max(state, position) AS state,
            CASE WHEN arg_max(state, position) = 'tried' THEN arg_max(experiment, position) END
                AS experiment,
            arg_max(direction, position) AS direction,
            arg_max(description, position) AS description,
            arg_max(hypothesis, position) AS hypothesis,
            arg_max(author, position) AS author,
            arg_max(expected_gain, position) AS expected_gain,
            CASE WHEN arg_max(state, position) = 'dropped' THEN arg_max(reason, position) END
                AS reason,
            min(recorded_at) AS first_at, max(position) AS position
        FROM facts GROUP BY campaign, idea
    """,
)

LESSONS = View(
    name="lessons",
    doc="What experiments taught.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("direction", "VARCHAR", "family of the change"),
        column("lesson", "VARCHAR", "the lesson"),
        column("learned_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        POSITION,
    ),
    query="SELECT * FROM lesson_learned",
)

DEAD_ENDS = View(
    name="dead_ends",
    doc="Directions that were abandoned.",
    columns=(
        CAMPAIGN,
        column("direction", "VARCHAR", "family of the change"),
        column("reason", "VARCHAR", "why it failed"),
        column("experiments", "BIGINT[]", "experiments that proved it"),
        column("author", "VARCHAR", "plugin that declared it"),
        column("declared_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        POSITION,
    ),
    query="SELECT * FROM direction_declared_dead",
)

COSTS = View(
    name="costs",
    doc="Everything that was spent.",
    columns=(
        CAMPAIGN,
        column("experiment", "BIGINT", "experiment it was spent on; null when on none"),
        column("kind", "VARCHAR", "run or tokens"),
        column("source", "VARCHAR", "launcher or generator that spent it"),
        column("seconds", "DOUBLE", "wall clock", "s"),
        column("gpu_seconds", "DOUBLE", "GPU time, all GPUs together", "GPU s"),
        column("tokens_in", "BIGINT", "tokens read by a model", "tokens"),
        column("tokens_out", "BIGINT", "tokens written by a model", "tokens"),
        column("usd", "DOUBLE", "money", "USD"),
        column("incurred_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        POSITION,
    ),
    query="SELECT * FROM cost_incurred",
)

SOURCES = View(
    name="sources",
    doc="Every source that was ever tried, once, with its text.",
    columns=(
        column("digest", "VARCHAR", "sha256 of the text"),
        column("bytes", "BIGINT", "size of the text", "bytes"),
        column("lines", "BIGINT", "lines of the text", "lines"),
        column("campaign", "VARCHAR", "campaign that tried it first; null when none did"),
        column("experiment", "BIGINT", "experiment that tried it first"),
        column("uses", "BIGINT", "experiments that tried it"),
        column("text", "VARCHAR", "the text"),
    ),
    query="""
        SELECT t.digest, t.bytes, len(t.text) - len(replace(t.text, chr(10), '')) AS lines,
            u.campaign, u.experiment, coalesce(u.uses, 0) AS uses, t.text
        FROM source_texts t LEFT JOIN (
            SELECT source_digest AS digest, arg_min(campaign, position) AS campaign,
                arg_min(experiment, position) AS experiment,
                count(DISTINCT (campaign, experiment)) AS uses
            FROM change_applied GROUP BY source_digest
        ) u ON u.digest = t.digest
    """,
)

VIEWS = (
    *(METRICS, CHANGES, IDEAS, LESSONS, DEAD_ENDS, COSTS, SOURCES, LINEAGE, BEST_SO_FAR, GAIN),
)


ENVELOPE = (
    column("position", "BIGINT", "place of the event in the log", sql="position"),
    column("campaign", "VARCHAR", "campaign it belongs to", sql="campaign"),
    column("recorded_at", "TIMESTAMP", "when it was recorded, UTC", sql="recorded_at"),
    column("actor", "VARCHAR", "who recorded it", sql="actor"),
)
_PLAIN = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def event_table(name: str) -> EventTable:
    """Return the typed table of one event type."""
    shape: Any = EVENT_TYPES[name]
    hints = get_type_hints(shape)
    columns = tuple(_column(item, hints[item.name]) for item in attrs.fields(shape))
    doc = (shape.__doc__ or "").strip().split("\n")[0]
    return EventTable(name=name, doc=doc, columns=ENVELOPE + columns)


def sql_kind(hint: Any) -> str:
    """Return the SQL type of a field's annotation; what has no better one is JSON."""
    plain = _without_none(hint)
    if plain in _PLAIN:
        return _PLAIN[plain]
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is tuple and len(arguments) == 2 and arguments[0] in _PLAIN:
        return f"{_PLAIN[arguments[0]]}[]"
    if origin is not None and issubclass(origin, Mapping) and arguments[1] in _PLAIN:
        return f"MAP(VARCHAR, {_PLAIN[arguments[1]]})"
    return "JSON"


def _column(item: Any, hint: Any) -> Column:
    kind = sql_kind(hint)
    arrow = "->>" if kind in _PLAIN.values() else "->"
    value = f"payload{arrow}'$.{item.name}'"
    if was := item.metadata.get("was"):
        value = f"coalesce({value}, payload{arrow}'$.{was}')"
    # TRY_CAST: a payload of an older version may lack the field or have it in another form, and
    # one such row must not make the table unreadable.
    return Column(
        name=item.name,
        kind=kind,
        doc=item.metadata.get("doc", ""),
        unit=item.metadata.get("unit", ""),
        sql=value if kind == "JSON" else f"TRY_CAST({value} AS {kind})",
    )


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kept = [argument for argument in get_args(hint) if argument is not type(None)]
        return kept[0] if len(kept) == 1 else hint
    return hint


@cache
def people_schema() -> Schema:
    """Return the typed tables of all event types and the views that people ask for."""
    runs, experiments = (with_metrics(view, metric_columns()) for view in (RUNS, EXPERIMENTS))
    views = (CAMPAIGNS, runs, DECISIONS, experiments, *VIEWS)
    return Schema(tuple(map(event_table, sorted(EVENT_TYPES))), views)


def open_store(root: Path, notify: Callable[[str], None] = to_stderr) -> FileLog:
    """Open the log in the store folder ``root`` (a project's ``.autoresearch``) with all tables.

    ``notify`` gets one line for everything that had to be repaired.
    """
    return open_log(root, people_schema(), notify)
