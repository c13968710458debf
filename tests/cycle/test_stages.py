"""A funnel: every idea runs in the first stage, and what is promoted in the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define, evolve
from five_experiments import finish_with_a_kill
from simulated import Fast, Simulated
from thinned import LONG

import autoresearch
from autoresearch import (
    Campaign,
    Config,
    Experiment,
    History,
    Idea,
    Promotion,
    Recorded,
    RunRequest,
    Verdict,
    events,
    hookimpl,
)
from autoresearch.config import MetricConfig, RunsConfig, StageConfig, with_options
from autoresearch.cycle.recorder import check
from autoresearch.errors import ConfigError, ProtocolError
from autoresearch.folding import in_stage
from autoresearch.launchers.local import Plugin as Local
from autoresearch.policies.promotion import Plugin as Promotes
from autoresearch.settings import load
from autoresearch.testing import Story, make_project, run_request

SETTINGS = """preset = "plain"
launcher = "simulated"
[metric]
name = "score"
sd = 0.01
[[stages]]
name = "smoke"
seconds = 50
env = {DEPTH = "1"}
[[stages]]
name = "full"
"""
WORTH = {"4": 1.0, "5": 1.5, "6": 0.8, "7": 1.005}  # of each width


@define
class Widths:
    """Proposes widths from 5 on; remembers the requests of its runs."""

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        width = 4 + len(history.experiments)
        if str(width) not in WORTH:
            return None
        return Idea(direction="width", description=f"width {width}", hypothesis="h",
                    source=source[:-2] + f"{width}\n")  # fmt: skip


def launcher_of(clock: Fast, requests: list[RunRequest]) -> Simulated:
    """Return a launcher in which a smoke run scores ten less than a whole one, and is short."""

    def score(request: RunRequest, source: str) -> float:
        requests.append(request)
        return WORTH[source.strip()[-1]] - 10 * (request.env.get("DEPTH") == "1")

    return Simulated(clock, score, lambda r: 10.0 if "DEPTH" in r.env else 100.0, gpus=1)


def go(
    folder: Path, settings: str = "", *plugins: object, clock: Fast | None = None, parallel: int = 1
) -> tuple[Campaign, Simulated, list[RunRequest]]:
    """Run the widths through the stages."""
    clock, requests = clock or Fast(), []
    launcher = launcher_of(clock, requests)
    project = make_project(folder / "project", script="WIDTH = 4\n", settings=SETTINGS + settings)
    known = (launcher, Widths(), "no:script_ideas", *plugins)
    made = autoresearch.start(project, tag="t1", plugins=known)
    made.run(plugins=known, wait=False, clock=clock, parallel=parallel)
    return made, launcher, requests


def test_every_idea_runs_in_the_first_stage_and_the_promoted_in_the_next(tmp_path: Path) -> None:
    """Scores of one stage are held against those of the same stage alone."""
    made, launcher, requests = go(tmp_path)
    history = made.history
    order = ["0-0", "0-1", "1-0", "2-0", "2-1", "3-0"]
    assert launcher.started == [f"t1-{name}" for name in order]
    assert [item.verdict for item in history.experiments] == [
        Verdict.KEEP, Verdict.DISCARD, Verdict.KEEP, Verdict.DISCARD,
    ]  # fmt: skip
    assert [run.stage for run in history.experiments[2].runs] == ["smoke", "full"]
    assert (requests[0].timeout_seconds, requests[1].timeout_seconds) == (50.0, 900.0)
    assert requests[0].seed == requests[1].seed
    lost = history.experiments[1]
    assert lost.decision is not None
    assert lost.decision.reason.startswith("not promoted from smoke: score -8.5000 is 0.5000 worse")
    assert history.score(lost) is None  # although -8.5 is less than any score of a whole run
    assert history.best_metric == 0.8
    shown = in_stage(history, "smoke")
    assert shown.best_metric == pytest.approx(-9.2)
    assert shown.score(lost) == -8.5
    row = (made.lab.project / "results.tsv").read_text().splitlines()[2].split("\t")
    assert row[1:4] == ["0.000000", "0.0", "discard"]
    assert row[5] == "width 5 [score -8.500000 in the stage smoke]"
    assert history.spent_in["smoke"].seconds == 40.0
    assert history.spent_in["full"].gpu_seconds == 200.0
    with autoresearch.connect(made.lab.project) as sql:
        runs = sql.execute("SELECT run, stage FROM runs ORDER BY position").fetchall()
        assert [stage for _, stage in runs] == ["smoke", "full", "smoke", "smoke", "full", "smoke"]
        assert sql.execute(
            "SELECT experiment, stage, round(metric, 6) FROM experiments ORDER BY 1"
        ).fetchall() == [
            (0, "full", 1.0),
            (1, "smoke", -8.5),
            (2, "full", 0.8),
            (3, "smoke", -8.995),
        ]
        promoted = sql.execute("SELECT experiment, stage, author FROM run_promoted").fetchall()
    assert promoted == [(0, "full", "protocol"), (2, "full", "promotion")]
    assert made.log.verify().ok


def test_what_is_within_the_noise_of_its_stage_goes_on(tmp_path: Path) -> None:
    """A cheap run need not prove a gain: it has to leave one possible."""
    settings = SETTINGS.replace('name = "smoke"\n', 'name = "smoke"\nsd = 1.0\n')
    project = make_project(tmp_path / "project", script="WIDTH = 4\n", settings=settings)
    clock = Fast()
    plugins = (launcher_of(clock, []), Widths(), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    made.run(plugins=plugins, wait=False, clock=clock)
    assert [item.stage for item in made.history.experiments] == ["full"] * 4
    promoted = [record.event for record in made.log.read() if record.type == "run_promoted"]
    assert "within the noise of 2.8 (sd of the stage smoke)" in promoted[1].reason


def test_another_rule_decides_with_its_reason(tmp_path: Path) -> None:
    """The hook is asked for every run of an early stage but the baseline's."""

    class Never:
        @hookimpl
        def promote_run(self, experiment: Experiment, history: History) -> Promotion:
            assert {run.stage for run in experiment.runs} == {"smoke"}
            assert {run.stage for run in history.experiments[0].runs} == {"smoke"}
            return Promotion(promote=False, reason=f"no money after {history.best_metric}")

    made, launcher, _ = go(tmp_path, "", Never())
    assert launcher.started == ["t1-0-0", "t1-0-1", "t1-1-0", "t1-2-0", "t1-3-0"]
    decision = made.history.experiments[2].decision
    assert decision is not None
    assert (decision.author, decision.verdict) == ("never", Verdict.DISCARD)
    assert decision.reason == "not promoted from smoke: no money after -9.0"


