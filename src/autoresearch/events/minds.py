"""Facts about minds: what a model or an agent was asked and answered, refused and missed."""

from __future__ import annotations

from autoresearch.events.registry import Event, doc, event

_AUTHOR = "plugin that asks, with the model after a slash where it has several"
_TEXT = "sha256 of each message, oldest first; the texts are in sources"


@event("proposal_refused")
class ProposalRefused(Event):
    """An idea was refused before it was run; its author is told why."""

    author: str = doc("whose idea it was")
    stage: str = doc(
        "what refused it: answer, edit, duplicate, objection, queue, patch, audit or fix"
    )
    reason: str = doc("why, fit to be sent back to the author")
    idea: str = doc("id of the idea, where it had one already", default="")
    experiment: int | None = doc("experiment number it would have had", default=None)


@event("mind_asked")
class MindAsked(Event):
    """A question was sent to a mind, or is just about to be."""

    author: str = doc(_AUTHOR)
    model: str = doc("model or command that is asked")
    prompt: tuple[str, ...] = doc(_TEXT, default=())
    purpose: str = doc("hook that asks", default="")
    experiment: int | None = doc("experiment it is asked for", default=None)


@event("mind_answered")
class MindAnswered(Event):
    """A mind answered the newest question to it, usefully or not."""

    author: str = doc(_AUTHOR)
    model: str = doc("model that answered, as its server names it")
    answer: str = doc("sha256 of the answer; the text is in sources", default="")
    tokens_in: int = doc("tokens read", unit="tokens", default=0)
    tokens_cached: int = doc("tokens read from the provider's cache", unit="tokens", default=0)
    tokens_out: int = doc("tokens written, hidden thoughts included", unit="tokens", default=0)
    usd: float | None = doc("price; null when it is not known", unit="USD", default=None)
    request: str = doc("id that the provider gave the request", default="")
    seconds: float = doc("how long it took", unit="s", default=0.0)
    experiment: int | None = doc("experiment it was asked for", default=None)


@event("mind_suspended")
class MindSuspended(Event):
    """A mind gave no answer and is not asked for a while, or not until a person acts."""

    author: str = doc("plugin that is not asked")
    reason: str = doc("what went wrong, in one line")
    permanent: bool = doc("true: until the loop is started again or a person resumes it")
    seconds: float = doc("how long it rests, unless permanent", unit="s", default=0.0)
    times: int = doc("how often in a row it gave no answer", default=1)


@event("mind_resumed")
class MindResumed(Event):
    """A mind that was suspended answered again."""

    author: str = doc("plugin that is asked again")
