"""What a hyperparameter's name says about how to move it: how far, which way first, and why.

On a scale equal distances are equally bold steps: a function of a value gives its place on one, and
a step function gives other values, nearest first, one to each side in turn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from attrs import frozen

from autoresearch.ideas import Hyperparameter, short
from autoresearch.model import Value

Number = int | float


def logarithm(value: float) -> float:
    """Equal factors are equal distances; 0 and below lie far away."""
    return math.log(value) if value > 0 else -40.0


def distance_to_one(value: float) -> float:
    """From 0.9 to 0.95 is as far as from 0.98 to 0.99."""
    return -math.log(1 - value) if value < 1 else 40.0


def same(value: float) -> float:
    """Equal differences are equal distances."""
    return value


def times(*factors: float) -> Callable[[Number], list[Number]]:
    """Multiply and divide by each factor."""

    def steps(value: Number) -> list[Number]:
        moved: list[Number] = []
        for factor in factors:
            moved += [value * factor, value / factor]
        return moved

    return steps


def plus(*amounts: int) -> Callable[[Number], list[Number]]:
    """Add and subtract each amount."""

    def steps(value: Number) -> list[Number]:
        return [value + sign * amount for amount in amounts for sign in (1, -1)]

    return steps


def towards_one(value: Number) -> list[Number]:
    """Divide and multiply what is missing to 1."""
    moved: list[Number] = []
    for factor in (2.0, 5.0, 1.4, 3.0):
        moved += [1 - (1 - value) / factor, 1 - (1 - value) * factor]
    return [item for item in moved if 0 < item < 1]


def from_zero(*starts: float) -> Callable[[Number], list[Number]]:
    """Start values where a number is 0, else halves, doubles, and 0."""

    def steps(value: Number) -> list[Number]:
        return [*starts] if value == 0 else [value * 2, value / 2, value * 4, value / 4, 0.0]

    return steps


def by_grain(value: Number) -> list[Number]:
    """Steps of about an eighth that keep the number's largest power of two, up to 64."""
    grain = max(power for power in (1, 2, 4, 8, 16, 32, 64) if value % power == 0)
    stride = max(grain, round(value / 8 / grain) * grain)
    return [value + sign * many * stride for many in (1, 2, 3, 4) for sign in (1, -1)]


def fraction(value: Number) -> list[Number]:
    """Factors that stay between 0 and 1."""
    return [item for item in times(1.25, 1.6, 2.0)(value) if 0 < item < 1]


def flipped(value: Number) -> list[Number]:
    """The other state of a switch."""
    return [1 - value]


@frozen
class Family:
    """A kind of hyperparameter; ``weight`` ranks it before anything is known about a script.

    ``place`` maps a value to a scale on which equal distances are equally bold; ``steps`` gives
    the values worth trying, nearest first. ``lean`` is the side tried first, +1 up or -1 down.
    ``up`` and ``down`` say why either may help.
    """

    name: str
    weight: float
    lean: int
    place: Callable[[float], float]
    steps: Callable[[Number], list[Number]]
    up: str
    down: str


# A table, read by rows: name, weight, lean, place, steps.
# fmt: off
LEARNING_RATE = Family(
    "learning rate", 1.0, -1, logarithm, times(1.5, 2.0, 3.0, 1.2, 4.5),
    up="larger steps get further in a short run as long as they stay stable",
    down="smaller steps settle lower when the schedule is short, and round off less",
)
MOMENTUM = Family(
    "momentum", 0.7, 1, distance_to_one, towards_one,
    up="a longer memory averages more gradient noise away",
    down="a shorter memory follows the loss more closely when there are few steps",
)
DEPTH = Family(
    "depth", 0.75, 1, same, plus(1, 2, 3),
    up="another layer composes more; each step becomes slower",
    down="fewer layers make each step faster and the gradient path shorter",
)
WIDTH = Family(
    "width", 0.55, 1, logarithm, by_grain,
    up="more width stores more; the artifact and each step grow",
    down="less width buys speed and bytes that something else can use",
)
HEADS = Family(
    "heads", 0.3, -1, logarithm, times(2.0, 4.0),
    up="more heads look at more places at once",
    down="fewer heads have more dimensions each, or cost fewer parameters",
)
EXPANSION = Family(
    "expansion", 0.95, 1, logarithm, plus(1, 2, 3),
    up="the feed-forward part holds most of what a small model knows",
    down="a thinner feed-forward part leaves bytes and time for layers",
)
SCHEDULE = Family(
    "schedule", 0.65, 1, logarithm, times(1.5, 2.5, 4.0, 1.2),
    up="a longer phase makes the transition gentler",
    down="a shorter phase leaves more steps at the full setting",
)
FRACTION = Family(
    "fraction", 0.4, 1, logarithm, fraction,
    up="a larger share may not have been tried",
    down="a smaller share may not have been tried",
)
DECAY = Family(
    "weight decay", 0.45, 1, same, from_zero(0.01, 0.04, 0.1, 0.003),
    up="smaller weights generalise and compress better",
    down="less decay lets a short run use its capacity",
)
DROPOUT = Family(
    "dropout", 0.15, -1, same, from_zero(0.05, 0.1, 0.02),
    up="dropout holds back memorising",
    down="a model that sees every token once has nothing to memorise",
)
CLIPPING = Family(
    "clipping", 0.4, 1, same, from_zero(1.0, 0.3, 3.0),
    up="a looser bound lets rare large gradients through",
    down="a bound on the gradient's norm keeps rare batches from throwing the weights",
)
GAIN = Family(
    "gain", 0.5, 1, logarithm, times(1.5, 2.5, 1.2, 4.0),
    up="sharper attention or larger outputs from the start",
    down="softer attention or smaller outputs from the start",
)
INITIAL = Family(
    "initial spread", 0.35, 1, logarithm, times(2.0, 4.0, 1.4, 8.0),
    up="a wider start breaks symmetry sooner",
    down="a narrower start keeps the first updates in control",
)
BASE = Family(
    "position base", 0.2, 1, logarithm, times(3.0, 10.0, 1.7),
    up="slower rotations tell far positions apart",
    down="faster rotations fit a short context better",
)
EPSILON = Family(
    "epsilon", 0.1, 1, logarithm, times(10.0, 100.0),
    up="a larger floor damps tiny second moments",
    down="a smaller floor damps less",
)
COUNT = Family(
    "count", 0.2, 1, same, plus(1, 2, 3),
    up="more repetitions are more exact and cost time",
    down="fewer repetitions are faster and less exact",
)
BATCH = Family(
    "batch", 0.35, -1, logarithm, times(2.0, 4.0),
    up="a larger batch has quieter gradients",
    down="a smaller batch takes more steps over the same data",
)
OTHER = Family(
    "other", 0.12, 1, logarithm, times(1.5, 2.0, 3.0),
    up="nothing is known about a larger value",
    down="nothing is known about a smaller value",
)
SWITCH = Family(
    "switch", 0.2, 1, same, flipped,
    up="switching it on was never measured here",
    down="switching it off was never measured here",
)
# fmt: on

