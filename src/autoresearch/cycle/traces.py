"""What a run leaves: what it changed where it has no business, what it wrote, how that is judged.

Outside a run's own folders files are compared by their marks before and after, where nothing kept
it from changing them. No program that a run could have named in the user's git configuration is
started: git is asked for names only, never to look into a file. Of what it wrote all of the best
and the last run stays on the disk, else small files. An evaluation command judges it from files
that no change can touch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import evolve

from autoresearch import events
from autoresearch.cycle import Kit, fill, places
from autoresearch.durable import digest_files
from autoresearch.errors import BlockedError, PluginError, WorkspaceError
from autoresearch.git import Git
from autoresearch.launchers import RunFolder
from autoresearch.launchers.environment import boundary_in_force, repository_of
from autoresearch.model import Experiment, RunOutput, RunRequest, RunStatus, Workspace
from autoresearch.numbers import Tail
from autoresearch.policies.pattern_metrics import numbers_in
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
    changed = _changed(before, look(kit)) if before else {}
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


def _changed(before: Marks, now: Marks) -> dict[str, list[str]]:
    """Return what is different and should not be, by its kind."""
    changed: dict[str, list[str]] = {}
    for what, path in sorted(before.keys() | now.keys()):
        was, is_now = before.get((what, path), ""), now.get((what, path), "")
        added = what in ("the store", "the sources") and not was  # people add ideas meanwhile
        if was != is_now and not added and not _grew(what, was, is_now):
            changed.setdefault(what, []).append(path)
    return changed


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


# --- what it wrote -------------------------------------------------------------------------------

SMALL_BYTES = 1_000_000
_MOST_NAMED = 100
_OWN = frozenset({".git", "__pycache__"})


def collect(kit: Kit, workspace: Workspace, folder: Path) -> None:
    """Move what a run wrote into its checkout to the run's folder, which outlives the checkout."""
    try:
        for name in kit.lab.written_in(workspace):
            _move(workspace.path / name, folder, name)
    except (WorkspaceError, OSError) as error:
        kit.tell(f"cannot keep what the run wrote: {one_line(str(error), 300)}")


def _move(source: Path, folder: Path, name: str) -> None:
    if _OWN.intersection(Path(name).parts) or source.is_symlink() or not source.is_file():
        return
    target = folder / name
    # A folder that the run replaced by a link would lead out of its own.
    if target.exists() or _through_a_link(folder, name):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _through_a_link(folder: Path, name: str) -> bool:
    parts = Path(name).parts
    return any(folder.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))


class Retention:
    """Applies the setting ``retention`` after each decision; knows which runs are still whole."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._whole: set[int] | None = None

    def apply(self) -> None:
        """Delete the large files of decided experiments that are neither the best nor the last."""
        kit = self._kit
        history, setting = kit.history, kit.config.retention
        last = history.last_decided
        if setting == "all" or last is None:
            return
        kept = {history.best_number, last} if setting == "best" else set()
        if self._whole is None:  # once: what an earlier process left
            self._whole = {item.number for item in history.experiments}
            self._whole.difference_update(history.open_numbers)
        for number in sorted(self._whole | {last}):
            if number in kept:
                self._whole.add(number)
            else:
                self._trim(history.experiments[number])
                self._whole.discard(number)

    def _trim(self, experiment: Experiment) -> None:
        kit = self._kit
        for run in experiment.runs:
            folder = kit.lab.run_folder(run.name)
            freed, names = 0, []
            for path, size in _large(folder):
                try:
                    path.unlink()
                except OSError as error:
                    kit.tell(
                        f"cannot delete {path}: {one_line(str(error), 200)}; delete it by hand"
                    )
                    continue
                freed += size
                names.append(str(path.relative_to(folder)))
            if names:
                kit.recorder.record(
                    events.RetentionApplied(
                        run=run.name,
                        experiment=experiment.number,
                        files=tuple(one_line(name, 300) for name in names[:_MOST_NAMED]),
                        count=len(names),
                        bytes_freed=freed,
                    )
                )


def _large(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the large files of a run with their sizes; links are neither followed nor deleted.

    The run's output, control files and pristine things lie outside of this folder.
    """
    for place, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            # Earlier releases kept the output, which verify needs, in the run's own folder.
            if path.is_symlink() or path == folder / "run.log":
                continue
            size = path.lstat().st_size
            if size >= SMALL_BYTES:
                yield path, size


