"""The desk: what an author may ask for while it thinks, the same for plugins, models and agents.

A desk is made for one question to one author. What it reads are facts of the History; what reaches
further (texts, output, copies, processes, the log) goes through the hands that the loop lends it.
"""

from __future__ import annotations

import difflib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
from attrs import evolve, field, frozen

from autoresearch import events
from autoresearch.config import BoundaryConfig
from autoresearch.durable import digest, end_of
from autoresearch.errors import PluginError
from autoresearch.frozen import alike
from autoresearch.history import History, parent_of, script_of
from autoresearch.model import Cost, Experiment, Run, RunOutput
from autoresearch.projections.memory import review
from autoresearch.text import block, one_line, without_escapes

CHARACTERS = 4  # of English and of code to a token, roughly; it only sets how much is shown
BEAT_SECONDS = 0.2
_MOST_OUTPUT = 16_000_000  # bytes that a command may write before it is ended
_REFUSED_SHOWN = 10


@frozen(kw_only=True)
class Ended:
    """How a command ended; ``stopped`` says why it was ended before its own end, if it was."""

    exit_code: int | None
    output: str
    errors: str
    seconds: float
    stopped: str = ""


class Hands:
    """What a desk can do where no loop lends it more: texts and facts are kept in memory."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.facts: list[events.Event] = []

    def text(self, name: str) -> str:
        """Return the stored text of a digest; PluginError when there is none."""
        if name not in self.texts:
            raise PluginError(f"no text {name[:12]} is stored here; ask for one that the log names")
        return self.texts[name]

    def keep(self, text: str) -> str:
        """Store a text for as long as the log lives, and return its digest."""
        name = digest(text)
        self.texts[name] = text
        return name

    def record(self, *facts: events.Event) -> None:
        """Append facts to the log, together."""
        self.facts += facts

    def output(self, run: str) -> Path | None:
        """Return the file with a run's output, None where it is gone."""
        return None

    def document(self, path: str) -> str:
        """Return a tracked file as it is at head, empty where there is none."""
        return ""

    def copy(self, folder: Path) -> None:
        """Write the files of head into a folder, without a repository around them."""

    def job(
        self, beside: RunOutput, name: str, source: str, seconds: float, files: Sequence[Path]
    ) -> RunOutput | None:
        """Run a script beside a run that is over; None where no loop lends a launcher."""
        return None

    def environment(self, passed: Sequence[str]) -> Mapping[str, str]:
        """Return what a command may see of the environment: the machine, and names to pass."""
        names = {"PATH", "HOME", "LANG", "TMPDIR", *passed}
        return {name: value for name, value in os.environ.items() if name in names}

    def around(self, folder: Path, settings: BoundaryConfig) -> Sequence[str]:
        """Return the words before a command that hold it to a folder, where that can be done."""
        return ()

    def beat(self) -> str:
        """Called a few times a second while a command runs; a reason ends it."""
        return ""


