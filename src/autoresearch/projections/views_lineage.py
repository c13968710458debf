"""Tables about what builds on what, and what it brought; a positive gain is an improvement."""

from __future__ import annotations

from autoresearch.log import View
from autoresearch.projections.views_runs import CAMPAIGN, EXPERIMENT, column

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

VIEWS = (LINEAGE, BEST_SO_FAR, GAIN)
