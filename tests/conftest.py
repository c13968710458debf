"""What holds for every test: the speed of the machine decides nothing; long files begin first."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("any_machine")

# A file is one process's, so a long one that begins late is waited for by all the others.
LONG_FILES = (
    "golf/test_canary.py", "launchers/test_ssh.py", "cycle/test_loop.py",
    "ideas/test_misbehaviour.py", "driving/test_steps.py", "soak/test_many_in_flight.py",
    "soak/test_soak.py", "cycle/test_minds.py", "cycle/test_evaluation.py", "trainer/test_run.py",
    "data/test_build_local_dataset.py", "data/test_cached_challenge_fineweb.py",
    "plugins/test_tutorial.py", "golf/cheats/", "golf/honest/", "launchers/test_held_runs.py",
    "cycle/", "launchers/", "driving/", "cli/", "golf/edits/", "projections/test_views_agree.py",
    "log/test_kills.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order inside of a file stays."""

    def rank(item: pytest.Item) -> int:
        _, _, place = item.nodeid.partition("tests/")
        return next((i for i, file in enumerate(LONG_FILES) if place.startswith(file)), 99)

    items.sort(key=rank)
