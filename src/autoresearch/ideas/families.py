"""What a hyperparameter's name says about how to move it: how far, which way first, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from attrs import frozen

from autoresearch.ideas import scales
from autoresearch.ideas.edits import Hyperparameter, short
from autoresearch.ideas.literals import Value
from autoresearch.ideas.scales import Number


@frozen(kw_only=True)
class Family:
    """A kind of hyperparameter; ``weight`` ranks it before anything is known about a script.

    ``place`` maps a value to a scale on which equal distances are equally bold; ``steps`` gives
    the values worth trying, nearest first. ``lean`` is the side tried first, +1 up or -1 down.
    """

    name: str
    weight: float
    lean: int
    up: str
    down: str
    place: Callable[[float], float]
    steps: Callable[[Number], list[Number]]


LEARNING_RATE = Family(
    name="learning rate",
    weight=1.0,
    lean=-1,
    up="larger steps get further in a short run as long as they stay stable",
    down="smaller steps settle lower when the schedule is short, and round off less",
    place=scales.logarithm,
    steps=scales.times(1.5, 2.0, 3.0, 1.2, 4.5),
)
MOMENTUM = Family(
    name="momentum",
    weight=0.7,
    lean=1,
    up="a longer memory averages more gradient noise away",
    down="a shorter memory follows the loss more closely when there are few steps",
    place=scales.distance_to_one,
    steps=scales.towards_one,
)
DEPTH = Family(
    name="depth",
    weight=0.75,
    lean=1,
    up="another layer composes more; each step becomes slower",
    down="fewer layers make each step faster and the gradient path shorter",
    place=scales.same,
    steps=scales.plus(1, 2, 3),
)
WIDTH = Family(
    name="width",
    weight=0.55,
    lean=1,
    up="more width stores more; the artifact and each step grow",
    down="less width buys speed and bytes that something else can use",
    place=scales.logarithm,
    steps=scales.by_grain,
)
HEADS = Family(
    name="heads",
    weight=0.3,
    lean=-1,
    up="more heads look at more places at once",
    down="fewer heads have more dimensions each, or cost fewer parameters",
    place=scales.logarithm,
    steps=scales.times(2.0, 4.0),
)
EXPANSION = Family(
    name="expansion",
    weight=0.95,
    lean=1,
    up="the feed-forward part holds most of what a small model knows",
    down="a thinner feed-forward part leaves bytes and time for layers",
    place=scales.logarithm,
    steps=scales.plus(1, 2, 3),
)
SCHEDULE = Family(
    name="schedule",
    weight=0.65,
    lean=1,
    up="a longer phase makes the transition gentler",
    down="a shorter phase leaves more steps at the full setting",
    place=scales.logarithm,
    steps=scales.times(1.5, 2.5, 4.0, 1.2),
)
FRACTION = Family(
    name="fraction",
    weight=0.4,
    lean=1,
    up="a larger share may not have been tried",
    down="a smaller share may not have been tried",
    place=scales.logarithm,
    steps=scales.fraction,
)
DECAY = Family(
    name="weight decay",
    weight=0.45,
    lean=1,
    up="smaller weights generalise and compress better",
    down="less decay lets a short run use its capacity",
    place=scales.same,
    steps=scales.from_zero(0.01, 0.04, 0.1, 0.003),
)
DROPOUT = Family(
    name="dropout",
    weight=0.15,
    lean=-1,
    up="dropout holds back memorising",
    down="a model that sees every token once has nothing to memorise",
    place=scales.same,
    steps=scales.from_zero(0.05, 0.1, 0.02),
)
CLIPPING = Family(
    name="clipping",
    weight=0.4,
    lean=1,
    up="a looser bound lets rare large gradients through",
    down="a bound on the gradient's norm keeps rare batches from throwing the weights",
    place=scales.same,
    steps=scales.from_zero(1.0, 0.3, 3.0),
)
GAIN = Family(
    name="gain",
    weight=0.5,
    lean=1,
    up="sharper attention or larger outputs from the start",
    down="softer attention or smaller outputs from the start",
    place=scales.logarithm,
    steps=scales.times(1.5, 2.5, 1.2, 4.0),
)
INITIAL = Family(
    name="initial spread",
    weight=0.35,
    lean=1,
    up="a wider start breaks symmetry sooner",
    down="a narrower start keeps the first updates in control",
    place=scales.logarithm,
    steps=scales.times(2.0, 4.0, 1.4, 8.0),
)
BASE = Family(
    name="position base",
    weight=0.2,
    lean=1,
    up="slower rotations tell far positions apart",
    down="faster rotations fit a short context better",
    place=scales.logarithm,
    steps=scales.times(3.0, 10.0, 1.7),
)
EPSILON = Family(
    name="epsilon",
    weight=0.1,
    lean=1,
    up="a larger floor damps tiny second moments",
    down="a smaller floor damps less",
    place=scales.logarithm,
    steps=scales.times(10.0, 100.0),
)
COUNT = Family(
    name="count",
    weight=0.2,
    lean=1,
    up="more repetitions are more exact and cost time",
    down="fewer repetitions are faster and less exact",
    place=scales.same,
    steps=scales.plus(1, 2, 3),
)
BATCH = Family(
    name="batch",
    weight=0.35,
    lean=-1,
    up="a larger batch has quieter gradients",
    down="a smaller batch takes more steps over the same data",
    place=scales.logarithm,
    steps=scales.times(2.0, 4.0),
)
OTHER = Family(
    name="other",
    weight=0.12,
    lean=1,
    up="nothing is known about a larger value",
    down="nothing is known about a smaller value",
    place=scales.logarithm,
    steps=scales.times(1.5, 2.0, 3.0),
)
SWITCH = Family(
    name="switch",
    weight=0.2,
    lean=1,
    up="switching it on was never measured here",
    down="switching it off was never measured here",
    place=scales.same,
    steps=lambda value: [1 - value],
)

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
    name = parameter.name.lower()
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
    """Return the names that a switch makes irrelevant, so that moving them measures nothing.

    With tied embeddings there is no separate head to train, and the rates of the untied
    embedding and head are not read; without them those of the tied one are not.
    """
    items = tuple(parameters)
    tied = next((item.value for item in items if item.name.lower().startswith("tie_")), None)
    if tied is None:
        return frozenset()
    unread = {"embed_lr", "head_lr"} if tied else {"tied_embed_lr", "tied_embed_init_std"}
    return frozenset(item.name for item in items if item.name.lower() in unread)


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
