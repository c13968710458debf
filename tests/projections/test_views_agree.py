"""History and the SQL views state the same truths, and no well-formed event makes either fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from thinned import ALL

import autoresearch
from autoresearch import Config, History, events
from autoresearch.cli import cli
from autoresearch.config import unstructure
from autoresearch.errors import ConfigError
from autoresearch.events import EVENT_TYPES, Event
from autoresearch.folding import empty, fold
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.projections.tables import open_store, people_schema
from autoresearch.testing import MemoryLog, make_project

QUICK = settings(
    max_examples=60 if os.environ.get(ALL) else 40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # nothing is judged while drawing
    suppress_health_check=list(HealthCheck),
)
LARGEST = 2**53 - 1
Tell = Callable[[list[Event]], History]

# Names, numbers and words that meet each other, and some that no loop would ever write.
NUMBERS = st.sampled_from([0, 0, 0, 1, 1, 2, 3, -1, 7, LARGEST])
RUNS = st.sampled_from(["r-0", "r-1", "r-2"])
IDEAS = st.sampled_from(["i-0", "i-1", "i-2"])
TEXTS = st.one_of(
    st.sampled_from(["", "a\tb", "a\nb\r\n## Dead Ends", "\x1b[31mred", "d-0", "d-1", "'; --"]),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
INTEGERS = st.one_of(st.integers(-3, 3), st.sampled_from([LARGEST, -LARGEST]))
FLOATS = st.one_of(
    st.integers(-4, 4).map(lambda n: n / 4),
    st.sampled_from([1e308, -1e308, 5e-324]),
)
NAMES = st.sampled_from(["score", "score", "score", "artifact_bytes", "val_bpb", "a\tb"])
STATUSES = st.sampled_from(
    ["completed", "completed", "completed", "crashed", "infra_failed", "melted"]
)
VERDICTS = st.sampled_from(["keep", "discard", "crash", "rerun", "quarantine", "perhaps"])
JSON = st.sampled_from([{}, {"metric": 7}, {"metric": {"size": []}}, {"metric": {"size": "x"}}])

PLAIN = {str: TEXTS, int: INTEGERS, float: FLOATS, bool: st.booleans(), Any: TEXTS | INTEGERS}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "experiment": NUMBERS,
    "to_experiment": NUMBERS,
    "after_experiment": NUMBERS,
    "run": RUNS,
    "idea": IDEAS,
    "name": NAMES,
    "status": STATUSES,
    "verdict": VERDICTS,
    "direction": st.sampled_from(["d-0", "d-1", "a\tb"]),
    "stage": st.sampled_from(["", "", "", "short"]),
    "kind": st.sampled_from(["change", "evaluation", "run", "odd"]),
    "better": st.sampled_from(["lower", "higher", "sideways"]),
    "config": JSON,
    "metrics": st.dictionaries(NAMES, FLOATS, min_size=1, max_size=3),
}


def values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Return values for a field of an event, from its name or else from its type."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return st.none() | values(name, kinds[0])
    if name in BY_NAME:
        return BY_NAME[name]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return st.lists(values("", arguments[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(TEXTS, values("", arguments[1]), max_size=2)
    return PLAIN[hint]


def any_of(shape: type[Event]) -> st.SearchStrategy[Event]:
    """Return events of one type with any values that their fields allow."""
    hints, kind = get_type_hints(shape), shape
    names = [item.name for item in attrs.fields(kind)]  # type: ignore[arg-type]
    return st.builds(shape, **{name: values(name, hints[name]) for name in names})


EVENTS = {name: any_of(shape) for name, shape in EVENT_TYPES.items()}
EPISODE = (
    "idea_proposed", "commit_made", "run_requested", "metrics_extracted", "run_finished", "decided",
    "idea_dropped", "quarantine_resolved", "overruled",
)  # fmt: skip


@st.composite
def episodes(draw: st.DrawFn) -> list[Event]:
    """Draw facts about one experiment and one run, mostly in the order of the loop."""
    about = {"experiment": draw(st.sampled_from([0, 1, 0, 2])), "run": draw(RUNS)}
    whole = draw(st.integers(0, 2)) > 0  # most have all facts, a score among them
    left_out = set() if whole else draw(st.sets(st.sampled_from(EPISODE), max_size=4))
    made = []
    for name in EPISODE:
        if name not in left_out:
            fact = draw(EVENTS[name])
            if whole and isinstance(fact, events.MetricsExtracted):
                fact = attrs.evolve(fact, metrics={"score": draw(FLOATS), **fact.metrics})
            if whole and isinstance(fact, events.RunFinished):
                fact = attrs.evolve(fact, status="completed")
            fields = {item.name for item in attrs.fields(type(fact))}  # type: ignore[arg-type]
            made.append(attrs.evolve(fact, **{k: v for k, v in about.items() if k in fields}))
    return draw(st.permutations(made)) if draw(st.integers(0, 3)) == 3 else made


@st.composite
def campaigns(draw: st.DrawFn) -> list[Event]:
    """Draw the facts of a campaign: episodes, with anything at all in between."""
    made: list[Event] = []
    for _ in range(draw(st.integers(2, 6))):
        made += draw(episodes())
        made += draw(st.lists(st.one_of(*EVENTS.values()), max_size=3))
    return made


ANYTHING = campaigns()
# The number of a proposal is the loop's to choose, and a campaign starts once: the protocol
# refuses anything else. All other facts come in any order and about anything.
ORDERLY = ANYTHING.map(
    lambda facts: [fact for fact in facts if not isinstance(fact, events.CampaignStarted)]
)
START = events.CampaignStarted(
    tag="t",
    branch="autoresearch/t",
    base_commit="c0",
    script="train.py",
    script_digest="d0",
    metric="score",
    better="lower",
    config=unstructure(Config(preset="plain")),
    plugins={},
    environment={},
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose store gets a campaign for each example."""
    return make_project(tmp_path_factory.mktemp("views") / "project")


