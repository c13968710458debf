"""One experiment after the other, and what every step of them has at hand."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from autoresearch import events
from autoresearch.config import Config, unstructure
from autoresearch.cycle.recorder import Clock, Recorder
from autoresearch.durable import digest, listing, replace_file
from autoresearch.errors import WorkspaceError, telling
from autoresearch.frozen import alike
from autoresearch.history import History
from autoresearch.log import SourceStore
from autoresearch.model import Experiment, RunHandle, RunOutput, RunRequest, Workspace
from autoresearch.plugins import Plugins
from autoresearch.projections import Projection
from autoresearch.text import one_line
from autoresearch.workspace import Lab

POLL_SECONDS = 0.1
Tell = Callable[[str], None]


def cost_of(request: RunRequest, output: RunOutput) -> events.CostIncurred:
    """Return what a run took, as its launcher says."""
    return events.CostIncurred(
        kind="run",
        source=request.launcher,
        experiment=request.experiment,
        seconds=round(output.seconds, 3),
        gpu_seconds=round(output.gpu_seconds, 3),
        usd=output.cost_usd,
    )


def beginning(
    tag: str,
    config: Config,
    base: str,
    source: str,
    plugins: Mapping[str, str] = {},
    environment: Mapping[str, str] = {},
) -> events.CampaignStarted:
    """Return the fact that a campaign starts from a commit whose script has this text."""
    return events.CampaignStarted(
        tag=tag,
        branch=f"autoresearch/{tag}",
        base_commit=base,
        script=config.script,
        script_digest=digest(source),
        metric=config.metric.name,
        better=config.metric.better,
        config=unstructure(config),
        plugins=dict(plugins),
        environment=environment,
    )


def head_commit(history: History) -> str:
    """Return the kept commit that the next idea builds on."""
    if history.head is not None:
        return history.experiments[history.head].commit
    assert history.started is not None
    return history.started.base_commit


@frozen(kw_only=True)
class Kit:
    """The parts that the steps of a campaign share; ``tell`` says in one line what is going on.

    ``rests`` holds until when, by the clock, a mind is not asked after so many failures in a row,
    ``looked_back`` up to which experiments somebody was asked to look back.
    """

    config: Config
    plugins: Plugins
    recorder: Recorder
    lab: Lab
    sources: SourceStore
    clock: Clock
    projections: tuple[Projection, ...]
    tell: Tell
    tick: Tell
    shown: Shown = field(factory=lambda: Shown(), init=False)
    rests: dict[tuple[str, int], float] = field(factory=dict, init=False)
    looked_back: set[int] = field(factory=set, init=False)
    _unpublished: list[str] = field(factory=list, init=False)  # why, once until it works again

    @property
    def history(self) -> History:
        """The newest History."""
        return self.recorder.history

    def head_commit(self) -> str:
        """Return the kept commit that the next idea builds on."""
        return head_commit(self.history)

    @property
    def campaign_id(self) -> str:
        """What tells this campaign from those of other projects with its tag, for launchers."""
        return self.history.started.base_commit if self.history.started else ""

    def wait(self, request: RunRequest, handle: RunHandle) -> RunOutput:
        """Return what came out of something short that runs beside the experiments."""
        while (output := handle.poll()) is None:
            self.tick(f"experiment {request.experiment}: {request.name.rpartition('-')[2]}")
            self.clock.sleep(POLL_SECONDS)
        return output

    def env_of(self, experiment: Experiment) -> dict[str, str]:
        """Return the overrides that an experiment runs with: those it builds on, and its own."""
        below = experiment.built_on
        gathered = {} if below is None else self.history.experiments[below].env
        return {**gathered, **experiment.idea.env}

    def pristine(self) -> Mapping[str, str]:
        """Return the texts of the editable files that the campaign started from, by path."""
        assert self.history.started is not None
        return self.lab.files_at(self.history.started.base_commit)

    def files_at_head(self) -> Mapping[str, str]:
        """Return the texts of the editable files that the next idea builds on, by path."""
        head = self.history.head
        return self.pristine() if head is None else self.files_of(self.history.experiments[head])

    def files_of(self, experiment: Experiment) -> Mapping[str, str]:
        """Return the texts of the editable files that an experiment tried, by path."""
        if experiment.sources:
            return {path: self.sources.get(name) for path, name in experiment.sources.items()}
        return self.lab.files_at(experiment.commit)  # recorded before there were several files

    def store(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Keep texts in the store, and the list of them where they are several; return digests."""
        digests = {path: digest(text) for path, text in texts.items()}
        for text in texts.values():
            self.sources.put(text)
        if len(digests) > 1:
            self.sources.put(listing(digests))
        return digests

    def is_tried(self, commit: str) -> bool:
        """Return whether a commit is one that the campaign made or started from."""
        started = self.history.started
        if started is not None and started.base_commit == commit:
            return True
        return any(item.commit == commit for item in reversed(self.history.experiments))

    def publish(self) -> None:
        """Show the user the tried commits; where that fails, tell it and try at the next step."""
        try:
            self.lab.publish()
            self._unpublished.clear()
        except WorkspaceError as error:
            self._tell_once(error, "the next step tries to publish again")

    def _tell_once(self, error: WorkspaceError, then: str) -> None:
        if not self._unpublished:
            self._unpublished.append(one_line(str(error), 500))
            self.tell(f"{self._unpublished[0]} ({then})")

    def move_branch(self) -> None:
        """Bring the user's branch to head; where that fails, tell it and try at the next step."""
        try:
            kept = self.lab.move_branch(self.head_commit(), self.is_tried)
        except WorkspaceError:
            self.publish()  # what an earlier failure kept from arriving
            try:
                kept = self.lab.move_branch(self.head_commit(), self.is_tried)
            except WorkspaceError as error:
                self._tell_once(error, "the next step moves the branch")
                return
        if kept:
            self.tell(f"your own commit on {self.lab.branch} is kept as {kept}")

    def record_costs(self) -> None:
        """Record what plugins spent on language models since the last time."""
        known = {"kind": "tokens", "experiment": self.recorder.about, "seconds": 0.0}
        self.recorder.owed.extend(
            alike(events.CostIncurred, cost, **known) for cost in self.plugins.report_costs()
        )
        self.recorder.settle()

    def show_files(self) -> Mapping[str, str]:
        """Write every projection, and return the sha256 of each as it is now, by file name."""
        if self.shown.position != self.history.position:
            for projection in self.projections:
                text = projection.render(self.history)
                self.shown.write(self.lab.folder, projection.file_name, text)
            self.shown.position = self.history.position
        self.shown.check(self.lab.folder, self.lab.project)
        return self.shown.digests


