"""A training script of two numbers that prints its score at once; 7 and 0.3 would be the best."""

from __future__ import annotations

SCRIPT = """RATE = 0.5
WIDTH = 4
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""
