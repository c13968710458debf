"""The progress of a campaign as a picture: every score, and the best so far as a staircase.

Needs the extra ``report``.
"""

from __future__ import annotations

from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from autoresearch.errors import AutoresearchError, needs, telling
from autoresearch.history import History
from autoresearch.model import Verdict
from autoresearch.text import counted, one_line

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN_BY = "drawn by autoresearch"  # in the file, so that it may be drawn again
COLOURS = {
    Verdict.KEEP: "#1a7f37",
    Verdict.DISCARD: "#8c959f",
    Verdict.QUARANTINE: "#cf222e",
    Verdict.RERUN: "#bf8700",
    Verdict.CRASH: "#bc4c00",
}
_NAMED, _MANY = 12, 200


AXES = {
    "experiments": ("experiment", "SELECT experiment, experiment FROM best_so_far"),
    "hours": ("hours of runs", "SELECT experiment, run_hours FROM best_so_far"),
    "gpu_hours": ("GPU-hours", "SELECT experiment, gpu_hours FROM best_so_far"),
    "usd": (
        "US dollars",
        "SELECT experiment, sum(coalesce(usd, 0)) OVER (PARTITION BY campaign ORDER BY experiment) "
        "FROM best_so_far LEFT JOIN (SELECT campaign, experiment, sum(usd) AS usd FROM costs "
        "GROUP BY ALL) USING (campaign, experiment)",
    ),
}


def empty_figure() -> tuple[Figure, Axes]:
    """Return a figure and its axes; AutoresearchError without matplotlib."""
    with needs("matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    made = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def figure(
    history: History, connection: duckdb.DuckDBPyConnection, against: str = "experiments"
) -> Figure:
    """Return every score with the best so far as a staircase, over experiments, time or cost.

    Crashes stand as crosses at the lower edge; a score far off the others is a triangle at the
    edge it lies behind. Raises AutoresearchError for an unknown axis and without matplotlib.
    """
    made, axes = empty_figure()
    if against not in AXES:
        raise AutoresearchError(f"there is no axis {against!r}; use one of {', '.join(AXES)}")
    name, query = AXES[against]
    places: dict[int, float] = dict(
        connection.execute(f"{query} WHERE campaign = ?", [history.campaign]).fetchall()
    )
    _points(history, axes, places)
    best = [(places.get(number, number), value) for number, value in best_so_far(history)]
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="#0969da", label="best", zorder=4)
        axes.legend(loc="best", frameon=False)
    axes.set_xlabel(name)
    axes.set_ylabel(f"{history.metric} ({'lower' if history.lower_is_better else 'higher'} wins)")
    axes.set_title(f"campaign {history.campaign}: {counted(len(history.decided), 'experiment')}")
    axes.grid(alpha=0.3)
    _name_keeps(history, made, axes, places)
    return made


def draw(made: Figure, path: Path) -> None:
    """Write a figure as a PNG; raises AutoresearchError when the file cannot be written."""
    with telling(f"cannot write {path}", "choose another --out"):
        made.savefig(path, dpi=130, metadata={"Software": DRAWN_BY})


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


def bounds(history: History) -> tuple[float, float] | None:
    """Return the range of scores to draw: all bests, and what does not lie far from them."""
    best = dict(best_so_far(history))
    told = {item.number: history.score(item) for item in history.decided}
    scores = {number: score for number, score in told.items() if score is not None}
    away = [abs(score - best[number]) for number, score in scores.items() if number in best]
    if not scores:
        return None
    low, high = min(scores.values()), max(scores.values())
    if len(away) > 3:
        reach = 4 * quantiles(away, n=4)[2]
        low = max(low, min(best.values()) - reach)
        high = min(high, max(best.values()) + reach)
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 1.0
    return low - pad, high + pad


def _points(history: History, axes: Axes, places: dict[int, float]) -> None:
    """Draw each decided experiment by its verdict, those off the scale and crashes at an edge."""
    low, high = bounds(history) or (0.0, 1.0)
    axes.set_ylim(low, high)
    size = 30 if len(history.decided) < _MANY else 9
    for verdict, colour in COLOURS.items():
        drawn: dict[str, list[tuple[float, float]]] = {"o": [], "^": [], "v": [], "x": []}
        for item in history.decided:
            if item.verdict is verdict:
                score = history.score(item)
                mark = "x" if score is None else _mark(score, low, high)
                place = low if score is None else min(max(score, low), high)
                drawn[mark].append((places.get(item.number, item.number), place))
        label: Any = verdict.value
        for mark, points in drawn.items():
            if points:
                axes.scatter(
                    [point[0] for point in points], [point[1] for point in points], color=colour,
                    marker=mark, s=size, label=label, zorder=3, clip_on=False,
                )  # fmt: skip
                label = None


def _mark(score: float, low: float, high: float) -> str:
    return "^" if score > high else "v" if score < low else "o"


def _name_keeps(history: History, made: Figure, axes: Axes, places: dict[int, float]) -> None:
    """Name the kept experiments, the newest first, as far as names have room."""
    made.draw_without_rendering()
    taken: list[Any] = []
    frame = axes.get_window_extent()
    for experiment in reversed(history.kept):
        score = history.score(experiment)
        if score is None or len(taken) == _NAMED:
            continue
        at = (places.get(experiment.number, experiment.number), score)
        right = axes.transAxes.inverted().transform(axes.transData.transform(at))[0] > 0.7
        name = axes.annotate(
            one_line(experiment.idea.description, 44), at, xytext=(-4 if right else 4, 6),
            textcoords="offset points", fontsize=7, ha="right" if right else "left",
        )  # fmt: skip
        extent = name.get_window_extent()
        inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and extent.y1 <= frame.y1
        if not inside or any(extent.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(extent)
