"""Hard caps: the worst case of a run is reserved, and nothing starts that does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define
from click.testing import CliRunner
from simulated import Fast, Simulated

import autoresearch
from autoresearch import Campaign, Idea, RunRequest, hookimpl
from autoresearch.cli import cli
from autoresearch.cycle.budget import ledger
from autoresearch.model import Cost, Quote
from autoresearch.testing import make_project

SCRIPT = "A = 0\nprint(1)\n"
SETTINGS = """preset = "plain"
launcher = "simulated"
[metric]
name = "score"
sd = 0.1
[limits]
timeout_seconds = 3600
{limits}
"""


@define
class Priced(Simulated):
    """Eight GPUs at 8 dollars an hour."""

    @hookimpl
    def quote_run(self, request: RunRequest) -> Quote | None:
        return Quote(seconds=request.timeout_seconds, gpus=8, usd_per_hour=8.0, prices="a test")


class Values:
    """Always another value."""

    @hookimpl
    def propose_idea(self, history: autoresearch.History) -> Idea:
        number = history.next_number
        said = f"A to {number}"
        text = f"A = {number}\nprint(1)\n"
        return Idea(direction="a", description=said, hypothesis=said, source=text)


Go = Callable[..., tuple[Campaign, Priced, str]]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Run a campaign with a budget, four experiments under way at once."""

    def run(limits: str, *more: object, seconds: float = 3600.0) -> tuple[Campaign, Priced, str]:
        text = SETTINGS.format(limits=limits)
        project = make_project(tmp_path / "project", script=SCRIPT, settings=text)
        clock = Fast()
        launcher = Priced(clock, lambda *_: 1.0, lambda _: seconds, gpus=8, usd_per_hour=8.0)
        plugins = (launcher, Values(), *more, "no:script_ideas", "no:plateau", "no:dead_end")
        made = autoresearch.start(project, tag="t1", plugins=plugins)
        return made, launcher, made.run(plugins=plugins, clock=clock, parallel=4)

    return run


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("usd = 16.0", "the budget of 16 usd is used up"),
        ("hours = 2.0", "the budget of 2 hours is used up"),
        ("gpu_hours = 16.0", "the budget of 16 gpu_hours is used up"),
        ("hours = 2.9", "the budget of 2.9 hours has 0.9 left, and the next run may take 1; "
         "raise limits.hours or lower limits.timeout_seconds"),
        ("experiments = 2", "the budget of 2 experiments is used up"),
    ],
)  # fmt: skip
def test_budget_of_two_worst_cases_starts_exactly_two_runs(go: Go, limits: str, said: str) -> None:
    """Also where four might be under way at once."""
    made, launcher, reason = go(limits)
    assert launcher.started == ["t1-0-0", "t1-1-0"]
    assert reason == said
    assert len(made.history.decided) == 2


def test_what_a_run_did_not_take_is_free_again(go: Go) -> None:
    """Runs of half an hour: three of them fit into two hours, the fourth might not."""
    made, launcher, _ = go("hours = 2.0", seconds=1800.0)
    assert len(launcher.started) == 3
    assert made.history.reserved == {}
    hours = next(line for line in ledger(made.history, made.config) if line.name == "hours")
    assert (hours.spent, hours.reserved, hours.left) == (1.5, 0.0, 0.5)


def test_reservation_stands_in_the_log_and_in_status(go: Go, tmp_path: Path) -> None:
    """With its price and where that is from; a run in flight shows as reserved."""
    made, _, _ = go("usd = 16.0")
    told = autoresearch.connect(made.project).execute(
        "SELECT run, seconds, gpu_seconds, usd, prices FROM budget_reserved ORDER BY position"
    )
    assert told.fetchall()[0] == ("t1-0-0", 3600.0, 28800.0, 8.0, "a test")
    shown = CliRunner().invoke(cli, ["status", "--project", str(made.project)])
    assert "usd 16 spent, 0 reserved, 0 left" in shown.output
    at = next(r.position for r in made.log.read() if r.type == "run_started")
    assert made.at(at).reserved["t1-0-0"].usd == 8.0


def test_worst_case_of_a_call_has_to_fit_too(go: Go) -> None:
    """An idea that might cost a dollar is not asked for when only the run would fit."""

    class Mind:
        @hookimpl
        def quote_call(self) -> list[Cost]:
            return [Cost(usd=1.0)]

    _, launcher, reason = go("usd = 16.0", Mind())
    assert launcher.started == ["t1-0-0"]
    assert reason.startswith(
        "the budget of 16 usd has 8 left, and the next run with its idea (1) may take 9; "
    )
