"""notes.md: the long-term memory of a campaign, in the five sections of the research protocol.

So that it can still be read after a thousand experiments, the newest stand in it whole and older
ones in a line each; the log and `autoresearch show` have all of them whole.
"""

from __future__ import annotations

from attrs import field, frozen

from autoresearch.history import History, PerExperiment
from autoresearch.model import Experiment, Verdict
from autoresearch.projections.blocks import analysis_block, reasoning_block, shown_status
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
    _gains: PerExperiment[str] = field(
        factory=lambda: PerExperiment(_gain), init=False, eq=False, repr=False
    )

    def render(self, history: History) -> str:
        """Return the whole file; each foreign text is one line, so none can pose as a section."""
        sections = [
            ("## Best Known Config", _best(history)),
            ("## Dead Ends (do not revisit)", _dead_ends(history)),
            ("## What Works", self._what_works(history)),
            ("## Ideas Queue (ranked by expected value)", _queue(history)),
            ("## Experiment Log", self._log(history)),
        ]
        return "\n".join(f"{title}\n{body}" if body else f"{title}\n" for title, body in sections)

    def _what_works(self, history: History) -> str:
        return "".join(self._gains.of(item, history) for item in history.kept[1:])

    def _log(self, history: History) -> str:
        decided = history.decided
        older, newest = decided[:-WHOLE], decided[-WHOLE:]
        whole = "\n".join(self._entries.of(item, history) for item in newest)
        if not older:
            return whole
        told = (
            f"The older {len(older)} in one line each; `autoresearch show NUMBER` has them whole.\n"
        )
        return f"{told}{''.join(self._lines.of(item, history) for item in older)}\n{whole}"


def _best(history: History) -> str:
    best = history.best
    if best is None:
        return "none yet\n"
    score, size = history.score(best), best.metrics.get(history.size)
    number = f"{history.metric} {score:.6f}" if score is not None else f"no {history.metric}"
    weight = f", artifact {size / 1e6:.1f} MB" if size is not None else ""
    return f"{number}{weight}, commit {best.commit[:7]}, experiment {best.number}: {_what(best)}\n"


def _what(experiment: Experiment) -> str:
    env = "".join(f" {key}={value}" for key, value in sorted(experiment.idea.env.items()))
    return one_line(experiment.idea.description + env, 300)


def _numbers(numbers: tuple[int, ...]) -> str:
    word = "experiment" if len(numbers) == 1 else "experiments"
    return f"{word} {', '.join(str(number) for number in numbers)}"


def _dead_ends(history: History) -> str:
    found = sorted(
        history.dead_ends.values(), key=lambda event: (event.experiments, event.direction)
    )
    lines = [
        f"- [{one_line(event.direction, 80)}][{one_line(event.reason, 300)}]"
        f"[{_numbers(event.experiments)}]"
        for event in found
    ]
    lines += [
        f"- [the keeps up to experiment {event.after_experiment}][{one_line(event.reason, 300)}]"
        f"[went back to experiment {event.to_experiment}]"
        for event in history.timeline
        if not isinstance(event, int)
    ]
    return "".join(f"{line}\n" for line in lines)


def _gain(experiment: Experiment, history: History) -> str:
    delta = experiment.decision.delta if experiment.decision else None
    gain = f"{delta:+.6f} {history.metric}" if delta is not None else "not measured"
    direction = one_line(experiment.idea.direction, 80)
    return f"- [{direction}: {_what(experiment)}][{gain}][experiment {experiment.number}]\n"


def _queue(history: History) -> str:
    lines = [
        f"- steering by {one_line(item.author, 40)}"
        f"{'' if item.until is None else f' up to experiment {item.until - 1}'}: "
        f"{one_line(item.text, 500)}"
        for item in history.steered
    ]
    for rank, idea in enumerate(history.ranked_queue[:QUEUE_SHOWN], start=1):
        gain = (
            "unknown gain" if idea.expected_gain is None else f"{idea.expected_gain:+.4f} expected"
        )
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
    earlier = reversed(history.experiments[: experiment.number])
    parent = next((item for item in earlier if item.commit == experiment.parent_commit), experiment)
    return sorted(p for p, new in experiment.sources.items() if parent.sources.get(p) != new)
