"""What changed outside a run's own folders while it ran, where nothing kept it from doing that.

Files are compared by their marks before and after. No program that a run could have named in the
user's git configuration is started: git is asked for names only, never to look into a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from autoresearch import events
from autoresearch.cycle.kit import Kit
from autoresearch.errors import WorkspaceError
from autoresearch.git import Git
from autoresearch.launchers.boundary import boundary_in_force, repository_of
from autoresearch.model import RunRequest
from autoresearch.text import one_line

Marks = Mapping[tuple[str, str], str]

_SHOWN = 20


def look(kit: Kit) -> Marks:
    """Return the marks of what a run has no business with; none where bubblewrap keeps it out."""
    if not kit.lab.runs_code or not boundary_in_force(kit.config).startswith("none"):
        return {}
    project = kit.lab.project
    found = {("the checkout", name): mark for name, mark in _checkout(kit, project)}
    repository = repository_of(project)
    refs = [repository / "HEAD", repository / "packed-refs", *_refs(repository / "refs")]
    found |= {("refs", str(path)): _mark(path) for path in refs}
    home = Path.home()
    own = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    settings = [repository / "config", repository / "info" / "attributes", repository / "hooks"]
    settings += [home / ".gitconfig", Path(own, "git", "config"), Path(own, "git", "attributes")]
    found |= {("git configuration", str(path)): _mark(path) for path in settings}
    sources = kit.sources.folder
    found |= {("the sources", str(sources / name)): _mark(sources / name) for name in kit.sources}
    journals = project / ".autoresearch" / "journal"
    # Loops and people append while a run goes on; no one replaces or shortens a journal.
    held = {("the store", str(path)): _mark(path, _PLACE) for path in journals.glob("*.jsonl")}
    return found | held


def record(kit: Kit, request: RunRequest, before: Marks) -> None:
    """Record what is different now, one fact a kind, and tell each in a line."""
    now = look(kit) if before else {}
    changed: dict[str, list[str]] = {}
    for what, path in sorted(before.keys() | now.keys()):
        was, is_now = before.get((what, path), ""), now.get((what, path), "")
        added = what in ("the store", "the sources") and not was  # people add ideas meanwhile
        if was != is_now and not added and not _grew(what, was, is_now):
            changed.setdefault(what, []).append(path)
    if planted := kit.lab.take_planted():
        changed["the lab"] = list(planted)
    for what, paths in changed.items():
        kit.recorder.record(
            events.CheckoutChanged(
                experiment=request.experiment,
                run=request.name,
                what=what,
                paths=tuple(paths[:_SHOWN]),
            ),
            event_id=f"{request.name}/changed/{what}",
        )
        named = one_line(", ".join(paths[:3]), 200)
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        undone = "; put right" if what == "the lab" else "; unless that was you, look at it"
        kit.tell(
            f"experiment {request.experiment}: {what} changed during the run: {named}{more}{undone}"
        )


def _checkout(kit: Kit, project: Path) -> Iterator[tuple[str, str]]:
    written = {"run.log", *(item.file_name for item in kit.projections)}
    asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--directory")
    try:
        listed = Git(project).run(*asked).split("\0")
    except WorkspaceError:
        return  # whatever is wrong with the checkout is told by who needs it
    for name in listed:
        if name and name not in written and not name.startswith((".autoresearch/", ".run.log.")):
            yield name, _mark(project / name)


def _refs(folder: Path) -> Iterator[Path]:
    """Yield the files of loose refs that are not a campaign's: those are the loop's to write."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "autoresearch"]
        yield from (Path(place, name) for name in names)


_PLACE = ("st_ino", "st_size")


def _mark(path: Path, names: Iterable[str] = ("st_mtime_ns", "st_size", "st_mode")) -> str:
    try:
        found = path.lstat()
    except OSError:
        return "absent"
    return " ".join(str(getattr(found, name)) for name in names)


def _grew(what: str, was: str, is_now: str) -> bool:
    if what != "the store" or "absent" in (was, is_now) or not is_now:
        return False
    (inode, size), (same, now) = was.split(), is_now.split()
    return inode == same and int(now) >= int(size)
