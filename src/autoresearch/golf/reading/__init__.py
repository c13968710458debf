"""Reading logs: lines, candidates, stages, sizes, and which of them is the score."""
