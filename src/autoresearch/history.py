"""The state of one campaign folded from its events: what every strategy is given to read.

A History is immutable and shares its structure with the one before it, so folding one more event
costs the same after ten experiments and after ten thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median, variance
from typing import Generic, TypeVar

from attrs import field, frozen
from pyrsistent import PMap, PSet, PVector, pmap, pset, pvector

from autoresearch import events
from autoresearch.model import Experiment, Lesson, RunStatus, ValueChange, Verdict

_RECENT = 200  # experiments that the noise is measured over, so that it costs the same for ever
_FEWEST_STEPS = 4
LEASE_SECONDS = 3600.0  # longer than an agent thinks, shorter than a night
# Half of all differences of two normal numbers are under 0.6745 * sqrt(2) standard deviations.
_MEDIAN_STEP = 0.9539

T = TypeVar("T")


@frozen(kw_only=True)
class QueuedIdea:
    """An idea waiting in the queue; ``expected_gain`` is in metric units, positive is better.

    ``waits_for`` is that of `IdeaQueued`; ``again``: it was proposed before and put back.
    """

    id: str
    direction: str
    description: str
    hypothesis: str
    author: str
    expected_gain: float | None = None
    patch: str | None = None
    env: Mapping[str, str] = field(factory=dict)
    changes: tuple[ValueChange, ...] = ()
    waits_for: str = ""
    again: bool = False


@frozen(kw_only=True)
class Spent:
    """What the campaign has used: wall-clock seconds, GPU seconds, US dollars, tokens."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float = 0.0
    tokens: int = 0


@frozen(kw_only=True)
class OpenRun:
    """A run that was requested and has not finished, as far as the log knows."""

    request: events.RunRequested
    reference: str | None = None


@frozen(kw_only=True)
class Steering:
    """Where a person wants the research to go; ``until`` is the first experiment without it."""

    number: int
    text: str
    author: str
    until: int | None = None
    withdrawn: bool = False


@frozen(kw_only=True)
class Lease:
    """Who drives the campaign by hand, and since when."""

    by: str
    since: str = ""

    def lapsed(self, history: History) -> bool:
        """Whether nothing was heard of the driver for so long that the loop may take over.

        A run under way has its whole time and is no silence.
        """
        run = history.open_run.request.timeout_seconds if history.open_run else 0.0
        silent = datetime.now(UTC) - datetime.fromisoformat(history.last_at or self.since)
        return silent.total_seconds() > LEASE_SECONDS + run


@frozen(kw_only=True)
class Noise:
    """The seed-to-seed standard deviation of the metric, and how it is known.

    ``sd`` is in units of the metric, 0 while nothing is known; ``freedom`` are the degrees of
    freedom of a measured one, 0 for one that was set; ``source`` says where it comes from.
    """

    sd: float = 0.0
    freedom: int = 0
    source: str = "noise unknown"
    measured: bool = False


