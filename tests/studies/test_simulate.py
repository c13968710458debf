"""Campaigns in worlds whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from statistics import pstdev

import pytest

from autoresearch.cycle.recorder import check
from autoresearch.errors import AutoresearchError
from autoresearch.ideas import search
from autoresearch.model import RunStatus, Verdict
from autoresearch.studies import simulate, worlds
from autoresearch.studies.worlds import Assumptions, Noise

QUIET = Assumptions(noise=0.0)


def test_equal_seeds_are_equal_worlds() -> None:
    """A world, and a whole campaign in it, can be had again."""
    assert worlds.world(3) == worlds.world(3)
    assert worlds.world(3).parts != worlds.world(4).parts
    one, _ = simulate.campaign("greedy+random", 3, gpu_hours=8)
    other, _ = simulate.campaign("greedy+random", 3, gpu_hours=8)
    assert one == other


def test_truth_of_a_script() -> None:
    """The baseline is the base; a number is best at its optimum; returns diminish."""
    made = worlds.world(1)
    start = worlds.values_in(made.script)
    assert made.truth(start) == made.base
    number = max((p for p in made.parts.values() if p.best is not None), key=lambda p: p.gain)
    best = made.truth({**start, number.name: number.best})
    assert best < made.truth({**start, number.name: number.best * 1.3}) or number.gain <= 0
    everything = {name: 1.0 for name, p in made.parts.items() if p.best is None and p.gain > 0}
    assert made.base - made.truth({**start, **everything}) <= made.assumptions.most


def test_noise_has_the_level_that_was_asked_for() -> None:
    """Over many runs of one setting the scores spread as seed, machine and drift together."""
    made, noise = worlds.world(1), Noise()
    scores = [worlds.measured(made, noise, 1.0, f"run-{n}", n) for n in range(2_000)]
    assert pstdev(scores) == pytest.approx(noise.sd, rel=0.06)
    quiet = worlds.world(1, QUIET)
    assert worlds.measured(quiet, noise, 1.0, "run", 0) == 1.0


def test_a_campaign_goes_through_the_real_loop() -> None:
    """It keeps the protocol's order, reads its memory, respects limits, and spends its budget."""
    outcome, history = simulate.campaign("greedy+catalogue+script_ideas", 5, gpu_hours=30)
    assert history.spent.gpu_seconds / 3600 >= 30
    assert outcome.experiments == len(history.decided)
    assert all(item.reasoning and item.analysis for item in history.experiments)
    assert all(item.reasoning.cites for item in history.experiments[1:])
    sizes = [item.metrics["artifact_bytes"] for item in history.kept]
    assert max(sizes) < worlds.LIMIT_BYTES
    assert {"catalogue"} <= {item.idea.author for item in history.experiments}
    assert callable(check)


def test_truth_and_waste_are_counted() -> None:
    """Without noise no keep is false, and the best score is the truth."""
    outcome, history = simulate.campaign("greedy+random", 2, gpu_hours=40, assumptions=QUIET)
    assert outcome.false_keeps == 0
    assert outcome.best_shown == pytest.approx(outcome.truths[-1])
    assert outcome.at(math.inf) == pytest.approx(outcome.truths[0] - outcome.truths[-1])
    crashed = Counter(item.verdict for item in history.decided)[Verdict.CRASH]
    assert outcome.wasted == crashed


def test_without_noise_evidence_is_greedy() -> None:
    """Where nothing is luck there is nothing to prove."""
    one, _ = simulate.campaign("greedy+random", 2, gpu_hours=20, assumptions=QUIET)
    other, _ = simulate.campaign("evidence+random", 2, gpu_hours=20, assumptions=QUIET)
    assert one.truths == other.truths


def test_what_is_tried_together_is_found_sooner() -> None:
    """Four runs of bundles bring more than eight of single known changes."""
    together, history = simulate.campaign("evidence+search", 61, gpu_hours=5)
    apart, _ = simulate.campaign("greedy+catalogue", 61, gpu_hours=10)
    assert together.at(5) > apart.at(10)
    assert max(len(item.idea.changes) for item in history.experiments) > 4


