"""The files of the research protocol: results.tsv, notes.md, and the blocks that stand in it.

results.tsv has one row for every decided experiment and every backtrack, as they were logged.
notes.md is the long-term memory of a campaign, in the five sections of the protocol. So that it can
still be read after a thousand experiments, the newest stand in it whole, those before them and all
that were kept in a line each, and the rest in a line for each hundred; results.tsv has a row for
each, and the log and `autoresearch show` have all of them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import fmean

from attrs import field, frozen
from pyrsistent import PVector, pvector

from autoresearch import events
from autoresearch.history import PROVEN, History, PerExperiment, parent_of, spread
from autoresearch.model import Analysis, Experiment, Reasoning, Run, Verdict
from autoresearch.projections.memory import Card, Memory, better_by, dead_ends, digests
from autoresearch.text import one_line

# --- the blocks, to the letter -------------------------------------------------------------------

LIMIT = 2_000


def reasoning_block(reasoning: Reasoning) -> str:
    """Return the block that is written before every experiment."""
    return "\n".join(
        [
            "=== REASONING ===",
            f"Hypothesis: {one_line(reasoning.hypothesis, LIMIT)}",
            f"Evidence: {one_line(reasoning.evidence, LIMIT)}",
            f"Risk: {one_line(reasoning.risk, LIMIT)}",
            "===",
        ]
    )


def analysis_block(analysis: Analysis, verdict: str) -> str:
    """Return the block that is written after every experiment; ``verdict`` ends its first line."""
    return "\n".join(
        [
            "=== ANALYSIS ===",
            f"Result: {one_line(analysis.result, LIMIT)} ({verdict})",
            f"vs Expected: {one_line(analysis.versus_expected, LIMIT)}",
            f"Why: {one_line(analysis.why, LIMIT)}",
            f"Lesson: {one_line(analysis.lesson, LIMIT)}",
            "===",
        ]
    )


def in_its_stage(experiment: Experiment, history: History) -> str:
    """Return the score of an experiment that did not come to the last stage, with the stage."""
    score = experiment.metrics.get(history.metric)
    shown = "no score" if score is None else f"{history.metric} {score:.6f}"
    return f"{shown} in the stage {experiment.stage or 'none'}"


def shown_status(experiment: Experiment) -> str:
    """Return keep, discard or crash, the words that results.tsv knows, or rerun on the way."""
    verdict = experiment.verdict
    shown = verdict.value if verdict is not None else ""
    return shown if shown in ("keep", "crash", "rerun") else "discard"


# --- results.tsv ---------------------------------------------------------------------------------

COLUMNS = ("commit", "metric", "artifact_mb", "status", "reasoning", "description")


@frozen
class ResultsTsv:
    """The table of the research protocol; the second column bears the campaign's metric."""

    file_name: str = "results.tsv"
    _rows: _Rows = field(factory=lambda: _Rows(_row), init=False, eq=False, repr=False)

    def render(self, history: History) -> str:
        """Return the header and a row for each entry of the history's timeline.

        A missing score is written 0.000000 and a missing size 0.0, as the protocol asks; sizes are
        decimal megabytes.
        """
        return _line(header(history)) + self._rows.told(history)


class _Rows(PerExperiment[str]):
    """The row of each experiment, and all rows of a timeline as far as they were told."""

    def begin_again(self) -> None:
        """Forget what was told."""
        self._text, self._shown = "", set[int]()
        self._entries: PVector[int | events.Backtracked] = pvector()

    def changed(self, number: int, *_: object) -> None:
        """Forget what was told where a row in it is another now."""
        if number in self._shown:
            self.begin_again()

    def told(self, history: History) -> str:
        """Return a row for each entry of the timeline."""
        rows = self.of(history)
        if history.timeline[: len(self._entries)] != self._entries:
            self.begin_again()
        new = history.timeline[len(self._entries) :]
        for entry in new:
            row = rows[entry] if isinstance(entry, int) else _line(_backtrack(history, entry))
            self._text += row or ""
        self._shown.update(each if isinstance(each, int) else each.to_experiment for each in new)
        self._entries = history.timeline
        return self._text


def header(history: History) -> tuple[str, ...]:
    """Return the six column names."""
    metric = history.metric if history.started else COLUMNS[1]
    return (COLUMNS[0], one_line(metric, 60) or COLUMNS[1], *COLUMNS[2:])


def _line(cells: Iterable[str]) -> str:
    return "\t".join(cells) + "\n"


