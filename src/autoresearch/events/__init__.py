"""Every fact that can happen in a campaign: one frozen class each, a short stable name, a version.

A type name is never renamed and stored bytes are never rewritten: a changed class gets the next
``version`` and an upcaster in ``UPCASTERS`` that lifts an older payload by one version.
"""

from autoresearch.events.outcomes import *
from autoresearch.events.plans import *
from autoresearch.events.registry import EVENT_TYPES as EVENT_TYPES
from autoresearch.events.registry import UPCASTERS as UPCASTERS
from autoresearch.events.registry import Event as Event
from autoresearch.events.registry import event as event
