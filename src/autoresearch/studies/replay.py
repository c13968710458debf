"""Asks a policy, and rules, what they would have made of a history: which keeps were luck.

The policy judges every recorded experiment against what it would itself have kept until then. What
was built on a keep that it would not have made still has that keep inside: the replay says what it
would have decided about the scores as they are, not which experiments would have been tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from attrs import asdict, evolve, field, frozen

from autoresearch import events
from autoresearch.config import Config, unstructure
from autoresearch.cycle.experiment import bounded, candidate_of, other_measurement
from autoresearch.cycle.loop import facts_of
from autoresearch.errors import AutoresearchError, needs
from autoresearch.folding import Draft, empty, foresee, merged
from autoresearch.frozen import alike
from autoresearch.history import PROVEN, History
from autoresearch.model import Candidate, Decision, Experiment, RunStatus, Verdict
from autoresearch.plugins import Plugins
from autoresearch.policies import confidence, knows_noise

if TYPE_CHECKING:
    import pandas

_PASSES_ON = "greedy"  # decides where the asked policy has no answer, as in a campaign


@frozen(kw_only=True)
class Step:
    """One decision: as recorded, and as the policy would have made it.

    ``gain`` is against what the policy held for the best then, positive is better, and
    ``recorded_gain`` against the best that was recorded. ``unproven`` is a recorded keep whose gain
    is not certain to 95 %, ``in_noise`` one that gained less than one standard deviation. ``later``
    says what later evidence tells of a recorded keep, ``refuted`` that it tells against it.
    """

    experiment: int
    description: str
    score: float | None
    recorded: str
    verdict: str
    reason: str
    gain: float | None
    recorded_gain: float | None
    confidence: float | None
    runs: int
    unproven: bool = False
    in_noise: bool = False
    later: str = ""
    refuted: bool = False
    signals: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the policy would have decided otherwise."""
        return self.recorded != self.verdict


@frozen(kw_only=True)
class Replay:
    """The answers of a policy over a history, one a decision, and what they come to."""

    policy: str
    steps: tuple[Step, ...]
    history: History = field(repr=False)
    noise: str
    knows_noise: bool
    seconds_per_run: float
    usd_per_run: float
    assumed_sizes: int

    @property
    def totals(self) -> Mapping[str, float | int | str]:
        """Keeps, keeps inside the noise, refuted ones, and what further runs would have cost."""
        kept = [step for step in self.steps if step.recorded == "keep"][1:]
        mine = [step for step in self.steps if step.verdict == "keep"][1:]
        extra = sum(step.runs for step in self.steps) - len(self.steps)
        judged = [step for step in kept if step.later]
        return {
            "noise": self.noise,
            "decisions": len(self.steps),
            "recorded keeps": len(kept),
            "of these within one sd": sum(step.in_noise for step in kept),
            "of these unproven": sum(step.unproven for step in kept),
            "with later evidence": len(judged),
            "refuted by it": sum(step.refuted for step in judged),
            f"keeps of {self.policy}": len(mine),
            "of these refuted later": sum(step.refuted for step in mine),
            "quarantined": sum(step.verdict == "quarantine" for step in self.steps),
            "further runs asked for": extra,
            "their hours": round(extra * self.seconds_per_run / 3600, 3),
            "their usd": round(extra * self.usd_per_run, 2),
            "sizes taken to fit": self.assumed_sizes,
        }

    def frame(self) -> pandas.DataFrame:
        """Return the steps as a DataFrame, one row a decision; needs pandas."""
        with needs("pandas"):
            import pandas
        return pandas.DataFrame([asdict(step) | {"differs": step.differs} for step in self.steps])


