"""The object that people start, continue and ask: one run tag with its branch, log and files."""

from __future__ import annotations

import getpass
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle import Kit, Tell, head_commit, runs
from autoresearch.cycle.experiment import conclude
from autoresearch.cycle.loop import Loop
from autoresearch.cycle.proposals import as_queued, queued
from autoresearch.cycle.recorder import Clock, Patience, Recorder
from autoresearch.errors import ConfigError, LogError, PluginError, StreamHeldError, WorkspaceError
from autoresearch.folding import empty, fold
from autoresearch.history import History, QueuedIdea, imported_from, is_open
from autoresearch.launchers.supervisor import run_around
from autoresearch.log import FileLog, Holder, Writer
from autoresearch.model import Idea, Verdict
from autoresearch.plugins import Plugins, answers
from autoresearch.plugins.discovery import built_ins
from autoresearch.projections import remembered_history
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.setup import check_files
from autoresearch.text import one_line, without_users
from autoresearch.workspace import Lab

if TYPE_CHECKING:
    import duckdb
    from matplotlib.figure import Figure


_PATIENCE = 10.0  # seconds that another process may take to add something


def silent(_: str) -> None:
    """Tell no one."""


class Campaign:
    """One campaign; made by :func:`autoresearch.start` or :func:`autoresearch.open_campaign`.

    ``tell`` gets a line for everything worth reading, ``tick`` one that the next may replace. What
    people write goes to a stream beside the loop's, also while it runs.
    """

    def __init__(self, project: Path, tag: str, log: FileLog, config: Config) -> None:
        self.project: Path = project
        self.tag: str = tag
        self.log: FileLog = log
        self.config: Config = config
        self.unread: str = ""  # why its settings cannot be read: then they are not its own
        self.started_with: Plugins | None = None
        self.lab: Lab = Lab(
            project=project, tag=tag, script=config.script, editable=config.editable
        )
        self._history: History | None = None

    def __repr__(self) -> str:
        return f"Campaign({self.tag!r} in {str(self.project)!r})"

    def _repr_html_(self) -> str:
        return self.history._repr_html_()

    def plot(self, against: str = "experiments") -> Figure:
        """Return the scores as a figure of matplotlib, which a notebook shows.

        ``against`` is experiments, hours, gpu_hours or usd. Needs the extra ``report``.
        """
        from autoresearch.report import figure

        with self.connect() as connection:
            return figure(self.history, connection, against)

    @property
    def history(self) -> History:
        """Everything known now, folded from the log; cheap to ask again."""
        if self._history is None:
            self._history = remembered_history(self.log, self.tag)
        self._history = fold(self._history, self.log.lines(after=self._history.position))
        return self._history

    def at(self, position: int) -> History:
        """Return the History as it was when the log stood at ``position``."""
        return fold(empty(self.tag), self.log.lines(until=position))

    def run(
        self,
        experiments: int | None = None,
        *,
        until: int | None = None,
        plugins: Sequence[object] = (),
        accept_plugin_changes: bool = False,
        wait: bool | None = None,
        parallel: int | None = None,
        tell: Tell = silent,
        tick: Tell = silent,
        clock: Clock | None = None,
    ) -> str:
        """Go on with the campaign and return the reason for stopping.

        ``experiments`` more experiments are brought to a verdict (one that was interrupted
        counts), or as many as it takes to have ``until`` in all; with neither, the loop runs until
        a budget or a person stops it. ``parallel`` is how many are under way at once, instead of
        ``runs.parallel``. ``wait`` True: it waits whatever it lacks; False: it ends instead, with
        the reason; None: it ends where a number of experiments was asked for and no generator can
        have another idea, and waits for everything else. Raises StreamHeldError when another
        process runs this campaign.
        """
        if parallel is not None and parallel != self.config.runs.parallel:
            at_once = evolve(self.config.runs, parallel=parallel)
            self.config = evolve(self.config, runs=at_once)
            self.started_with = None  # its launcher shares out the GPUs by the other number
        ends = [] if until is None else [until]
        if experiments is not None:
            ends.append(len(self.history.decided) + experiments)
        target = min(ends, default=None)
        with self.at_work(
            plugins=plugins, accepted=accept_plugin_changes, tell=tell, tick=tick, clock=clock
        ) as kit:
            if (lease := kit.history.lease) and not lease.lapsed(kit.history):
                raise WorkspaceError(
                    f"campaign {self.tag} is driven by {lease.by} since {lease.since}; "
                    "autoresearch step release lets the loop act again"
                )
            kit.recorder.patience.endless = wait is not False
            changes = kit.plugins.diff(self.history.plugins) if accept_plugin_changes else ()
            resumed = events.CampaignResumed(
                plugins=dict(kit.plugins.active), accepted_changes=changes
            )
            parallel = self.config.runs.parallel
            loop = Loop(kit=kit, target=target, wait=wait, parallel=parallel)
            return self._drive(kit, resumed, loop.run)

    @contextmanager
    def at_work(
        self,
        *,
        plugins: Sequence[object] = (),
        accepted: bool = False,
        actor: str = "",
        tell: Tell = silent,
        tick: Tell = silent,
        clock: Clock | None = None,
    ) -> Iterator[Kit]:
        """Give what the steps of the cycle need, as long as this process alone writes the campaign.

        Raises StreamHeldError when another process does, PluginError when the plugins are others
        than the campaign started with and that was not ``accepted``.
        """
        self.check_own()
        active = self._active(plugins)
        if problems := active.check_launcher(self.config, self.project, tell):
            raise ConfigError(problems[0])
        check_files(self.project, (item.file_name for item in active.projections(self.config)))
        with self.log.writer(self.tag, actor=actor or "loop") as writer:
            try:
                changed = () if accepted else active.diff(self.history.plugins)
                if changed:
                    raise PluginError(
                        "the plugins are not those the campaign started with "
                        f"({'; '.join(changed)}); restore them, or let autoresearch run "
                        "--accept-plugin-changes take them on"
                    )
                yield self._kit(writer, active, clock or Clock(), tell, tick)
            finally:
                active.close()

    def _kit(self, writer: Writer, active: Plugins, clock: Clock, tell: Tell, tick: Tell) -> Kit:
        return Kit(
            config=self.config,
            plugins=active,
            recorder=Recorder(self.log, writer, active, self.history, tell, Patience(clock, tell)),
            lab=self.lab,
            sources=self.log.sources,
            clock=clock,
            projections=(ResultsTsv(), NotesMd(), *active.projections(self.config)),
            tell=tell,
            tick=tick,
        )

    def _active(self, plugins: Sequence[object]) -> Plugins:
        # What start loaded and configured serves the first run: a plugin that opens a connection
        # does so once. A later run has new instances: nothing is remembered outside the log.
        ready, self.started_with = self.started_with, None
        if ready is not None and ready.is_current(self.project, plugins):
            return ready
        return Plugins.load(self._as_started(), self.project, plugins)

    def _as_started(self) -> Config:
        """Return the settings without the built-ins that only later releases make active."""
        recorded = self.history.plugins
        later = [
            f"no:{item.name}"
            for item in built_ins()
            if recorded and item.name not in recorded and item.starts_active(self.config)
        ]
        return evolve(self.config, active=(*later, *self.config.active))

    def _drive(self, kit: Kit, resumed: events.CampaignResumed, work: Callable[[], str]) -> str:
        started = kit.history.started
        assert started is not None
        reason = "interrupted by a person"
        try:
            kit.recorder.record(resumed)
            kit.recorder.patience.through(lambda: self.lab.create(started.base_commit))
            reason = work()
            return reason
        except KeyboardInterrupt as signal:
            reason = str(signal) or reason
            raise
        except Exception as error:
            reason = f"stopped by an error: {without_users(str(error))}"
            raise
        finally:
            self._say_stopped(kit, reason)

    def _say_stopped(self, kit: Kit, reason: str) -> None:
        """Record why the loop ends; a disk that refuses it does not hide the reason itself."""
        kit.recorder.patience.off = True
        try:
            kit.recorder.record(events.CampaignStopped(reason=reason))
            kit.recorder.sync(at_once=True)
        except LogError as error:
            kit.tell(f"the end could not be recorded: {error}")

    def stop(
        self,
        *,
        now: bool = False,
        plugins: Sequence[object] = (),
        tell: Tell = silent,
        clock: Clock | None = None,
    ) -> str:
        """Ask the loop to end, after the experiment under way or ``now``; return what happens.

        A run that outlived its loop is stopped here. The experiment whose run is stopped has no
        verdict: who stops it says nothing about the idea, so the next :meth:`run` tries it again.
        Raises WorkspaceError when there is nothing to stop.
        """
        order = events.StopRequested(by=person(), now=now)
        if self.alive:
            self._append(order)
            return "the run under way is stopped now" if now else "it stops between two experiments"
        opened = self.history.open_run
        if opened is None:
            raise WorkspaceError(f"no loop runs campaign {self.tag}; there is nothing to stop")
        if not now:
            raise WorkspaceError(
                f"no loop runs campaign {self.tag}, but run {opened.request.run} goes on; "
                "stop it with autoresearch stop --now"
            )
        active = self._active(plugins)
        with self.log.writer(self.tag) as writer:
            try:
                kit = self._kit(writer, active, clock or Clock(), tell, silent)
                resumed = events.CampaignResumed(plugins=self.history.plugins)
                return self._drive(kit, resumed, partial(_end_run, kit, order))
            finally:
                active.close()

    @property
    def holder(self) -> Holder | None:
        """The process that runs the loop, or that died without letting go; None when it ended."""
        return self.log.holder(self.tag)

    @property
    def alive(self) -> bool:
        """Whether a loop runs this campaign now, as far as can be known from this machine."""
        holder = self.holder
        return holder is not None and holder.alive

    def connect(
        self, at: int | None = None, *, external: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection that sees everything acknowledged, for reading only.

        It reads and writes no other file unless ``external`` is True.
        """
        return self.log.connect(at=at, external=external)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.sync()

    # --- what people put into it ------------------------------------------------------------------

    def check_own(self) -> None:
        """Refuse what needs the scripts of a history that was taken over from another tool."""
        if source := imported_from(self.history):
            raise WorkspaceError(
                f"campaign {self.tag} was imported from {source} and its scripts are not here; "
                "it can be read and replayed, and autoresearch init starts one that can run"
            )

    def add_idea(self, idea: Idea, *, anyway: bool = False) -> str:
        """Put an idea into the queue, also while the loop runs; return its id.

        Raises WorkspaceError for an idea that would be refused from a plugin as well, for a patch
        that does not apply, and, unless ``anyway``, for a variable that nothing here reads.
        """
        self.check_own()
        try:
            answers.idea(idea, "")
        except answers.InvalidAnswerError as error:
            raise WorkspaceError(f"this idea cannot be tried: {error}") from None
        started = self.history.started
        assert started is not None
        idea = evolve(idea, author=idea.author or person())
        head = head_commit(self.history)
        event = as_queued(self.lab, idea, head, started.base_commit, anyway=anyway)
        self._append(event)
        return event.idea

    def doubts(self, idea: Idea) -> list[str]:
        """Say in a line each why an idea will probably have to wait."""
        infos = () if idea.has_code else Plugins.load(self.config, self.project).infos()
        active = [item for item in infos if item.active and item.name != "crash_fixes"]  # no crash
        if idea.has_code or any("implement_idea" in item.hooks for item in active):
            return []
        return ["no active plugin turns words into code; queue the idea with --patch"]

    def rank_idea(self, idea: str, expected_gain: float) -> None:
        """Give a queued idea another expected gain, in metric units; the best is tried first."""
        waiting = self._queued(idea)
        if not math.isfinite(expected_gain):
            raise WorkspaceError(f"the expected gain is {expected_gain}; give a finite number")
        self._append(queued(waiting, idea, expected_gain=expected_gain))

    def _queued(self, idea: str) -> QueuedIdea:
        if idea not in self.history.queue:
            raise WorkspaceError(
                f"idea {idea} is not queued; autoresearch idea list shows the queue"
            )
        return self.history.queue[idea]

    def drop_idea(self, idea: str, reason: str) -> None:
        """Take an idea out of the queue; raises WorkspaceError when it is not in it."""
        self._queued(idea)
        self._append(events.IdeaDropped(idea=idea, reason=reason))

    def steer(self, text: str, experiments: int = 0) -> int:
        """Say where the research should go, until withdrawn or for so many experiments.

        Returns the number under which it can be withdrawn.
        """
        self.check_own()
        if not one_line(text):
            raise WorkspaceError(f"the steering {text!r} is empty; write what you want")
        said = events.SteeringGiven(
            text=without_users(text), author=person(), experiments=experiments
        )
        self._append(said)
        return len(self.history.steering)

    def withdraw(self, number: int) -> None:
        """Take back what was said under a number; WorkspaceError where nothing stands there."""
        if number not in {item.number for item in self.history.steered}:
            raise WorkspaceError(f"no steering {number} stands; autoresearch steer lists them")
        self._append(events.SteeringWithdrawn(number=number, author=person()))

    def add_note(self, text: str, author: str | None = None) -> None:
        """Write a note into the memory, also while the loop runs."""
        if not one_line(text):
            raise WorkspaceError(f"the note {text!r} is empty; write what to remember")
        text = without_users(text)
        self._append(events.NoteAdded(text=text, author=author or person()))

    def resolve_quarantine(self, experiment: int, *, release: bool, reason: str) -> None:
        """Say whether a quarantined result is believed; the reason is recorded with your name.

        Raises WorkspaceError when the experiment is not quarantined.
        """
        history = self.history
        known = 0 <= experiment < len(history.experiments)
        if not known or history.experiments[experiment].verdict is not Verdict.QUARANTINE:
            raise WorkspaceError(
                f"experiment {experiment} of {self.tag} is not quarantined; "
                "autoresearch quarantine lists those that are"
            )
        self.overrule(experiment, Verdict.KEEP if release else Verdict.DISCARD, reason)

    def overrule(self, experiment: int, verdict: Verdict, reason: str) -> None:
        """Put ``keep`` or ``discard`` in the place of a verdict; recorded with your name.

        A result that is no longer kept is not best, nor head: the loop builds on the kept one
        below it. Raises WorkspaceError where there is no such verdict to give.
        """
        if why := self._cannot_overrule(experiment, verdict, reason):
            raise WorkspaceError(f"experiment {experiment} of {self.tag} {why}")
        who: Any = {"experiment": experiment, "reason": without_users(reason), "author": person()}
        if self.history.experiments[experiment].verdict is Verdict.QUARANTINE:
            released = verdict is Verdict.KEEP
            self._append(events.QuarantineResolved(released=released, **who))
        else:
            self._append(events.Overruled(verdict=verdict.value, **who))

    def _cannot_overrule(self, experiment: int, verdict: Verdict, reason: str) -> str | None:
        history = self.history
        if not 0 <= experiment < len(history.experiments):
            return f"does not exist; {which_there_are(history, history.campaign)}"
        found = history.experiments[experiment]
        if is_open(found):
            return "has no verdict yet; wait for it, or autoresearch stop"
        if found.verdict is verdict:
            return f"has the verdict {verdict.value} already; autoresearch show {experiment}"
        if experiment == history.baseline_number and found.verdict is Verdict.KEEP:
            return "is the baseline, with which all else is compared; start another campaign"
        if verdict is Verdict.KEEP and history.score(found) is None:
            return f"gave no {history.metric}; only a result that has a score can be kept"
        return None if one_line(reason) else "needs a reason that says something; give --reason"

    def pause(self, reason: str = "") -> None:
        """Let the loop wait, from its next step on, until :meth:`resume`."""
        self.check_own()
        self._append(events.Paused(reason=reason or "asked for", by=person()))

    def release(self) -> str:
        """End the lease of whoever drives by hand and return their name; WorkspaceError without."""
        lease = self.history.lease
        if lease is None:
            raise WorkspaceError(f"nobody drives campaign {self.tag}; autoresearch run may act")
        self._append(events.LeaseEnded(by=person()))
        return lease.by

    def resume(self) -> None:
        """Let the loop go on after a pause, a person's or its own, and ask suspended minds again.

        Raises WorkspaceError when neither is there.
        """
        if self.history.paused is None and not self.history.suspended:
            raise WorkspaceError(
                f"campaign {self.tag} is not paused; autoresearch status says more"
            )
        self._append(events.Resumed(by=person()))

    def _append(self, event: events.Event) -> None:
        """Append what a person says; wait a little while another process is adding.

        Raises WorkspaceError inside a run: generated code does not take part as the person.
        """
        if run := run_around():
            raise WorkspaceError(
                f"this is inside the run {run}, and a run does not take part in a campaign; "
                "print what you found, the loop reads it"
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                writer = self.log.writer(self.tag, stream=f"{self.tag}.inbox", actor=person())
            except StreamHeldError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                with writer:
                    writer.append(event)
                return


def which_there_are(history: History, who: str) -> str:
    """Say which experiments ``who`` has, or how to have some."""
    count = len(history.experiments)
    return f"{who} has 0 to {count - 1}" if count else "run some with autoresearch run"


def person(name: str = "") -> str:
    """Return a name as the log can hold it; without one that of the user whose process this is."""
    name = one_line(name, 60)
    with suppress(KeyError, OSError):  # no such user is known
        name = name or one_line(getpass.getuser(), 60)
    return re.sub(r'["\\]', "/", name) or "unknown"  # CORP\ann is how a domain calls her


def _end_run(kit: Kit, order: events.StopRequested) -> str:
    kit.recorder.record(order)
    for number in sorted(kit.history.open_runs):
        output = runs.finish_run(kit, number)
        assert output is not None
        conclude(kit, number, output)
    return f"stopped by {order.by}"
