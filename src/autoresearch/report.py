"""The progress of a campaign as a picture: every score, and the best so far as a staircase.

Needs the extra ``report``.
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.errors import AutoresearchError
from autoresearch.history import History
from autoresearch.model import Experiment, Verdict
from autoresearch.text import one_line

DRAWN_BY = "drawn by autoresearch"  # in the file, so that it may be drawn again
COLOURS = {
    Verdict.KEEP: "#1a7f37",
    Verdict.DISCARD: "#8c959f",
    Verdict.QUARANTINE: "#cf222e",
    Verdict.RERUN: "#bf8700",
}


def draw(history: History, path: Path) -> None:
    """Write a PNG with one point for each scored experiment and a step line of the best.

    Raises AutoresearchError when matplotlib is missing or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise AutoresearchError(
            "drawing needs matplotlib; install it with pip install 'autoresearch[report]'"
        ) from None
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    scored = [(item, history.score(item)) for item in history.decided]
    _staircase(history, axes)
    for verdict, colour in COLOURS.items():
        points = [
            (item.number, score)
            for item, score in scored
            if item.verdict is verdict and score is not None
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, label=verdict.value, zorder=3)
    _name_keeps(history, axes)
    axes.set_xlabel("experiment")
    axes.set_ylabel(f"{history.metric} ({'lower' if history.lower_is_better else 'higher'} wins)")
    axes.set_title(f"campaign {history.campaign}: {len(history.decided)} experiments")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if scored:
        axes.legend(loc="best", frameon=False)
    try:
        figure.savefig(path, dpi=130, metadata={"Software": DRAWN_BY})
    except OSError as error:
        raise AutoresearchError(
            f"cannot write {path}: {error.strerror}; choose another --out"
        ) from None


def best_so_far(history: History) -> list[tuple[int, float]]:
    """Return (experiment, best kept score up to it) for every experiment from the baseline on."""
    points: list[tuple[int, float]] = []
    best: float | None = None
    for experiment in history.decided:
        score = history.score(experiment)
        if experiment.verdict is Verdict.KEEP and score is not None:
            best = score if best is None or history.better(score, best) else best
        if best is not None:
            points.append((experiment.number, best))
    return points


def _staircase(history: History, axes: object) -> None:
    points = best_so_far(history)
    if points:
        axes.step(*zip(*points, strict=True), where="post", color="#0969da", label="best")  # type: ignore[attr-defined]


def _name_keeps(history: History, axes: object) -> None:
    kept: list[Experiment] = [
        item for item in history.kept[-12:] if history.score(item) is not None
    ]
    for experiment in kept:
        axes.annotate(  # type: ignore[attr-defined]
            one_line(experiment.idea.description, 28),
            (experiment.number, history.score(experiment)),
            xytext=(4, 6),
            textcoords="offset points",
            fontsize=7,
        )
