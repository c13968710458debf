"""What proves the log from outside its own files: tips in commits, and the things that facts name.

Every source, commit, ref and output that a fact names has to be there, and has to be what it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from autoresearch.durable import digest_files, tree_digest
from autoresearch.errors import WorkspaceError
from autoresearch.events import EVALUATIONS
from autoresearch.git import Git, LabGit
from autoresearch.launchers import log_in
from autoresearch.log import Anchor, FileLog, Finding

HIDES = "*\n"  # what the store's own .gitignore says
SHOWN = 20  # findings of one kind that are listed one by one
# Experiment 0 stands at the user's own commit, which may be one that another store's log made.
_EXPERIMENT_REF = re.compile(r"refs/autoresearch/[^/]+/[1-9][0-9]*(\.[0-9]+)?")
# Commits of the first release say Head.
_TRAILER = re.compile(r"Autoresearch-(?:Tip|Head): (\d+):([0-9a-f]{64})")
_TEMPORARY = re.compile(r"\..+\.(tmp|new)")


def anchors_in(project: Path) -> tuple[Anchor, ...]:
    """Return the tips in the trailers of every experiment commit of a repository, by position.

    A log that was cut back, in every file alike, contradicts one of them. Trailers are the lines
    of a message's last paragraph, and the first tip counts: text further up is no trailer.
    """
    listed = Git(project).run(
        "for-each-ref", "--format=%(refname)%00%(contents)%00", "refs/autoresearch"
    )
    fields = listed.split("\0")
    found = []
    for ref, message in zip(fields[::2], fields[1::2], strict=False):
        lines = message.rstrip().rpartition("\n\n")[2].split("\n")
        tips = filter(None, map(_TRAILER.fullmatch, lines))
        if _EXPERIMENT_REF.fullmatch(ref.strip()) and (tip := next(tips, None)):
            found.append(Anchor(int(tip[1]), tip[2], where=f"the commit of {ref.strip()}"))
    return tuple(sorted(found, key=lambda anchor: anchor.position))


def left_over(log: FileLog) -> Iterator[str]:
    """Yield a note about each temporary file that an interrupted write left."""
    folders = [log.root.parent, log.root, *(path for path in log.root.iterdir() if path.is_dir())]
    for folder in folders:
        if folder.name not in ("journal", "sources", "snapshots", "locks"):  # verify names those
            for path in sorted(folder.iterdir()):
                if _TEMPORARY.fullmatch(path.name):
                    yield f"{path} is left from an interrupted write; delete it"


def missing_things(log: FileLog) -> Iterator[Finding]:
    """Yield each thing that a fact names and that is not there, or not what was recorded."""
    hidden = log.root / ".gitignore"
    if hidden.exists() and hidden.read_text(encoding="utf-8", errors="replace") != HIDES:
        yield Finding(".gitignore", f"must say {HIDES.strip()!r} alone, to hide the store from git")
    named: dict[str, _Named] = {}
    for record in log.read():
        take = _TAKES.get(record.type)
        if take is not None:
            things = named.setdefault(record.campaign, _Named(record.campaign))
            take(things, json.loads(record.payload), record.position)
    user = _Repository(Git(log.root.parent))
    for things in named.values():
        yield from _capped("sources", _sources(log, things))
        yield from _capped("outputs", _outputs(log, things))
        yield from _capped("commits", _commits(log, things, user))


def _capped(kind: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    all_found = list(findings)
    yield from all_found[:SHOWN]
    if len(all_found) > SHOWN:
        yield Finding(kind, f"{len(all_found) - SHOWN} more are missing or were changed")


@define
class _Named:
    """The things that one campaign's facts name, each with the position of the newest fact."""

    tag: str
    branch: tuple[str, int] | None = None
    sources: dict[str, tuple[str, int]] = field(factory=dict)  # digest: what it is
    commits: dict[str, int] = field(factory=dict)
    refs: dict[str, tuple[str, int]] = field(factory=dict)  # ref: commit
    outputs: dict[str, tuple[str, int, int]] = field(factory=dict)  # run: digest, bytes

    def started(self, payload: Mapping[str, Any], position: int) -> None:
        self.branch = (payload["branch"], position)
        self.commits[payload["base_commit"]] = position
        self._source(payload["script_digest"], payload["script"], position)

    def tried(self, payload: Mapping[str, Any], position: int) -> None:
        sources, whole = payload.get("sources") or {}, payload.get("source_digest")
        for path, name in sources.items():
            self._source(name, f"{path} of experiment {payload['experiment']}", position)
        if whole and (len(sources) < 2 or whole == tree_digest(sources)):
            self._source(whole, f"the script of experiment {payload['experiment']}", position)

    def committed(self, payload: Mapping[str, Any], position: int) -> None:
        if not payload["ref"]:
            return  # a commit of an imported history, which this repository never had
        self.commits[payload["commit"]] = position
        self.refs[payload["ref"]] = (payload["commit"], position)

    def finished(self, payload: Mapping[str, Any], position: int) -> None:
        if payload.get("log_digest"):
            size = payload.get("log_bytes", 0)
            evaluation = EVALUATIONS.get(payload.get("hidden"), "")  # run_finished has none
            self.outputs[payload["run"] + evaluation] = (payload["log_digest"], size, position)

    def _source(self, name: str, what: str, position: int) -> None:
        self.sources.setdefault(name, (what, position))


