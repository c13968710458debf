"""Puts a move into words: what is expected and why, on which results, and what may go wrong."""

from __future__ import annotations

import math

from autoresearch.history import History
from autoresearch.ideas import families, trials
from autoresearch.ideas.edits import Hyperparameter
from autoresearch.ideas.literals import Value
from autoresearch.ideas.moves import Move
from autoresearch.model import Idea

Changes = dict[str, tuple[Value, Value]]


def idea(move: Move, parameters: dict[str, Hyperparameter], changed: str, history: History) -> Idea:
    """Return the move as an idea whose hypothesis and evidence refer to what was measured."""
    changes = {name: (parameters[name].value, new) for name, new in move.values.items()}
    best = history.best
    cites = tuple(dict.fromkeys([*move.cites, *([best.number] if best else [])])) or (0,)
    predicted = None
    if history.best_metric is not None:
        sign = -1.0 if history.lower_is_better else 1.0
        predicted = round(history.best_metric + sign * move.gain, 6)
    return Idea(
        direction=move.direction,
        description=trials.describe(changes),
        hypothesis=_hypothesis(move, changes, history),
        generator="script_ideas",
        evidence=_evidence(cites, history),
        cites=tuple(number for number in cites if number < history.next_number),
        risk=_risk(move, parameters),
        source=changed,
        predicted=predicted,
        expected_gain=round(move.gain, 6) if math.isfinite(move.gain) else None,
    )


def _hypothesis(move: Move, changes: Changes, history: History) -> str:
    seen = [number for number in move.cites if number < len(history.experiments)]
    told = trials.describe(changes)
    base = (
        f"{told} should change {history.metric} by about {_signed(move.gain, history)}: {move.why}"
    )
    if not seen:
        return f"{base}; nothing was measured in this direction yet"
    newest = max(seen)
    return f"{base}; {_outcome(newest, history)}"


def _signed(gain: float, history: History) -> str:
    return f"{-gain if history.lower_is_better else gain:+.4f}"


def _outcome(number: int, history: History) -> str:
    item = history.experiments[number]
    score = history.score(item)
    if score is None:
        return f"experiment {number} ({item.idea.description}) gave no score"
    delta = item.decision.delta if item.decision else None
    against = "" if delta is None else f", {delta:+.4f} against the best then"
    return f"experiment {number} ({item.idea.description}) scored {score:.4f}{against}"


def _evidence(cites: tuple[int, ...], history: History) -> tuple[str, ...]:
    """Return the cited results, and the newest lesson among them."""
    known = [number for number in cites if number < len(history.experiments)]
    told = [_outcome(number, history) for number in known]
    lessons = [item for item in history.lessons if item.experiment in known]
    told += [f"lesson of experiment {item.experiment}: {item.text}" for item in lessons[-1:]]
    return tuple(told)


_RISKS = {
    families.DEPTH.name: "slower steps and a larger artifact",
    families.WIDTH.name: "slower steps, more memory and a larger artifact",
    families.EXPANSION.name: "slower steps, more memory and a larger artifact",
    families.LEARNING_RATE.name: "divergence, or too little learned in the time",
    families.MOMENTUM.name: "instability early in the run",
    families.BATCH.name: "out of memory, or fewer steps",
    families.SWITCH.name: "a code path that was never run here",
}


def _risk(move: Move, parameters: dict[str, Hyperparameter]) -> str:
    kinds = dict.fromkeys(families.family(parameters[name]).name for name in move.values)
    told = [_RISKS[kind] for kind in kinds if kind in _RISKS]
    return "; ".join(told) or "a regression no larger than the step is bold"
