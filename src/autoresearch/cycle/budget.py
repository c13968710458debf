"""Hard caps: the worst case of a run is reserved before it starts, and nothing starts beyond one.

What a run reserved is released by its ``run_finished``, when what it really took is in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from autoresearch import events
from autoresearch.config import LimitsConfig
from autoresearch.cycle import minds
from autoresearch.cycle.kit import Kit
from autoresearch.history import History
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
    def left(self) -> float:
        """What may still be reserved."""
        return max(0.0, self.limit - self.spent - self.reserved)

    def refuses(self, need: float) -> bool:
        """Return whether this much more does not fit."""
        if self.limit <= 0:
            return False
        taken = self.spent + self.reserved
        return taken >= self.limit or taken + need > self.limit + _NEARLY


def ledger(history: History, limits: LimitsConfig) -> tuple[Line, ...]:
    """Return what is spent, reserved and left of every budget."""
    spent, promised = history.spent, history.reserved.values()
    under_way = len(history.open_numbers)
    rows = {
        "experiments": (len(history.experiments) - under_way, under_way, limits.experiments),
        "hours": (spent.seconds / 3600, sum(i.seconds for i in promised) / 3600, limits.hours),
        "usd": (spent.usd, sum(item.usd for item in promised), limits.usd),
        "gpu_hours": (
            spent.gpu_seconds / 3600,
            sum(item.gpu_seconds for item in promised) / 3600,
            limits.gpu_hours,
        ),
    }
    return tuple(
        Line(name=name, spent=float(used), reserved=float(held), limit=float(limit))
        for name, (used, held, limit) in rows.items()
    )


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
            f"{what} may take {self.need:.4g}; raise limits.{line.name} or lower "
            f"limits.timeout_seconds{more}"
        )


def refusal(kit: Kit, *, new: bool) -> Refusal | None:
    """Return the budget that the next run does not fit into, None where it fits.

    ``new``: the run is that of one more experiment, whose idea may cost something too.
    """
    quote, idea = _quote(kit), 0.0
    baseline = kit.history.baseline is None  # which is nobody's idea
    if new and not baseline and kit.config.limits.usd > 0:
        idea = kit.plugins.quote_call(kit.history, kit.files_at_head(), minds.desk(kit))
    need = {
        "experiments": float(new),
        "hours": quote.seconds / 3600,
        "usd": quote.usd + idea,
        "gpu_hours": quote.gpus * quote.seconds / 3600,
    }
    lines = ledger(kit.history, kit.config.limits)
    lines = lines if new else lines[1:]  # the experiment itself is under way already
    found = next((item for item in lines if item.refuses(need[item.name])), None)
    if found is None:
        return None
    return Refusal(found, need[found.name], idea if found.name == "usd" else 0.0)


def reservation(kit: Kit, asked: events.RunRequested) -> list[events.Event]:
    """Return the fact that reserves what a run may take; none where no budget is set."""
    limits = kit.config.limits
    if not (limits.hours or limits.usd or limits.gpu_hours):
        return []
    quote = _quote(kit)
    return [
        events.BudgetReserved(
            run=asked.run,
            experiment=asked.experiment,
            seconds=quote.seconds,
            gpu_seconds=quote.gpus * quote.seconds,
            usd=quote.usd,
            prices=quote.prices,
        )
    ]


def shown(history: History, limits: LimitsConfig) -> Mapping[str, Mapping[str, float]]:
    """Return the budgets that are set, for `status`."""
    return {
        line.name: {
            "limit": line.limit,
            "spent": round(line.spent, 4),
            "reserved": round(line.reserved, 4),
            "left": round(line.left, 4),
        }
        for line in ledger(history, limits)
        if line.limit > 0
    }


def _quote(kit: Kit) -> Quote:
    config = kit.config
    request = RunRequest(
        name="", campaign=kit.history.campaign, experiment=kit.history.next_number, index=0,
        command=config.command, launcher=config.launcher, env=config.env,
        timeout_seconds=config.limits.timeout_seconds,
    )  # fmt: skip
    return kit.plugins.quote_run(request) or Quote(seconds=request.timeout_seconds)