_TAKES = {
    "campaign_started": _Named.started,
    "idea_proposed": _Named.tried,
    "change_applied": _Named.tried,
    "commit_made": _Named.committed,
    "run_finished": _Named.finished,
    "evaluated": _Named.finished,
}


def _sources(log: FileLog, things: _Named) -> Iterator[Finding]:
    for name, (what, position) in things.sources.items():
        if name not in log.sources:
            problem = f"is missing: {what} of {things.tag}; restore it from its commit or a backup"
            yield Finding(f"sources/{name}", problem, position=position)


def _outputs(log: FileLog, things: _Named) -> Iterator[Finding]:
    for run, (stated, size, position) in things.outputs.items():
        path = log_in(log.root / things.tag / "runs" / run)
        shown = str(path.relative_to(log.root))
        if not path.is_file():
            if size:
                problem = f"the output of run {run} is missing; restore it from a backup"
                yield Finding(shown, problem, position=position)
        elif digest_files(path) != stated:
            problem = f"the output of run {run} is not what the log recorded"
            yield Finding(shown, problem, position=position)


class _Repository:
    """The refs of a repository, and which commits it has; two git processes however many."""

    def __init__(self, git: Git) -> None:
        self.git = git
        listed = self.git.run("for-each-ref", "--format=%(refname) %(objectname)")
        self.refs = dict(line.split(" ") for line in listed.splitlines())

    def lacks(self, commits: Iterable[str]) -> set[str]:
        """Return those of the commits that are not there."""
        asked = "".join(f"{commit}^{{commit}}\n" for commit in commits)
        told = self.git.run("cat-file", "--batch-check", stdin=asked).splitlines()
        return {line.partition("^")[0] for line in told if line.endswith(" missing")}


def _commits(log: FileLog, things: _Named, user: _Repository) -> Iterator[Finding]:
    if things.branch is not None and f"refs/heads/{things.branch[0]}" not in user.refs:
        problem = "is not in this repository; autoresearch run makes it again"
        yield Finding(f"branch {things.branch[0]}", problem, position=things.branch[1])
    yield from _lacking(user, "this repository", things)
    place = f"{things.tag}/lab"
    if not (log.root / place / ".git").exists():
        yield Finding(place, "is missing; autoresearch run makes it again from this repository")
        return
    try:
        lab = LabGit((log.root / place).absolute()).main()
        yield from _lacking(_Repository(lab), place, things)
    except WorkspaceError as error:
        problem = f"{error}; or delete it, and autoresearch run makes it again"
        yield Finding(place, problem)


def _lacking(repository: _Repository, where: str, things: _Named) -> Iterator[Finding]:
    lacking = repository.lacks(things.commits)
    for commit in sorted(lacking):
        problem = f"is not in {where}; fetch it from the lab or a copy of the repository"
        yield Finding(f"commit {commit}", problem, position=things.commits[commit])
    newest = max((position for _, position in things.refs.values()), default=0)
    for ref, (commit, position) in things.refs.items():
        found = repository.refs.get(ref)
        # A loop that was killed in its newest experiment may have moved that one's ref since.
        if found != commit and commit not in lacking and (found is None or position != newest):
            command = f"git -C {repository.git.path} update-ref {ref} {commit}"
            yield Finding(ref, f"is not at {commit[:12]} in {where}; {command}", position=position)
