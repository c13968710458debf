"""notes.md: the long-term memory of a campaign, in the five sections of the research protocol.

So that it can still be read after a thousand experiments, the newest stand in it whole and older
ones in a line each; the log and `autoresearch show` have all of them whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from attrs import field, frozen

from autoresearch.history import PROVEN, History, PerExperiment, parent_of
from autoresearch.model import Experiment, Verdict
from autoresearch.projections.blocks import (
    analysis_block,
    in_its_stage,
    reasoning_block,
    shown_status,
)
from autoresearch.projections.controls import controls
from autoresearch.projections.memory import Card, Memory, better_by, dead_ends, digests
from autoresearch.text import one_line

QUEUE_SHOWN = 20
WHOLE = 30  # experiments; about 40 kB, which a person and a model can both read at once


@frozen
class NotesMd:
    """The memory that is read before every experiment."""

    file_name: str = "notes.md"
    _entries: PerExperiment[str] = field(
        factory=lambda: PerExperiment(_entry), init=False, eq=False, repr=False
    )
    _lines: PerExperiment[str] = field(
        factory=lambda: PerExperiment(_summary), init=False, eq=False, repr=False
    )
    _memory: Memory = field(factory=Memory, init=False, eq=False, repr=False)

    def render(self, history: History) -> str:
        """Return the whole file; each foreign text is one line, so none can pose as a section."""
        cards = self._memory.cards(history)
        sections = [
            ("## Best Known Config", _best(history)),
            ("## Dead Ends (do not revisit)", _dead_ends(cards, history)),
            ("## What Works", _what_works(cards, history)),
            ("## Ideas Queue (ranked by expected value)", _queue(history)),
            ("## Experiment Log", self._log(history)),
        ]
        return "\n".join(f"{title}\n{body}" if body else f"{title}\n" for title, body in sections)

    def _log(self, history: History) -> str:
        decided = history.decided
        older, newest = decided[:-WHOLE], decided[-WHOLE:]
        whole = "".join(f"Looking back on {line}\n" for line in digests(history))
        whole += "\n".join(self._entries.each(newest, history))
        if not older:
            return whole
        told = (
            f"The older {len(older)} in one line each; `autoresearch show NUMBER` has them whole.\n"
        )
        return f"{told}{''.join(self._lines.each(older, history))}\n{whole}"


def _best(history: History) -> str:
    best = history.best
    if best is None:
        return "none yet\n"
    score, size = history.score(best), best.metrics.get(history.size)
    number = f"{history.metric} {score:.6f}" if score is not None else f"no {history.metric}"
    weight = f", artifact {size / 1e6:.1f} MB" if size is not None else ""
    told = f"{number}{weight}, commit {best.commit[:7]}, experiment {best.number}: {_what(best)}\n"
    return told + "".join(f"- {one_line(line, 300)}\n" for line in controls(history))


def _what(experiment: Experiment) -> str:
    env = "".join(f" {key}={value}" for key, value in sorted(experiment.idea.env.items()))
    return one_line(experiment.idea.description + env, 300)


def _numbers(numbers: tuple[int, ...]) -> str:
    word = "experiment" if len(numbers) == 1 else "experiments"
    return f"{word} {', '.join(str(number) for number in numbers)}"


def _dead_ends(cards: Sequence[Card], history: History) -> str:
    found = sorted(dead_ends(cards, history), key=lambda pair: pair[0].experiments)
    lines = [
        f"- [{one_line(event.direction, 80)}][{one_line(reason, 300)}]"
        f"[{_numbers(event.experiments)}]"
        for event, reason in found
    ]
    lines += [
        f"- [the keeps up to experiment {event.after_experiment}][{one_line(event.reason, 300)}]"
        f"[went back to experiment {event.to_experiment}]"
        for event in history.timeline
        if not isinstance(event, int)
    ]
    return "".join(f"{line}\n" for line in lines)


def _what_works(cards: Sequence[Card], history: History) -> str:
    """A line for each direction that was kept: proven gains first, then what may be luck."""
    proven: list[str] = []
    luck: list[str] = []
    for card in cards:
        kept = [item for item in card.tries if item.verdict is Verdict.KEEP]
        if not kept:
            continue
        gains = [item.gain for item in kept if item.gain is not None]
        total = sum(gains) if gains else None
        numbers = tuple(item.number for item in kept)
        what = _what(history.experiments[numbers[-1]])
        told = better_by(total, history.metric)
        if total is not None and not _proven(history, numbers, total, card.error):
            told = f"unproven, inside the noise: {told}"
        line = f"- [{one_line(card.direction, 80)}: {what}][{told}][{_numbers(numbers)}]\n"
        (luck if told.startswith("unproven") else proven).append(line)
    return "".join(proven + luck)


def _proven(history: History, numbers: Sequence[int], total: float, error: float) -> bool:
    """Whether a direction's gain is more than luck: one keep was proven, or all of them together.

    What a decision said of one keep stands: it knew how many runs were compared, and their noise.
    """
    decisions = [history.experiments[number].decision for number in numbers]
    sure = [item.confidence for item in decisions if item and item.confidence is not None]
    if sure and (len(numbers) == 1 or max(sure) >= PROVEN):
        return max(sure) >= PROVEN
    return total / sqrt(len(numbers)) >= error


def _queue(history: History) -> str:
    lines = [
        f"- steering by {one_line(item.author, 40)}"
        f"{'' if item.until is None else f' up to experiment {item.until - 1}'}: "
        f"{one_line(item.text, 500)}"
        for item in history.steered
    ]
    for rank, idea in enumerate(history.ranked_queue[:QUEUE_SHOWN], start=1):
        known = idea.expected_gain is not None
        gain = f"{better_by(idea.expected_gain, '', 4)} expected" if known else "unknown gain"
        lines.append(
            f"{rank}. {one_line(idea.description, 200)} ({gain}; {one_line(idea.author, 40)}): "
            f"{one_line(idea.hypothesis, 300)}"
        )
    lines += [f"- note by {one_line(n.author, 40)}: {one_line(n.text, 500)}" for n in history.notes]
    lines += [f"- stuck: {one_line(event.reason, 300)}" for event in history.plateaus[-1:]]
    return "".join(f"{line}\n" for line in lines)


def _summary(experiment: Experiment, history: History) -> str:
    score = history.score(experiment)
    shown = "no score" if score is None else f"{history.metric} {score:.6f}"
    shown = shown if experiment.stage == history.stage else in_its_stage(experiment, history)
    lesson = experiment.analysis.lesson if experiment.analysis else "no lesson"
    what, verdict = one_line(experiment.idea.description, 80), shown_status(experiment)
    return f"- {experiment.number}: {what}; {shown}; {verdict}; {one_line(lesson, 120)}\n"


def _entry(experiment: Experiment, history: History) -> str:
    lines = [f"### Experiment {experiment.number}: {one_line(experiment.idea.description, 300)}"]
    changed = _changed_files(experiment, history)
    if len(changed) > 1:
        lines.append(f"Files: {one_line(', '.join(changed), 500)}")
    if experiment.reasoning:
        lines.append(reasoning_block(experiment.reasoning))
    if experiment.analysis:
        lines.append(analysis_block(experiment.analysis, shown_status(experiment)))
    if experiment.decision and experiment.verdict is Verdict.QUARANTINE:
        lines.append(f"Quarantined: {one_line(experiment.decision.reason, 500)}")
    elif experiment.decision:
        lines.append(f"Decision: {one_line(experiment.decision.reason, 500)}")
    return "\n".join(lines) + "\n"


def _changed_files(experiment: Experiment, history: History) -> list[str]:
    if len(experiment.sources) < 2:
        return []
    parent = parent_of(experiment, history) or experiment
    return sorted(p for p, new in experiment.sources.items() if parent.sources.get(p) != new)
