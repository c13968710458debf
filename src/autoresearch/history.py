"""The state of one campaign folded from its events: what every strategy is given to read.

A History is immutable and shares its structure with the one before it, so folding one more event
costs the same after ten experiments and after ten thousand. So does asking it: what is made of all
experiments (those decided, those kept, those of a direction) is remembered beside it, at the end of
this file, and made again only for those that its trail says have changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from html import escape
from itertools import pairwise
from statistics import NormalDist, median, variance
from threading import local
from typing import Generic, TypeVar

from attrs import field, frozen
from pyrsistent import PMap, PSet, PVector, pmap, pset, pvector

from autoresearch import events
from autoresearch.model import Experiment, Lesson, ValueChange, Verdict
from autoresearch.text import counted

PROVEN = 0.95  # a kept gain with less confidence than this is called unproven
_FOLLOWED = 256  # steps of a trail, more than there are between two questions
_RECENT = 200  # experiments that the noise is measured over, so that it costs the same for ever
_FEWEST_STEPS = 4
_IN_NOTEBOOKS = 20  # experiments that a notebook shows
LEASE_SECONDS = 3600.0  # longer than an agent thinks, shorter than a night
# Half of all differences of two normal numbers are under 0.6745 * sqrt(2) standard deviations.
_MEDIAN_STEP = 0.9539
_TOLD_FREEDOM = 4  # degrees of freedom that a deviation which was set is worth; see `Noise`
_NORMAL = [NormalDist().inv_cdf((n + 0.5) / 40) for n in range(40)]  # all as probable

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
    """The seed-to-seed standard deviation of the metric, and how well it is known.

    ``sd`` is in units of the metric, 0 while nothing is known; ``freedom`` are its degrees of
    freedom, ``own`` those of them that runs of the campaign gave; ``source`` says where it comes
    from, ``measured`` that repeats here are all of it. One that was set was measured elsewhere, on
    another script or machine, so it counts as 4 degrees of freedom, which doubts it by 40 %: of 353
    groups of seeds a tenth had under 0.4 and a tenth over 2.3 of the median (three seeds alone vary
    nearly as much), and the median itself was 1.5 times as large in one stage as in the next. It is
    the prior, a scaled inverse chi-square, that repeats are pooled with (Gelman et al., Bayesian
    Data Analysis, 3rd ed., section 2.6); a gain in its units then follows Student's t.
    """

    sd: float = 0.0
    freedom: int = 0
    own: int = 0
    source: str = "noise unknown"
    measured: bool = False

    @property
    def likely(self) -> list[float]:
        """Deviations that the true one may have, all as probable: ``sd`` alone where it is certain.

        Those of chi-square by the approximation of Wilson and Hilferty (1931).
        """
        if not self.freedom:
            return [self.sd]
        wide = 2 / (9 * self.freedom)
        return [self.sd / max(1 - wide + x * wide**0.5, 0.05) ** 1.5 for x in _NORMAL]


@frozen(eq=False)
class Changed:
    """A step of a trail: the numbers of experiments that one fold changed. No two are equal."""

    numbers: tuple[int, ...] = ()


@frozen(eq=False)
class Trail:
    """Which experiments the newest folds changed: what was made of all others still holds.

    Two histories that were folded from a third have its steps in common, which are told by their
    identity. ``experiments`` are those that the steps lead to; of a History that has others, such
    as one that shows a stage, nobody knows how it came to be.
    """

    experiments: PVector[Experiment] | None = None
    steps: tuple[Changed, ...] = field(factory=lambda: (Changed(),))

    def after(self, numbers: Iterable[int], experiments: PVector[Experiment]) -> Trail:
        """Return the trail with one more step, and without those that are far behind."""
        return Trail(experiments, (*self.steps[1 - _FOLLOWED :], Changed(tuple(numbers))))

    def since(self, other: Trail) -> set[int] | None:
        """Return the experiments that may differ from those of another trail; None if unknown."""
        theirs = {id(step): place for place, step in enumerate(other.steps)}
        places = reversed(range(len(self.steps)))
        met = next((place for place in places if id(self.steps[place]) in theirs), None)
        if met is None:
            return None
        apart = (*self.steps[met + 1 :], *other.steps[theirs[id(self.steps[met])] + 1 :])
        return {number for step in apart for number in step.numbers}


@frozen(kw_only=True, repr=False)
class History:
    """Everything known at one position of the log; ``experiments`` is indexed by number.

    ``tried`` holds ids of ideas, ``tried_sources`` the digests of what was run (see
    `Experiment.source_digest`). ``open_numbers`` are the experiments without a final verdict,
    oldest first, ``open_runs`` the unfinished run of each that has one. ``paused`` (since
    ``paused_at``) and ``stop`` are what the loop obeys now. ``failures`` counts those of each
    plugin; ``suspended`` are the minds that give no answer, ``refusals`` the ideas refused before
    a run. ``reserved`` has the worst case of each run that has not finished. ``last_step`` and
    ``last_at`` are the type and time of the newest event that the loop itself recorded.
    ``control`` is the request of the newest run that measures a kept experiment again, asked for
    when ``control_at`` experiments were decided. ``stages`` are the names of all stages in their
    order, ``stage`` the one whose scores are read: the last one, but for what judges an earlier.
    ``spent_in`` has what the runs of each stage took.
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
    open_numbers: tuple[int, ...] = ()
    baseline_number: int = 0
    head: int | None = None
    best_number: int | None = None
    timeline: PVector[int | events.Backtracked] = field(factory=pvector)
    backtracks: PVector[events.Backtracked] = field(factory=pvector)
    lessons: PVector[Lesson] = field(factory=pvector)
    dead_ends: PMap[str, events.DirectionDeclaredDead] = field(factory=pmap)
    plateaus: PVector[events.PlateauDeclared] = field(factory=pvector)
    digests: PMap[int, events.DigestWritten] = field(factory=pmap)
    queue: PMap[str, QueuedIdea] = field(factory=pmap)
    tried: PSet[str] = field(factory=pset)
    tried_sources: PSet[str] = field(factory=pset)
    notes: PVector[events.NoteAdded] = field(factory=pvector)
    steering: PVector[Steering] = field(factory=pvector)
    rejected: PVector[events.ChangeRejected | events.IdeaDropped] = field(factory=pvector)
    spent: Spent = field(factory=Spent)
    reserved: PMap[str, events.BudgetReserved] = field(factory=pmap)
    reviewed: events.MemoryReviewed | None = None
    open_runs: PMap[int, OpenRun] = field(factory=pmap)
    stopped: str | None = None
    paused: events.Paused | None = None
    paused_at: str = ""
    stop: events.StopRequested | None = None
    lease: Lease | None = None
    failures: PMap[str, int] = field(factory=pmap)
    suspended: PMap[str, events.MindSuspended] = field(factory=pmap)
    refusals: PVector[events.ProposalRefused] = field(factory=pvector)
    last_step: str = ""
    last_at: str = ""
    control: events.RunRequested | None = None
    control_at: int = 0
    stages: tuple[str, ...] = ()
    stage: str = ""
    spent_in: PMap[str, Spent] = field(factory=pmap)
    trail: Trail = field(factory=Trail, eq=False)

    def __repr__(self) -> str:
        best = "nothing kept"
        if self.best is not None:
            best = f"best {self.metric} {self.best_metric} of experiment {self.best_number}"
        counts = f"{len(self.experiments)} experiments, {len(self.kept)} kept"
        return f"History({self.campaign!r} at {self.position}: {counts}, {best})"

    def _repr_html_(self) -> str:
        """A short table for notebooks: the newest experiments."""
        rows = [("experiment", "verdict", self.metric, "change")]
        for item in self.experiments[-_IN_NOTEBOOKS:]:
            score = self.score(item)
            shown = "" if score is None else f"{score:.6g}"
            verdict = str(item.verdict or "running")
            rows.append((str(item.number), verdict, shown, item.idea.description[:120]))
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>{escape(repr(self))}</p><table>{table}</table>"

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
        """The experiment that is under way, the newest of several; None between experiments."""
        return self.experiments[self.open_numbers[-1]] if self.open_numbers else None

    @property
    def in_flight(self) -> tuple[Experiment, ...]:
        """The experiments that have run and have no final verdict yet, oldest first.

        Their ideas are in ``tried`` already; what they will teach is not known.
        """
        found = (self.experiments[number] for number in self.open_numbers)
        return tuple(item for item in found if item.runs)

    @property
    def open_run(self) -> OpenRun | None:
        """The newest run that was requested and has not finished, as far as the log knows."""
        return self.open_runs[max(self.open_runs)] if self.open_runs else None

    @property
    def next_number(self) -> int:
        """The number that the next experiment gets, or that the one in preparation has."""
        newest = self.current
        preparing = newest is not None and not newest.runs
        return newest.number if newest and preparing else len(self.experiments)

    @property
    def last_decided(self) -> int | None:
        """The number of the experiment that was decided last."""
        entries = reversed(self.timeline)
        return next((entry for entry in entries if isinstance(entry, int)), None)

    @property
    def decided(self) -> tuple[Experiment, ...]:
        """All experiments with a final verdict, oldest first."""
        return _DECIDED.found(self)

    @property
    def kept(self) -> tuple[Experiment, ...]:
        """All kept experiments, oldest first."""
        return _KEPT.found(self)

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

    @cached_property
    def noise(self) -> Noise:
        """How much the score differs from seed to seed: as set and measured, or as estimated."""
        known = self._as_set()
        if self.is_early:  # what holds for whole runs is taken there only for want of better
            own = self._as_set(self.stages.index(self.stage))
            return self._repeated(own) or self._estimated() or known or Noise()
        return self._repeated(known) or self._estimated() or Noise()

    def _as_set(self, stage: int | None = None) -> Noise | None:
        """Return the noise that the settings name for the campaign, or for one stage."""
        config = self.started.config if self.started else {}
        found = config.get("metric") if stage is None else config["stages"][stage]
        sd = found.get("sd") if isinstance(found, Mapping) else None
        source = "metric.sd" if stage is None else f"sd of the stage {self.stage}"
        if not isinstance(sd, (int, float)) or sd <= 0:
            return None
        return Noise(sd=sd, freedom=_TOLD_FREEDOM, source=source)

    def _repeated(self, told: Noise | None) -> Noise | None:
        """Return the deviation over experiments that ran with several seeds, and the told one.

        Equal scores measure nothing: such a script fixes its own seed, and a change rolls the dice
        again although a repetition does not.
        """
        known = _SQUARES.of(self)
        first = known[self.baseline_number : self.baseline_number + 1]
        is_far = self.baseline_number < len(known) - _RECENT
        groups = [*filter(None, (*known[-_RECENT:], *(first if is_far else ())))]
        own, squares = sum(count - 1 for count, _ in groups), sum(each for _, each in groups)
        if squares <= 0:
            return told
        prior = told or Noise()
        freedom = prior.freedom + own
        sd = ((prior.freedom * prior.sd**2 + squares) / freedom) ** 0.5
        how = f"of {told.source} {told.sd:.2g} and" if told else "measured over"
        runs, among = counted(own + len(groups), "run"), counted(len(groups), "experiment")
        source = f"noise {sd:.2g} {how} {runs} of {among}"
        return Noise(sd=sd, freedom=freedom, own=own, source=source, measured=told is None)

    def _estimated(self) -> Noise | None:
        """Return a robust floor from neighbouring discards: most ideas do next to nothing."""
        lost = (item for item in self.experiments[-_RECENT:] if item.verdict is Verdict.DISCARD)
        scores = [score for item in lost if (score := self.score(item)) is not None]
        steps = [abs(new - old) for old, new in pairwise(scores)]
        if len(steps) < _FEWEST_STEPS or median(steps) <= 0:
            return None
        sd = median(steps) / _MEDIAN_STEP
        source = f"noise {sd:.2g} estimated from {len(scores)} discards"
        return Noise(sd=sd, freedom=len(steps), own=len(steps), source=source)

    def scores(self, experiment: Experiment) -> list[float]:
        """Return the score of every completed run of an experiment in the stage, in their order."""
        done = (run.metrics for run in experiment.runs if run.counts and run.stage == self.stage)
        return [metrics[self.metric] for metrics in done if self.metric in metrics]

    def score(self, experiment: Experiment) -> float | None:
        """Return the campaign's metric of an experiment in the stage, or None when it has none."""
        if not self.stages:
            return experiment.metrics.get(self.metric)
        scores = self.scores(experiment)
        return sum(scores) / len(scores) if scores else None

    @property
    def is_early(self) -> bool:
        """Whether the scores that are read are those of a stage before the last one."""
        return self.stage in self.stages[:-1]

    def better(self, first: float, second: float) -> bool:
        """Return whether ``first`` is strictly better than ``second``."""
        return first < second if self.lower_is_better else first > second

    def gain(self, new: float, old: float) -> float:
        """Return how much better ``new`` is than ``old``; negative when it is worse."""
        return old - new if self.lower_is_better else new - old

    def recent(self, direction: str) -> tuple[Experiment, ...]:
        """Return the decided experiments of a direction, newest first, however it was worded."""
        _DIRECTIONS.of(self)
        return tuple(reversed(_DIRECTIONS.groups.get(family(direction), {}).values()))

    def dead(self, direction: str) -> events.DirectionDeclaredDead | None:
        """Return the fact that ended a direction, however it is worded; None while it is alive.

        A dead end that a later experiment was kept in is alive again.
        """
        return self._dead.get(family(direction))

    @property
    def dead_families(self) -> frozenset[str]:
        """What stands for each direction that is dead now; see `family`."""
        return frozenset(self._dead)

    @cached_property
    def _dead(self) -> Mapping[str, events.DirectionDeclaredDead]:
        """The fact that ended each family that is dead now; the first one where several did."""
        kept = {family(item.idea.direction): item.number for item in self.kept}
        ended: dict[str, events.DirectionDeclaredDead] = {}
        for name, event in self.dead_ends.items():
            ended.setdefault(family(name), event)
        ends = {name: max(event.experiments, default=-1) for name, event in ended.items()}
        return {name: ended[name] for name, last in ends.items() if kept.get(name, -1) <= last}