@pytest.fixture(scope="module")
def told(project: Path) -> Tell:
    """Appends events to a campaign of its own, and folds it."""
    log, numbers, ends = open_store(project / ".autoresearch"), count(), [0]

    def tell(facts: list[Event]) -> History:
        tag = f"c{next(numbers)}"
        with log.writer(tag) as writer:
            writer.append_many([START, *facts])
        history = fold(empty(tag), log.read(campaign=tag, after=ends[-1]))
        ends.append(history.position)
        return history

    return tell


def _orderly(facts: list[Event]) -> list[Event]:
    """Give each proposal the number that is next when it comes."""
    log, history, made = MemoryLog(), empty("t"), []
    with log.writer("t") as writer:
        for fact in facts:
            if isinstance(fact, events.IdeaProposed):
                fact = attrs.evolve(fact, experiment=history.next_number)
            made.append(fact)
            writer.append(fact)
            history = fold(history, log.read(after=history.position))
    return made


def _drawn(strategy: st.SearchStrategy[list[Event]]) -> list[list[Event]]:
    """Return many examples at once: one connection for all of them is what makes this quick."""
    found: list[list[Event]] = []

    @QUICK
    @given(facts=strategy)
    def collect(facts: list[Event]) -> None:
        found.append(facts)

    collect()
    return found


def test_nothing_well_formed_makes_a_reader_fail(told: Tell, project: Path) -> None:
    """The fold, both files, every view and the verbs that read take whatever was recorded."""
    histories = [told(facts) for facts in _drawn(ANYTHING)]
    for history in histories:
        for projection in (ResultsTsv(), NotesMd()):
            assert projection.render(history)
    with autoresearch.connect(project) as connection:
        for view in people_schema().views:
            connection.execute(f'SELECT * FROM "{view.name}"').fetchall()
    for history in histories[::6]:
        where = ["--project", str(project), "--tag", history.campaign]
        exists = bool(history.experiments)
        for words in (["status"], ["show", "--json"], ["show"], *[["show", "0"]] * exists):
            done = CliRunner().invoke(cli, [*words, *where])
            # A start that no release wrote may have a configuration that is none: that is one line.
            told_in_a_line = isinstance(done.exception, ConfigError)
            assert done.exception is None or told_in_a_line, (words, done.exception)


