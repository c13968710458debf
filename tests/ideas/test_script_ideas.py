"""The generator that needs no model: real edits that learn from the campaign."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from autoresearch import events
from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.durable import digest
from autoresearch.errors import ConfigError
from autoresearch.history import History
from autoresearch.ideas import describe, families, hyperparameters, moves, script
from autoresearch.model import Experiment, Idea, Value, ValueChange
from autoresearch.testing import IdeaGeneratorContract, Story, experiment, story

SOURCE = """\
import os

seed = int(os.environ.get("SEED", 1337))
steps = int(os.environ.get("ITERATIONS", 100))
lr = float(os.environ.get("MATRIX_LR", 0.04))
momentum = float(os.environ.get("MOMENTUM", 0.95))
layers = int(os.environ.get("NUM_LAYERS", 4))
dim = int(os.environ.get("MODEL_DIM", 128))
heads = int(os.environ.get("NUM_HEADS", 4))
print("score:", lr, momentum, layers, dim, heads, steps, seed)
"""


class TestContract(IdeaGeneratorContract):
    """It is a sound idea generator."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return script.Plugin


class TestContractOnALargerScript(TestContract):
    """It is a sound idea generator for scripts with settings from the environment."""

    @pytest.fixture
    def source(self) -> str:
        """A script in the challenge's manner."""
        return SOURCE


def generator(**settings: object) -> script.Plugin:
    """Return the plugin as a campaign on `score` would have it."""
    made = script.Plugin()
    made.configure(config(**settings))
    return made


def config(env: dict[str, str] | None = None, **settings: object) -> Config:
    """Return a configuration with this plugin's settings."""
    return Config(
        preset="plain",
        metric=MetricConfig(sd=0.001),
        env=env or {},
        plugins={"script_ideas": settings},
    )


def propose(past: History, source: str = SOURCE, seed: int = 1, **settings: object) -> Idea:
    """Return the idea, which must be there."""
    idea = generator(**settings).propose_idea(past, source, Random(seed), {})
    assert idea is not None
    return idea


def tried(idea: Idea, score: float | None, **fields: object) -> Experiment:
    """Return the experiment that an idea became, with the digest of its source."""
    assert idea.source is not None
    return experiment(score, idea=idea, source_digest=digest(idea.source), **fields)


def changed(idea: Idea) -> dict[str, tuple[Value, Value]]:
    """Return what an idea changes: name to old and new value."""
    return {item.name: (item.old, item.new) for item in idea.changes}


def lr(old: float, new: float) -> Idea:
    """Return an idea that changed the rate."""
    source = SOURCE.replace(f"{old}", f"{new}")
    change = ValueChange(name="MATRIX_LR", old=old, new=new)
    return Idea(
        direction="matrix lr",
        description=describe([change]),
        hypothesis="rates",
        source=source,
        changes=[change],
    )


def test_an_idea_is_a_complete_experiment() -> None:
    """It has code, a hypothesis with numbers, evidence that names experiments, and a risk."""
    idea = propose(story([1.1, 1.2]).history)
    assert idea.source is not None
    compile(idea.source, "train.py", "exec")
    assert idea.author == "script_ideas"
    assert idea.cites == (0,)
    assert idea.evidence[0] == "experiment 0 (baseline) scored 1.1000"
    assert idea.risk
    assert idea.expected_gain is not None
    assert idea.predicted == pytest.approx(1.1 - idea.expected_gain)
    assert idea.description in idea.hypothesis


def test_two_hundred_ideas_for_the_project_s_own_trainer(request: pytest.FixtureRequest) -> None:
    """It does not run dry in a night: 200 different scripts, all of which compile."""
    source = (Path(request.config.rootpath) / "train_gpt.py").read_text()
    told, seen, plugin = story([1.1]), set(), generator()
    for number in range(200):
        idea = plugin.propose_idea(told.history, source, Random(number), {})
        assert idea is not None
        assert idea.source not in seen
        seen.add(idea.source)
        if number % 20 == 0:
            compile(str(idea.source), "train_gpt.py", "exec")
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))


