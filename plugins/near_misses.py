"""Combines two changes that were discarded within noise of the best; together they may show."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import combinations

from attrs import frozen

from autoresearch import Config, Experiment, History, Idea, Verdict, Workspace, hookimpl, setting

_DIRECTION = "near misses together"


@frozen(kw_only=True)
class Settings:
    """What counts as a near miss, and when it is time for one."""

    within: float = setting(0.0, "largest loss of a near miss, metric units; 0: two metric.sd")
    after: int = setting(3, "experiments in a row without a keep before a pair is tried")


class Plugin:
    """Chooses a pair from the history, and carries both edits over to the script at head."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.near_misses]``."""
        self._settings = config.settings("near_misses", Settings)
        self._within = self._settings.within or 2 * config.metric.sd

    @hookimpl
    def propose_idea(self, history: History) -> Idea | None:
        """Return the pair that lost least, never one after the other nor before a person's."""
        last = history.decided[-self._settings.after :]
        moving = len(last) < self._settings.after or any(e.verdict is Verdict.KEEP for e in last)
        waiting = set(history.queue).difference(history.tried)
        if moving or waiting or _DIRECTION in {last[-1].idea.direction, *history.dead_ends}:
            return None
        losses = [(_loss(item, history), item.number) for item in history.decided]
        near = sorted(item for item in losses if item[0] <= self._within)[:4]
        pairs = sorted(combinations(near, 2), key=lambda pair: pair[0][0] + pair[1][0])
        ideas = (_together(history, *pair) for pair in pairs)
        return next((idea for idea in ideas if idea.id not in history.tried), None)

    @hookimpl
    def implement_idea(self, idea: Idea, workspace: Workspace) -> str | None:
        """Write the script with both edits; None when one does not fit head any more."""
        if idea.direction != _DIRECTION:
            return None
        head: list[str] | None = workspace.read_script().splitlines(keepends=True)
        refs = [f"refs/autoresearch/*/{number}" for number in idea.cites]  # as the lab keeps them
        for commit in _git(workspace, "for-each-ref", "--format=%(objectname)", *refs):
            names = (f"{commit.strip()}{end}:{workspace.script}" for end in ("~1", ""))
            head = head and carry(*(_git(workspace, "show", name) for name in names), head)
        return "".join(head) if head else None


def _loss(item: Experiment, history: History) -> float:
    """Return what a discard lost to its best; infinite where one commit is not the whole change."""
    delta = item.decision.delta if item.decision else None
    whole = item.added_lines + item.removed_lines > 0 and not item.idea.env and not item.fixes
    again = item.idea.direction in {_DIRECTION, *history.dead_ends}
    if delta is None or not whole or again or item.verdict is not Verdict.DISCARD:
        return float("inf")
    return history.gain(0.0, delta)


def _together(history: History, *pair: tuple[float, int]) -> Idea:
    items = [(loss, history.experiments[number]) for loss, number in pair]
    return Idea(
        direction=_DIRECTION,
        description=" and ".join(f"{e.number} ({e.idea.description[:100]})" for _, e in items),
        hypothesis="each was lost in the noise; if their effects add, both together may show",
        evidence=[f"{e.number} lost by {loss:.6f}: commit {e.commit}" for loss, e in items],
        cites=[item.number for _, item in items],
        changes=[change for _, item in items for change in item.idea.changes],
        expected_gain=-sum(loss for loss, _ in pair),
    )


def _git(workspace: Workspace, *arguments: str) -> list[str]:
    command = ("git", "-C", str(workspace.path), *arguments)
    return subprocess.check_output(command, timeout=30).decode("utf-8").splitlines(keepends=True)


def carry(before: Sequence[str], after: Sequence[str], head: Sequence[str]) -> list[str] | None:
    """Return ``head`` with the edit that made ``after`` of ``before``; None when they clash."""
    same = SequenceMatcher(None, before, head, autojunk=False).get_matching_blocks()
    edits = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    merged = list(head)
    for _, start, end, low, high in (edit for edit in reversed(edits) if edit[0] != "equal"):
        places = (b + start - a for a, b, size in same if a <= start and end <= a + size)
        if (place := next(places, None)) is None:
            return None
        merged[place : place + end - start] = after[low:high]
    return merged
