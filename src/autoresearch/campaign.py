"""The object that people start, continue and ask: one run tag with its branch, log and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import evolve

from autoresearch import events
from autoresearch.config import Config
from autoresearch.cycle import runs
from autoresearch.cycle.experiment import conclude
from autoresearch.cycle.kit import Kit, Tell
from autoresearch.cycle.loop import Loop
from autoresearch.cycle.recorder import Clock, Patience, Recorder
from autoresearch.errors import ConfigError, LogError, PluginError, WorkspaceError
from autoresearch.folding import empty, fold
from autoresearch.history import History
from autoresearch.inbox import Inbox, person
from autoresearch.log import FileLog, Holder, Writer
from autoresearch.plugins import Plugins
from autoresearch.plugins.discovery import built_ins
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.setup import check_files
from autoresearch.text import without_users

if TYPE_CHECKING:
    import duckdb
    from matplotlib.figure import Figure


def silent(_: str) -> None:
    """Tell no one."""


class Campaign(Inbox):
    """One campaign; made by :func:`autoresearch.start` or :func:`autoresearch.open_campaign`.

    ``tell`` gets a line for everything worth reading, ``tick`` one that the next may replace.
    """

    def __init__(self, project: Path, tag: str, log: FileLog, config: Config) -> None:
        super().__init__(project, tag, log, config)
        self.unread: str = ""  # why its settings cannot be read: then they are not its own
        self.started_with: Plugins | None = None

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

    def at(self, position: int) -> History:
        """Return the History as it was when the log stood at ``position``."""
        return fold(empty(self.tag), self.log.read(until=position))

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

        ``parallel`` is how many experiments are under way at once, instead of ``runs.parallel``.

        ``experiments`` more experiments are brought to a verdict (one that was interrupted
        counts), or as many as it takes to have ``until`` in all; with neither, the loop runs until
        a budget or a person stops it. ``wait`` True: it waits whatever it lacks; False: it ends
        instead, with the reason; None: it ends where a number of experiments was asked for and no
        generator can have another idea, and waits for everything else. Raises StreamHeldError when
        another process runs this campaign.
        """
        if parallel is not None and parallel != self.config.runs.parallel:
            at_once = evolve(self.config.runs, parallel=parallel)
            self.config: Config = evolve(self.config, runs=at_once)
            self.started_with = None  # its launcher shares out the GPUs by the other number
        target = until
        if experiments is not None:
            target = len(self.history.decided) + experiments
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
                _check_plugins(self.history, active, accepted)
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


def _end_run(kit: Kit, order: events.StopRequested) -> str:
    kit.recorder.record(order)
    for number in sorted(kit.history.open_runs):
        output = runs.finish_run(kit, number)
        assert output is not None
        conclude(kit, number, output)
    return f"stopped by {order.by}"


def _check_plugins(history: History, active: Plugins, accepted: bool) -> None:
    assert history.started is not None
    differences = active.diff(history.plugins)
    if differences and not accepted:
        raise PluginError(
            f"the plugins are not those the campaign started with ({'; '.join(differences)}); "
            "restore them, or pass --accept-plugin-changes"
        )
