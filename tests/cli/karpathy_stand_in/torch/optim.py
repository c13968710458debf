"""An optimizer that has nothing to do."""


class Optimizer:
    """Holds its groups."""

    def __init__(self, groups, defaults=None):
        self.param_groups = [{**(defaults or {}), **group} for group in groups]
