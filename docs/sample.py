"""A sample campaign, told as events: the questions of the docs are made from it.

Run ``.venv/bin/python docs/sample.py`` to write docs/sql-questions.md again with today's answers.
"""

from __future__ import annotations

import re
import sys
from ast import literal_eval
from pathlib import Path

import duckdb

from autoresearch import Config, ValueChange, events
from autoresearch.cli.shared import cell
from autoresearch.config import MetricConfig
from autoresearch.model import Decision, Idea, Run, RunStatus
from autoresearch.projections.tables import people_schema
from autoresearch.testing import Story, analysis, experiment

PAGE = Path(__file__).parent / "sql-questions.md"

# Direction, change, score (None: a crash), verdict (None: by the score), predicted, author.
TOLD = (
    ("baseline", "", 1.2400, None, None, "protocol"),
    ("learning rate", "MATRIX_LR 0.04 0.03", 1.2342, None, 1.236, "script_ideas"),
    ("learning rate", "MATRIX_LR 0.03 0.02", 1.2371, None, 1.230, "script_ideas"),
    ("depth", "NUM_LAYERS 9 11", None, None, 1.228, "catalogue"),
    ("depth", "NUM_LAYERS 9 10", 1.2290, None, 1.229, "catalogue"),
    ("warmdown", "WARMDOWN_ITERS 1200 3600", 1.2251, None, 1.226, "ann"),
    ("batch", "TRAIN_BATCH_TOKENS 524288 393216", 1.2266, None, 1.222, "script_ideas"),
    ("batch", "TRAIN_BATCH_TOKENS 524288 786432", 1.2312, None, 1.224, "script_ideas"),
    ("batch", "TRAIN_BATCH_TOKENS 524288 655360", 1.2285, None, 1.225, "script_ideas"),
    ("evaluation", "EVAL_STRIDE 1024 64", 1.1990, "quarantine", 1.215, "gpt"),
    ("warmdown", "WARMDOWN_ITERS 3600 3000", 1.2249, None, 1.225, "gpt"),
    ("learning rate", "MATRIX_LR 0.03 0.025", 1.2244, None, 1.224, "gpt"),
    ("depth", "MLP_MULT 2 3", 1.2198, None, 1.221, "gpt"),
    ("depth", "NUM_HEADS 8 4", 1.2233, None, 1.219, "catalogue"),
)

REASONS = {
    "keep": "better than the best before, beyond the noise",
    "discard": "not better than the best before",
    "crash": "the run was out of memory",
    "quarantine": "a gain over 0.02 in one step is too good to believe",
}


def sample() -> Story:
    """Return a campaign of fourteen experiments that has something of everything."""
    metric = MetricConfig(name="val_bpb", better="lower", sd=0.0006, implausible_gain=0.02)
    story = Story(Config(preset="plain", metric=metric), campaign="mar18")
    story.log.schema = people_schema()
    best: float | None = None
    for number, (direction, change, score, verdict, predicted, author) in enumerate(TOLD):
        changes = [_change(*change.split())] if change else []
        idea = Idea(
            direction=direction,
            description=str(changes[0]) if changes else "baseline: train.py as it is",
            hypothesis=f"{direction} is worth a try",
            author=author,
            changes=changes,
            predicted=predicted,
        )
        name = f"mar18-{number}-0"
        size = {"artifact_bytes": 15_100_000 + 60_000 * number}
        numbers = {"val_bpb": score, **size} if score else {}
        status = RunStatus.COMPLETED if score else RunStatus.CRASHED
        run = Run(
            index=0, name=name, seed=1337, status=status, seconds=600.0 + number, metrics=numbers
        )
        better = score is not None and (best is None or score < best)
        verdict = verdict or ("keep" if better else "discard" if score else "crash")
        best = score if verdict == "keep" else best
        told = experiment(
            score, verdict=verdict, metric="val_bpb", number=number, idea=idea, runs=(run,),
            metrics=numbers, decision=Decision(verdict=verdict, reason=REASONS[verdict]),
            analysis=analysis(
                why=f"{direction} moves the score", lesson=f"{idea.description}: {verdict}"
            ),
        )  # fmt: skip
        story.add(told)
        story.tell(
            events.CostIncurred(
                kind="run", source="modal", experiment=number, seconds=run.seconds,
                gpu_seconds=8 * run.seconds, usd=round(8 * run.seconds * 0.0011, 4),
            )
        )  # fmt: skip
        if author == "gpt":
            story.tell(
                events.CostIncurred(
                    kind="tokens", source="gpt", experiment=number, tokens_in=21_000,
                    tokens_out=1_500, usd=0.07,
                )
            )  # fmt: skip
        if predicted and score:
            hit = "hit" if abs(predicted - score) < 0.002 else "undershoot"
            hit = "overshoot" if predicted - score > 0.002 else hit
            story.tell(
                events.PredictionScored(
                    experiment=number, predicted=predicted, observed=score, outcome=hit
                )
            )
    story.declare_dead("batch", "neither smaller nor larger batches helped")
    story.tell(events.PluginFailed(plugin="gpt", hook="propose_idea", error="429: rate limit"))
    story.queue("NUM_LAYERS 10 -> 12", 0.002).queue("a longer context")
    return story


def _change(name: str, old: str, new: str) -> ValueChange:
    return ValueChange(name=name, old=literal_eval(old), new=literal_eval(new))


def answered(page: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Return the page with the answer of today below each question."""

    def answer(match: re.Match[str]) -> str:
        cursor = connection.execute(match[1])
        rows = [[cell(value) for value in row] for row in cursor.fetchall()]
        names = [item[0] for item in cursor.description or ()]
        lines = [names, ["---"] * len(names), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"```sql\n{match[1]}```\n\n{table}\n"

    return re.sub(r"```sql\n(.*?)```\n(?:\n(?:\|[^\n]*\n)+)?", answer, page, flags=re.DOTALL)


def main() -> None:
    """Write the page again."""
    with sample().log.connect() as connection:
        PAGE.write_text(answered(PAGE.read_text(encoding="utf-8"), connection), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    sys.exit(main())
