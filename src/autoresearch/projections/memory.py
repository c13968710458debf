"""What a campaign has learned: a card for each direction, merged lessons, digests, calibration.

All of it is a function of the History. notes.md, the prompts of a model and the review that an
agent reads are made from it, so that all of them tell the same. A gain is told in words (better by,
worse by, no change), whichever way the metric points.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from statistics import median
from typing import TypeVar

from attrs import evolve, frozen

from autoresearch import events
from autoresearch.history import Grouped, History, family, gain_of, imported_from, is_open
from autoresearch.model import Experiment, Verdict
from autoresearch.text import one_line

DIGEST_EVERY = 10  # experiments, as a researcher would stop and look back
_TWO_SIDED = 1.96  # standard deviations that hold 95 % of what luck does
_CALIBRATED_OVER = 30  # newest scored predictions
_FEWEST_PREDICTIONS = 4
V = TypeVar("V")
_NUMBERS = re.compile(r"[-+]?\d[\d_.,]*(?:e[-+]?\d+)?", re.IGNORECASE)


@frozen(kw_only=True)
class Try:
    """What one experiment says of its direction; ``gain`` is against the best of its time."""

    number: int
    verdict: Verdict | None
    gain: float | None
    name: str = ""  # of the only value that it changed
    old: float | None = None
    new: float | None = None


@frozen(kw_only=True)
class Card:
    """What is known of one direction; ``bracket`` says where the best value lies, if it is one.

    ``error`` is half the width of the 95 % interval of the largest gain, 0 while the noise is
    unknown; ``dead`` is the fact that ended the direction.
    """

    direction: str
    tries: tuple[Try, ...]
    kept: tuple[Try, ...]
    best: Try | None
    error: float
    bracket: str
    why: str
    dead: events.DirectionDeclaredDead | None = None


def _try(item: Experiment, history: History) -> tuple[str, Try] | None:
    """Return the family of an experiment's direction, and what it says of it once it is decided."""
    if is_open(item) or item.number <= history.baseline_number:
        return None
    key = family(item.idea.direction)
    gain = gain_of(item, history) if history.score(item) is not None else None
    known = Try(number=item.number, verdict=item.verdict, gain=gain)
    changes = item.idea.changes
    if len(changes) != 1 or isinstance(changes[0].old, str) or isinstance(changes[0].new, str):
        return key, known
    change = changes[0]
    return key, evolve(known, name=change.name, old=float(change.old), new=float(change.new))


class Memory(Grouped[Try]):
    """Reads a History; what was made of experiments is remembered from call to call."""

    def __init__(self) -> None:
        super().__init__(_try)

    def begin_again(self) -> None:
        """Forget all cards."""
        super().begin_again()
        self._cards: dict[str, Card] = {}

    def changed(
        self, number: int, old: tuple[str, Try] | None, new: tuple[str, Try] | None
    ) -> None:
        """Take in a try, and forget the card that it belongs on."""
        super().changed(number, old, new)
        for key, _ in filter(None, (old, new)):
            self._cards.pop(key, None)

    def cards(self, history: History) -> tuple[Card, ...]:
        """Return a card for each direction, the one with the newest try last."""
        self.of(history)
        error = luck(history)
        newest = sorted((next(reversed(tries)), key) for key, tries in self.groups.items() if tries)
        return tuple(self._card(key, history, error) for _, key in newest)

    def _card(self, key: str, history: History, error: float) -> Card:
        newest = next(reversed(self.groups[key]))
        direction = history.experiments[newest].idea.direction
        known = self._cards.get(key)
        if known is None or known.dead is not history.dead(direction):
            known = _card(direction, [*self.groups[key].values()], error, history)
        if known.error != error:
            known = evolve(known, error=error)
        self._cards[key] = known
        return known


def _after_baseline(history: History) -> tuple[Experiment, ...]:
    done = history.decided
    return done[bisect_right(done, history.baseline_number, key=attrgetter("number")) :]


def _card(newest: str, tries: Sequence[Try], error: float, history: History) -> Card:
    scored = [item for item in tries if item.gain is not None]
    best = max(scored, key=lambda item: item.gain or 0.0, default=None)
    told = history.experiments[(best or tries[-1]).number].analysis
    return Card(
        direction=newest,
        tries=tuple(tries),
        kept=tuple(item for item in tries if item.verdict is Verdict.KEEP),
        best=best,
        error=error,
        bracket=bracket(tries),
        why=one_line(told.why, 160) if told else "",
        dead=history.dead(newest),
    )


