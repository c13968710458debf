"""History: a fold of events that nobody can change, at the same price however long it is."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from attrs import evolve
from facts import example
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrsistent import pvector

from autoresearch import Verdict, events, folding
from autoresearch.codec import decode
from autoresearch.config import Config, MetricConfig
from autoresearch.errors import ProtocolError
from autoresearch.events import EVENT_TYPES
from autoresearch.folding import empty, fold, foresee, step
from autoresearch.history import Grouped, PerExperiment, is_open
from autoresearch.testing import MemoryLog, Story, experiment, history, idea, refold, story


def test_best_and_head_are_the_kept_ones() -> None:
    """Best is the best kept score, head the last kept commit, baseline experiment 0."""
    past = history([1.10, 1.08, 1.09, 1.07])
    assert (past.best_number, past.head) == (3, 3)
    assert past.baseline is past.experiments[0]
    assert past.best_metric == pytest.approx(1.07)
    assert [item.number for item in past.kept] == [0, 1, 3]


def test_quarantined_result_is_neither_best_nor_head_until_a_person_releases_it() -> None:
    """The lowest number does not win by being the lowest."""
    log = MemoryLog()
    past = _quarantined(log)
    assert past.best_number == 0
    released = _resolve(log, past, released=True)
    assert released.best_number == 1
    assert released.experiments[1].verdict is Verdict.KEEP
    assert released.head == 0
    confirmed = _resolve(log, past, released=False)
    assert confirmed.best_number == 0
    assert confirmed.experiments[1].verdict is Verdict.DISCARD


def test_overruled_and_accepted_again_is_kept() -> None:
    """The last word counts, although what is kept was asked between the two."""
    log = story([1.10, 1.08, 1.09]).log
    with log.writer("test", stream="test.inbox.me") as writer:
        for verdict in ("discard", "keep"):
            writer.append(events.Overruled(experiment=1, verdict=verdict, reason="r", author="me"))
    past = refold(log)
    assert past.best_number == 1
    assert [item.number for item in past.kept] == [0, 1]


_MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([0.9, 1.0, 1.1, None])),
        st.tuples(st.sampled_from(["overrule", "fork", "edit", "ask", "back"]), st.integers(0, 9)),
    ),
    max_size=25,
)


@given(_MOVES)
@settings(max_examples=60, deadline=None)
def test_what_is_remembered_of_experiments_is_what_they_say_now(moves) -> None:
    """Whichever histories are asked in turn: later ones, forks, older ones, or edited by hand."""
    told = Story()
    asked, older = Grouped(_scored), [told.history]
    for move, number in moves:
        now = older[-1]
        if move == "add":
            told.add(number)
            now = told.history
        elif move == "back":
            now = older[number % len(older)]
        elif number < len(now.experiments) and move != "ask":
            verdict = "keep" if number % 2 else "discard"
            fact = events.Overruled(experiment=number, verdict=verdict, reason="r", author="me")
            now = foresee(now, fact)
            if move == "edit":
                now = evolve(older[-1], experiments=now.experiments)
        older.append(now)
        if move != "overrule":  # whose change is asked for later, with others
            assert list(asked.of(now)) == [_scored(item, now) for item in now.experiments]
            fresh = Grouped(_scored)
            fresh.of(now)
            held = {key: list(group.items()) for key, group in asked.groups.items() if group}
            assert held == {key: list(group.items()) for key, group in fresh.groups.items()}
            decided = [item for item in now.experiments if not is_open(item)]
            assert list(now.decided) == decided
            assert list(now.kept) == [i for i in decided if i.verdict is Verdict.KEEP]


def _scored(item, past):
    return None if past.score(item) is None else (str(item.verdict), item.metrics)


def test_a_long_campaign_makes_only_what_changed() -> None:
    """However many experiments there are: one more asks for the answers of one."""
    made: list[int] = []
    asked = PerExperiment(lambda item, _: made.append(item.number))
    told = Story()
    for _ in range(40):
        told.add(1.0)
        asked.of(told.history)
        asked.of(foresee(told.history, events.NoteAdded(text="looks good", author="me")))
    assert made == list(range(40))


def _resolve(log: MemoryLog, past, *, released: bool):
    event = events.QuarantineResolved(
        experiment=1, released=released, reason="looked at it", author="me"
    )
    with log.writer("t", stream=f"t.inbox.{released}") as writer:
        writer.append(event)
    return step(past, list(log.read(campaign="t"))[-1])


def _quarantined(log: MemoryLog):
    facts = [
        events.IdeaProposed(
            experiment=n, idea=str(n), direction="d", description="x", hypothesis="h", author="g"
        )
        for n in (0, 1)
    ]
    with log.writer("t") as writer:
        for number, (idea, score, verdict) in enumerate(
            zip(facts, (1.1, 0.1), ("keep", "quarantine"), strict=True)
        ):
            run = f"t-{number}-0"
            writer.append(idea)
            writer.append(
                events.RunRequested(
                    experiment=number,
                    run=run,
                    index=0,
                    seed=1,
                    launcher="local",
                    command=("x",),
                    timeout_seconds=1.0,
                )
            )
            writer.append(
                events.RunFinished(run=run, experiment=number, status="completed", exit_code=0)
            )
            writer.append(
                events.MetricsExtracted(run=run, experiment=number, metrics={"score": score})
            )
            writer.append(
                events.Decided(experiment=number, verdict=verdict, reason="r", author="p")
            )
    return fold(empty("t"), log.read())


def test_several_seeds_make_a_mean_and_the_largest_size() -> None:
    """A rerun's score is the mean of its completed runs; the artifact's size is the worst."""
    log = MemoryLog()
    with log.writer("t") as writer:
        writer.append(
            events.IdeaProposed(
                experiment=0,
                idea="0",
                direction="d",
                description="x",
                hypothesis="h",
                author="g",
            )
        )
        for index, (score, size, status) in enumerate(
            [(1.0, 10.0, "completed"), (1.2, 12.0, "completed"), (9.0, 99.0, "crashed")]
        ):
            run = f"t-0-{index}"
            writer.append(
                events.RunRequested(
                    experiment=0,
                    run=run,
                    index=index,
                    seed=index,
                    launcher="local",
                    command=("x",),
                    timeout_seconds=1.0,
                )
            )
            writer.append(events.RunFinished(run=run, experiment=0, status=status))
            writer.append(
                events.MetricsExtracted(
                    run=run, experiment=0, metrics={"score": score, "artifact_bytes": size}
                )
            )
    past = fold(empty("t"), log.read())
    assert past.experiments[0].metrics["score"] == pytest.approx(1.1)
    assert past.experiments[0].metrics["artifact_bytes"] == 12.0


@pytest.mark.parametrize(
    ("told", "groups", "sd", "freedom"),
    [
        (0.1, [], 0.1, 4),  # no repeats: as set, and not certain
        (0.1, [[1.0, 1.0]], 0.1, 4),  # equal scores measure nothing
        (0.1, [[1.0, 1.2]], 0.11, 5),  # (4 * 0.01 + 0.02) / 5
        (0.001, [[1.0, 1.2]] * 36, 0.134, 40),  # told far too small: outweighed
        (10.0, [[1.0, 1.2]] * 396, 1.404, 205),  # and far too large, by the newest 200
        (0.0, [[1.0, 1.2]], 0.141, 1),  # nothing set: what was measured alone
        (0.0, [], 0.0, 0),
    ],
)
def test_a_deviation_that_was_set_is_worth_four_repeats(
    told: float, groups: list[list[float]], sd: float, freedom: int
) -> None:
    """It is pooled with the repeats of the campaign, and carries how well it is known."""
    past = history([1.0], config=Config(preset="plain", metric=MetricConfig(sd=told)))
    one = past.experiments[0]
    runs = [[evolve(one.runs[0], metrics={"score": s}) for s in scores] for scores in groups]
    made = [evolve(one, number=n, runs=tuple(each)) for n, each in enumerate(runs)]
    noise = evolve(past, experiments=pvector(made or [one])).noise
    assert noise.sd == pytest.approx(sd, rel=0.01)
    assert noise.freedom == freedom
    assert noise.measured is (told == 0 and bool(groups))
    assert len(noise.likely) == (40 if freedom else 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0.5, 2.0)), max_size=12).map(lambda rest: [1.5, *rest])
)
def test_folding_in_pieces_is_folding_at_once(scores: list[float | None]) -> None:
    """Wherever the log is cut, and event by event, folding gives the same History."""
    story = Story()
    for score in scores:
        story.add(score)
    records = list(story.log.read())
    whole = fold(empty("test"), records)
    single = empty("test")
    for record in records:
        before, kept = single, repr(single)
        single = step(single, record)
        assert repr(before) == kept  # a History that somebody holds stays as it is
    assert single == whole
    for cut in range(0, len(records), 7):
        assert fold(fold(empty("test"), records[:cut]), records[cut:]) == whole


@pytest.mark.parametrize("name", sorted(folding._STEPS))
def test_a_fact_is_folded_alike_whole_or_skimmed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that reads fields only gives the History of the event, of which it keeps no reader.

    What it was folded from stays as it is, to the byte.
    """
    told = Story().add(1.5).add(None).add(1.2)
    made = {"experiment": 3, "run": "r", "idea": "i", "number": 1}
    known = {**made, "status": "completed", "verdict": "keep", "name": "val_bpb", "step": 2}
    last = known | {"to_experiment": 0, "metrics": {"val_bpb": 1.1}, "observed": 1.1}
    kinds = (events.IdeaProposed, events.ReasoningRecorded, events.CommitMade)
    kinds += (events.RunRequested, events.SteeringGiven, EVENT_TYPES[name])
    with told.log.writer("test", "more") as writer:
        for kind in kinds:
            shape: Any = kind
            usual = {item.name: example(item) for item in attrs.fields(shape)}
            writer.append(kind(**{key: last.get(key, usual[key]) for key in usual}))
    records = list(told.log.read())
    past = fold(empty("test"), records[:-1])
    kept = pickle.dumps(past)
    skimmed, at_once = fold(past, records[-1:]), fold(empty("test"), records)
    monkeypatch.setattr(
        folding, "_STEPS", {key: (decode, step) for key, (_, step) in folding._STEPS.items()}
    )
    assert skimmed == at_once == fold(past, records[-1:]) == pickle.loads(pickle.dumps(skimmed))
    assert pickle.dumps(past) == kept


