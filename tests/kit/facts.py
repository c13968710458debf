"""What a campaign's log says, by type of fact."""

from __future__ import annotations

from typing import Any

from autoresearch import Campaign, events


def facts(campaign: Campaign, *kinds: type[events.Event]) -> list[Any]:
    """Return the events of some types in their order."""
    return [item.event for item in campaign.log.read() if isinstance(item.event, kinds)]
