"""Built-in backtracking rules, one for each of the protocol's three signals."""