def _row(experiment: Experiment, history: History) -> str:
    cells = (
        experiment.commit[:7],
        *_sizes(history, experiment),
        shown_status(experiment),
        one_line(experiment.reasoning.hypothesis if experiment.reasoning else "", 300),
        one_line(_description(experiment, history), 300),
    )
    return _line(cells)


def _backtrack(history: History, event: events.Backtracked) -> tuple[str, ...]:
    target = history.experiments[event.to_experiment]
    return (
        event.commit[:7],
        *_sizes(history, target),
        "backtrack",
        one_line(event.reason, 300),
        f"back to experiment {event.to_experiment} after experiment {event.after_experiment}",
    )


def _sizes(history: History, experiment: Experiment) -> tuple[str, str]:
    crashed = experiment.verdict is Verdict.CRASH
    score = None if crashed else history.score(experiment)
    early = experiment.stage != history.stage  # its numbers are no match for those of whole runs
    size = None if crashed or early else experiment.metrics.get(history.size)
    return (f"{score or 0.0:.6f}", f"{(size or 0.0) / 1e6:.1f}")


def _description(experiment: Experiment, history: History) -> str:
    words = experiment.idea.description
    if experiment.stage != history.stage:
        words = f"{words} [{in_its_stage(experiment, history)}]"
    if experiment.verdict is Verdict.QUARANTINE and experiment.decision:
        return f"{words} [quarantined: {experiment.decision.reason}]"
    return words


# --- notes.md ------------------------------------------------------------------------------------

QUEUE_SHOWN = 20
WHOLE = 30  # experiments; about 40 kB, which a person and a model can both read at once
IN_A_LINE = 100  # experiments before those; what is kept has a line for ever


@frozen
class NotesMd:
    """The memory that is read before every experiment."""

    file_name: str = "notes.md"
    _entries: dict[int, tuple[Experiment, str]] = field(
        factory=dict, init=False, eq=False, repr=False
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
        older, newest = decided[-WHOLE - IN_A_LINE : -WHOLE], decided[-WHOLE:]
        whole = "".join(f"Looking back on {line}\n" for line in digests(history))
        whole += "\n".join(self._whole(newest, history))
        if not older:
            return whole
        lines = self._lines.of(history)
        far = [item for item in history.kept if item.number < older[0].number]
        told = (
            f"{'All kept before, and the' if far else 'The'} {len(older)} before the newest "
            f"{len(newest)} in one line each; results.tsv has a row for every experiment, and "
            "`autoresearch show NUMBER` has any of them whole.\n"
        )
        return f"{told}{''.join(lines[item.number] or '' for item in (*far, *older))}\n{whole}"

    def _whole(self, newest: Sequence[Experiment], history: History) -> list[str]:
        """Return the entries of some experiments; those of others are forgotten."""
        known = dict(self._entries)
        self._entries.clear()
        for item in newest:
            made = known.get(item.number)
            if made is None or made[0] is not item:
                made = item, _entry(item, history)
            self._entries[item.number] = made
        return [text for _, text in self._entries.values()]


def _best(history: History) -> str:
    best = history.best
    if best is None:
        return "none yet\n"
    score, size = history.score(best), best.metrics.get(history.size)
    number = f"{history.metric} {score:.6f}" if score is not None else f"no {history.metric}"
    weight = f", artifact {size / 1e6:.1f} MB" if size is not None else ""
    commit = f", commit {best.commit[:7]}" if best.commit else ""
    told = f"{number}{weight}{commit}, experiment {best.number}: {_what(best)}\n"
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
        for event in history.backtracks
    ]
    return "".join(f"{line}\n" for line in lines)


def _what_works(cards: Sequence[Card], history: History) -> str:
    """A line for each direction that was kept: proven gains first, then what may be luck."""
    proven: list[str] = []
    luck: list[str] = []
    for card in cards:
        if not card.kept:
            continue
        gains = [item.gain for item in card.kept if item.gain is not None]
        total = sum(gains) if gains else None
        numbers = tuple(item.number for item in card.kept)
        first, last = card.kept[0], card.kept[-1]
        what = _what(history.experiments[last.number])
        numeric = first.old is not None and last.new is not None
        if len(numbers) > 1 and numeric and len({item.name for item in card.kept}) == 1:
            what = f"{last.name} {first.old:g} -> {last.new:g}"  # all of the way that gained it
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


# --- what the controls showed, which measure the best again --------------------------------------

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
    return (f"{where}: {_compared(history, experiment, run, score)}", *_machine(experiment, run))


def _compared(history: History, experiment: Experiment, run: Run, score: float) -> str:
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