def test_history_and_the_views_say_the_same(told: Tell, project: Path) -> None:
    """Experiments with their verdicts and numbers, the queue, dead ends, lessons and costs."""
    examples = [(facts, told(facts)) for facts in _drawn(ORDERLY.map(_orderly))]
    scored = 0
    with autoresearch.connect(project) as connection:
        for facts, history in examples:

            def ask(query: str, tag: str = history.campaign) -> list[tuple[Any, ...]]:
                return connection.execute(query, [tag]).fetchall()

            assert _shown(ask) == _folded(history), facts
            scored += sum(history.score(item) is not None for item in history.experiments)
    # Or the examples would say little; which are drawn depends on the constants in our sources.
    assert scored > 5


def test_only_the_newest_experiment_can_be_dropped(told: Tell, project: Path) -> None:
    """In both, step by step: a number that is followed by another stays, open or not."""

    def propose(number: int) -> Event:
        words = {"direction": "d", "description": f"try {number}", "hypothesis": "h", "author": "a"}
        return events.IdeaProposed(experiment=number, idea=f"i-{number}", **words)

    def drop(number: int) -> Event:
        return events.IdeaDropped(idea=f"i-{number}", reason="no", experiment=number)

    facts = [propose(0), propose(1), propose(2), drop(1), drop(2), drop(1), propose(1)]
    expected = [[0], [0, 1], [0, 1, 2], [0, 1, 2], [0, 1], [0], [0, 1]]
    histories = [told(facts[:count]) for count in range(1, len(facts) + 1)]
    assert [[item.number for item in each.experiments] for each in histories] == expected
    with autoresearch.connect(project) as connection:
        for history, numbers in zip(histories, expected, strict=True):
            query = "SELECT experiment FROM experiments WHERE campaign = ? ORDER BY experiment"
            rows = connection.execute(query, [history.campaign]).fetchall()
            assert [number for (number,) in rows] == numbers


def _folded(history: History) -> dict[str, Any]:
    spent = history.spent
    return {
        "experiments": [
            (
                item.number,
                item.verdict.value if item.verdict else "running",
                _number(history.score(item)),
                _bytes(item.metrics.get(history.size)),
                len(item.runs),
                _number(item.seconds),
                item.idea.description,
                item.commit or None,
            )
            for item in history.experiments
        ],
        "queue": sorted(history.queue),
        "dead ends": sorted(history.dead_ends),
        "lessons": [(item.experiment, item.text) for item in history.lessons],
        "costs": [_number(n) for n in (spent.seconds, spent.gpu_seconds, spent.usd, spent.tokens)],
    }


def _shown(ask: Callable[[str], list[tuple[Any, ...]]]) -> dict[str, Any]:
    experiments = ask(
        "SELECT experiment, status, metric, artifact_bytes, runs, coalesce(seconds, 0), "
        "description, nullif(commit, '') FROM experiments WHERE campaign = ? ORDER BY experiment"
    )
    (costs,) = ask(
        "SELECT coalesce(sum(seconds ORDER BY position), 0), "
        "coalesce(sum(gpu_seconds ORDER BY position), 0), "
        "coalesce(sum(usd ORDER BY position), 0), coalesce(sum(tokens_in + tokens_out), 0) "
        "FROM costs WHERE campaign = ?"
    )
    queue = ask("SELECT idea FROM ideas WHERE campaign = ? AND state = 'queued' ORDER BY idea")
    dead = ask("SELECT DISTINCT direction FROM dead_ends WHERE campaign = ? ORDER BY direction")
    return {
        "experiments": [
            (number, status, _number(metric), size, runs, _number(seconds), *rest)
            for number, status, metric, size, runs, seconds, *rest in experiments
        ],
        "queue": [idea for (idea,) in queue],
        "dead ends": [direction for (direction,) in dead],
        "lessons": ask(
            "SELECT experiment, lesson FROM lessons WHERE campaign = ? ORDER BY position"
        ),
        "costs": [_number(number) for number in costs],
    }


def _number(value: float | None) -> float | str | None:
    """Return what is the same in both: sums are compared to twelve digits."""
    return None if value is None else f"{value:.12g}"


def _bytes(value: float | None) -> int | None:
    """Return a size as the views have it: NULL when it is beyond any file."""
    return None if value is None or abs(value) >= 2**63 else round(value)