@frozen(kw_only=True)
class History:
    """Everything known at one position of the log; ``experiments`` is indexed by number.

    ``tried`` holds ids of ideas, ``tried_sources`` the digests of what was run (see
    `Experiment.source_digest`). ``paused`` (since ``paused_at``) and ``stop`` are what the loop
    obeys now. ``failures`` counts those of each plugin. ``last_step`` and ``last_at`` are the type
    and time of the newest event that the loop itself recorded.
    """

    campaign: str = ""
    metric: str = "score"
    lower_is_better: bool = True
    size: str = "artifact_bytes"
    started: events.CampaignStarted | None = None
    plugins: Mapping[str, str] = field(factory=dict)
    position: int = 0
    tip_hash: str = ""
    experiments: PVector[Experiment] = field(factory=pvector)
    baseline_number: int = 0
    head: int | None = None
    best_number: int | None = None
    timeline: PVector[int | events.Backtracked] = field(factory=pvector)
    lessons: PVector[Lesson] = field(factory=pvector)
    dead_ends: PMap[str, events.DirectionDeclaredDead] = field(factory=pmap)
    plateaus: PVector[events.PlateauDeclared] = field(factory=pvector)
    queue: PMap[str, QueuedIdea] = field(factory=pmap)
    tried: PSet[str] = field(factory=pset)
    tried_sources: PSet[str] = field(factory=pset)
    notes: PVector[events.NoteAdded] = field(factory=pvector)
    steering: PVector[Steering] = field(factory=pvector)
    rejected: PVector[events.ChangeRejected | events.IdeaDropped] = field(factory=pvector)
    spent: Spent = field(factory=Spent)
    reviewed: events.MemoryReviewed | None = None
    open_run: OpenRun | None = None
    stopped: str | None = None
    paused: events.Paused | None = None
    paused_at: str = ""
    stop: events.StopRequested | None = None
    lease: Lease | None = None
    failures: PMap[str, int] = field(factory=pmap)
    last_step: str = ""
    last_at: str = ""

    @property
    def baseline(self) -> Experiment | None:
        """The first experiment since the newest start, or None before it was proposed.

        It is experiment 0, unless a campaign whose baseline gave no score was started again.
        """
        known = self.baseline_number < len(self.experiments)
        return self.experiments[self.baseline_number] if known else None

    @property
    def may_start_again(self) -> bool:
        """Whether there is no score yet to build on: no baseline, or one that failed."""
        baseline = self.baseline
        failed = baseline is None or baseline.verdict in (Verdict.CRASH, Verdict.QUARANTINE)
        return failed and len(self.experiments) <= self.baseline_number + 1

    @property
    def best(self) -> Experiment | None:
        """The kept experiment with the best metric, or None before anything was kept."""
        return None if self.best_number is None else self.experiments[self.best_number]

    @property
    def best_metric(self) -> float | None:
        """The best kept score, or None before anything was kept."""
        return self.score(self.best) if self.best else None

    @property
    def current(self) -> Experiment | None:
        """The experiment that is under way, or None between two experiments."""
        last = self.experiments[-1] if self.experiments else None
        return last if last is not None and is_open(last) else None

    @property
    def next_number(self) -> int:
        """The number that the next experiment gets."""
        return self.current.number if self.current else len(self.experiments)

    @property
    def decided(self) -> tuple[Experiment, ...]:
        """All experiments with a final verdict, oldest first."""
        return tuple(item for item in self.experiments if not is_open(item))

    @property
    def kept(self) -> tuple[Experiment, ...]:
        """All kept experiments, oldest first."""
        return tuple(item for item in self.experiments if item.verdict is Verdict.KEEP)

    @property
    def steered(self) -> tuple[Steering, ...]:
        """What people want of the research now, oldest first."""
        return tuple(
            item
            for item in self.steering
            if not item.withdrawn and (item.until is None or self.next_number < item.until)
        )

    @property
    def ranked_queue(self) -> tuple[QueuedIdea, ...]:
        """The ideas queue, highest expected gain first; ideas without one come last."""
        unknown = float("-inf")
        return tuple(
            sorted(
                self.queue.values(),
                key=lambda idea: (
                    -(unknown if idea.expected_gain is None else idea.expected_gain),
                    idea.id,
                ),
            )
        )

    @property
    def noise(self) -> Noise:
        """How much the score differs from seed to seed: as set, as measured, or as estimated."""
        metric = self.started.config.get("metric") if self.started else None
        told = metric.get("sd") if isinstance(metric, Mapping) else None
        if isinstance(told, float) and told > 0:
            return Noise(sd=told, source="metric.sd")
        return self._repeated() or self._estimated() or Noise()

    def _repeated(self) -> Noise | None:
        """Return the pooled deviation over experiments that ran with several seeds.

        Equal scores measure nothing: such a script fixes its own seed, and a change rolls the dice
        again although a repetition does not.
        """
        recent = {item.number: item for item in self.experiments[-_RECENT:]}
        if self.baseline is not None:
            recent[self.baseline.number] = self.baseline
        groups = [found for item in recent.values() if len(found := self.scores(item)) > 1]
        freedom = sum(len(scores) - 1 for scores in groups)
        sd = (sum(variance(s) * (len(s) - 1) for s in groups) / freedom) ** 0.5 if freedom else 0.0
        if sd <= 0:
            return None
        runs = freedom + len(groups)
        source = f"noise {sd:.2g} measured over {runs} runs of {len(groups)} experiments"
        return Noise(sd=sd, freedom=freedom, source=source, measured=True)

    def _estimated(self) -> Noise | None:
        """Return a robust floor from neighbouring discards: most ideas do next to nothing."""
        lost = (item for item in self.experiments[-_RECENT:] if item.verdict is Verdict.DISCARD)
        scores = [score for item in lost if (score := self.score(item)) is not None]
        steps = [abs(new - old) for old, new in pairwise(scores)]
        if len(steps) < _FEWEST_STEPS or median(steps) <= 0:
            return None
        sd = median(steps) / _MEDIAN_STEP
        source = f"noise {sd:.2g} estimated from {len(scores)} discards"
        return Noise(sd=sd, freedom=len(steps), source=source)

    def scores(self, experiment: Experiment) -> list[float]:
        """Return the score of every completed run of an experiment, in their order."""
        done = (run for run in experiment.runs if run.status is RunStatus.COMPLETED)
        return [run.metrics[self.metric] for run in done if self.metric in run.metrics]

    def score(self, experiment: Experiment) -> float | None:
        """Return the campaign's metric of an experiment, or None when it has none."""
        return experiment.metrics.get(self.metric)

    def better(self, first: float, second: float) -> bool:
        """Return whether ``first`` is strictly better than ``second``."""
        return first < second if self.lower_is_better else first > second

    def gain(self, new: float, old: float) -> float:
        """Return how much better ``new`` is than ``old``; negative when it is worse."""
        return old - new if self.lower_is_better else new - old

    def recent(self, direction: str) -> tuple[Experiment, ...]:
        """Return the decided experiments of a direction, newest first."""
        found = (item for item in reversed(self.experiments) if item.idea.direction == direction)
        return tuple(item for item in found if not is_open(item))


def is_open(experiment: Experiment) -> bool:
    """Return whether an experiment has no final verdict yet (a rerun is not final)."""
    return experiment.verdict in (None, Verdict.RERUN)


class PerExperiment(Generic[T]):
    """What is computed from single experiments, computed again only for those that changed.

    An experiment is the same value for as long as nothing new is known of it, so its identity says
    whether the last answer still holds. Of the history it may use the names of metric and size, and
    what is settled of earlier experiments.
    """

    def __init__(self, make: Callable[[Experiment, History], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Experiment, T]] = {}
        self._setting: Hashable = None

    def of(self, experiment: Experiment, history: History) -> T:
        """Return the answer for one experiment of a history."""
        setting = (history.campaign, history.metric, history.size, history.lower_is_better)
        if setting != self._setting:
            self._made.clear()
            self._setting = setting
        known = self._made.get(experiment.number)
        if known is not None and known[0] is experiment:
            return known[1]
        answer = self._make(experiment, history)
        self._made[experiment.number] = (experiment, answer)
        return answer
