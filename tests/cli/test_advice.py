"""What `init` recommends."""

from __future__ import annotations

import pytest

from autoresearch.cli.running import advised
from autoresearch.config import Config, MetricConfig, NoiseConfig

KNOWN = MetricConfig(sd=0.1)


@pytest.mark.parametrize(
    ("config", "active", "said"),
    [
        (Config(preset="golf", metric=KNOWN), ["greedy"], True),
        (Config(preset="golf", metric=KNOWN), ["greedy", "evidence"], False),
        (Config(preset="golf", metric=KNOWN, active=("no:evidence",)), ["greedy"], False),
        (Config(noise=NoiseConfig(runs=1)), ["greedy"], False),
    ],
)
def test_evidence_is_recommended_where_it_could_decide(
    config: Config, active: list[str], said: bool
) -> None:
    """Where the noise is known or can be measured, and nobody said what they want."""
    assert bool(advised(config, active)) == said