def test_early_scores_tell_less() -> None:
    """A share of a run shows gains with a bias of their own, and with more luck."""
    made, noise = worlds.world(1), Noise()
    start = worlds.values_in(made.script)
    switch = max((p for p in made.parts.values() if p.best is None), key=lambda p: p.gain)
    there = {**start, switch.name: 1.0}
    assert made.seen(there, 1.0) == made.truth(there)
    seen = {done: made.seen(start, done) - made.seen(there, done) for done in (0.1, 0.5, 1.0)}
    whole = made.truth(start) - made.truth(there)
    assert seen[1.0] == pytest.approx(whole)
    assert seen[0.5] - whole == pytest.approx((seen[0.1] - whole) * 5 / 9)
    scores = [worlds.measured(made, noise, 1.0, f"run-{n}", n, 0.2) for n in range(2_000)]
    assert pstdev(scores) == pytest.approx(noise.sd * worlds.early_noise(0.2), rel=0.06)


def test_stages_are_run_through() -> None:
    """What looks bad in a short run never has a whole one, and is no crash to the search."""
    _, history = simulate.campaign("evidence+search+stages", 3, gpu_hours=14)
    short = [item for item in history.decided if item.stage == "short"]
    assert short
    assert len(short) < len(history.decided)
    seconds = {item.seconds for item in short}
    assert seconds <= {0.2 * worlds.RUN_SECONDS, 0.04 * worlds.RUN_SECONDS}
    bad = [item for item in short if item.verdict is Verdict.DISCARD]
    assert bad
    assert all(history.score(item) is None for item in bad)
    assert all((told := search._shown(item, history)) and told.gain for item in bad)


def test_curves_end_what_cannot_win() -> None:
    """A stopped run costs what it ran, and nobody sees what it would have scored."""
    _, history = simulate.campaign("evidence+search+curves", 3, gpu_hours=16)
    runs = [run for item in history.decided for run in item.runs]
    stopped = [run for run in runs if run.status is RunStatus.STOPPED_EARLY]
    assert stopped
    assert all(0 < run.seconds < worlds.RUN_SECONDS for run in stopped)
    assert all(run.observed and not run.metrics.get(worlds.METRIC) for run in stopped)
    whole = [run for run in runs if run.status is RunStatus.COMPLETED]
    assert all(max(run.observed) == worlds.STEPS for run in whole)
    assert all(run.seconds == worlds.RUN_SECONDS for run in whole)


def test_comparison() -> None:
    """The first is the reference; every figure has an interval; curves can be drawn."""
    made = simulate.compare(["greedy+random", "greedy+catalogue"], 2, gpu_hours=12)
    rows = list(made.rows())
    assert [row.strategy for row in rows] == ["greedy+random", "greedy+catalogue"]
    assert rows[0].hours is not None
    later = simulate.compare(["greedy+random"], 1, gpu_hours=4, first=7)
    assert [one.seed for one in later.outcomes["greedy+random"]] == [7]
    assert all(row.gain_interval[0] <= row.gain <= row.gain_interval[1] for row in rows)


def test_drawing(tmp_path) -> None:
    """A PNG of the curves."""
    made = simulate.compare(["greedy+random"], 2, gpu_hours=4)
    simulate.draw(made, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_wilson() -> None:
    """An interval of a share stays within 0 and 1 and holds it."""
    assert simulate.wilson(0, 20) == (0.0, pytest.approx(0.161, abs=0.002))
    low, high = simulate.wilson(5, 20)
    assert 0 < low < 0.25 < high < 1


def test_what_cannot_be_compared_is_refused() -> None:
    """A strategy twice, or one whose plugin does not exist."""
    with pytest.raises(AutoresearchError, match="once"):
        simulate.compare(["greedy+random", "greedy+random"], 1)
    with pytest.raises(AutoresearchError, match="nonesuch"):
        simulate.campaign("greedy+nonesuch", 1, gpu_hours=2)