@frozen(kw_only=True)
class Desk:
    """What one author may ask for; ``hook`` is the question that it is asked."""

    history: History
    author: str = ""
    hook: str = ""
    _hands: Hands = field(factory=Hands, alias="hands", repr=False)

    def of(self, author: str, hook: str) -> Desk:
        """Return the desk of another author."""
        return evolve(self, author=author, hook=hook)

    # --- what is known --------------------------------------------------------------------------

    def review(self, budget: int = 10_000) -> str:
        """Return the campaign's memory, at most ``budget`` tokens of it."""
        return review(self.history, budget * CHARACTERS)

    @property
    def refused(self) -> tuple[events.ProposalRefused, ...]:
        """What of this author's ideas was refused lately, and why, oldest first."""
        own = (
            item
            for item in self.history.refusals
            if item.author.partition("/")[0] == self.author.partition("/")[0]
        )
        return tuple(deque(own, maxlen=_REFUSED_SHOWN))

    @property
    def usd_left(self) -> float | None:
        """Money that ``limits.usd`` leaves beside what runs reserved; None without a limit."""
        limits = self.history.started.config.get("limits") if self.history.started else None
        limit = limits.get("usd", 0.0) if isinstance(limits, Mapping) else 0.0
        taken = self.history.spent.usd + sum(item.usd for item in self.history.reserved.values())
        return max(0.0, limit - taken) if limit > 0 else None

    def document(self, path: str) -> str:
        """Return the text of a tracked file at head, empty where there is none."""
        return self._hands.document(path)

    def source(self, experiment: int) -> Mapping[str, str]:
        """Return the text of every editable file that an experiment tried, by path."""
        item = self._experiment(experiment)
        digests = item.sources or {script_of(self.history): item.source_digest}
        return {path: self._hands.text(name) for path, name in digests.items() if name}

    def diff(self, experiment: int) -> str:
        """Return what an experiment changed of the one it was built on, as a unified diff."""
        item = self._experiment(experiment)
        parent = parent_of(item, self.history)
        before = self.source(parent.number) if parent else {}
        lines: list[str] = []
        for path, text in self.source(experiment).items():
            old = before.get(path, "")
            lines += difflib.unified_diff(
                old.splitlines(), text.splitlines(), f"a/{path}", f"b/{path}", lineterm="", n=1
            )
        return "\n".join(lines)

    def log_tail(self, run: str, lines: int = 50) -> str:
        """Return the last lines of a run's output; empty where it is gone."""
        path = self._hands.output(run)
        with suppress(OSError):
            kept = end_of(path, 400 * lines) if path else ""
            return block("\n".join(kept.splitlines()[-lines:]), 400 * lines)
        return ""

    def curve(self, run: str) -> Mapping[int, float]:
        """Return the metric as it was seen during a run: training step to value."""
        return self._run(run).observed

    def _experiment(self, number: int) -> Experiment:
        if not 0 <= number < len(self.history.experiments):
            raise PluginError(f"there is no experiment {number}; ask for one that was tried")
        return self.history.experiments[number]

    def _run(self, name: str) -> Run:
        for item in reversed(self.history.experiments):
            for run in item.runs:
                if run.name == name:
                    return run
        raise PluginError(f"there is no run {one_line(name, 80)!r}; ask for one of an experiment")

    # --- what is written down -------------------------------------------------------------------

    def store(self, content: bytes | str) -> str:
        """Keep a text, such as a transcript, for as long as the log lives; return its digest."""
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        return self._hands.keep(text.encode("utf-8", "replace").decode())

    def refuse(self, reason: str, stage: str = "answer", idea: str = "") -> None:
        """Record that an idea was refused before it came to the loop."""
        self._hands.record(
            events.ProposalRefused(
                author=self.author,
                stage=stage,
                reason=one_line(reason, 1_000),
                idea=idea,
                experiment=self.history.next_number,
            )
        )

    def asked(self, model: str, *prompt: str) -> None:
        """Record a question with its messages before it is sent, so that a kill cannot hide it."""
        self._hands.record(
            events.MindAsked(
                author=self.author,
                model=model,
                prompt=tuple(self.store(text) for text in prompt),
                purpose=self.hook,
                experiment=self.history.next_number,
            )
        )

    def answered(self, model: str, text: str, cost: Cost, **known: object) -> None:
        """Record an answer and its price; ``known`` are further fields of `MindAnswered`."""
        number = self.history.next_number
        answer = events.MindAnswered(
            author=self.author,
            model=one_line(model, 100),
            answer=self.store(text) if text else "",
            tokens_in=cost.tokens_in,
            tokens_out=cost.tokens_out,
            experiment=number,
            **{"usd": cost.usd, "seconds": cost.seconds, **known},  # type: ignore[arg-type]
        )
        self._hands.record(answer, *self._spent(cost))

    def spend(self, cost: Cost) -> None:
        """Count what was spent against the campaign's budget, at once."""
        self._hands.record(*self._spent(cost))

    def _spent(self, cost: Cost) -> tuple[events.CostIncurred, ...]:
        if not (cost.tokens_in or cost.tokens_out or cost.usd):
            return ()
        current = self.history.current
        about = current.number if current else None
        known = {"kind": "tokens", "source": cost.source or self.author, "seconds": 0.0}
        return (alike(events.CostIncurred, cost, experiment=about, **known),)

    # --- what works outside ---------------------------------------------------------------------

    def holds(self, folder: Path, boundary: BoundaryConfig) -> bool:
        """Return whether a command that runs in a folder would be held by this boundary."""
        return bool(self._hands.around(folder, boundary))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend a copy of the files at head to write in; there is no repository around it."""
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
            place = Path(folder).resolve() / "copy"
            place.mkdir()
            self._hands.copy(place)
            yield place

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        text: str = "",
        seconds: float = 900.0,
        passed: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        boundary: BoundaryConfig | None = None,
    ) -> Ended:
        """Run a command to its end with ``text`` on its standard input; no shell reads it.

        After ``seconds`` of wall clock, or when the loop is to stop, it is ended with all its
        children. It sees the machine's environment, the names in ``passed``, and ``env``; with a
        ``boundary`` it is held as a run is, to this folder. Raises
        OSError when it cannot be started.
        """
        given = {**self._hands.environment(passed), **(env or {})}
        held = self._hands.around(folder, boundary) if boundary else ()
        file = tempfile.TemporaryFile
        with file() as told, file() as output, file() as errors:
            told.write(text.encode("utf-8", "replace"))
            told.seek(0)
            start = time.monotonic()
            process = psutil.Popen(
                [*held, *command],
                cwd=folder,
                env=given,
                stdin=told,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            stopped = self._wait(process, seconds, (output, errors))
            return Ended(
                exit_code=None if stopped else process.returncode,
                output=_whole(output),
                errors=_whole(errors),
                seconds=time.monotonic() - start,
                stopped=stopped,
            )

    def job(
        self, beside: RunOutput, name: str, source: str, *, seconds: float = 900.0,
        files: Sequence[Path] = (),
    ) -> RunOutput | None:  # fmt: skip
        """Run a script by the campaign's launcher, as one process, and return what came of it.

        It belongs to a run that is over, whose environment it has, and is started once for a
        ``name``, however often it is asked for; after ``seconds`` it is ended. ``files`` that the
        run left are in its folder. None where there is no loop.
        """
        return self._hands.job(beside, name, source, seconds, files)

    def _wait(self, process: psutil.Popen, seconds: float, files: tuple[IO[bytes], ...]) -> str:
        """Wait for the end of a process and of what it started; return why it was ended, if so."""
        until = time.monotonic() + seconds
        seen: set[psutil.Process] = {process}
        reason = ""
        try:
            while not reason and process.poll() is None:
                seen.update(_children(process))
                if time.monotonic() >= until:
                    reason = f"it was not done after {seconds:g} s"
                elif any(os.fstat(file.fileno()).st_size > _MOST_OUTPUT for file in files):
                    reason = f"it wrote more than {_MOST_OUTPUT:,} bytes"
                else:
                    reason = self._hands.beat()
                time.sleep(BEAT_SECONDS / 4 if not reason else 0)
        finally:  # also for a person's Ctrl-C; and what it left running ends with it
            _end({*seen, *_children(process)}, process.pid)
            process.wait()
        return reason


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def _end(processes: set[psutil.Process], session: int) -> None:
    """Kill processes and whatever else is in the session that was made for them."""
    found = {*processes, *_in_session(session)}
    for item in found:
        with suppress(psutil.Error):  # which refuses one whose number another process was given
            item.kill()
    psutil.wait_procs(found, timeout=5)


def _in_session(session: int) -> list[psutil.Process]:
    found = []
    for item in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(item.pid) == session:
                found.append(item)
    return found


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return without_escapes(file.read(_MOST_OUTPUT).decode("utf-8", "replace"))
