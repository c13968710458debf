"""What the controls showed: runs that measure the best again, for the noise and for the machine."""

from __future__ import annotations

from statistics import fmean

from autoresearch.history import History, spread
from autoresearch.model import Experiment, Run
from autoresearch.text import one_line

DRIFT_SDS = 2.0  # of the difference between one run and a mean: one control in twenty by chance
SLOWER = 1.1  # machines of one kind differ by less in the time of a step
_STEP_TIMES = ("step_avg", "step_ms", "step_time", "ms_per_step", "sec_per_step")


def controls(history: History) -> tuple[str, ...]:
    """Say what the newest control showed: its score, a drift, another or a slower machine."""
    asked = history.control
    if asked is None or not 0 <= asked.experiment < len(history.experiments):
        return ()
    experiment = history.experiments[asked.experiment]
    run = next((item for item in experiment.runs if item.name == asked.run), None)
    if run is None or run.status is None:
        return ()
    where = f"control of experiment {experiment.number}, {history.control_at} decided"
    score = run.metrics.get(history.metric)
    if not run.counts or score is None:
        ended = str(run.status).replace("_", " ")
        said = one_line(run.detail, 200)
        return (f"{where}: no score, {ended}{f' ({said})' if said else ''}",)
    return (f"{where}: {_measured(history, experiment, run, score)}", *_machine(experiment, run))


def _measured(history: History, experiment: Experiment, run: Run, score: float) -> str:
    others = [
        item.metrics[history.metric]
        for item in experiment.runs
        if item.counts and item is not run and item.stage == run.stage
        if history.metric in item.metrics
    ]
    told = f"{history.metric} {score:.4f}"
    if not others:
        return told
    gain, sd = history.gain(score, fmean(others)), spread(history.noise.sd, 1, len(others))
    told += f", {abs(gain):.4f} {'better' if gain > 0 else 'worse'} than its other runs"
    told += f" ({abs(gain) / sd:.1f} standard deviations)" if sd else ""
    told += f"; mean of {len(others) + 1}: {history.score(experiment):.4f}"
    drifts = sd > 0 and abs(gain) > DRIFT_SDS * sd
    return f"{told}; drift: the same script scores otherwise than it did" if drifts else told


def _machine(experiment: Experiment, run: Run) -> tuple[str, ...]:
    """Say where the newest control ran on another machine or at another pace than the first run."""
    first = next(item for item in experiment.runs if item.counts and item.stage == run.stage)
    told = []
    here, there = (item.measurement.get("hardware") for item in (run, first))
    if here and there and here != there:
        told.append(f"it ran on {here}, not {there}")
    now, before = step_seconds(run), step_seconds(first)
    if now and before and not 1 / SLOWER <= now / before <= SLOWER:
        word = "slower" if now > before else "faster"
        told.append(
            f"the machine is {word} than it was: a step takes {now / before:.2f} times as long"
        )
    return tuple(told)


def step_seconds(run: Run) -> float:
    """Return the time of a step: as printed, else of the run by its steps, else of the run.

    Only to be compared with other runs of one script, since the units are the script's own.
    """
    printed = next((run.metrics[name] for name in _STEP_TIMES if name in run.metrics), 0.0)
    return printed or run.seconds / max((1, *run.observed))
