"""results.tsv: one row for every decided experiment and every backtrack, as they were logged."""

from __future__ import annotations

from attrs import frozen

from autoresearch import events
from autoresearch.history import History
from autoresearch.model import Experiment, Verdict
from autoresearch.projections.blocks import shown_status
from autoresearch.text import one_line

COLUMNS = ("commit", "metric", "artifact_mb", "status", "reasoning", "description")


@frozen
class ResultsTsv:
    """The table of the research protocol; the second column bears the campaign's metric."""

    file_name: str = "results.tsv"

    def render(self, history: History) -> str:
        """Return the header and a row for each entry of the history's timeline.

        A missing score is written 0.000000 and a missing size 0.0, as the protocol asks; sizes are
        decimal megabytes.
        """
        rows = [_row(history, entry) for entry in history.timeline]
        return "".join("\t".join(cells) + "\n" for cells in [header(history), *rows])


def header(history: History) -> tuple[str, ...]:
    """Return the six column names."""
    metric = history.metric if history.started else COLUMNS[1]
    return (COLUMNS[0], one_line(metric, 60) or COLUMNS[1], *COLUMNS[2:])


def _row(history: History, entry: int | events.Backtracked) -> tuple[str, ...]:
    if isinstance(entry, events.Backtracked):
        return _backtrack(history, entry)
    experiment = history.experiments[entry]
    return (
        experiment.commit[:7],
        *_numbers(history, experiment),
        shown_status(experiment),
        one_line(experiment.reasoning.hypothesis if experiment.reasoning else "", 300),
        one_line(_description(experiment), 300),
    )


def _backtrack(history: History, event: events.Backtracked) -> tuple[str, ...]:
    target = history.experiments[event.to_experiment]
    return (
        event.commit[:7],
        *_numbers(history, target),
        "backtrack",
        one_line(event.reason, 300),
        f"back to experiment {event.to_experiment} after experiment {event.after_experiment}",
    )


def _numbers(history: History, experiment: Experiment) -> tuple[str, str]:
    crashed = experiment.verdict is Verdict.CRASH
    score = None if crashed else history.score(experiment)
    size = None if crashed else experiment.metrics.get(history.size)
    return (f"{score or 0.0:.6f}", f"{(size or 0.0) / 1e6:.1f}")


def _description(experiment: Experiment) -> str:
    words = experiment.idea.description
    if experiment.verdict is Verdict.QUARANTINE and experiment.decision:
        return f"{words} [quarantined: {experiment.decision.reason}]"
    return words