def bracket(tries: Sequence[Try]) -> str:
    """Say between which tried values the best one lies; empty where one value was not moved alone.

    The values of a direction are compared along its own path: a kept one is better than the one it
    replaced, a discarded one worse than the one that stayed, or better by no more than luck.
    """
    single = [item for item in tries if item.name and item.gain is not None]
    names = {item.name for item in single}
    if len(names) != 1:
        return ""
    kept = [item for item in single if item.verdict is Verdict.KEEP]
    best = kept[-1].new if kept else single[-1].old
    assert best is not None
    values = {item.new for item in single} | {item.old for item in single}
    others = {value for value in values if value is not None and value != best}
    below = max((value for value in others if value < best), default=None)
    above = min((value for value in others if value > best), default=None)
    told = f"best {names.pop()} = {best:g}"
    if below is not None and above is not None:
        return f"{told}, bracketed: {_at(below, single)} and {_at(above, single)}"
    if below is None and above is None:
        return told
    worse, side = (above, "below") if below is None else (below, "above")
    assert worse is not None
    return f"{told}, {_at(worse, single)}, nothing tried {side}"


def _at(value: float, tries: Sequence[Try]) -> str:
    """Say how a value that did not stay compared, so that a likely gain is not taken for a loss."""
    there = next((item for item in reversed(tries) if item.new == value), None)
    seemed = there is not None and there.verdict is Verdict.DISCARD and (there.gain or 0.0) > 0
    return f"{'not proven better' if seemed else 'worse'} at {value:g}"


def better_by(gain: float | None, metric: str = "", digits: int = 6) -> str:
    """Return a gain in words: better by, worse by, no change, or not measured."""
    if gain is None:
        return "not measured"
    if round(gain, digits) == 0:
        return "no change"
    word = "better" if gain > 0 else "worse"
    return f"{word} by {abs(gain):.{digits}f} {metric}".rstrip()


SEEDLESS = (
    "two seeds gave the very same score, so luck cannot be told from gain: "
    "let the script read SEED or take {seed} from command, or set metric.sd"
)


def noise_in_words(history: History) -> str:
    """Say how large the noise is and how that is known; where it is not, why and what helps."""
    noise, first = history.noise, history.baseline
    if noise.sd > 0:
        told = noise.source.removeprefix("noise ")
        return told if told != noise.source else f"{noise.sd:.3g}, as {told} says"
    if imported_from(history):
        return (
            "unknown to the history; autoresearch replay --set metric.sd=0.001 judges it with one"
        )
    if first is None or history.score(first) is None:
        return "unknown until the baseline has a score"
    if len(history.scores(first)) > 1:
        return f"unknown: {SEEDLESS}"
    return (
        "unknown: the baseline ran once, so luck cannot be told from gain: set metric.sd, or let "
        "noise.runs and noise.budget_seconds have it repeated"
    )


def luck(history: History) -> float:
    """Return the gain that luck alone reaches once in 40 single runs; 0 while noise is unknown."""
    return _TWO_SIDED * float(history.noise.sd) * 2**0.5


def effect(card: Card, metric: str) -> str:
    """Return the largest gain of a direction with its 95 % interval."""
    if card.best is None or card.best.gain is None:
        return "no score"
    told = better_by(card.best.gain, metric, 4)
    interval = f" ±{card.error:.4f}" if card.error > 0 and told != "no change" else ""
    return f"{told}{interval} at its best (experiment {card.best.number})"


def card_line(card: Card, metric: str) -> str:
    """Return a card as one line."""
    tries = "1 try" if len(card.tries) == 1 else f"{len(card.tries)} tries"
    parts = [f"{tries}, {len(card.kept)} kept", effect(card, metric), card.bracket]
    parts.append("dead end" if card.dead else "")
    return f"{one_line(card.direction, 60)}: {'; '.join(part for part in parts if part)}"


