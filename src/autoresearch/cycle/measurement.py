"""Only scores that were measured with the same things are compared, or the difference is said."""

from __future__ import annotations

from autoresearch.history import History
from autoresearch.model import Experiment, IdeaKind, Violation

HARDWARE = "hardware"
LINE = "score"  # the name of the line that the score is read from


def other_measurement(experiment: Experiment, history: History) -> tuple[Violation, ...]:
    """Return a violation for each part of the measurement that the best experiment's differs in.

    The hardware is not among them.

    An experiment that is typed as an evaluation change differs on purpose: it is only warned of.
    """
    severity = "warning" if experiment.idea.kind is IdeaKind.EVALUATION else "violation"
    return tuple(
        Violation(
            rule="measurement",
            detail=f"measured with another {name} than experiment {history.best_number}: "
            f"{new[:12] or 'none'} instead of {old[:12] or 'none'}",
            severity=severity,
        )
        for name, old, new in _differences(experiment, history)
        if name != HARDWARE
    )


def other_hardware(experiment: Experiment, history: History) -> str:
    """Return words for the decision when the best score is of other hardware, else nothing."""
    for name, old, new in _differences(experiment, history):
        if name == HARDWARE:
            return f" (on other hardware than experiment {history.best_number}: {new}, not {old})"
    return ""


def _differences(experiment: Experiment, history: History) -> list[tuple[str, str, str]]:
    best = history.best
    if best is None or best.number == experiment.number or not experiment.measurement:
        return []
    before, now = best.measurement, experiment.measurement
    names = sorted(before.keys() | now.keys()) if before else []
    pairs = [(name, before.get(name, ""), now.get(name, "")) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]
