"""Scales on which equal distances are equally bold steps, and the steps to try on them.

A function of a value gives its place; a step function gives other values, nearest first, one to
each side in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
