"""notes.md: the long-term memory of a campaign, in the five sections of the research protocol."""

from __future__ import annotations

from attrs import frozen

from autoresearch.history import History
from autoresearch.model import Experiment, Verdict
from autoresearch.projections.blocks import analysis_block, reasoning_block, shown_status
from autoresearch.text import one_line

QUEUE_SHOWN = 20


@frozen
class NotesMd:
    """The memory that is read before every experiment."""

    file_name: str = "notes.md"

    def render(self, history: History) -> str:
        """Return the whole file; each foreign text is one line, so none can pose as a section."""
        sections = [
            ("## Best Known Config", _best(history)),
            ("## Dead Ends (do not revisit)", _dead_ends(history)),
            ("## What Works", _what_works(history)),
            ("## Ideas Queue (ranked by expected value)", _queue(history)),
            ("## Experiment Log", _log(history)),
        ]
        return "\n".join(f"{title}\n{body}" if body else f"{title}\n" for title, body in sections)


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


def _what_works(history: History) -> str:
    lines = []
    for experiment in history.kept[1:]:
        delta = experiment.decision.delta if experiment.decision else None
        gain = f"{delta:+.6f} {history.metric}" if delta is not None else "not measured"
        direction = one_line(experiment.idea.direction, 80)
        lines.append(
            f"- [{direction}: {_what(experiment)}][{gain}][experiment {experiment.number}]"
        )
    return "".join(f"{line}\n" for line in lines)


def _queue(history: History) -> str:
    lines = []
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


def _log(history: History) -> str:
    by_commit = {item.commit: item for item in history.experiments}
    return "\n".join(_entry(item, by_commit.get(item.parent_commit)) for item in history.decided)


def _entry(experiment: Experiment, parent: Experiment | None) -> str:
    lines = [f"### Experiment {experiment.number}: {one_line(experiment.idea.description, 300)}"]
    before = parent.sources if parent else experiment.sources
    changed = [path for path, new in experiment.sources.items() if before.get(path) != new]
    if len(changed) > 1:
        lines.append(f"Files: {one_line(', '.join(sorted(changed)), 500)}")
    if experiment.reasoning:
        lines.append(reasoning_block(experiment.reasoning))
    if experiment.analysis:
        lines.append(analysis_block(experiment.analysis, shown_status(experiment)))
    if experiment.decision and experiment.verdict is Verdict.QUARANTINE:
        lines.append(f"Quarantined: {one_line(experiment.decision.reason, 500)}")
    elif experiment.decision:
        lines.append(f"Decision: {one_line(experiment.decision.reason, 500)}")
    return "\n".join(lines) + "\n"