@define
class _File:
    text: str
    hash: hashlib._Hash
    mark: tuple[int, ...] = ()


class Shown:
    """The files of a campaign as they were last written; each is written only where it changed.

    The bytes are in the campaign's folder. What the user sees in the project is a hard link to
    them: one write serves both, and unlike a symbolic link it is a plain file to every tool. Where
    a file system has no hard links, it is a second copy.
    """

    def __init__(self) -> None:
        self.position = -1  # of the history that was rendered last
        self._files: dict[str, _File] = {}

    @property
    def digests(self) -> Mapping[str, str]:
        """The sha256 of each file as it was last written, by name."""
        return {name: file.hash.hexdigest() for name, file in self._files.items()}

    def write(self, folder: Path, name: str, text: str) -> None:
        """Bring the file in the campaign's folder to a text."""
        path, old = folder / name, self._files.get(name)
        if old is not None and _mark(path) == old.mark:
            if old.text == text:
                return
            more = text[len(old.text) :]
            if text.startswith(old.text) and _append(path, more):
                old.text, old.mark = text, _mark(path)
                old.hash.update(more.encode())
                return
        self._files.pop(name, None)
        write_text(path, text)
        self._files[name] = _File(text, hashlib.sha256(text.encode()), _mark(path))

    def check(self, folder: Path, project: Path) -> None:
        """Restore what somebody else changed or removed, and what the project does not show."""
        for name, file in list(self._files.items()):
            path, shown = folder / name, project / name
            if _mark(path) != file.mark:
                write_text(path, file.text)
                file.mark = _mark(path)
            if _mark(shown) != file.mark and not _link(path, shown):
                write_text(shown, file.text)


def _mark(path: Path) -> tuple[int, ...]:
    """Return what tells whether a file is still as it was left; nothing for one that is gone."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _append(path: Path, text: str) -> bool:
    """Add whole lines to a file; False, with the file in any state, when the disk refuses."""
    try:
        with path.open("ab", buffering=0) as file:
            return file.write(text.encode()) == len(text.encode())
    except OSError:
        return False


def _link(path: Path, shown: Path) -> bool:
    """Show a file under a second name; False where the file system has no hard links."""
    temporary = shown.with_name(f".{shown.name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        os.link(path, temporary)
        os.replace(temporary, shown)
        temporary.unlink(missing_ok=True)  # a rename onto the same file leaves both names
    except OSError:
        return False
    return True


def places(workspace: Workspace, folder: Path) -> dict[str, str]:
    """Return by name what the braces in a command and its variables stand for."""
    return {
        "python": sys.executable,
        "script": str(workspace.script_path),
        "project": str(workspace.project),
        "run": str(folder),
    }


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace ``{python}`` and the other names in braces; braces around anything else stay."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    with telling(f"cannot write {path}", "free some space or make the folder writable"):
        replace_file(path, text.encode(), durable=False)
