"""Sixteen runs in flight, and the loop killed at moments by chance.

``KILL_EXPERIMENTS=1000 pytest -s tests/soak/test_many_in_flight.py`` is the long one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest
from tests.soak.house import TILL_OTHERS_START, House

import autoresearch
from autoresearch import Campaign, Verdict

PARALLEL = 16
STARTS_PER_KILL = 3
EXPERIMENTS = int(os.environ.get("KILL_EXPERIMENTS", "20"))
SECONDS_EACH = 20.0  # for an experiment on a busy machine, before the test is given up


@pytest.mark.timeout(300 + SECONDS_EACH * EXPERIMENTS)
def test_sigkill_at_any_moment_with_many_in_flight(tmp_path: Path) -> None:
    """Every run is started once, all are decided, head is the best that was kept, the log whole."""
    wait = TILL_OTHERS_START.format(parallel=PARALLEL, until=EXPERIMENTS)
    blocked = '"no:plateau", "no:dead_end"'  # rules that may send head back, or use up directions
    house = House(tmp_path / "h", parallel=PARALLEL, wait=wait, blocked=blocked)
    try:
        kills = struck(house, Random(1))
        house.check_end(EXPERIMENTS)
    finally:
        house.kill()
    assert house.violations == []
    campaign = autoresearch.open_campaign(house.project)
    runs, most = most_in_flight(campaign)
    print(f"{kills} kills, {EXPERIMENTS} experiments, {runs} runs, at most {most} in flight")
    assert kills >= 3
    assert most == PARALLEL
    assert head_is_the_best_kept(campaign)


def struck(house: House, chance: Random) -> int:
    """Kill the loop after every few starts, though not at the end; return how often.

    One of four kills is followed by another while the next loop is starting.
    """
    kills, deadline = 0, time.monotonic() + SECONDS_EACH * EXPERIMENTS
    while house.decided() < EXPERIMENTS or house.child is not None:
        assert time.monotonic() < deadline, f"{house.decided()} are decided: {house.said[-1000:]}"
        house.go_on(EXPERIMENTS)
        calm = house.decided() >= EXPERIMENTS - PARALLEL // 2
        if not calm and kills < len(house.runs()) // STARTS_PER_KILL:
            time.sleep(chance.uniform(0.0, 3.0))
            house.kill()
            kills += 1
            if chance.random() < 0.25:
                house.go_on(EXPERIMENTS)
                time.sleep(chance.uniform(0.0, 1.5))
                house.kill()
                kills += 1
        time.sleep(0.1)
        if said := house.ended():
            house.add("a kill", f"the loop ended: {said}")
    return kills


def most_in_flight(campaign: Campaign) -> tuple[int, int]:
    """Return how many runs there were, and how many at once, by the log."""
    flying, most, runs = set[str](), 0, 0
    for item in campaign.log.read():
        if item.type == "run_requested":
            flying.add(item.event.run)
            most, runs = max(most, len(flying)), runs + 1
        elif item.type == "run_finished":
            flying.discard(item.event.run)
    return runs, most


def head_is_the_best_kept(campaign: Campaign) -> bool:
    """Compare head with the lowest score among all that were kept, looked up one by one."""
    history = campaign.history
    kept = {
        item.number: history.score(item)
        for item in history.experiments
        if item.verdict is Verdict.KEEP
    }
    assert None not in kept.values()
    return history.head == history.best_number == min(kept, key=lambda number: kept[number])
