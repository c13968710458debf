"""Lets Optuna's TPE sampler choose the script's numbers; needs ``pip install optuna``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from random import Random
from typing import Any

import optuna
from attrs import frozen

import autoresearch as ar

Numbers = Mapping[str, Any]
optuna.logging.set_verbosity(optuna.logging.WARNING)


@frozen(kw_only=True)
class Settings:
    """What is searched; three to six names are plenty for a few dozen experiments."""

    search: Mapping[str, tuple[float, float]] = ar.setting({}, "name to [lowest, highest]")


class Plugin:
    """Makes its study from the history every time, so nothing is stored beside the log."""

    @ar.hookimpl
    def configure(self, config: ar.Config) -> None:
        """Read ``[plugins.optuna_ideas]``; there is no search without a range."""
        self._env, self._settings = config.env, config.settings("optuna_ideas", Settings)
        if not self._settings.search:
            raise ar.AutoresearchError("search is empty; add ranges such as RATE = [0.01, 0.1]")

    @ar.hookimpl
    def propose_idea(self, history: ar.History, source: str, rng: Random) -> ar.Idea | None:
        """Return the sampler's next point that is new; what a person queued goes first."""
        now = dict(self._movable(history, source))
        if set(history.queue).difference(history.tried) or not now:
            return None
        space = {name: self._range(name, value) for name, value in now.items()}
        sampler = optuna.samplers.TPESampler(seed=rng.randrange(2**32), n_startup_trials=5)
        aim = "minimize" if history.lower_is_better else "maximize"
        study = optuna.create_study(direction=aim, sampler=sampler)
        study.add_trials(list(_trials(history, now, space)))
        for _ in range(20):
            drawn = study.ask(space).params.items()
            point = {name: type(now[name])(float(f"{value:.4g}")) for name, value in drawn}
            changed = ar.with_values(source, point)
            idea, digest = _idea(history, now, point, changed), sha256(changed.encode()).hexdigest()
            new = idea.id not in history.tried and digest not in history.tried_sources
            if changed != source and new:
                return idea
        return None

    def _movable(self, history: ar.History, source: str) -> Iterator[tuple[str, Any]]:
        """Yield numbers of the search that no environment overrides and that are no dead end."""
        head = {} if history.head is None else history.experiments[history.head].env
        for item in ar.hyperparameters(source):
            fixed = item.form == "environment" and item.name in {**self._env, **head}
            named = item.name in self._settings.search and item.type in ("int", "float")
            if named and not fixed and f"tune {item.name}" not in history.dead_ends:
                yield item.name, item.value

    def _range(self, name: str, value: float) -> Any:
        low, high = self._settings.search[name]
        if isinstance(value, int):
            return optuna.distributions.IntDistribution(int(low), int(high), log=low >= 1)
        return optuna.distributions.FloatDistribution(low, high, log=low > 0)


def _trials(history: ar.History, now: Numbers, space: Numbers) -> Iterator[Any]:
    """Yield head and what changed these numbers alone, in so far as it lies in today's ranges."""
    old = {c.name: c.old for item in reversed(history.experiments) for c in item.idea.changes}
    points: dict[str, Numbers] = {}  # of every commit, from what each one changed
    for item in history.decided:
        tried = {change.name: change.new for change in item.idea.changes}
        new = now if item.number == history.head else tried
        points[item.commit] = {**now, **old, **points.get(item.parent_commit, {}), **new}
        known = {name: points[item.commit][name] for name in now}
        at = {n: v for n, v in known.items() if space[n].low <= v <= space[n].high}
        score, alone = history.score(item), new and new.keys() <= now.keys()
        if at and alone and score is not None and item.verdict in ("keep", "discard"):
            ranges = {name: space[name] for name in at}
            yield optuna.create_trial(params=at, distributions=ranges, value=score)


def _idea(history: ar.History, now: Numbers, point: Numbers, source: str) -> ar.Idea:
    changes = [ar.ValueChange(name=n, old=now[n], new=v) for n, v in point.items() if v != now[n]]
    most = max(point, key=lambda name: abs(point[name] / now[name] - 1) if now[name] else 1.0)
    return ar.Idea(
        direction=f"tune {most}",
        description=", ".join(map(str, changes)),
        hypothesis="the density of good trials against that of bad ones is highest here (TPE)",
        changes=changes,
        cites=[] if history.best_number is None else [history.best_number],
        source=source,
    )