def replay(
    history: History,
    config: Config,
    *,
    policy: str,
    rules: Sequence[str] = (),
    project: Path | str = ".",
    plugins: Sequence[object] = (),
    released: Sequence[int] = (),
) -> Replay:
    """Let a policy, by name, judge a history again, with its own keeps to compare with.

    ``released`` are experiments whose quarantine a person would have lifted. Raises PluginError for
    a policy or a rule that does not exist.
    """
    active = _only(config, Path(project), plugins, policy, rules)
    try:
        told = _Retelling(history, config, active, bool(rules), frozenset(released))
        steps = tuple(told.steps())
    finally:
        active.close()
    runs = max(sum(len(item.runs) for item in history.experiments), 1)
    noise = told.noise
    return Replay(
        policy=policy, steps=steps, history=told.history,
        knows_noise=knows_noise(told.started, config),
        noise=noise.source.removeprefix("noise ")
        if noise.own or not noise.sd else f"{noise.sd:g}, as set",
        seconds_per_run=sum(item.seconds for item in history.experiments) / runs,
        usd_per_run=history.spent.usd / runs, assumed_sizes=told.assumed,
    )  # fmt: skip


def _only(
    config: Config, project: Path, plugins: Sequence[object], policy: str, rules: Sequence[str]
) -> Plugins:
    """Load the plugins with no other policy than the asked one, and no other rule."""
    # Of the project's files only what is asked for: the others want settings for work to be done.
    files = (project / "plugins" / f"{name}.py" for name in (policy, *rules))
    plugins = (*plugins, *(str(path) for path in files if path.is_file()))
    config = evolve(config, active=(*config.active, "no:plugins/*.py"))
    known = Plugins.load(config, project, plugins)
    hooks = {info.name: info.hooks for info in known.infos()}
    known.close()
    for name, hook in ((policy, "decide"), *((rule, "backtrack") for rule in rules)):
        able = sorted(each for each, found in hooks.items() if hook in found)
        if name not in able and not Path(name).is_file():
            kind = "policy" if hook == "decide" else "rule"
            raise AutoresearchError(f"there is no {kind} {name!r}; known: {', '.join(able)}")
    judges = {name for name, found in hooks.items() if {"decide", "backtrack"} & {*found}}
    others = judges - {policy, _PASSES_ON, *rules}
    asked = (*config.active, policy, *rules, *(f"no:{name}" for name in sorted(others)))
    return Plugins.load(evolve(config, active=asked), project, plugins)


