"""Proposes known directions that are edits of hyperparameters, the most promising first."""

from __future__ import annotations

from fnmatch import fnmatchcase

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.durable import digest
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas import trials
from autoresearch.ideas.edits import Hyperparameter, hyperparameters, with_values
from autoresearch.ideas.known import Known, known
from autoresearch.ideas.literals import Value
from autoresearch.ideas.script import refused
from autoresearch.model import Idea

_TRIED_VERDICTS = ("works", "mixed", "neutral", "unknown")


@frozen(kw_only=True)
class Settings:
    """What of the catalogue is left out."""

    skip: tuple[str, ...] = setting((), "keys of directions that are never proposed; * matches")
    unmeasured: bool = setting(True, "also propose directions that nobody measured alone")


class Plugin:
    """Each known direction is proposed once; what it needs must be in the script and movable."""

    def __init__(self) -> None:
        self._config, self._settings = Config(), Settings()
        self._rows: list[tuple[Known, float]] = []

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.catalogue]``."""
        self._config, self._settings = config, config.settings("catalogue", Settings)
        lower = config.lower_is_better
        rows = [
            (row, row.expected_change(lower_is_better=lower)) for row in known(config.knowledge)
        ]
        self._rows = sorted(rows, key=lambda pair: pair[1] if lower else -pair[1])

    @hookimpl
    def propose_idea(self, history: History, source: str) -> Idea | None:
        """Return the untried direction with the largest expected gain, None when all were tried."""
        present = {item.name: item for item in hyperparameters(source)}
        done = {item.idea.description.partition(":")[0] for item in history.experiments}
        for direction, change in self._rows:
            if direction.key in done or not self._wanted(direction, present, history):
                continue
            idea = _idea(direction, change, present, source, history)
            if idea is not None and idea.id not in history.tried | refused(history):
                return idea
        return None

    def _wanted(
        self, direction: Known, present: dict[str, Hyperparameter], history: History
    ) -> bool:
        names = {item.name for item in direction.settings}
        overridden = set(self._config.env).union(*(item.idea.env for item in history.kept))
        return (
            bool(names)
            and direction.verdict in _TRIED_VERDICTS
            and (self._settings.unmeasured or direction.effect is not None)
            and names <= present.keys()
            and not names & overridden
            and direction.direction not in history.dead_ends
            and not any(fnmatchcase(direction.key, rule) for rule in self._settings.skip)
        )


def _idea(
    direction: Known,
    change: float,
    present: dict[str, Hyperparameter],
    source: str,
    history: History,
) -> Idea | None:
    values = {
        item.name: _value(item.applied(float(present[item.name].value)), present[item.name])
        for item in direction.settings
    }
    changed = with_values(source, values)
    if changed == source or digest(changed) in history.tried_sources:
        return None
    changes = {name: (present[name].value, new) for name, new in values.items()}
    best, gain = history.best, -change if history.lower_is_better else change
    told = f" experiment {best.number} stands at {history.best_metric:.4f}" if best else ""
    return Idea(
        direction=direction.direction,
        description=f"{direction.key}: {trials.describe(changes)}",
        hypothesis=f"{direction.note} A gain of {gain:.4f} is expected here;{told}",
        generator="catalogue",
        evidence=(direction.sentence(history.metric),),
        cites=(best.number,) if best else (0,),
        risk=f"measured on another stack ({direction.source}); it may not transfer",
        source=changed,
        predicted=None if history.best_metric is None else history.best_metric + change,
        expected_gain=gain,
    )


def _value(new: float, parameter: Hyperparameter) -> Value:
    return round(new) if parameter.type == "int" else float(f"{new:.6g}")