# One word for what people call a setting, and words that say only that it is changed.
_SYNONYMS = (
    (r"\blearning rates?\b|\blrs?\b", "lr"),
    (r"\bweight decay\b|\bwd\b", "wd"),
    (r"\bfeed forward\b|\bfeedforward\b|\bffn\b", "mlp"),
    (r"\bbatch size\b", "batch"),
    (r"\badamw? (?=beta|eps)", ""),
    (r"\b(?:muon|sgd|nesterov) momentum\b(?! w)", "momentum"),
)
_IDLE = re.compile(
    r"\b(?:a|an|the|of|in|for|to|and|on|with|by|num|number|tun(?:e|ed|ing)|adjust\w*|chang(?:e|ed|ing)"
    r"|increas\w+|decreas\w+|rais(?:e|ed|ing)|lower\w*|higher|reduc\w+|larger|smaller|bigger|more|less"
    r"|try\w*|values?|settings?|hyperparameters?|param\w*|optimi[sz]\w+|improv\w+|sweep|search)\b"
)


@lru_cache(maxsize=4096)
def family(direction: str) -> str:
    """Return what stands for a direction in whatever words and case it is given.

    ``Momentum``, ``muon momentum`` and ``momentum tuning`` are one; a direction made of such words
    alone is its own.
    """
    words = re.sub(r"[^\w:]+|_", " ", direction.casefold())
    for pattern, word in _SYNONYMS:
        words = re.sub(pattern, word, words)
    kept = _IDLE.sub(" ", words).split()
    plain = [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in kept]
    return " ".join(plain) or " ".join(words.split()) or direction