def test_what_measures_the_score_is_left_alone() -> None:
    """Seeds, budgets and data never move, however many ideas are asked for."""
    told = story([1.1])
    for number in range(60):
        idea = generator().propose_idea(told.history, SOURCE, Random(number), {})
        if idea is None:
            break
        assert not {"SEED", "ITERATIONS"} & changed(idea).keys()
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "SEED",
            "random_state",
            "DATA_PATH",
            "VAL_BATCH_SIZE",
            "TOKENIZER_PATH",
            "MAX_WALLCLOCK_SECONDS",
        ),
        *("ITERATIONS", "WARMUP_STEPS", "TRAIN_BATCH_TOKENS", "TRAIN_SEQ_LEN", "TRAIN_LOG_EVERY"),
        *("COMPILE", "CPU_DTYPE", "RELOAD_CHECK", "RELOAD_TOLERANCE_BPB", "MODEL_TEST"),
        *("LOCAL_RANK", "max_iters", "eval_iters", "TIME_BUDGET", "GRAD_ACCUM_STEPS"),
        *("SHARD_MAGIC", "ZLIB_LEVEL"),
    ],
)
def test_protected_names(name: str) -> None:
    """Names that say how, on what or how long is measured are protected, in any case."""
    source = f'x = float(os.environ.get("{name}", 3.0))\n'
    assert generator().propose_idea(story([1.1]).history, source, Random(1), {}) is None


@pytest.mark.parametrize(
    "name", ["MATRIX_LR", "WARMDOWN_ITERS", "MUON_MOMENTUM_WARMUP_STEPS", "MUON_BACKEND_STEPS"]
)
def test_names_that_only_look_protected(name: str) -> None:
    """Schedules and optimizer steps are fair game."""
    source = f'x = float(os.environ.get("{name}", 3.0))\n'
    assert name in propose(story([1.1]).history, source).description


def test_a_person_can_protect_more() -> None:
    """The setting replaces the list, but for seeds: another draw of luck is no idea."""
    past, source = story([1.1]).history, "TRAIN_SEED = 7\nVAL_SHARE = 0.1\nDEPTH = 3\n"
    assert "VAL_SHARE" in propose(past, source, protected=["DEPTH"]).description
    assert generator(protected=["DEPTH", "VAL*"]).propose_idea(past, source, Random(1), {}) is None


def test_overridden_variables_are_skipped() -> None:
    """Changing a default does nothing where the campaign or a kept idea sets the variable."""
    told = story([1.1])
    told.add(
        experiment(
            1.0, idea=Idea(direction="d", description="e", hypothesis="h", env={"MOMENTUM": "0.9"})
        )
    )
    env = {"MATRIX_LR": "0.1", "NUM_LAYERS": "2", "MODEL_DIM": "64"}
    assert propose(told.history, env=env).direction == "num heads"


def test_shapes_fit_what_the_campaign_sets() -> None:
    """With a width of 6 from outside 3 heads would not be even, so only 1 head is possible."""
    env = {"MATRIX_LR": "1", "NUM_LAYERS": "2", "MODEL_DIM": "8", "MOMENTUM": "0.9"}
    told = story([1.1])
    values = set()
    while idea := generator(env=env).propose_idea(told.history, SOURCE, Random(1), {}):
        values.add(changed(idea)["NUM_HEADS"][1])
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    assert values == {1, 2}


@pytest.mark.parametrize(("limit", "grows"), [(0, True), (2_000_000, True), (1_010_000, False)])
def test_what_would_not_fit_is_not_proposed(limit: int, grows: bool) -> None:
    """An artifact close to its limit leaves no room for another layer; a smaller model fits."""
    base = experiment(1.1, metrics={"artifact_bytes": 1_000_000})
    told, plugin = story([base]), script.Plugin()
    limits = LimitsConfig(artifact_bytes=limit)
    plugin.configure(Config(preset="plain", metric=MetricConfig(sd=0.001), limits=limits))
    layers = set()
    for number in range(40):
        idea = plugin.propose_idea(told.history, SOURCE, Random(number), {})
        if idea is None:
            break
        layers.add(changed(idea).get("NUM_LAYERS", (4, 4))[1])
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    assert (max(layers) > 4) is grows
    assert min(layers) < 4


def test_a_win_is_followed_the_same_way() -> None:
    """After a smaller rate won, a still smaller one is next, and the win is cited with numbers."""
    won = tried(lr(0.04, 0.02667), 1.08)
    idea = propose(story([1.1, won]).history, SOURCE.replace("0.04", "0.02667"))
    assert idea.direction == "matrix lr"
    assert changed(idea)["MATRIX_LR"][1] < 0.02667
    assert 1 in idea.cites
    assert (
        "experiment 1 (MATRIX_LR 0.04 -> 0.02667) scored 1.0800, better by 0.0200"
        in idea.hypothesis
    )


def test_a_loss_turns_away() -> None:
    """After a large loss neither that value nor one beyond it comes next."""
    lost = tried(lr(0.04, 0.02667), 1.2)
    for seed in range(20):
        changes = changed(propose(story([1.1, lost]).history, seed=seed))
        assert changes.get("MATRIX_LR", (0, 1))[1] > 0.02667


