"""results.tsv: one row for every decided experiment and every backtrack, as they were logged."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from autoresearch import events
from autoresearch.history import History, PerExperiment
from autoresearch.model import Experiment, Verdict
from autoresearch.projections.blocks import in_its_stage, shown_status
from autoresearch.text import one_line

COLUMNS = ("commit", "metric", "artifact_mb", "status", "reasoning", "description")


@frozen
class ResultsTsv:
    """The table of the research protocol; the second column bears the campaign's metric."""

    file_name: str = "results.tsv"
    _rows: PerExperiment[str] = field(
        factory=lambda: PerExperiment(_row), init=False, eq=False, repr=False
    )

    def render(self, history: History) -> str:
        """Return the header and a row for each entry of the history's timeline.

        A missing score is written 0.000000 and a missing size 0.0, as the protocol asks; sizes are
        decimal megabytes.
        """
        tried = [history.experiments[entry] for entry in history.timeline if isinstance(entry, int)]
        told = iter(self._rows.each(tried, history))
        rows = (
            next(told) if isinstance(entry, int) else _line(_backtrack(history, entry))
            for entry in history.timeline
        )
        return _line(header(history)) + "".join(rows)


def header(history: History) -> tuple[str, ...]:
    """Return the six column names."""
    metric = history.metric if history.started else COLUMNS[1]
    return (COLUMNS[0], one_line(metric, 60) or COLUMNS[1], *COLUMNS[2:])


def _line(cells: Iterable[str]) -> str:
    return "\t".join(cells) + "\n"


def _row(experiment: Experiment, history: History) -> str:
    cells = (
        experiment.commit[:7],
        *_numbers(history, experiment),
        shown_status(experiment),
        one_line(experiment.reasoning.hypothesis if experiment.reasoning else "", 300),
        one_line(_description(experiment, history), 300),
    )
    return _line(cells)


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
    early = experiment.stage != history.stage  # its numbers are no match for those of whole runs
    size = None if crashed or early else experiment.metrics.get(history.size)
    return (f"{score or 0.0:.6f}", f"{(size or 0.0) / 1e6:.1f}")


def _description(experiment: Experiment, history: History) -> str:
    words = experiment.idea.description
    if experiment.stage != history.stage:
        words = f"{words} [{in_its_stage(experiment, history)}]"
    if experiment.verdict is Verdict.QUARANTINE and experiment.decision:
        return f"{words} [quarantined: {experiment.decision.reason}]"
    return words
