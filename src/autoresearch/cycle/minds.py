"""What the loop does for minds: lends hands to their desk, lets them rest, has them look back."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from autoresearch import events
from autoresearch.config import BoundaryConfig
from autoresearch.cycle.kit import Kit, cost_of, write_text
from autoresearch.desk import Desk, Hands
from autoresearch.durable import digest
from autoresearch.history import History, gain_of
from autoresearch.launchers.environment import Boundary, clean_environment
from autoresearch.launchers.folder import log_in
from autoresearch.model import Remark, RunOutput, RunRequest, Workspace
from autoresearch.projections.memory import newest_ten
from autoresearch.text import one_line

REMARKS = 3  # on ten experiments
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


@frozen
class LoopHands(Hands):
    """The hands of a loop: its store, its runs, its lab, its log."""

    kit: Kit

    def text(self, name: str) -> str:
        """Return the stored text of a digest."""
        return self.kit.sources.get(name)

    def keep(self, text: str) -> str:
        """Store a text durably."""
        return self.kit.sources.put(text)

    def record(self, *facts: events.Event) -> None:
        """Append facts to the campaign's log."""
        self.kit.recorder.record_together(*facts)

    def output(self, run: str) -> Path | None:
        """Return the file with a run's output."""
        path = log_in(self.kit.lab.folder / "runs" / Path(run).name)
        return path if path.is_file() else None

    def document(self, path: str) -> str:
        """Return a tracked file as it is at head, empty where there is none."""
        shown = self.kit.lab.clone.attempt("show", f"{self.kit.head_commit()}:{path}")
        return shown.stdout if shown.returncode == 0 else ""

    def copy(self, folder: Path) -> None:
        """Write every tracked file of head into a folder."""
        self.kit.lab.export(self.kit.head_commit(), folder)

    def job(
        self, beside: RunOutput, name: str, source: str, seconds: float, files: Sequence[Path]
    ) -> RunOutput:
        """Run a script of a plugin's beside a run that is over, with its environment, to its end.

        The launcher finds it again under its name, so that it is started and paid for once.
        """
        kit, asked = self.kit, f"{beside.name}-{name}"
        history = kit.history
        runs = {run.name: item.number for item in history.experiments for run in item.runs}
        place = Workspace(
            path=kit.lab.folder / "jobs" / asked, script=kit.lab.script, project=kit.lab.project
        )
        place.script_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(place.script_path, source)
        folder = kit.lab.folder / "runs" / asked
        for file in files:
            folder.mkdir(exist_ok=True)
            shutil.copy(file, folder)
        launcher = kit.config.launcher
        request = RunRequest(
            name=asked,
            campaign=history.campaign,
            experiment=runs[beside.name],
            index=0,
            command=(sys.executable, str(place.script_path)),
            env=beside.env,
            launcher="local" if launcher == "torchrun" else launcher,  # one process and one GPU
            timeout_seconds=seconds,
            max_log_bytes=kit.config.limits.max_log_bytes,
            script_digest=digest(source),
            folder=folder,
            campaign_id=kit.campaign_id,
            beside=beside.name,
        )
        ended = kit.wait(request, kit.plugins.launch_run(request, place))
        kit.recorder.record(cost_of(request, ended), event_id=f"{asked}/cost")
        return ended

    def environment(self, passed: Sequence[str]) -> Mapping[str, str]:
        """Return what a run would see, and the names to pass."""
        return clean_environment(os.environ, {}, passed)

    def around(self, folder: Path, settings: BoundaryConfig) -> Sequence[str]:
        """Return bubblewrap's words, where it works: the folder to write in, the store hidden."""
        boundary = Boundary(settings=settings)
        if not boundary.on:
            return ()
        beside = folder.with_name("beside")
        beside.mkdir(exist_ok=True)
        lab = self.kit.lab
        place = Workspace(path=folder, script=lab.script, project=lab.project)
        return boundary.around(place, beside, os.environ)

    def beat(self) -> str:
        """Take in what people said meanwhile; an order to stop at once ends the command."""
        order = self.kit.recorder.refresh().stop
        return f"stopped by {order.by}" if order is not None and order.now else ""


