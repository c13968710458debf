"""Tries a person's ideas first, shows them in queue.md, and obeys notes such as ``veto: width``."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from autoresearch import Config, History, Idea, Objection, Projection, QueuedIdea, hookimpl

_HEAD = "| rank | id | expected gain | direction | idea | by | what will happen |\n"


@hookimpl
def register_projections(config: Config) -> Sequence[Projection]:
    """Offer ``queue.md``."""
    return [QueueMd(config.metric.sd)]


@hookimpl(tryfirst=True)
def propose_idea(history: History) -> Idea | None:
    """Return the queued idea of the highest expected gain, before any other generator is asked."""
    for item in history.ranked_queue:
        if not vetoes(history, item.direction):
            return Idea(
                direction=item.direction,
                description=item.description,
                hypothesis=item.hypothesis,
                author=item.author,
                cites=[] if history.best_number is None else [history.best_number],
                patch=item.patch,
                env=item.env,
                expected_gain=item.expected_gain,
            )
    return None


@hookimpl
def review_idea(idea: Idea, history: History) -> Objection | None:
    """Drop every idea, whoever proposed it, whose direction a person has vetoed in a note."""
    veto = vetoes(history, idea.direction)
    return Objection(author="human_queue", reason=veto) if veto else None


def vetoes(history: History, direction: str) -> str | None:
    """Return the veto that is in force for a direction, or None.

    ``veto: PATTERN`` forbids, ``allow: PATTERN`` lifts it, the last word counts; ``*`` matches
    anything, upper and lower case are the same.
    """
    found = None
    for note in history.notes:
        word, _, pattern = note.text.partition(":")
        fits = fnmatchcase(direction.lower().strip(), pattern.lower().strip())
        if fits and word.strip().lower() == "veto":
            found = f"{note.author} vetoed {pattern.strip()!r}"
        elif fits and word.strip().lower() == "allow":
            found = None
    return found


@frozen
class QueueMd:
    """The queue by expected value, each idea with what stands in its way."""

    sd: float
    file_name: str = "queue.md"

    def render(self, history: History) -> str:
        """Return a Markdown table; the first row is what runs next."""
        rows = [self._row(rank, item, history) for rank, item in enumerate(history.ranked_queue, 1)]
        body = _HEAD + "|---|---|---|---|---|---|---|\n" + "".join(rows) if rows else "empty\n"
        return f"# Ideas queue of {_cell(history.campaign)}\n\n{body}"

    def _row(self, rank: int, item: QueuedIdea, history: History) -> str:
        gain = "unknown" if item.expected_gain is None else f"{item.expected_gain:+.4f}"
        texts = (item.direction, item.description, item.author, self._fate(item, history))
        cells = (str(rank), item.id, gain, *(_cell(text) for text in texts))
        return f"| {' | '.join(cells)} |\n"

    def _fate(self, item: QueuedIdea, history: History) -> str:
        veto = vetoes(history, item.direction)
        if veto:
            return f"dropped: {veto}"
        if (dead := history.dead(item.direction)) is not None:
            reason = dead.reason
            return f"runs, though its direction is a dead end: {reason}"
        if item.patch is None and not item.env:
            return "runs if a plugin can write its code"
        if item.expected_gain is not None and item.expected_gain < 2 * self.sd:
            return "runs, but one run cannot tell a gain this small from noise"
        return "runs"


def _cell(text: str) -> str:
    """Return foreign text as one harmless cell of a Markdown table."""
    seen = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(seen.split())[:200].replace("|", "\\|")
