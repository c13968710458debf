"""Hard caps: the worst case of a run is reserved before it starts, and nothing starts beyond one.

What a run reserved is released by its ``run_finished``, when what it really took is in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from autoresearch import events
from autoresearch.config import Config, LimitsConfig, StageConfig
from autoresearch.cycle import Kit, proposals
from autoresearch.frozen import alike
from autoresearch.history import History, Spent
from autoresearch.model import Quote, RunRequest

_NEARLY = 1e-9  # sums of fractions are not exact


@frozen(kw_only=True)
class Line:
    """One cap of the ledger, in its own unit; ``limit`` 0 is none."""

    name: str
    limit: float
    spent: float
    reserved: float

    @property
    def setting(self) -> str:
        """The setting that holds the limit."""
        return self.name if "." in self.name else f"limits.{self.name}"

    @property
    def left(self) -> float:
        """What may still be reserved."""
        return max(0.0, self.limit - self.spent - self.reserved)

    def refuses(self, need: float) -> bool:
        """Return whether this much more does not fit."""
        if self.limit <= 0:
            return False
        taken = self.spent + self.reserved
        return taken >= self.limit or taken + need > self.limit + _NEARLY


def ledger(history: History, config: Config) -> tuple[Line, ...]:
    """Return what is spent, reserved and left of every budget, those of the stages last."""
    under_way = len(history.open_numbers)
    decided = len(history.experiments) - under_way
    limit = float(config.limits.experiments)
    tried = Line(name="experiments", spent=decided, reserved=under_way, limit=limit)
    lines = [tried, *_lines(history.spent, history.reserved.values(), config.limits)]
    for stage in config.stages:
        spent = history.spent_in.get(stage.name, Spent())
        opened = [item.request for item in history.open_runs.values()]
        names = [item.run for item in opened if item.stage == stage.name]
        promised = [history.reserved[name] for name in names if name in history.reserved]
        lines += _lines(spent, promised, stage, f"stages.{stage.name}.")
    return tuple(lines)


def _lines(
    spent: Spent,
    promised: Iterable[events.BudgetReserved],
    limits: LimitsConfig | StageConfig,
    prefix: str = "",
) -> Iterator[Line]:
    held, hour = list(promised), 3600.0
    for name, used, reserved in (
        ("hours", spent.seconds / hour, sum(item.seconds for item in held) / hour),
        ("usd", spent.usd, sum(item.usd for item in held)),
        ("gpu_hours", spent.gpu_seconds / hour, sum(item.gpu_seconds for item in held) / hour),
    ):
        limit = float(getattr(limits, name))
        yield Line(name=prefix + name, spent=float(used), reserved=float(reserved), limit=limit)


@frozen
class Refusal:
    """A budget that the next run does not fit into: what is needed of it, ``idea`` of that for the
    run's idea."""

    line: Line
    need: float
    idea: float = 0.0

    def __str__(self) -> str:
        """Say in a line why nothing starts, and what would help."""
        line = self.line
        if line.spent >= line.limit:
            return f"the budget of {line.limit:g} {line.name} is used up"
        what, more = "run", ""
        if self.idea:
            what = f"run with its idea ({self.idea:.4g})"
            more = ", or have shorter answers of a cheaper model"
        return (
            f"the budget of {line.limit:g} {line.name} has {line.left:.4g} left, and the next "
            f"{what} may take {self.need:.4g}; raise {line.setting} or lower "
            f"limits.timeout_seconds{more}"
        )


def refusal(kit: Kit, *, new: bool, stage: str = "") -> Refusal | None:
    """Return the budget that the next run does not fit into, None where it fits.

    ``new``: the run is that of one more experiment, whose idea may cost something too; any other
    is in ``stage``.
    """
    stage = next(iter(kit.history.stages), "") if new else stage
    quote, idea = _quote(kit, stage), 0.0
    baseline = kit.history.baseline is None  # which is nobody's idea
    if new and not baseline and kit.config.limits.usd > 0:
        idea = kit.plugins.quote_call(kit.history, kit.files_at_head(), proposals.desk(kit))
    need = {
        "experiments": float(new),
        "hours": quote.seconds / 3600,
        "usd": quote.usd + idea,
        "gpu_hours": quote.gpus * quote.seconds / 3600,
    }
    need |= {f"stages.{stage}.{name}": value for name, value in need.items()}
    need[f"stages.{stage}.usd"] = quote.usd  # an idea is thought of in no stage
    lines = ledger(kit.history, kit.config)
    lines = lines if new else lines[1:]  # the experiment itself is under way already
    here = (line for line in lines if line.name in need)  # those of another stage are not
    found = next((line for line in here if line.refuses(need[line.name])), None)
    if found is None:
        return None
    return Refusal(found, need[found.name], idea if found.name == "usd" else 0.0)


def reservation(kit: Kit, asked: events.RunRequested) -> list[events.Event]:
    """Return the fact that reserves what a run may take; none where no budget is set."""
    capped: tuple[LimitsConfig | StageConfig, ...] = (kit.config.limits, *kit.config.stages)
    if not any(item.hours or item.usd or item.gpu_hours for item in capped):
        return []
    quote = _quote(kit, asked.stage)
    about = {"run": asked.run, "experiment": asked.experiment}
    amounts = {"gpu_seconds": quote.gpus * quote.seconds, "usd": quote.usd}
    return [alike(events.BudgetReserved, quote, **about, **amounts)]


def shown(history: History, config: Config) -> Mapping[str, Mapping[str, float]]:
    """Return the budgets that are set, for `status`."""
    return {
        line.name: {
            "limit": line.limit,
            "spent": round(line.spent, 4),
            "reserved": round(line.reserved, 4),
            "left": round(line.left, 4),
        }
        for line in ledger(history, config)
        if line.limit > 0
    }


def _quote(kit: Kit, stage: str) -> Quote:
    config = kit.config.in_stage(stage)
    request = RunRequest(
        name="", campaign=kit.history.campaign, experiment=kit.history.next_number, index=0,
        command=config.command, launcher=config.launcher, env=config.env,
        timeout_seconds=config.limits.timeout_seconds,
        options=kit.config.stage_named(stage).options,
    )  # fmt: skip
    return kit.plugins.quote_run(request) or Quote(seconds=request.timeout_seconds)
