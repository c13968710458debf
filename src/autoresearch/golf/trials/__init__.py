"""Asking a script's own evaluation: random tokens, flipped targets, a process of our own."""
