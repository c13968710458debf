"""Fits a sine with a polynomial by gradient descent, and prints its error on points it never saw.

Replace it with a script of your own: what autoresearch needs is that it prints its score.
"""

import math
import os
import random

DEGREE = 3
LEARNING_RATE = 0.05
MOMENTUM = 0.5
STEPS = 60

random.seed(int(os.environ.get("SEED", "1337")))


def features(x: float) -> list[float]:
    return [x**power for power in range(DEGREE + 1)]


def error(points: list[float]) -> float:
    guesses = (sum(w * f for w, f in zip(weights, features(x))) for x in points)
    return sum((guess - math.sin(3 * x)) ** 2 for guess, x in zip(guesses, points)) / len(points)


weights = [random.gauss(0, 0.01) for _ in range(DEGREE + 1)]
speed = [0.0] * len(weights)
train = [i / 20 - 1 for i in range(41)]
held_out = [i / 20 - 0.975 for i in range(40)]

for step in range(STEPS):
    slope = [0.0] * len(weights)
    for x in train:
        seen = features(x)
        miss = sum(w * f for w, f in zip(weights, seen)) - math.sin(3 * x)
        slope = [s + 2 * miss * f / len(train) for s, f in zip(slope, seen)]
    speed = [MOMENTUM * v - LEARNING_RATE * s for v, s in zip(speed, slope)]
    weights = [w + v for w, v in zip(weights, speed)]
    if step % 10 == 0:
        print(f"step: {step} val_loss: {error(held_out):.6f}")

print(f"val_loss: {error(held_out):.6f}")
