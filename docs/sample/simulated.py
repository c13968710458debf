"""Writes simulated-notes.md: the memory of 200 experiments in a world whose truth is known.

``.venv/bin/python docs/sample/simulated.py``. The experiments go through the real loop; only the
runs and git are simulated. simulated-log.csv has what the log says of each experiment, and a test
holds every claim of the notes against it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from autoresearch.history import History
from autoresearch.projections.files import NotesMd
from autoresearch.studies.simulate import campaign

HERE = Path(__file__).parent
STRATEGY, SEED, EXPERIMENTS = "evidence+catalogue+search+script_ideas", 2, 200
COLUMNS = ("experiment", "status", "score", "direction", "description")


def history(experiments: int = EXPERIMENTS) -> History:
    """Return the history of the simulated campaign, or of its beginning."""
    return campaign(STRATEGY, SEED, experiments=experiments, gpu_hours=10_000.0)[1]


def rows(told: History) -> Iterator[tuple[str, ...]]:
    """Yield one row for each experiment."""
    for item in told.decided:
        score = told.score(item)
        shown = "" if score is None else f"{score:.6f}"
        yield str(item.number), str(item.verdict), shown, item.idea.direction, item.idea.description


def main() -> None:
    """Write both files."""
    told = history()
    (HERE / "simulated-notes.md").write_text(NotesMd().render(told), encoding="utf-8")
    with (HERE / "simulated-log.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows((COLUMNS, *rows(told)))


if __name__ == "__main__":
    main()
