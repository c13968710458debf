"""Collects the log heads that were written into experiment commits, outside the store."""

from __future__ import annotations

import re
from pathlib import Path

from autoresearch.git import Git
from autoresearch.log import Anchor

_TRAILER = re.compile(r"^Autoresearch-Head: (\d+):([0-9a-f]{64})$", re.MULTILINE)


def anchors_in(project: Path) -> tuple[Anchor, ...]:
    """Return the heads in the trailers of every experiment commit of a repository, by position.

    A log that was cut back, in every file alike, contradicts one of them.
    """
    listed = Git(project).run("for-each-ref", "--format=%(refname)", "refs/autoresearch")
    found = []
    for ref in listed.splitlines():
        message = Git(project).run("log", "-1", "--format=%B", ref)
        for position, digest in _TRAILER.findall(message):
            found.append(Anchor(int(position), digest, where=f"the commit of {ref}"))
    return tuple(sorted(found, key=lambda anchor: anchor.position))
