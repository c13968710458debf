"""Builds on another kept experiment than head where head has stopped to bear anything."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from statistics import NormalDist

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.history import History, gain_of
from autoresearch.hookspecs import hookimpl
from autoresearch.model import Experiment, Parent, Verdict

_STANDARD = NormalDist()
_RECENT = 200  # experiments that are looked at, so that it costs the same for ever


@frozen(kw_only=True)
class Settings:
    """When head is given up, and for what."""

    patience: int = setting(8, "ideas in a row that failed on head before another is thought of")
    nodes: int = setting(8, "newest kept experiments that are compared")


@frozen(kw_only=True)
class Node:
    """A kept experiment: by how much it is worse than the best, and what came of it."""

    number: int
    behind: float
    tried: int
    held: int


class Plugin:
    """Thompson sampling over kept experiments: whose next idea most likely beats the best."""

    def __init__(self) -> None:
        self._settings = Settings()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.tree]``."""
        self._settings = config.settings("tree", Settings)

    @hookimpl
    def choose_parent(self, history: History, rng: Random) -> Parent | None:
        """Stay on head while it is fresh; then draw for each node how often its ideas hold.

        The draw counts by how probably an idea makes up for what the node is behind: gains are
        taken as normal, as wide as those of the newest experiments were.
        """
        recent = [item for item in history.decided if item.number > history.baseline_number]
        recent = recent[-_RECENT:]
        nodes = [*self._nodes(history, recent)]
        here = next((node for node in nodes if node.number == history.head), None)
        if here is None or _failed_in_a_row(recent, here.number) < self._settings.patience:
            return None
        gains = [gain for item in recent if (gain := gain_of(item, history)) is not None]
        width = (sum(gain * gain for gain in gains) / max(len(gains), 1)) ** 0.5 or 1.0
        worth = [
            rng.betavariate(1 + node.held, 1 + node.tried - node.held)
            * _STANDARD.cdf(-node.behind / width)
            for node in nodes
        ]
        chosen = max(zip(worth, nodes, strict=True), key=lambda pair: pair[0])[1]
        if chosen.number == here.number:
            return None
        return Parent(
            experiment=chosen.number,
            reason=f"of {here.tried} ideas on experiment {here.number} {here.held} held, of "
            f"{chosen.tried} on experiment {chosen.number} {chosen.held}, which is "
            f"{chosen.behind:.4f} {history.metric} behind the best",
        )

    def _nodes(self, history: History, recent: list[Experiment]) -> Iterator[Node]:
        for item in history.kept[-self._settings.nodes :]:
            score, best = history.score(item), history.best_metric
            if score is None or best is None or not item.commit:
                continue
            children = [child for child in recent if child.built_on == item.number]
            held = sum(child.verdict is Verdict.KEEP for child in children)
            behind = history.gain(best, score)
            yield Node(number=item.number, behind=behind, tried=len(children), held=held)


def _failed_in_a_row(recent: list[Experiment], head: int) -> int:
    """Return how many of the newest experiments were built on head; a keep would be head itself."""
    count = 0
    for item in reversed(recent):
        if item.built_on != head or item.verdict is Verdict.KEEP:
            break
        count += 1
    return count
