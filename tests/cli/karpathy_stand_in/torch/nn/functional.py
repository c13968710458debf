"""Functions that are not called."""
