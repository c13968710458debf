"""Histories for tests, told as real events so that they are what the loop would have made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config, MetricConfig, unstructure
from autoresearch.folding import empty, fold, step
from autoresearch.history import History
from autoresearch.log import MemoryLog, Recorded
from autoresearch.model import Experiment
from autoresearch.protocol import check
from autoresearch.testing import builders, steps
from autoresearch.testing.steps import digest

Told = float | Experiment | None
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Story:
    """A campaign told step by step into a MemoryLog; the protocol is checked as in the loop.

    Equal stories give equal histories: times and event ids are counted, not taken.
    """

    def __init__(self, config: Config | None = None, campaign: str = "test") -> None:
        self.config = config or Config(preset="plain")
        self.log = MemoryLog()
        self.history = empty(campaign)
        self._writer = self.log.writer(campaign)
        metric = self.config.metric
        self.tell(
            events.CampaignStarted(
                tag=campaign,
                branch=f"autoresearch/{campaign}",
                base_commit=digest("base")[:40],
                script=self.config.script,
                script_digest=digest(builders.SOURCE),
                metric=metric.name,
                better=metric.better,
                config=unstructure(self.config),
                plugins={},
                environment={},
            )
        )

    def tell(self, event: events.Event) -> Recorded:
        """Record one event and fold it; ProtocolError when the loop could not have done so."""
        check(self.history, event)
        number = self.history.position + 1
        moment = (_BEGIN + timedelta(seconds=number)).isoformat(timespec="microseconds")
        at = moment.replace("+00:00", "Z")
        self._writer.append(event, event_id=f"{self.history.campaign}:{number}", at=at)
        record = next(iter(self.log.read(after=number - 1)))
        self.history = step(self.history, record)
        return record

    def add(self, told: Told = None, **fields: Any) -> Story:
        """Tell one experiment from the idea to the decision.

        A number is its score and None a crash; ``fields`` are those of
        :func:`~autoresearch.testing.experiment`. Without a verdict the better score is kept.
        """
        metric = self.history.metric
        given = told
        if not isinstance(given, Experiment):
            given = builders.experiment(given, metric=metric, **fields)
        number = self.history.next_number
        given = evolve(given, number=number)
        for event in (
            *steps.proposal(self.history, given),
            *steps.run(self.history, self.config, given),
            *steps.judgement(self.history, given),
        ):
            self.tell(event)
        return self

    def declare_dead(self, direction: str, reason: str = "it never helped") -> Story:
        """Tell that a direction was abandoned."""
        numbers = tuple(sorted(item.number for item in self.history.recent(direction)))
        self.tell(
            events.DirectionDeclaredDead(
                direction=direction, reason=reason, experiments=numbers, rule="a test"
            )
        )
        return self

    def declare_plateau(self, reason: str = "nothing moved") -> Story:
        """Tell that the last experiments brought nothing."""
        window = self.history.decided[-self.config.rules.plateau_experiments :]
        numbers = tuple(item.number for item in window)
        self.tell(events.PlateauDeclared(experiments=numbers, reason=reason, rule="a test"))
        return self

    def go_back(self, number: int, reason: str = "it got worse") -> Story:
        """Tell that the branch went back to the commit of a kept experiment."""
        self.tell(
            events.Backtracked(
                after_experiment=self.history.next_number - 1,
                to_experiment=number,
                commit=self.history.experiments[number].commit,
                reason=reason,
                rule="a test",
            )
        )
        return self

    def queue(self, description: str, expected_gain: float | None = None) -> Story:
        """Tell that a person queued an idea."""
        made = builders.idea(description, env={"WIDTH": str(len(self.history.queue) + 5)})
        self.tell(
            events.IdeaQueued(
                idea=made.id,
                direction=made.direction,
                description=made.description,
                hypothesis=made.hypothesis,
                generator="a person",
                expected_gain=expected_gain,
                env=made.env,
            )
        )
        return self


def story(
    scores: Iterable[Told],
    *,
    directions: Sequence[str] = (),
    better: str = "lower",
    metric: str = "score",
    config: Config | None = None,
) -> Story:
    """Return a story of experiments, the baseline first; ``directions`` are repeated in turn."""
    settings = config or Config(
        preset="plain", metric=MetricConfig(name=metric, better=better, sd=0.001)
    )
    made = Story(settings)
    for number, told in enumerate(scores):
        fields = {"direction": directions[number % len(directions)]} if directions else {}
        made.add(told, **({} if isinstance(told, Experiment) else fields))
    return made


def history(scores: Iterable[Told] = (), **options: Any) -> History:
    """Return the History after these experiments: ``history([1.10, 1.08, None, 1.09])``.

    The first is the baseline, None is a crash, and what beats the best so far is kept. ``options``
    are those of :func:`story`; an :func:`experiment` stands for one with more to say.
    """
    return story(scores, **options).history


def refold(log: MemoryLog, campaign: str = "test") -> History:
    """Return the History that a log folds to."""
    return fold(empty(campaign), log.read())