class _Retelling:
    """Tells a history once more, with the verdicts of another policy."""

    def __init__(
        self,
        recorded: History,
        config: Config,
        plugins: Plugins,
        with_rules: bool,
        released: frozenset[int],
    ) -> None:
        self.recorded, self.config, self.plugins = recorded, config, plugins
        self.with_rules, self.released, self.assumed = with_rules, released, 0
        self.history, began = empty(recorded.campaign), recorded.started
        if began is not None:
            began = alike(events.CampaignStarted, began, config=unstructure(config))
            self.history = foresee(self.history, began)
        self.started = evolve(recorded, started=began)
        self.noise = self.started.noise
        self._best: float | None = None  # of what was recorded

    def steps(self) -> Iterator[Step]:
        """Yield a step for every decided experiment."""
        for item in self.recorded.experiments:
            if item.decision is None:
                continue
            decision, runs = self._judge(item)
            before = self.history.best_metric
            step = self._step(item, decision, runs, before)
            self._record(item, decision)
            yield evolve(step, signals=tuple(self._signals()) if self.with_rules else ())
            score = self.recorded.score(item)
            if item.verdict is Verdict.KEEP and score is not None:
                better = self._best is None or self.recorded.better(score, self._best)
                self._best = score if better else self._best

    def _judge(self, item: Experiment) -> tuple[Decision, int]:
        """Give the policy one run after the other, as long as it asks and there are some."""
        telling = [run for run in item.runs if not run.says_nothing] or list(item.runs)
        for count in range(1, max(len(telling), 1) + 1):
            runs = tuple(telling[:count])
            shown = evolve(
                item,
                runs=runs,
                metrics=merged(runs, self.recorded.metric, self.recorded.size),
                decision=None,
                analysis=None,
            )
            draft = Draft(self.history)
            draft.put(shown)
            history = draft.done()
            candidate = self._candidate(shown, history)
            asked = self.plugins.decide(candidate, history)
            decision = bounded(asked, candidate, history, self.config)
            if decision.verdict is not Verdict.RERUN:
                break
        self.history = history
        if decision.verdict is Verdict.RERUN and item.number == self.recorded.baseline_number:
            decision = evolve(decision, verdict=Verdict.KEEP)  # there is nothing else to build on
        return decision, count + (decision.verdict is Verdict.RERUN)

    def _candidate(self, item: Experiment, history: History) -> Candidate:
        status = item.runs[-1].status if item.runs else None
        made = candidate_of(item, history, status or RunStatus.COMPLETED)
        size, limit = made.artifact_bytes, self.config.limits.artifact_bytes
        if size is None and limit and made.status is RunStatus.COMPLETED:
            self.assumed += 1
            size = limit - 1
        found = (*item.violations, *other_measurement(item, history))
        return evolve(made, artifact_bytes=size, violations=found)

    def _step(self, item: Experiment, decision: Decision, runs: int, best: float | None) -> Step:
        score, noise = self.recorded.score(item), self.noise
        gain = None if score is None or best is None else self.recorded.gain(score, best)
        was = None if score is None or self._best is None else self.recorded.gain(score, self._best)
        kept = item.verdict is Verdict.KEEP and was is not None
        done = len(self.recorded.scores(item)) or 1
        sure = None if was is None else confidence(was, noise.sd, done, 1, noise.freedom)
        later, refuted = self._later(item) if kept else ("", False)
        return Step(
            experiment=item.number, description=item.idea.description, score=score,
            recorded=str(item.verdict), verdict=str(decision.verdict), reason=decision.reason,
            gain=gain, recorded_gain=was, confidence=decision.confidence, runs=runs,
            unproven=kept and sure is not None and sure < PROVEN,
            in_noise=kept and was is not None and was < noise.sd, later=later, refuted=refuted,
        )  # fmt: skip

    def _record(self, item: Experiment, decision: Decision) -> None:
        """Take the verdict into the history; a rerun that nobody made leaves it not kept."""
        final = decision.verdict
        final = Verdict.DISCARD if final is Verdict.RERUN else final
        decided = events.Decided(
            experiment=item.number, verdict=final.value, reason=decision.reason,
            author=decision.author, metric=self.recorded.score(item), delta=decision.delta,
            confidence=decision.confidence,
        )  # fmt: skip
        self.history = foresee(self.history, decided)
        if final is Verdict.QUARANTINE and item.number in self.released:
            lifted = events.QuarantineResolved(
                experiment=item.number, released=True, reason="released for this replay", author=""
            )
            self.history = foresee(self.history, lifted)

    def _signals(self) -> Iterator[str]:
        answer = self.plugins.backtrack(self.history)
        if answer is not None:
            for fact in facts_of(answer, self.history):
                self.history = foresee(self.history, fact)
            yield f"{answer.signal.value.replace('_', ' ')}: {answer.reason}"

    def _later(self, item: Experiment) -> tuple[str, bool]:
        """Return what is known of a keep besides the score it was kept for, and if that refutes it.

        Further runs of the same experiment, the same change tried again, a way back past it.
        """
        assert self._best is not None
        scores = self.recorded.scores(item)[1:]
        same = [
            other
            for other in self.recorded.experiments
            if other.number != item.number
            and other.idea.description == item.idea.description
            and other.parent_commit == item.parent_commit
        ]
        scores += [score for other in same for score in self.recorded.scores(other)]
        if scores:
            gain = self.recorded.gain(mean(scores), self._best)
            return f"{len(scores)} further runs gain {gain:+.4f}", gain <= 0
        for entry in self.recorded.backtracks:
            if entry.to_experiment < item.number <= entry.after_experiment:
                return f"went back to experiment {entry.to_experiment}", True
        return "", False
