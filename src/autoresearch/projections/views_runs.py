"""Tables that people ask for: campaigns, runs, decisions and experiments."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from autoresearch.log import Column, View
from autoresearch.presets import MetricColumn


def column(name: str, kind: str, doc: str, unit: str = "", sql: str = "") -> Column:
    """Return a column; see `Column`."""
    return Column(name=name, kind=kind, doc=doc, unit=unit, sql=sql)


CAMPAIGN = column("campaign", "VARCHAR", "run tag of the campaign")
EXPERIMENT = column("experiment", "BIGINT", "number within the campaign; 0 is the baseline")
POSITION = column("position", "BIGINT", "place of the event in the log")

CAMPAIGNS = View(
    name="campaigns",
    doc="One row for each campaign, as it was started last.",
    columns=(
        CAMPAIGN,
        column("branch", "VARCHAR", "branch that holds the kept commits"),
        column("script", "VARCHAR", "training script"),
        column("metric_name", "VARCHAR", "name of the campaign's metric"),
        column("better", "VARCHAR", "lower or higher"),
        column("size_name", "VARCHAR", "name of the metric that holds the artifact's bytes"),
        column("base_commit", "VARCHAR", "commit that the campaign started from"),
        column("started_at", "TIMESTAMP", "when it was started, UTC"),
    ),
    query="""
        SELECT campaign, branch, script, metric AS metric_name, better, base_commit,
            coalesce(config->'metric'->>'size', 'artifact_bytes') AS size_name,
            recorded_at AS started_at
        FROM campaign_started
        QUALIFY row_number() OVER (PARTITION BY campaign ORDER BY position DESC) = 1
    """,
)

RUNS = View(
    name="runs",
    doc="One row for each execution of an experiment.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("run", "VARCHAR", "name of the run, unique for ever"),
        column("index", "BIGINT", "0 for the first run of the experiment", sql='"index"'),
        column("seed", "BIGINT", "random seed given to the script"),
        column("launcher", "VARCHAR", "launcher plugin that ran it"),
        column(
            "status",
            "VARCHAR",
            "requested, running, completed, crashed, timed_out, stopped_early or infra_failed",
        ),
        column("metric", "DOUBLE", "the campaign's metric; null when the run gave none", "metric"),
        column("artifact_bytes", "BIGINT", "size of code and model", "bytes"),
        column("seconds", "DOUBLE", "wall clock measured by the launcher", "s"),
        column("exit_code", "BIGINT", "exit code of the program"),
        column("requested_at", "TIMESTAMP", "when the run was asked for, UTC"),
        column("finished_at", "TIMESTAMP", "when the run was over, UTC"),
        column("reference", "VARCHAR", "how the launcher finds it again: a pid, a call id"),
        column("detail", "VARCHAR", "the launcher's own words, or the crash's last line"),
        column("script_digest", "VARCHAR", "sha256 of the script that ran; its text: sources"),
        column("log_digest", "VARCHAR", "sha256 of the output"),
        column("log_bytes", "BIGINT", "size of the output", "bytes"),
        column("position", "BIGINT", "place of the request in the log"),
        column("stage", "VARCHAR", "stage that it runs in; null where the campaign has none"),
        column("control", "BOOLEAN", "whether it only measures a kept experiment again"),
    ),
    query="""
        WITH proposed AS (
            SELECT campaign, experiment, max(position) AS since FROM idea_proposed GROUP BY ALL
        ), requested AS (
            SELECT q.* FROM run_requested q LEFT JOIN proposed p USING (campaign, experiment)
            QUALIFY row_number() OVER (PARTITION BY campaign, experiment, run
                ORDER BY coalesce(q.position > p.since, true) DESC, q.position) = 1
        ), started AS (
            SELECT s.campaign, s.experiment, s.run,
                arg_max_null(s.reference, s.position) AS reference
            FROM run_started s JOIN requested q USING (campaign, experiment, run)
            WHERE s.position > q.position GROUP BY ALL
        ), finished AS (
            SELECT f.campaign, f.experiment, f.run, arg_max_null(f.status, f.position) AS status,
                arg_max_null(f.seconds, f.position) AS seconds,
                arg_max_null(f.exit_code, f.position) AS exit_code,
                arg_max_null(f.detail, f.position) AS detail,
                arg_max_null(f.log_bytes, f.position) AS log_bytes,
                arg_max_null(f.log_digest, f.position) AS log_digest,
                max(f.recorded_at) AS recorded_at
            FROM run_finished f JOIN requested q USING (campaign, experiment, run)
            WHERE f.position > q.position AND f.status IN (
                'completed', 'crashed', 'timed_out', 'stopped_early', 'infra_failed')
            GROUP BY ALL
        ), extracted AS (
            SELECT m.campaign, m.experiment, m.run,
                arg_max_null(m.metrics[c.metric_name], m.position) AS metric,
                -- extracted metrics
                arg_max_null(m.metrics[coalesce(c.size_name, 'artifact_bytes')], m.position)
                    AS artifact_bytes
            FROM metrics_extracted m JOIN requested q USING (campaign, experiment, run)
            LEFT JOIN campaigns c ON c.campaign = m.campaign
            WHERE m.position > q.position GROUP BY ALL
        )
        SELECT q.campaign, q.experiment, q.run, q."index", q.seed, q.launcher, q.position,
            coalesce(f.status, CASE WHEN s.run IS NULL THEN 'requested' ELSE 'running' END)
                AS status,
            e.metric,
            -- metrics of runs
            e.artifact_bytes,
            f.seconds, f.exit_code, q.recorded_at AS requested_at, f.recorded_at AS finished_at,
            s.reference, nullif(f.detail, '') AS detail,
            nullif(q.script_digest, '') AS script_digest, nullif(f.log_digest, '') AS log_digest,
            f.log_bytes, nullif(q.stage, '') AS stage, coalesce(q.control, false) AS control
        FROM requested q
        LEFT JOIN started s USING (campaign, experiment, run)
        LEFT JOIN finished f USING (campaign, experiment, run)
        LEFT JOIN extracted e USING (campaign, experiment, run)
    """,
)

DECISIONS = View(
    name="decisions",
    doc="Every verdict, those of people among them.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("verdict", "VARCHAR", "keep, discard, crash, rerun or quarantine"),
        column("reason", "VARCHAR", "why"),
        column("author", "VARCHAR", "plugin or person that decided"),
        column("metric", "DOUBLE", "score judged; null when there was none", "metric"),
        column("delta", "DOUBLE", "score minus the best before", "metric"),
        column("confidence", "DOUBLE", "probability that the gain is real, 0 to 1"),
        column("artifact_bytes", "BIGINT", "size judged", "bytes"),
        column("decided_at", "TIMESTAMP", "when, UTC"),
        POSITION,
    ),
    query="""
        SELECT campaign, experiment, verdict, reason, author, metric, delta, confidence,
            artifact_bytes, recorded_at AS decided_at, position
        FROM decided
        UNION ALL
        SELECT campaign, experiment, CASE WHEN released THEN 'keep' ELSE 'discard' END,
            reason, author, NULL, NULL, NULL, NULL, recorded_at, position
        FROM quarantine_resolved
        UNION ALL
        SELECT campaign, experiment, verdict, reason, author, NULL, NULL, NULL, NULL, recorded_at,
            position
        FROM overruled WHERE verdict IN ('keep', 'discard')
    """,
)

EXPERIMENTS = View(
    name="experiments",
    doc="One row for each experiment, also while it runs; a dropped idea is none.",
    columns=(
        CAMPAIGN,
        EXPERIMENT,
        column("commit", "VARCHAR", "commit that was tried; null before it was made"),
        column("parent_commit", "VARCHAR", "commit that it builds on"),
        column("status", "VARCHAR", "keep, discard, crash, rerun, quarantine or running"),
        column("direction", "VARCHAR", "family of the change"),
        column("description", "VARCHAR", "what is changed"),
        column("author", "VARCHAR", "who proposed the idea"),
        column("hypothesis", "VARCHAR", "what is expected and why"),
        column("metric_name", "VARCHAR", "name of the campaign's metric"),
        column("metric", "DOUBLE", "mean of the completed runs in its stage; null: none", "metric"),
        column("artifact_bytes", "BIGINT", "largest size of code and model", "bytes"),
        column("predicted", "DOUBLE", "metric expected before the run", "metric"),
        column("delta", "DOUBLE", "score minus the best before, as decided", "metric"),
        column("confidence", "DOUBLE", "probability that the gain is real, 0 to 1"),
        column("runs", "BIGINT", "executions so far"),
        column("seconds", "DOUBLE", "wall clock of all runs", "s"),
        column("started_at", "TIMESTAMP", "when the idea was proposed, UTC"),
        column("ended_at", "TIMESTAMP", "when it was decided last, UTC"),
        column("reason", "VARCHAR", "why the verdict"),
        column("decided_by", "VARCHAR", "plugin or person that decided"),
        column("lesson", "VARCHAR", "what it tells about future experiments"),
        column("idea", "VARCHAR", "id of the idea"),
        column("kind", "VARCHAR", "change, or evaluation"),
        column("source_digest", "VARCHAR", "sha256 of the tried script; its text: sources"),
        column("position", "BIGINT", "place of the proposal in the log"),
        column("stage", "VARCHAR", "stage that it came to; null where the campaign has none"),
    ),
    query="""
        WITH proposed AS (
            SELECT * FROM idea_proposed
            QUALIFY row_number() OVER (PARTITION BY campaign, experiment ORDER BY position DESC) = 1
        ), dropped AS (
            -- only the newest experiment of its time can be dropped: a number is never left out
            SELECT d.campaign, d.experiment, min(d.position) AS position
            FROM idea_dropped d JOIN proposed p USING (campaign, experiment)
            WHERE d.position > p.position AND NOT EXISTS (
                FROM idea_proposed n WHERE n.campaign = d.campaign
                    AND n.experiment > d.experiment AND n.position BETWEEN p.position AND d.position
                    AND NOT EXISTS (
                        FROM idea_dropped e WHERE e.campaign = n.campaign
                            AND e.experiment = n.experiment
                            AND e.position BETWEEN n.position AND d.position))
            GROUP BY ALL
        ), made AS (
            SELECT m.campaign, m.experiment, arg_max_null(m.commit, m.position) AS commit,
                arg_max_null(m.parent, m.position) AS parent_commit, max(m.position) AS since
            FROM commit_made m JOIN proposed p USING (campaign, experiment)
            WHERE m.position > p.position GROUP BY ALL
        ), applied AS (
            SELECT a.campaign, a.experiment,
                arg_max_null(a.source_digest, a.position) AS source_digest
            FROM change_applied a JOIN proposed p USING (campaign, experiment)
            WHERE a.position > p.position GROUP BY ALL
        ), verdicts AS (
            SELECT v.campaign, v.experiment, arg_max_null(v.verdict, v.position) AS verdict,
                arg_max_null(v.reason, v.position) AS reason,
                arg_max_null(v.author, v.position) AS decided_by,
                arg_max_null(v.delta, v.position) AS delta,
                arg_max_null(v.confidence, v.position) AS confidence,
                min(v.position) AS first, max(v.decided_at) AS ended_at
            FROM decisions v JOIN proposed p USING (campaign, experiment)
            WHERE v.position > p.position AND v.verdict IN (
                'keep', 'discard', 'crash', 'rerun', 'quarantine')
            GROUP BY ALL
        ), scores AS (
            SELECT r.campaign, r.experiment, count(*) AS runs,
                sum(r.seconds ORDER BY r.position) AS seconds,
                avg(r.metric ORDER BY r.position) FILTER (r.counts) AS metric,
                -- last metrics
                max(r.artifact_bytes) FILTER (r.counts) AS artifact_bytes,
                any_value(r.newest) AS stage
            FROM (
                -- of the newest commit and stage alone
                SELECT r.* EXCLUDE (stage), r.status = 'completed'
                    AND r.position > coalesce(m.since, -1)
                    AND coalesce(r.stage, '') = coalesce(r.newest, '') AS counts
                FROM (
                    SELECT r.*, arg_max_null(r.stage, r.position) FILTER (NOT r.control)
                        OVER (PARTITION BY r.campaign, r.experiment) AS newest
                    FROM runs r JOIN proposed p USING (campaign, experiment)
                    WHERE r.position > p.position
                ) r LEFT JOIN made m USING (campaign, experiment)
            ) r GROUP BY ALL
        ), analysed AS (
            SELECT a.campaign, a.experiment, arg_max_null(a.lesson, a.position) AS lesson
            FROM analysis_recorded a JOIN proposed p USING (campaign, experiment)
            WHERE a.position > p.position GROUP BY ALL
        )
        SELECT p.campaign, p.experiment, m.commit, nullif(m.parent_commit, '') AS parent_commit,
            coalesce(v.verdict, 'running') AS status,
            p.direction, p.description, p.author, p.hypothesis, c.metric_name,
            s.metric,
            -- metrics of experiments
            s.artifact_bytes,
            p.predicted, v.delta, v.confidence, coalesce(s.runs, 0) AS runs, s.seconds,
            p.recorded_at AS started_at, v.ended_at, v.reason, v.decided_by, a.lesson, p.idea,
            p.kind, ch.source_digest, p.position, s.stage
        FROM proposed p
        LEFT JOIN dropped d USING (campaign, experiment)
        LEFT JOIN made m USING (campaign, experiment)
        LEFT JOIN applied ch USING (campaign, experiment)
        LEFT JOIN verdicts v USING (campaign, experiment)
        LEFT JOIN scores s USING (campaign, experiment)
        LEFT JOIN analysed a USING (campaign, experiment)
        LEFT JOIN campaigns c USING (campaign)
        WHERE d.position IS NULL OR v.first < d.position
    """,
)

# What each comment in the queries stands for, once for every metric that has a column of its own.
_METRIC_SQL = {
    "-- extracted metrics": "arg_max_null(m.metrics['{name}'], m.position) AS \"{name}\",",
    "-- metrics of runs": 'e."{name}",',
    "-- last metrics": ('arg_max(r."{name}", r.position) FILTER (r.counts) AS "{name}",'),
    "-- metrics of experiments": (
        'CASE WHEN c.metric_name = \'{name}\' THEN s.metric ELSE s."{name}" END AS "{name}",'
    ),
}


def with_metrics(view: View, metrics: Mapping[str, MetricColumn]) -> View:
    """Return ``RUNS`` or ``EXPERIMENTS`` with a column for each of the metrics, after `metric`."""
    query = view.query
    for comment, sql in _METRIC_SQL.items():
        query = query.replace(comment, " ".join(sql.format(name=name) for name in metrics))
    extra = tuple(
        column(name, "DOUBLE", f"{item.doc}; null when none was printed", item.unit)
        for name, item in metrics.items()
    )
    at = [column.name for column in view.columns].index("metric") + 1
    return evolve(view, columns=(*view.columns[:at], *extra, *view.columns[at:]), query=query)
