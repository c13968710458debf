"""Stands in for the package that fetches kernels."""

from torch import Thing


def get_kernel(_):
    return Thing()