class Interrupts:
    """Interrupts the loop as soon as an event of a type is recorded, once."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @hookimpl
    def event_recorded(self, event: Recorded) -> None:
        if event.type == self.kind and event.event.experiment == 2:
            self.kind = ""
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["analysis_recorded", "run_promoted", "run_started"])
def test_interrupted_at_any_step_it_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    """A promotion is recorded once, and every run is asked for once."""
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "", Interrupts(kind))
    made, clock = autoresearch.open_campaign(tmp_path / "project", tag="t1"), Fast()
    plugins = (launcher_of(clock, []), Widths(), "no:script_ideas")
    made.run(plugins=plugins, wait=False, clock=clock, accept_plugin_changes=True)
    names = [record.event.run for record in made.log.read() if record.type == "run_requested"]
    assert names == [f"t1-{name}" for name in ["0-0", "0-1", "1-0", "2-0", "2-1", "3-0"]]
    assert sum(record.type == "run_promoted" for record in made.log.read()) == 2
    assert made.history.best_number == 2


@LONG
def test_sigkill_while_stages_are_in_use(tmp_path: Path) -> None:
    """Real runs and a real kill: every run of every stage is started once and found again."""
    stages = '[[stages]]\nname = "smoke"\nseconds = 60\nsd = 0.01\n[[stages]]\nname = "full"\n'
    history = finish_with_a_kill(tmp_path, "local", stages=stages).history
    order = [[run.stage for run in item.runs] for item in history.experiments]
    assert order[0] == ["smoke", "full"]
    assert all(names in (["smoke"], ["smoke", "full"]) for names in order)
    kept = [history.score(item) for item in history.experiments if item.verdict is Verdict.KEEP]
    assert history.best_metric == min(score for score in kept if score is not None)


def test_parallel_runs_of_several_stages(tmp_path: Path) -> None:
    """Each is judged in its stage; what head moved under begins again with its new commit."""
    made, launcher, _ = go(tmp_path, parallel=3)
    assert launcher.most == 3
    assert [item.verdict for item in made.history.experiments] == [
        Verdict.KEEP, Verdict.DISCARD, Verdict.KEEP, Verdict.DISCARD,
    ]  # fmt: skip
    assert made.log.verify().ok


def test_budget_of_a_stage_is_a_hard_cap(tmp_path: Path) -> None:
    """What a stage may use is held against it alone, in reserve too."""
    made, launcher, _ = go(tmp_path, f"hours = {150 / 3600}\nseconds = 100\n")
    assert launcher.started == ["t1-0-0", "t1-0-1", "t1-1-0", "t1-2-0"]
    (gone,) = [record.event for record in made.log.read() if record.type == "budget_exhausted"]
    assert gone.budget == "stages.full.hours"
    assert made.history.current is not None
    assert made.history.current.promoted == "full"


def test_controls_run_in_the_last_stage(tmp_path: Path) -> None:
    """There decisions compare with the best."""
    made, _, _ = go(tmp_path, "[controls]\nevery = 3\n")
    (control,) = [run for run in made.history.experiments[2].runs if run.control]
    assert control.stage == "full"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[[stages]]\nname = 'full'\n", "two stages are named 'full'"),
        ("[[stages]]\nname = 'a b'\n", "stage 3 is named 'a b'"),
        ("[[stages]]\nseconds = 3\n", "stage 3 is named ''"),
        ("[[stages]]\nname = 'x'\nsecond = 3\n", "did you mean 'seconds'"),
        ("[[stages]]\nname = 'x'\nseconds = -1\n", "seconds is -1"),
        ("[[stages]]\nname = 'x'\nenv = {A = 'https://me:pw@x.org'}\n", "user or password"),
    ],
)
def test_stages_that_make_no_sense_are_refused(tmp_path: Path, settings: str, said: str) -> None:
    """In one line, before anything begins."""
    (tmp_path / "autoresearch.toml").write_text(SETTINGS + settings)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path)


def test_a_stage_has_what_it_sets_and_the_rest_of_the_campaign() -> None:
    """Launcher, its options, command, environment and deadline."""
    config = Config(
        env={"A": "1", "B": "1"},
        plugins={"modal": {"gpu": "H100:8", "app": "x"}},
        stages=(
            StageConfig(name="short", launcher="modal", options={"gpu": "H100:1"}, env={"B": "2"}),
            StageConfig(name="full"),
        ),
    )
    short = config.in_stage("short")
    assert (short.launcher, short.plugins["modal"]) == ("modal", {"gpu": "H100:1", "app": "x"})
    assert (short.env, short.limits) == ({"A": "1", "B": "2"}, config.limits)
    assert config.in_stage("full") == config
    assert config.in_stage("") is config


def test_options_of_a_launcher_hold_for_one_run(tmp_path: Path) -> None:
    """A stage of one GPU beside one of eight; a wrong option is refused by its name."""
    local, request = Local(), run_request(tmp_path)
    local.configure(Config(runs=RunsConfig(devices=("0", "1", "2", "3"))))
    assert [local.quote_run(evolve(request, options=o)).gpus for o in ({}, {"gpus": 1})] == [4, 1]
    odd = Config(stages=(StageConfig(name="a", options={"gpu": 1}),))
    with pytest.raises(ConfigError, match=r"unknown setting stages\.a\.options\.gpu"):
        odd.in_stage("a")
    with pytest.raises(ConfigError, match=r"unknown setting options\.gpu"):
        with_options(Config().runs, {"gpu": 1}, "options")


def staged() -> Story:
    """Tell a campaign with two stages, of which the baseline has run in the first."""
    stages = (StageConfig(name="smoke"), StageConfig(name="full"))
    story = Story(Config(preset="plain", metric=MetricConfig(sd=0.01), stages=stages))
    with pytest.raises(ProtocolError, match="was not promoted to the stage ''; run it in 'smoke'"):
        story.add(1.0)
    return story


def facts(story: Story, stage: str, index: int) -> Iterator[events.Event]:
    """Yield one run of the baseline in a stage."""
    one = {"run": f"test-0-{index}", "experiment": 0}
    yield events.RunRequested(index=index, seed=1, launcher="fake", command=("x",),
                              timeout_seconds=1.0, stage=stage, **one)  # fmt: skip
    yield events.RunFinished(status="completed", seconds=1.0, **one)
    yield events.MetricsExtracted(metrics={"score": 1.0}, **one)
    yield events.AnalysisRecorded(
        experiment=0, result="r", versus_expected="v", why="w", lesson="l"
    )


def test_no_stage_is_left_out_and_nothing_is_kept_before_the_last() -> None:
    """The protocol holds the order of stages, whoever drives."""
    story = staged()
    for fact in facts(story, "smoke", 0):
        story.tell(fact)
    keep = events.Decided(experiment=0, verdict="keep", reason="r", author="a")
    promoted = events.RunPromoted(experiment=0, run="test-0-0", stage="full", reason="r")
    with pytest.raises(ProtocolError, match="only what ran in 'full' is kept"):
        check(story.history, keep)
    with pytest.raises(ProtocolError, match="does not follow 'smoke'"):
        check(story.history, evolve(promoted, stage="smoke"))
    story.tell(promoted)
    with pytest.raises(ProtocolError, match="run it in 'full'"):
        check(story.history, next(facts(story, "smoke", 1)))
    for fact in facts(story, "full", 1):
        story.tell(fact)
    with pytest.raises(ProtocolError, match="does not follow 'full'"):
        check(story.history, promoted)
    story.tell(keep)
    assert story.history.best_metric == 1.0


def test_without_stages_no_plugin_promotes(tmp_path: Path) -> None:
    """Campaigns that have none are what they were."""
    settings = SETTINGS.partition("[[stages]]")[0]
    project = make_project(tmp_path / "project", script="WIDTH = 4\n", settings=settings)
    clock = Fast()
    plugins = (launcher_of(clock, []), "no:script_ideas")
    made = autoresearch.start(project, tag="t1", plugins=plugins)
    assert "promotion" not in made.history.plugins
    assert (
        Promotes()
        .promote_run(autoresearch.testing.experiment(1.0), History())
        .reason.startswith("the best has no score")
    )