# The first pattern that is found in the lower-case name decides, so special cases stand first.
_BY_NAME: tuple[tuple[str, Family], ...] = (
    (r"weight_decay|(^|_)wd(_|$)", DECAY),
    (r"dropout", DROPOUT),
    (r"clip", CLIPPING),
    (r"momentum|beta|ema(_|$)", MOMENTUM),
    (r"frac|ratio", FRACTION),
    (r"warm|cool|(^|_)decay_(iters|steps)|_iters$", SCHEDULE),
    (r"(^|_)(lr|learning_rate)(_|$)", LEARNING_RATE),
    (r"layer|depth|blocks?$", DEPTH),
    (r"head", HEADS),
    (r"mult|expan", EXPANSION),
    (r"dim|width|hidden|embd|channels|d_model|units", WIDTH),
    (r"gain|softcap|temperature|scale", GAIN),
    (r"std|init", INITIAL),
    (r"base|theta", BASE),
    (r"(^|_)eps", EPSILON),
    (r"batch", BATCH),
    (r"steps|repeat|order", COUNT),
)


@lru_cache(maxsize=1024)
def family(parameter: Hyperparameter) -> Family:
    """Return the family of a hyperparameter, by its type and name."""
    if parameter.type == "bool":
        return SWITCH
    # The last part of a dotted name says what it is; the rest may help where that says nothing.
    for name in dict.fromkeys((parameter.last, parameter.name.lower().replace(".", "_"))):
        for pattern, found in _BY_NAME:
            if re.search(pattern, name) and _fits(found, parameter):
                return found
    return OTHER


def _fits(found: Family, parameter: Hyperparameter) -> bool:
    value = float(parameter.value)
    if found in (MOMENTUM, FRACTION):
        return 0 < value < 1
    if found in (DEPTH, HEADS, WIDTH, BATCH, COUNT, EXPANSION):
        return parameter.type == "int" and value >= 1
    return value > 0 or found in (DECAY, DROPOUT, CLIPPING)


# Of several rates the one that moves most of the weights matters most.
_MINOR = (("scalar", 0.9), ("embed", 0.85), ("head", 0.7), ("start", 0.6), ("beta1", 0.7))


def importance(parameter: Hyperparameter) -> float:
    """Return a share (0 to 1): how much of the model a hyperparameter of its family governs."""
    name = parameter.name.lower()
    return next((share for word, share in _MINOR if word in name), 1.0)


def idle(parameters: Iterable[Hyperparameter]) -> frozenset[str]:
    """Return the keys of what a switch makes irrelevant, so that moving them measures nothing.

    With tied embeddings there is no separate head to train, and the rates of the untied
    embedding and head are not read; without them those of the tied one are not.
    """
    items = tuple(parameters)
    tied = next((item.value for item in items if item.last.startswith("tie_")), None)
    if tied is None:
        return frozenset()
    unread = {"embed_lr", "head_lr"} if tied else {"tied_embed_lr", "tied_embed_init_std"}
    return frozenset(item.key for item in items if item.last in unread)


@lru_cache(maxsize=1024)
def values(parameter: Hyperparameter) -> tuple[Value, ...]:
    """Return the other values worth trying, nearest first; none for text and for a bare zero."""
    if parameter.type == "str":
        return ()
    current = parameter.value
    if isinstance(current, (bool, str)):
        return (not current,)
    kind = family(parameter)
    if current == 0 and kind not in (DECAY, DROPOUT, CLIPPING):
        return ()
    moved = (_rounded(value, parameter) for value in kind.steps(current))
    allowed = (value for value in moved if value != current and (current < 0 or value >= 0))
    return tuple(dict.fromkeys(allowed))


def _rounded(value: Number, parameter: Hyperparameter) -> Number:
    if parameter.type == "int":
        return max(1, round(value))
    digits = 5 if 0.5 < value < 1 else 3  # close to one the distance to one is what counts
    return float(short(float(f"{value:.{digits}g}")))