# --- what an evaluation makes of it --------------------------------------------------------------

LINE = "score"  # the name of the line that the score is read from


def evaluate(
    kit: Kit, request: RunRequest, output: RunOutput
) -> tuple[RunOutput, dict[str, float]]:
    """Run the evaluation commands on a completed run; return its output and what they measured.

    The hidden one is recorded, and returned to no one. A run that left nothing to judge crashed;
    any other failure is not the idea's: it raises BlockedError, and only the evaluation is made
    again.
    """
    commands = kit.config.evaluation
    if not commands.command or output.status is not RunStatus.COMPLETED:
        return output, {}
    detail, numbers = _judge(kit, request, commands.command, hidden=False)
    if commands.hidden_command:
        _judge(kit, request, commands.hidden_command, hidden=True)
    if kit.config.metric.name in numbers:
        return output, {**numbers}
    why = f"the run left nothing to evaluate: {detail}"
    return evolve(output, status=RunStatus.CRASHED, detail=why), {}


def _judge(
    kit: Kit, request: RunRequest, command: tuple[str, ...], *, hidden: bool
) -> tuple[str, Mapping[str, float]]:
    """Record how an evaluation ended; return that in words, and the numbers that it printed."""
    asked = _request(kit, request, command, events.EVALUATIONS[hidden])
    handle = kit.plugins.launch_run(asked, _pristine(kit, asked))
    ended = kit.wait(asked, handle)
    tail = Tail(ended.log_path)
    tail.finish()
    metric = kit.config.metric
    numbers, last = {}, tail.error or tail.last_line or "it printed nothing"
    try:
        if ended.status is RunStatus.COMPLETED:
            numbers = numbers_in(ended.log_path, metric.name, metric.size)
    except PluginError as error:
        last = str(error)
    score = numbers.get(metric.name, math.nan)
    detail = "" if math.isfinite(score) else one_line(f"{ended.detail or 'no score'}; {last}", 400)
    if detail and not hidden and any(path.is_file() for path in request.folder.rglob("*")):
        RunFolder.of(asked.folder).remove()  # it is made again under its name
        raise BlockedError(f"the evaluation of {request.name} failed: {detail}")
    exists = ended.log_path.exists()
    kit.recorder.record(
        events.Evaluated(
            run=request.name,
            experiment=request.experiment,
            name=f"hidden/{metric.name}" if hidden else metric.name,
            value=score if math.isfinite(score) else None,
            hidden=hidden,
            status=ended.status.value,
            seconds=round(ended.seconds, 3),
            log_bytes=ended.log_path.stat().st_size if exists else 0,
            log_digest=digest_files(ended.log_path) if exists else "",
            detail=detail,
        ),
        event_id=f"{asked.name}/evaluated",
    )
    return detail, numbers


def _request(kit: Kit, run: RunRequest, command: tuple[str, ...], kind: str) -> RunRequest:
    place = kit.lab.pristine_workspace
    names = places(place, run.folder)
    return evolve(
        run,
        name=f"{run.name}{kind}",
        command=tuple(fill(word, names) for word in command),
        # What an idea asks for in its environment reaches its run, not its judge.
        env={key: fill(text, names) for key, text in kit.config.env.items()},
        launcher="local",
        timeout_seconds=kit.config.evaluation.timeout_seconds,
        script_digest="",
        folder=run.folder.with_name(f"{run.folder.name}{kind}"),
        cwd=place.path,
        reads=(run.folder,),
    )


def _pristine(kit: Kit, asked: RunRequest) -> Workspace:
    """Return a checkout of the commit that the campaign started from, new for every evaluation."""
    assert kit.history.started is not None
    if asked.folder.exists():  # it began before the loop was interrupted
        return kit.lab.pristine_workspace
    made = kit.lab.pristine_worktree(kit.history.started.base_commit)
    kit.lab.lend(made, kit.config.data)
    return made
