"""Writes the ANALYSIS block from what is known: the prediction, the best, and what else changed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autoresearch.history import History, spread
from autoresearch.hookspecs import Configured, hookimpl
from autoresearch.model import Analysis, Experiment, RunStatus, Verdict
from autoresearch.policies import confidence, ending, likelihood, scored
from autoresearch.projections.memory import better_by

# What the clock says depends on who else uses the machine, so it explains no score.
_CLOCK = re.compile(r"second|wallclock|per_s(ec)?(_|$)|(^|_)(ms|secs?|time)(_|$)", re.IGNORECASE)
# Under this share a side effect is too small to explain anything.
_NOTABLE = 0.02
_ENDED = {
    Verdict.KEEP: "was kept",
    Verdict.DISCARD: "was discarded",
    Verdict.CRASH: "crashed",
    Verdict.QUARANTINE: "was quarantined",
    Verdict.RERUN: "runs again",
    None: "is under way",
}


class Plugin(Configured):
    """Always answers, so that no experiment is decided without an analysis."""

    @hookimpl
    def analyze_run(self, experiment: Experiment, history: History) -> Analysis:
        """Say what came out, against what was predicted, why, and what to remember."""
        sd = history.noise.sd
        return Analysis(
            result=result_line(experiment, history),
            versus_expected=versus_expected(experiment, history, sd),
            why=explanation(experiment, history),
            lesson=lesson(experiment, history, sd, self._config.metric.implausible_gain),
        )


def result_line(experiment: Experiment, history: History) -> str:
    """Return ``loss=1.2244 artifact=15.9MB``; ``none`` stands for what the run did not give.

    Where sizes do not matter, one that was not printed is not mentioned. Megabytes are decimal
    (10**6 bytes), as the challenge's limit is. The verdict is not known yet.
    """
    score, size = history.score(experiment), experiment.metrics.get(history.size)
    shown = "none" if score is None else f"{score:.4f}"
    if size is None and not _has_sizes(history):
        return f"{history.metric}={shown}"
    megabytes = "none" if size is None else f"{size / 1e6:.1f}MB"
    return f"{history.metric}={shown} artifact={megabytes}"


def _has_sizes(history: History) -> bool:
    """Whether the size of an artifact matters: it is limited, or the best experiment has one."""
    limits = history.started.config.get("limits") if history.started else None
    limited = not isinstance(limits, Mapping) or limits.get("artifact_bytes", 1) > 0
    return limited or (history.best is not None and history.size in history.best.metrics)


def versus_expected(experiment: Experiment, history: History, sd: float) -> str:
    """Return better, worse or same than predicted, with both numbers."""
    score, predicted = history.score(experiment), _predicted(experiment)
    if score is None:
        wanted = "a score" if predicted is None else f"{history.metric} {predicted:.4f}"
        return f"worse than predicted: {wanted} was expected and there is none"
    if predicted is None:
        return _versus_best(experiment, history, score)
    surplus = history.gain(score, predicted)
    told, best = f"{history.metric} {score:.4f} against {predicted:.4f}", history.best_metric
    if abs(surplus) <= max(spread(sd), 5e-5):
        return f"same as predicted: {told}, a difference of {abs(surplus):.4f}"
    word = "better" if surplus > 0 else "worse"
    if best is None:
        return f"{word} than predicted: {told}"
    came, hoped = (better_by(history.gain(each, best), digits=4) for each in (score, predicted))
    return f"{word} than predicted: {came}, where {hoped} was expected ({told})"


def _versus_best(experiment: Experiment, history: History, score: float) -> str:
    best = history.best_metric
    if best is None or experiment.number == 0:
        return "same: the baseline predicts nothing and sets what is to be beaten"
    told = better_by(history.gain(score, best), digits=4)
    word = "same" if told == "no change" else told.partition(" ")[0]
    return f"{word}: no number was predicted; {told} against the best before"


def explanation(experiment: Experiment, history: History) -> str:
    """Return the best explanation that the recorded numbers support."""
    score, best = history.score(experiment), history.best
    if score is None:
        status = _last_status(experiment)
        return "nothing was run" if status is None else ending(experiment, status, history)
    if best is None or history.best_metric is None or best.number == experiment.number:
        times = scored(experiment, history.metric)
        again = f"the mean of {times} runs" if times > 1 else "first measurement"
        return f"{again} of the script as it is"
    gain = history.gain(score, history.best_metric)
    side = side_effects(experiment, best, history)
    noise = history.noise
    runs = scored(experiment, history.metric), scored(best, history.metric)
    told = better_by(gain, history.metric, 4)
    sure = confidence(gain, noise.sd, *runs, noise.freedom)
    real = "" if sure is None or told == "no change" else f" ({likelihood(sure)})"
    return f"{experiment.idea.description}: {told} against experiment {best.number}{real}; {side}"


def side_effects(experiment: Experiment, best: Experiment, history: History) -> str:
    """Return the three other numbers that moved most against the best; none that the clock gave."""
    moved = {
        name: value / old - 1
        for name, value in experiment.metrics.items()
        if name != history.metric and not _CLOCK.search(name) and (old := best.metrics.get(name))
    }
    largest = sorted(moved.items(), key=lambda item: (-abs(item[1]), item[0]))[:3]
    told = [f"{name} {share:+.0%}" for name, share in largest if abs(share) >= _NOTABLE]
    return f"besides, {', '.join(told)}" if told else "nothing else moved by 2 % or more"


def lesson(experiment: Experiment, history: History, sd: float, limit: float = 0.0) -> str:
    """Return what to remember, with this experiment's numbers and its direction's record.

    A gain over ``limit``, where there is one, is nothing to build on before a person has looked.
    """
    score, best = history.score(experiment), history.best_metric
    idea = experiment.idea
    if experiment.number == 0:
        return _first_lesson(history, score)
    if score is None:
        return f"{idea.direction}: {idea.description} gives no score ({_ending(experiment)})"
    if best is None:
        return f"{idea.direction}: {idea.description} scores {score:.4f}, the first to compare with"
    gain = history.gain(score, best)
    effect = "is too good to believe" if 0 < limit < gain else _effect(gain, sd)
    effect = f"{idea.direction}: {idea.description} {effect} ({better_by(gain, digits=4)})"
    return f"{effect}; {_record(experiment, history)}"


def _first_lesson(history: History, score: float | None) -> str:
    if score is None:
        return "the script as it is gives no score; fix it before changing anything else"
    return f"{history.metric} {score:.4f} is what a change has to beat"


def _effect(gain: float, sd: float) -> str:
    if abs(gain) <= spread(sd):
        return "makes no difference beyond the noise"
    return "helps" if gain > 0 else "hurts"


def _record(experiment: Experiment, history: History) -> str:
    earlier = [i for i in history.recent(experiment.idea.direction) if i.number < experiment.number]
    if not earlier:
        return "first try in this direction"
    kept = sum(item.verdict is Verdict.KEEP for item in earlier)
    last, were = earlier[0], "was" if len(earlier) == 1 else "were"
    ended = f"experiment {last.number} ({last.idea.description}) {_ENDED[last.verdict]}"
    return f"{kept} of {len(earlier)} before it here {were} kept; the last, {ended}"


def _ending(experiment: Experiment) -> str:
    status = _last_status(experiment)
    return "not run" if status is None else status.value.replace("_", " ")


def _last_status(experiment: Experiment) -> RunStatus | None:
    return experiment.runs[-1].status if experiment.runs else None


def _predicted(experiment: Experiment) -> float | None:
    if experiment.reasoning is not None and experiment.reasoning.predicted is not None:
        return experiment.reasoning.predicted
    return experiment.idea.predicted
