"""Signal 3: the last experiments together brought next to nothing, so something radical is due."""

from __future__ import annotations

from collections.abc import Iterable

from autoresearch.config import Config
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Backtrack, Experiment, Signal, Verdict


class Plugin:
    """Looks at the newest window of experiments; a window is judged once."""

    def __init__(self) -> None:
        self._config = Config()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Take ``rules.plateau_experiments`` and ``rules.plateau_gain``."""
        self._config = config

    @hookimpl
    def backtrack(self, history: History) -> Backtrack | None:
        """Declare a plateau without moving head, or None while there is progress."""
        rules = self._config.rules
        window = newest_window(history, rules.plateau_experiments)
        if not window:
            return None
        gained = progress(history, window)
        if gained is None or gained >= rules.plateau_gain:
            return None
        return Backtrack(
            signal=Signal.PLATEAU,
            reason=f"experiments {window[0].number} to {window[-1].number} gained {gained:.4f} "
            f"{history.metric} in all, less than {rules.plateau_gain:g}",
            experiments=tuple(item.number for item in window),
        )


def newest_window(history: History, size: int) -> tuple[Experiment, ...]:
    """Return the newest ``size`` experiments decided since the last plateau, or none if fewer."""
    numbers = [entry for entry in history.timeline if isinstance(entry, int) and entry > 0]
    done = max((max(item.experiments, default=0) for item in history.plateaus), default=0)
    fresh = [number for number in numbers if number > done]
    if size <= 0 or len(fresh) < size:
        return ()
    return tuple(history.experiments[number] for number in fresh[-size:])


def progress(history: History, window: tuple[Experiment, ...]) -> float | None:
    """Return by how much the best score got better within the window; None without a score."""
    first = window[0].number
    before = _best(history, (item for item in history.kept if item.number < first))
    after = _best(history, history.kept)
    if before is None or after is None:
        return None
    return max(0.0, history.gain(after, before))


def _best(history: History, experiments: Iterable[Experiment]) -> float | None:
    scores = [history.score(item) for item in experiments if item.verdict is Verdict.KEEP]
    known = [score for score in scores if score is not None]
    return (min(known) if history.lower_is_better else max(known)) if known else None