def test_dead_directions_are_left() -> None:
    """Nothing is proposed in a direction that was declared dead, under any seed."""
    told = story([1.1, tried(lr(0.04, 0.02), 1.2)]).declare_dead("matrix lr")
    assert all(propose(told.history, seed=seed).direction != "matrix lr" for seed in range(20))


def plateau() -> Story:
    """Return a story that ends on a plateau."""
    return story([1.1, *[1.2] * 5]).declare_plateau()


def test_a_plateau_is_answered_boldly_and_then_left() -> None:
    """Two ideas in a row change several things at once; then the small steps go on."""
    told = plateau()
    for _ in range(2):
        idea = propose(told.history)
        assert idea.direction.startswith(moves.RADICAL)
        assert len(changed(idea)) > 1
        told.add(tried(idea, 1.2))
    assert not propose(told.history).direction.startswith(moves.RADICAL)


def test_the_answer_to_a_plateau_can_be_switched_off() -> None:
    """Without bold tries the ranking goes on as before."""
    assert not propose(plateau().history, radical_tries=0).direction.startswith(moves.RADICAL)


def test_near_misses_are_combined() -> None:
    """Two changes that each lost next to nothing are tried together, and both are cited."""
    change = ValueChange(name="MOMENTUM", old=0.95, new=0.975)
    momentum = Idea(
        direction="momentum",
        description=describe([change]),
        hypothesis="memory",
        changes=[change],
        source=SOURCE.replace("0.95", "0.975"),
    )
    told = story([1.1, tried(lr(0.04, 0.02667), 1.1002), tried(momentum, 1.1001)])
    proposed = []
    for number in range(12):
        idea = propose(told.history, seed=number)
        proposed.append(idea)
        told.tell(events.IdeaDropped(idea=idea.id, reason="a test wants another"))
    both = next(idea for idea in proposed if idea.direction == "matrix lr with momentum")
    assert {1, 2} <= set(both.cites)
    assert changed(both) == {
        "MATRIX_LR": (0.04, 0.02667),
        "MOMENTUM": (0.95, 0.975),
    }


def test_higher_can_be_better() -> None:
    """The prediction lies above the best where higher is better, and a win is still a win."""
    told = story([0.5, tried(lr(0.04, 0.02667), 0.6)], better="higher")
    idea = propose(told.history, SOURCE.replace("0.04", "0.02667"))
    assert idea.predicted is not None
    assert idea.predicted > 0.6
    assert idea.direction == "matrix lr"


@pytest.mark.parametrize("source", ["", "print('score: 1')\n", "def broken(", "SEED = 3\n"])
def test_a_script_without_settings_gives_no_idea(source: str) -> None:
    """Nothing to move is no error; the next generator is asked."""
    assert generator().propose_idea(story([1.1]).history, source, Random(1), {}) is None


def test_everything_tried_gives_no_idea() -> None:
    """A script with one switch has one idea, and then none."""
    source = "FLAG = True\n"
    told = story([1.1])
    idea = propose(told.history, source)
    assert idea.source == "FLAG = False\n"
    told.add(tried(idea, 1.2))
    assert generator().propose_idea(told.history, source, Random(1), {}) is None


def test_a_misspelt_setting_is_refused() -> None:
    """The plugin's table is checked."""
    with pytest.raises(ConfigError, match="radical_tries"):
        generator(radical_trys=1)


def test_it_gets_better_at_a_made_up_task() -> None:
    """On a smooth task without noise 30 experiments come most of the way to the optimum."""
    told, source = story([score(SOURCE)]), SOURCE
    for number in range(30):
        idea = propose(told.history, source, seed=number)
        assert idea.source is not None
        told.add(tried(idea, score(idea.source)))
        if told.history.head == told.history.experiments[-1].number:
            source = idea.source
    assert told.history.best_metric is not None
    assert told.history.best_metric < 1 + 0.3 * (score(SOURCE) - 1)


def score(source: str) -> float:
    """Return 1 at the best values of rate and momentum, and more elsewhere."""
    value = {item.name: float(item.value) for item in hyperparameters(source)}
    kind = families
    rate = kind.LEARNING_RATE.place(value["MATRIX_LR"]) - kind.LEARNING_RATE.place(0.012)
    memory = kind.MOMENTUM.place(value["MOMENTUM"]) - kind.MOMENTUM.place(0.99)
    return 1 + 0.02 * rate**2 + 0.01 * memory**2 + 0.005 * abs(value["NUM_LAYERS"] - 6)