def lessons(history: History) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return what was learned with the experiments that say so, the newest last.

    Lessons of one direction that differ in numbers alone are one: the newest words stand for all.
    """
    merged: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
    for item in history.lessons:
        key = (family(item.direction), _NUMBERS.sub("#", item.text.partition(";")[0]).lower())
        numbers = merged.pop(key, ("", ()))[1]
        merged[key] = (item.text, (*numbers, item.experiment))
    return tuple(merged.values())


def digests(history: History) -> tuple[str, ...]:
    """Return a line for each ten experiments: what was gained, by what, and what was given up.

    An author's remarks on them stand behind that. What lies more than two hundred experiments back
    has a line for each hundred.
    """
    done, keeps = _after_baseline(history), history.kept
    whole = len(done) - len(done) % DIGEST_EVERY
    ends = history.dead_ends.values()
    dead = sorted((max(event.experiments, default=-1), _short(event.direction)) for event in ends)
    best = history.score(history.baseline) if history.baseline else None
    lines, start = [], 0
    while start < whole:
        size = DIGEST_EVERY * (10 if whole - start > 200 else 1)
        before, items = best, done[start : start + size]
        first, last = items[0].number, items[-1].number
        kept = _within(first, last, keeps, attrgetter("number"))
        for score in map(history.score, kept):
            if score is not None and (best is None or history.better(score, best)):
                best = score
        moved = None if before is None or best is None else history.gain(best, before)
        given_up = sorted(name for _, name in _within(first, last, dead, itemgetter(0)))
        # Of what lies behind nearly all is the very same as before.
        key = (history.campaign, first, size)
        made_of = (items, kept, moved, given_up, history.metric)
        known = _DIGESTS.get(key)
        if known is None or known[0] != made_of:
            if len(_DIGESTS) > _REMEMBERED:
                _DIGESTS.clear()
            _DIGESTS[key] = known = (made_of, _digest(items, kept, moved, given_up, history))
        lines.append("; ".join((known[1], *_remarks(first, last, history))))
        start += size
    return tuple(lines)


def newest_ten(history: History) -> Sequence[Experiment]:
    """Return the ten experiments that were just completed; none unless the tenth is the newest."""
    done = _after_baseline(history)
    return done[-DIGEST_EVERY:] if done and len(done) % DIGEST_EVERY == 0 else ()


_DIGESTS: dict[Hashable, tuple[object, str]] = {}
_REMEMBERED = 2_000  # those of a campaign of ten thousand experiments, and no end of campaigns


def _within(first: int, last: int, found: Sequence[V], by: Callable[[V], int]) -> Sequence[V]:
    """Return the part of a sequence in order whose numbers are from ``first`` to ``last``."""
    return found[bisect_left(found, first, key=by) : bisect_right(found, last, key=by)]


def _remarks(first: int, last: int, history: History) -> list[str]:
    written = history.digests.get(last)
    if written is None or written.first != first:
        return []
    return [one_line(remark, 240) for remark in written.remarks[:3]]


def _digest(
    items: Sequence[Experiment],
    kept: Sequence[Experiment],
    moved: float | None,
    given_up: Sequence[str],
    history: History,
) -> str:
    tried = Counter(_short(item.idea.direction) for item in items)
    names = sorted(tried, key=lambda name: (-tried[name], name))[:4]
    parts = [
        f"{len(kept)} of {len(items)} kept",
        f"best {better_by(moved, history.metric, 4)}",
        "tried most: " + ", ".join(f"{name} ({tried[name]})" for name in names),
    ]
    if kept:
        best = max(kept, key=lambda item: gain_of(item, history) or 0.0)
        parts.append(f"largest step: {one_line(best.idea.description, 80)} ({best.number})")
    if given_up:
        parts.append(f"given up: {', '.join(given_up[:4])}")
    return f"experiments {items[0].number} to {items[-1].number}: {'; '.join(parts)}"


@lru_cache(maxsize=4096)
def _short(direction: str) -> str:
    return one_line(direction, 40)


def shrinkage(history: History, author: str) -> tuple[float, int]:
    """Return the share (0 to 1) of a predicted gain that an author's ideas really brought.

    It is the median over its newest scored predictions, and their number: 1 while there are few.
    """
    shares = []
    for item in reversed(history.experiments):
        expected, gain = item.idea.expected_gain, gain_of(item, history)
        if item.idea.author.partition("/")[0] != author or not expected or expected <= 0:
            continue
        if gain is None:
            continue
        shares.append(min(1.0, max(0.0, gain / expected)))
        if len(shares) == _CALIBRATED_OVER:
            break
    if len(shares) < _FEWEST_PREDICTIONS:
        return 1.0, len(shares)
    # Half the weight of the newest ones stays with the author, so that a bold step is not silenced.
    return 0.5 + 0.5 * median(shares), len(shares)


def outcomes(history: History) -> str:
    """Return how often predictions came true, over the newest of them."""
    told = [item.prediction for item in history.experiments if item.prediction][-_CALIBRATED_OVER:]
    if not told:
        return "no prediction was scored yet"
    names = (("hit", "came true"), ("undershoot", "were too bold"), ("overshoot", "too timid"))
    parts = [f"{told.count(name)} {word}" for name, word in names]
    return f"of the newest {len(told)} predictions {', '.join(parts)}"


_Part = tuple[str, Sequence[str], bool]
_MARK = 36  # characters in which a title says how many lines are left out


def fitted(parts: Iterable[_Part], budget: int) -> str:
    """Return titled lists within ``budget`` characters; (title, lines newest last, must stay).

    Where what must stay is more than two thirds of that, the lines of its longest list are
    shortened evenly; of the other lists the oldest lines of the longest one go first.
    """
    lists = [(title, list(lines), stays) for title, lines, stays in parts]
    budget -= sum(len(title) + _MARK for title, _, _ in lists)
    staying = [lines for _, lines, stays in lists if stays and lines]
    excess = sum(map(_size, staying)) - budget * 2 // 3
    if excess > 0 and staying:
        longest = max(staying, key=_size)
        each = max(24, (_size(longest) - excess) // len(longest) - 3)
        longest[:] = [one_line(line, each) for line in longest]
    cut: Counter[str] = Counter()
    left = budget - sum(_size(lines) for _, lines, _ in lists)
    while left < 0 and any(lines and not stays for _, lines, stays in lists):
        title, lines, _ = max(
            (part for part in lists if not part[2]), key=lambda part: _size(part[1])
        )
        oldest = lines[: max(1, len(lines) // 8)]
        del lines[: len(oldest)]
        left += _size(oldest)
        cut[title] += len(oldest)
    told = []
    for title, lines, _ in lists:
        more = f" ({cut[title]} older ones are left out)" if cut[title] else ""
        told.append(f"{title}{more}:" if lines else f"{title}: none{more}")
        told += [f"- {line}" for line in lines]
    return "\n".join(told)


STEERING = "what people want of the research now; follow it"


def _size(lines: Iterable[str]) -> int:
    return sum(len(line) + 3 for line in lines)


def review(history: History, budget: int) -> str:
    """Return the whole memory within ``budget`` characters, in the order in which it is used.

    Dead ends and digests are never left out; of the rest the oldest lines go first.
    """
    cards = Memory().cards(history)
    metric, edge = history.metric, luck(history)
    best = history.best
    state = [f"{metric}, {'lower' if history.lower_is_better else 'higher'} is better"]
    if best is not None and history.best_metric is not None:
        state.append(f"best: experiment {best.number} with {history.best_metric:.6g}")
        size = best.metrics.get(history.size)
        state.append(f"its artifact: {size / 1e6:.3f} MB" if size is not None else "")
    proves = f": one run proves gains over {edge:.2g}" if edge else ""
    state.append(f"noise: {noise_in_words(history)}{proves}")
    state.append(_spent(history))
    state.append(outcomes(history))
    parts: list[tuple[str, Sequence[str], bool]] = [
        ("state", [line for line in state if line], True),
        ("dead ends (do not revisit)", list(_dead(cards, history)), True),
        ("looking back", digests(history), True),
        ("directions", [card_line(card, metric) for card in cards if card.dead is None], False),
        ("lessons", [_lesson(*item) for item in lessons(history)], False),
        ("ideas queue, best last", list(_queue(history)), False),
        (STEERING, [one_line(item.text, 500) for item in history.steered], True),
        ("notes by people", [one_line(note.text, 300) for note in history.notes[-8:]], False),
        ("went back", list(_backtracks(history)), False),
        ("experiments", [_row(item, history) for item in history.decided], False),
    ]
    return fitted(parts, budget)


def _spent(history: History) -> str:
    spent = history.spent
    money = f", {spent.usd:.2f} USD" if spent.usd else ""
    return f"spent: {spent.seconds / 3600:.2f} hours of runs{money}"


def dead_ends(
    cards: Sequence[Card], history: History
) -> Iterable[tuple[events.DirectionDeclaredDead, str]]:
    """Yield each fact that ended a direction which is dead now, by name, and its reason.

    The reason ends with where the best value lies, if it is one.
    """
    brackets = {id(card.dead): card.bracket for card in cards if card.dead is not None}
    for name, event in sorted(history.dead_ends.items()):
        if history.dead(name) is event:
            bracket = brackets.get(id(event))
            yield event, f"{event.reason}; {bracket}" if bracket else event.reason


def _dead(cards: Sequence[Card], history: History) -> Iterable[str]:
    for event, reason in dead_ends(cards, history):
        yield f"{one_line(event.direction, 80)}: {one_line(reason, 240)}"


def _lesson(text: str, numbers: tuple[int, ...]) -> str:
    shown = ", ".join(str(number) for number in numbers[-6:])
    return f"{one_line(text, 240)} ({shown})"


def _queue(history: History) -> Iterable[str]:
    for idea in reversed(history.ranked_queue[:10]):
        gain = "" if idea.expected_gain is None else f" ({better_by(idea.expected_gain, '', 4)})"
        yield f"{one_line(idea.direction, 60)}: {one_line(idea.description, 160)}{gain}"


def _backtracks(history: History) -> Iterable[str]:
    for event in history.backtracks:
        yield f"to experiment {event.to_experiment}: {one_line(event.reason, 200)}"


def _row(item: Experiment, history: History) -> str:
    score = history.score(item)
    shown = "no score" if score is None else f"{score:.6g}"
    gain = gain_of(item, history) or 0.0
    told = better_by(gain, "", 4) if score is not None and item.number else ""
    what = f"{one_line(item.idea.direction, 40)}: {one_line(item.idea.description, 100)}"
    return f"{item.number} {item.verdict} {shown}{f' ({told})' if told else ''} {what}"