def desk(kit: Kit) -> Desk:
    """Return the desk for the question that is asked now."""
    return Desk(history=kit.history, hands=LoopHands(kit))


def resting(kit: Kit) -> dict[str, str]:
    """Return the minds that are not asked now, each with the reason why it gives no answer."""
    found, now = {}, kit.clock.now()
    suspended = kit.history.suspended
    for author, times in tuple(kit.rests):
        if author not in suspended:  # it answered since, and counts from one again
            del kit.rests[author, times]
    for author, event in suspended.items():
        until = kit.rests.setdefault((author, event.times), now + event.seconds)
        if event.permanent or now < until:
            found[author] = event.reason
    return found


def answered(kit: Kit) -> None:
    """Say that a mind that gave no answer has given one."""
    author = kit.plugins.calls.answered
    if author in kit.history.suspended:
        kit.recorder.record(events.MindResumed(author=author))
        kit.tell(f"{author} answers again")


def look_back(kit: Kit) -> None:
    """Have ten experiments that are done looked back on, once; the rules do it where nobody can.

    What an author says that is not true of the log is left out, and told to it.
    """
    history = kit.history
    ten = newest_ten(history)
    if not ten or ten[-1].number in history.digests or ten[-1].number in kit.looked_back:
        return
    first, last = ten[0].number, ten[-1].number
    kit.looked_back.add(last)
    remarks = kit.plugins.summarize(history, first, resting(kit), desk(kit))
    author, errors = kit.plugins.calls.answered, kit.plugins.calls.outcomes
    answered(kit)
    kit.record_costs()
    told, facts = f"looking back on experiments {first} to {last}", list[events.Event]()
    lines = list[str]()
    for item in remarks:
        if why := untrue(item, history):
            kit.tell(f"{told}: a remark by {author} is left out: {why}")
            facts.append(events.ProposalRefused(author=author, stage="digest", reason=why))
        else:
            lines.append(_shown(item, history))
    if lines:
        written = events.DigestWritten(
            first=first, last=last, remarks=tuple(lines[:REMARKS]), author=author
        )
        facts.append(written)
    elif remarks or any(errors.values()):
        kit.tell(f"{told}: no mind worded it, so the rules do")
    kit.recorder.record_together(*facts)


def _shown(remark: Remark, history: History) -> str:
    """Return a remark with the verdicts of the experiments that it cites, which are not its own."""
    verdicts = (f"{n} {history.experiments[n].verdict}" for n in dict.fromkeys(remark.cites))
    return f"{one_line(remark.text, 160)} ({', '.join(verdicts)})"


def untrue(remark: Remark, history: History) -> str:
    """Say what of a remark is not true of the log: experiments, and numbers that are not theirs."""
    decided = {item.number for item in history.decided}
    unknown = [number for number in remark.cites if number not in decided]
    if unknown or not remark.cites:
        return f"it cites experiment {unknown[0]}, which was not decided" if unknown else "no cites"
    known = [abs(value) for value in _numbers(remark.cites, history)]
    for text in _NUMBER.findall(one_line(remark.text, 2_000)):
        value, digits = abs(float(text)), len(text.partition(".")[2])
        if not any(math.isclose(round(item, digits), value, abs_tol=1e-12) for item in known):
            numbers = ", ".join(map(str, remark.cites))
            return f"{text} is no number of experiment {numbers}: {one_line(remark.text, 160)}"
    return ""


def _numbers(cites: Iterable[int], history: History) -> Iterator[float]:
    """Yield the numbers that a remark on experiments may tell: theirs and the campaign's."""
    yield from (len(history.decided), history.noise.sd, history.best_metric or 0.0)
    for number in dict.fromkeys(cites):
        item = history.experiments[number]
        before = history.score(history.experiments[item.rival]) if item.rival is not None else None
        found = (number, gain_of(item, history), before, item.idea.predicted)
        yield from (value for value in (*found, *item.metrics.values()) if value is not None)
        said = f"{item.idea.description} {' '.join(item.idea.env.values())}"
        yield from (float(text) for text in _NUMBER.findall(said))
        for change in item.idea.changes:
            values = (change.old, change.new)
            yield from (float(value) for value in values if not isinstance(value, str))
