"""Built-in judges: what a run's numbers are, what they mean, and what to do about them."""