def test_events_of_other_campaigns_only_move_the_position() -> None:
    """Two campaigns share a log and do not see each other."""
    log = MemoryLog()
    with log.writer("a") as writer:
        writer.append(events.NoteAdded(text="mine", author="me"))
    with log.writer("b") as writer:
        writer.append(events.NoteAdded(text="theirs", author="them"))
    past = fold(empty("a"), log.read())
    assert [note.text for note in past.notes] == ["mine"]
    assert past.position == 2


def test_history_cannot_be_changed() -> None:
    """A strategy that tries to write into what it is given gets an error."""
    past = history([1.10])
    with pytest.raises(AttributeError):
        past.best_number = 7  # type: ignore[misc]
    with pytest.raises(TypeError):
        past.experiments[0] = None  # type: ignore[index]
    with pytest.raises((TypeError, AttributeError)):
        past.experiments[0].metrics["score"] = 0.0  # type: ignore[index]


def test_decision_ends_what_the_review_allowed() -> None:
    """The memory read for one experiment does not count for the next."""
    told = Story().add(1.1).add(1.0)
    assert told.history.reviewed is None
    with pytest.raises(ProtocolError, match="without reading the memory"):
        told.tell(
            events.IdeaProposed(
                experiment=2,
                idea=idea().id,
                direction="d",
                description="x",
                hypothesis="h",
                author="g",
            )
        )


def test_keep_without_a_score_takes_nothing_from_the_best() -> None:
    """Best stays the kept experiment that has a score; head moves on."""
    past = history([1.1, experiment(None, verdict="keep", status="completed")])
    assert (past.best_number, past.head) == (0, 1)


def test_first_keep_without_a_score_is_best_until_one_has_it() -> None:
    """Any score beats none."""
    past = history([experiment(None, verdict="keep", status="completed"), 1.1])
    assert past.best_number == 1


def test_second_keep_without_a_score_does_not_become_best() -> None:
    """Nothing says that it is better than the one before it."""
    past = history([experiment(None, verdict="keep", status="completed")] * 2)
    assert (past.best_number, past.head) == (0, 1)
