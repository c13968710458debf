"""What proves the log from outside its own files: tips in commits, and the outputs of the runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from autoresearch.durable import digest_files
from autoresearch.events import RunFinished
from autoresearch.git import Git
from autoresearch.launchers.folder import log_in
from autoresearch.log import Anchor, FileLog, Finding

HIDES = "*\n"  # what the store's own .gitignore says
# Commits of the first release say Head.
_TRAILER = re.compile(r"^Autoresearch-(?:Tip|Head): (\d+):([0-9a-f]{64})$", re.MULTILINE)


def anchors_in(project: Path) -> tuple[Anchor, ...]:
    """Return the tips in the trailers of every experiment commit of a repository, by position.

    A log that was cut back, in every file alike, contradicts one of them.
    """
    listed = Git(project).run("for-each-ref", "--format=%(refname)", "refs/autoresearch")
    found = []
    for ref in listed.splitlines():
        message = Git(project).run("log", "-1", "--format=%B", ref)
        for position, digest in _TRAILER.findall(message):
            found.append(Anchor(int(position), digest, where=f"the commit of {ref}"))
    return tuple(sorted(found, key=lambda anchor: anchor.position))


def changed_outputs(log: FileLog) -> Iterator[Finding]:
    """Yield each run output that is not what ``run_finished`` recorded; a deleted one is not."""
    hidden = log.root / ".gitignore"
    if hidden.exists() and hidden.read_text(encoding="utf-8", errors="replace") != HIDES:
        yield Finding(".gitignore", f"must say {HIDES.strip()!r} alone, to hide the store from git")
    for record in log.read():
        if record.type != RunFinished.type_name or not isinstance(record.event, RunFinished):
            continue
        event = record.event
        path = log_in(log.root / record.campaign / "runs" / event.run)
        if path.is_file() and event.log_digest and digest_files(path) != event.log_digest:
            yield Finding(
                str(path.relative_to(log.root)),
                f"the output of run {event.run} is not what run_finished recorded",
                position=record.position,
            )
