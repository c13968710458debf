"""Facts about the campaign, its memory, its minds, their ideas and the changes made for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from autoresearch.events.registry import (
    Event,
    Payload,
    doc,
    event,
    experiment_number,
    grown,
    renamed,
)

_SOURCES = "file to the sha256 of its text; the texts are in sources"
_CHANGES = "values it changes: name, old, new, and file (empty for the script)"

# --- the campaign ---------------------------------------------------------------------------


@event("campaign_started")
class CampaignStarted(Event):
    """A campaign began on a new branch."""

    tag: str = doc("run tag; the branch is autoresearch/<tag>")
    branch: str = doc("branch that holds the kept commits")
    base_commit: str = doc("commit of the user's repository that the campaign starts from")
    script: str = doc("path of the training script in the repository")
    script_digest: str = doc("sha256 of the script as it was")
    metric: str = doc("name of the metric")
    better: str = doc("lower or higher")
    config: Mapping[str, Any] = doc("the whole configuration, so that the log explains itself")
    plugins: Mapping[str, str] = doc("active plugins: name to version and source digest")
    environment: Mapping[str, str] = doc("versions of Python and packages, machine")


@event("campaign_resumed")
class CampaignResumed(Event):
    """A campaign that had stopped or been killed went on."""

    plugins: Mapping[str, str] = doc("active plugins: name to version and source digest")
    accepted_changes: tuple[str, ...] = doc("differences of plugins a person accepted", default=())


@event("campaign_stopped")
class CampaignStopped(Event):
    """A person or a budget stopped the campaign."""

    reason: str = doc("what stopped it")


_BY = "who; empty for the loop itself"


@event("stop_requested")
class StopRequested(Event):
    """A person asked the loop to end; ``campaign_stopped`` or ``campaign_resumed`` answers it."""

    by: str = doc(_BY)
    now: bool = doc("true: the run under way is stopped too; false: it comes to its verdict first")


@event("paused")
class Paused(Event):
    """The loop waits: a person wants it to, or nothing can be done until something changes."""

    reason: str = doc("what it waits for")
    by: str = doc(_BY, default="")


@event("resumed")
class Resumed(Event):
    """The loop goes on after a pause."""

    by: str = doc(_BY, default="")


@event("lease_taken")
class LeaseTaken(Event):
    """Somebody drives the campaign by hand; the loop does not act until the lease ends.

    It ends with the verdict of an experiment, with ``lease_ended``, and when the loop takes over.
    """

    by: str = doc("who drives: an agent, a person")


@event("lease_ended")
class LeaseEnded(Event):
    """The loop may act again, although no experiment came to its verdict."""

    by: str = doc("who ended it")


# --- memory and ideas -----------------------------------------------------------------------


@event("memory_reviewed", version=2, upcasters=[renamed(tip_hash="head_hash")])
class MemoryReviewed(Event):
    """results.tsv and notes.md were read before an experiment."""

    experiment: int = experiment_number()
    read_to: int = doc("log position up to which the memory was read")
    results_digest: str = doc("sha256 of results.tsv as shown")
    notes_digest: str = doc("sha256 of notes.md as shown")
    tip_hash: str = doc("hash of the newest event read", was="head_hash", default="")


@event("idea_queued", version=3, upcasters=[renamed(author="generator"), grown])
class IdeaQueued(Event):
    """An idea was put into the queue, or back into it until a plugin can turn it into code."""

    idea: str = doc("id of the idea: 12 hex digits over what it does")
    direction: str = doc("family of the change")
    description: str = doc("what to change")
    hypothesis: str = doc("what is expected and why")
    author: str = doc("who proposed it", was="generator")
    expected_gain: float | None = doc("expected improvement", unit="metric", default=None)
    patch: str | None = doc("unified diff, where the idea brings one", default=None)
    env: Mapping[str, str] = doc("environment overrides", factory=dict)
    changes: tuple[Mapping[str, Any], ...] = doc(_CHANGES, default=())
    waits_for: str = doc(
        "plugin: for one that turns it into code, until the loop starts again; outage: for the end "
        "of one's failure; empty: for its turn",
        default="",
    )


@event("steering_given")
class SteeringGiven(Event):
    """A person said where the research should go; every author hears it while it stands."""

    text: str = doc("what they want, in their words")
    author: str = doc("who said it")
    experiments: int = doc("experiments that it holds for; 0: until it is withdrawn", default=0)


@event("steering_withdrawn")
class SteeringWithdrawn(Event):
    """A person took back what they had said."""

    number: int = doc("which, counted from 1 in the order of steering_given")
    author: str = doc("who took it back")


_SAID = re.compile(r"([A-Za-z_]\w*) (\S+) -> ([^\s,;]+)")


def _with_changes(payload: Payload) -> Payload:
    """Lift version 1, in which only the description said which values an idea changes."""
    found = []
    for name, *texts in _SAID.findall(str(payload.get("description"))):
        try:
            old, new = map(ast.literal_eval, texts)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(old, (bool, int, float)) and isinstance(new, (bool, int, float)):
            found.append({"name": name, "old": old, "new": new})
    return {**renamed(author="generator")(payload), "changes": found}


@event("idea_proposed", version=2, upcasters=[_with_changes])
class IdeaProposed(Event):
    """An idea generator answered and the idea became an experiment."""

    experiment: int = experiment_number()
    idea: str = doc("id of the idea: 12 hex digits over what it does")
    direction: str = doc("family of the change")
    description: str = doc("what is changed")
    hypothesis: str = doc("what is expected and why")
    author: str = doc("plugin that proposed it", was="generator")
    evidence: tuple[str, ...] = doc("what supports it", default=())
    cites: tuple[int, ...] = doc("earlier experiments it refers to", default=())
    risk: str = doc("what could go wrong", default="")
    kind: str = doc("change, or evaluation when the way of scoring changes", default="change")
    env: Mapping[str, str] = doc("environment overrides", factory=dict)
    predicted: float | None = doc("metric expected", unit="metric", default=None)
    expected_gain: float | None = doc("expected improvement", unit="metric", default=None)
    source_digest: str | None = doc(
        "sha256 of the script that it brings; the text is in sources", default=None
    )
    patch: str | None = doc("unified diff, where the idea brings one", default=None)
    sources: Mapping[str, str] = doc(f"files it brings: {_SOURCES}", factory=dict)
    changes: tuple[Mapping[str, Any], ...] = doc(_CHANGES, default=())


@event("idea_objected", version=2, upcasters=[renamed(author="reviewer")])
class IdeaObjected(Event):
    """A reviewer raised a doubt before money was spent."""

    experiment: int = experiment_number()
    idea: str = doc("id of the idea")
    author: str = doc("plugin that objected", was="reviewer")
    reason: str = doc("why")
    fatal: bool = doc("whether the idea is dropped for it")


@event("idea_dropped")
class IdeaDropped(Event):
    """An idea left the queue or the table without a run."""

    idea: str = doc("id of the idea")
    reason: str = doc("why")
    experiment: int | None = doc("experiment number it would have had", default=None)


@event("reasoning_recorded")
class ReasoningRecorded(Event):
    """The REASONING block of an experiment."""

    experiment: int = experiment_number()
    hypothesis: str = doc("what is expected and why")
    evidence: str = doc("prior results, lessons or theory")
    risk: str = doc("what could go wrong")
    cites: tuple[int, ...] = doc("earlier experiments referred to", default=())
    predicted: float | None = doc("metric expected", unit="metric", default=None)
    read_to: int = doc("position of the memory that was read", default=0)


# --- minds ----------------------------------------------------------------------------------

_AUTHOR = "plugin that asks, with the model after a slash where it has several"
_TEXTS = "sha256 of each message, oldest first; the texts are in sources"


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
    prompt: tuple[str, ...] = doc(_TEXTS, default=())
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


@event("digest_written")
class DigestWritten(Event):
    """An author looked back on ten experiments; what was untrue of the log is left out."""

    first: int = doc("first of the experiments")
    last: int = doc("last of the experiments")
    remarks: tuple[str, ...] = doc("what they show, each with the experiments that show it")
    author: str = doc("plugin that wrote it")


# --- the change -----------------------------------------------------------------------------


@event("change_applied", version=2, upcasters=[grown])
class ChangeApplied(Event):
    """The idea was written into the worktree."""

    experiment: int = experiment_number()
    source_digest: str = doc(
        "sha256 of the script after the change, or of the list of all editable files where there "
        "are several; the text is in sources"
    )
    parent_digest: str = doc("the same before the change")
    files: tuple[str, ...] = doc("files that differ", default=())
    added_lines: int = doc("lines added", unit="lines", default=0)
    removed_lines: int = doc("lines removed", unit="lines", default=0)
    sources: Mapping[str, str] = doc(f"every editable file: {_SOURCES}", factory=dict)


@event("change_rejected")
class ChangeRejected(Event):
    """The idea could not be applied, or changed what it must not."""

    experiment: int = experiment_number()
    reason: str = doc("why")


@event("audit_passed")
class AuditPassed(Event):
    """No audit found a blocking violation."""

    experiment: int = experiment_number()
    warnings: tuple[str, ...] = doc("findings that do not block", default=())


@event("audit_failed")
class AuditFailed(Event):
    """An audit found what must not run, or what must not be believed."""

    experiment: int = experiment_number()
    rule: str = doc("id of the rule")
    detail: str = doc("what was found and why it matters")
    line: int | None = doc("line of the script", default=None)
    stage: str = doc("before_run or after_run", default="before_run")


@event("commit_made")
class CommitMade(Event):
    """The change was committed in the lab and brought into the user's repository."""

    experiment: int = experiment_number()
    commit: str = doc("full commit id")
    parent: str = doc("commit it builds on")
    ref: str = doc("ref that keeps it reachable")
    source_digest: str = doc("sha256 of the script", default="")
