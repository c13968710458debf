"""What a campaign's log says, by type of fact."""

from __future__ import annotations

from typing import Any

from autoresearch import Campaign, events


def facts(campaign: Campaign, *kinds: type[events.Event]) -> list[Any]:
    """Return the events of some types in their order."""
    return [item.event for item in campaign.log.read() if isinstance(item.event, kinds)]


def example(item: Any) -> Any:
    """Return a value of a field's type, None where that is allowed."""
    kind = str(item.type).replace("typing.", "")
    if "None" in kind:
        return None
    for word, value in (("tuple", ()), ("Mapping", {}), ("str", "x"), ("bool", True)):
        if word in kind:
            return value
    return 1.5 if "float" in kind else 1