def script_of(history: History) -> str:
    """Return the path of the training script."""
    return history.started.script if history.started else "train.py"


def gain_of(experiment: Experiment, history: History) -> float | None:
    """Return by how much an experiment beat the best of its time; None where that is not known."""
    delta = experiment.decision.delta if experiment.decision else None
    return None if delta is None else history.gain(delta, 0.0)


def spread(sd: float, new_runs: int = 1, old_runs: int = 1) -> float:
    """Return the standard deviation of the difference of two means, in the unit of ``sd``."""
    return float(sd * (1 / max(new_runs, 1) + 1 / max(old_runs, 1)) ** 0.5)


def parent_of(experiment: Experiment, history: History) -> Experiment | None:
    """Return the experiment whose commit another was made on; None where no earlier one has it."""
    below, wanted = experiment.built_on, experiment.parent_commit
    if below is not None and history.experiments[below].commit == wanted:
        return history.experiments[below]  # nearly always, and without a search
    earlier = reversed(history.experiments[: experiment.number])
    return next((item for item in earlier if item.commit == wanted), None)


def is_open(experiment: Experiment) -> bool:
    """Return whether an experiment has no final verdict yet (a rerun is not final)."""
    return experiment.verdict in (None, Verdict.RERUN)


class PerExperiment(local, Generic[T]):
    """What is made of single experiments, made again only for those that changed.

    Of the history it may use the names of metric and size, and what is settled of earlier
    experiments. Every thread has its own: a plugin that is given up on may still be asking.
    """

    def __init__(self, make: Callable[[Experiment, History], T | None]) -> None:
        self._make = make
        self._setting: Hashable = None
        self._trail = Trail()
        self._answers: list[T | None] = []

    def of(self, history: History) -> Sequence[T | None]:
        """Return the answer for each experiment of a history, by number; to be read at once."""
        better, stage, trail = history.lower_is_better, history.stage, history.trail
        started = history.campaign, history.baseline_number
        setting = (*started, history.metric, history.size, better, stage)
        known, count = trail.experiments is history.experiments, len(history.experiments)
        moved = trail.since(self._trail) if known and setting == self._setting else None
        if moved is None or len(self._answers) > count:
            self._answers = []
            self.begin_again()
        told = len(self._answers)
        for number in (*sorted(n for n in moved or () if n < told), *range(told, count)):
            old = self._answers[number] if number < told else None
            new = self._make(history.experiments[number], history)
            self._answers[number : number + 1] = [new]
            if new != old:
                self.changed(number, old, new)
        self._setting, self._trail = setting, trail if known else Trail()
        return self._answers

    def begin_again(self) -> None:
        """Forget what was made of the answers."""

    def changed(self, number: int, old: T | None, new: T | None, /) -> None:
        """Take in that an answer is another than before."""


