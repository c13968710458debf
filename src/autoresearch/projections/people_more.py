"""More of the tables that people ask for: numbers, ideas, memory, money and texts."""

from __future__ import annotations

from autoresearch.log import Column, View


def _column(name: str, kind: str, doc: str, unit: str = "", sql: str = "") -> Column:
    return Column(name=name, kind=kind, doc=doc, unit=unit, sql=sql)


_CAMPAIGN = _column("campaign", "VARCHAR", "run tag of the campaign")
_EXPERIMENT = _column("experiment", "BIGINT", "number within the campaign; 0 is the baseline")
_POSITION = _column("position", "BIGINT", "place of the event in the log")

METRICS = View(
    name="metrics",
    doc="Every number that a run gave, in the long form.",
    columns=(
        _CAMPAIGN,
        _EXPERIMENT,
        _column("run", "VARCHAR", "name of the run"),
        _column("name", "VARCHAR", "name of the number"),
        _column("value", "DOUBLE", "its value", "metric"),
        _column("step", "BIGINT", "training step; null for a final number", "steps"),
        _column("final", "BOOLEAN", "whether it was read after the run was over"),
        _column("recorded_at", "TIMESTAMP", "when, UTC"),
        _POSITION,
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

IDEAS = View(
    name="ideas",
    doc="One row for each idea that was queued or proposed.",
    columns=(
        _CAMPAIGN,
        _column("idea", "VARCHAR", "id of the idea: 12 hex digits over what it does"),
        _column("state", "VARCHAR", "queued, tried or dropped"),
        _column("experiment", "BIGINT", "experiment that tried it last; null when none did"),
        _column("direction", "VARCHAR", "family of the change"),
        _column("description", "VARCHAR", "what to change"),
        _column("hypothesis", "VARCHAR", "what is expected and why"),
        _column("generator", "VARCHAR", "who proposed it"),
        _column("expected_gain", "DOUBLE", "expected improvement; positive is better", "metric"),
        _column("reason", "VARCHAR", "why it was dropped"),
        _column("first_at", "TIMESTAMP", "when it was first heard of, UTC"),
        _column("position", "BIGINT", "place of the newest event about it"),
    ),
    query="""
        WITH facts AS (
            SELECT campaign, idea, 'queued' AS state, NULL AS experiment, direction, description,
                hypothesis, generator, expected_gain, NULL AS reason, recorded_at, position
            FROM idea_queued
            UNION ALL
            SELECT campaign, idea, 'tried', experiment, direction, description, hypothesis,
                generator, expected_gain, NULL, recorded_at, position
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
            arg_max(generator, position) AS generator,
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
        _CAMPAIGN,
        _EXPERIMENT,
        _column("direction", "VARCHAR", "family of the change"),
        _column("lesson", "VARCHAR", "the lesson"),
        _column("learned_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        _POSITION,
    ),
    query="SELECT * FROM lesson_learned",
)

DEAD_ENDS = View(
    name="dead_ends",
    doc="Directions that were abandoned.",
    columns=(
        _CAMPAIGN,
        _column("direction", "VARCHAR", "family of the change"),
        _column("reason", "VARCHAR", "why it failed"),
        _column("experiments", "BIGINT[]", "experiments that proved it"),
        _column("rule", "VARCHAR", "plugin that declared it"),
        _column("declared_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        _POSITION,
    ),
    query="SELECT * FROM direction_declared_dead",
)

COSTS = View(
    name="costs",
    doc="Everything that was spent.",
    columns=(
        _CAMPAIGN,
        _column("experiment", "BIGINT", "experiment it was spent on; null when on none"),
        _column("kind", "VARCHAR", "run or tokens"),
        _column("source", "VARCHAR", "launcher or generator that spent it"),
        _column("seconds", "DOUBLE", "wall clock", "s"),
        _column("gpu_seconds", "DOUBLE", "GPU time, all GPUs together", "GPU s"),
        _column("tokens_in", "BIGINT", "tokens read by a model", "tokens"),
        _column("tokens_out", "BIGINT", "tokens written by a model", "tokens"),
        _column("usd", "DOUBLE", "money", "USD"),
        _column("incurred_at", "TIMESTAMP", "when, UTC", sql="recorded_at"),
        _POSITION,
    ),
    query="SELECT * FROM cost_incurred",
)

SOURCES = View(
    name="sources",
    doc="Every source that was ever tried, once, with its text.",
    columns=(
        _column("digest", "VARCHAR", "sha256 of the text"),
        _column("bytes", "BIGINT", "size of the text", "bytes"),
        _column("lines", "BIGINT", "lines of the text", "lines"),
        _column("campaign", "VARCHAR", "campaign that tried it first; null when none did"),
        _column("experiment", "BIGINT", "experiment that tried it first"),
        _column("uses", "BIGINT", "experiments that tried it"),
        _column("text", "VARCHAR", "the text"),
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
