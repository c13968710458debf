"""Builds on another kept experiment than head where head has stopped to bear anything."""

from __future__ import annotations

from itertools import takewhile
from random import Random
from statistics import NormalDist, fmean

from attrs import frozen

from autoresearch.config import setting
from autoresearch.history import History, gain_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.model import Parent, Verdict

_RECENT = 200  # experiments that are looked at, so that it costs the same for ever


@frozen(kw_only=True)
class Settings:
    """When head is given up, and for what."""

    patience: int = setting(8, "ideas in a row that failed on head before another is thought of")
    nodes: int = setting(8, "newest kept experiments that are compared")


class Plugin(WithTable[Settings]):
    """Thompson sampling over kept experiments: whose next idea most likely beats the best."""

    name, Settings = "tree", Settings

    @hookimpl
    def choose_parent(self, history: History, rng: Random) -> Parent | None:
        """Stay on head while it is fresh; then draw for each node how often its ideas hold.

        The draw counts by how probably an idea makes up for what the node is behind: gains are
        taken as normal, as wide as those of the newest experiments were.
        """
        head, best = history.head, history.best_metric
        recent = [item for item in history.decided[-_RECENT:] if item.built_on is not None]
        failed = takewhile(
            lambda item: item.built_on == head and item.verdict is not Verdict.KEEP,
            reversed(recent),
        )
        if best is None or sum(1 for _ in failed) < self._settings.patience:
            return None
        squares = [gain * gain for item in recent if (gain := gain_of(item, history)) is not None]
        reach = NormalDist(0, fmean(squares or [1]) ** 0.5 or 1)
        nodes: dict[int, tuple[float, str]] = {}  # what each is worth, and why
        for item in history.kept[-self._settings.nodes :]:
            built = [child.verdict for child in recent if child.built_on == item.number]
            held, score = built.count(Verdict.KEEP), history.score(item)
            if score is not None:
                behind = history.gain(best, score)
                holds = rng.betavariate(1 + held, 1 + len(built) - held)
                told = f"{held} of {len(built)} ideas held on experiment {item.number}, "
                told += f"{behind:.4f} {history.metric} behind the best"
                nodes[item.number] = holds * reach.cdf(-behind), told
        chosen = max(nodes, key=lambda number: nodes[number], default=head)
        if chosen is None or chosen == head or head not in nodes:
            return None
        return Parent(experiment=chosen, reason=f"{nodes[chosen][1]}; {nodes[head][1]}")