class Chosen(PerExperiment[Experiment]):
    """The experiments that fit a rule, oldest first."""

    def __init__(self, fits: Callable[[Experiment], bool]) -> None:
        super().__init__(lambda item, _: item if fits(item) else None)
        self._found: tuple[Experiment, ...] | None = None

    def begin_again(self) -> None:
        self._found = None

    def changed(self, *_: object) -> None:
        self._found = None

    def found(self, history: History) -> tuple[Experiment, ...]:
        """Return those of a history."""
        answers = self.of(history)
        if self._found is None:
            self._found = tuple(filter(None, answers))
        return self._found


class Grouped(PerExperiment[tuple[str, T]]):
    """What is made of experiments in groups, by number; an answer names its group first."""

    def begin_again(self) -> None:
        self.groups: dict[str, dict[int, T]] = {}

    def changed(self, number: int, old: tuple[str, T] | None, new: tuple[str, T] | None) -> None:
        if old is not None and (new is None or new[0] != old[0]):
            del self.groups[old[0]][number]
        if new is not None:
            group = self.groups.setdefault(new[0], {})
            is_last = number in group or number > next(reversed(group), -1)
            group[number] = new[1]
            if not is_last:
                self.groups[new[0]] = dict(sorted(group.items()))


def _squares(item: Experiment, history: History) -> tuple[int, float] | None:
    """Return how many scores an experiment has and the squares of their deviations, if several."""
    count = len(scores := history.scores(item))
    return (count, variance(scores) * (count - 1)) if count > 1 else None


def _direction(item: Experiment, _: History) -> tuple[str, Experiment] | None:
    return None if is_open(item) else (family(item.idea.direction), item)


_DECIDED = Chosen(lambda item: not is_open(item))
_DIRECTIONS = Grouped(_direction)
_KEPT = Chosen(lambda item: item.verdict is Verdict.KEEP)
_SQUARES = PerExperiment(_squares)


IMPORTED = "imported"  # in the recorded environment of a campaign that was taken over: its files


def imported_from(history: History) -> str | None:
    """Return the names of the files that a history was taken over from; None for one's own."""
    return history.started.environment.get(IMPORTED) if history.started else None
