"""What stays on the disk of what the runs wrote: all of the best and the last, else small files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autoresearch import events
from autoresearch.cycle.kit import Kit
from autoresearch.errors import WorkspaceError
from autoresearch.model import Experiment, Workspace
from autoresearch.text import one_line

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
            folder = kit.lab.folder / "runs" / run.name
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
