"""The values that the loop and its strategies exchange; all frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen
from pyrsistent import PMap

from autoresearch.durable import digest, is_editable
from autoresearch.frozen import EMPTY, FrozenDict

Value = bool | int | float | str
NOT_LAUNCHED = "not-launched.log"  # in the folder of a run whose launcher failed: what it said


class RunStatus(StrEnum):
    """How one execution of the script ended."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    STOPPED_EARLY = "stopped_early"
    INFRA_FAILED = "infra_failed"


class Verdict(StrEnum):
    """What was decided about an experiment; ``rerun`` spends another seed first."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    RERUN = "rerun"
    QUARANTINE = "quarantine"


class IdeaKind(StrEnum):
    """A change of the script, one of how the score is measured, or the fix of a crash."""

    CHANGE = "change"
    EVALUATION = "evaluation"
    FIX = "fix"


class Signal(StrEnum):
    """The three signs of the protocol that a path is not leading anywhere."""

    DEAD_END = "dead_end"
    REGRESSION = "regression"
    PLATEAU = "plateau"


def _mapping(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return it as nobody can change it; what the log and the fold give is so already."""
    return value if isinstance(value, (FrozenDict, PMap)) else FrozenDict(value) if value else EMPTY


def _tuple(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value)


@frozen(kw_only=True)
class ValueChange:
    """One named value that an idea changes, with its place: ``file`` is empty for the script."""

    name: str
    old: Value
    new: Value
    file: str = ""

    def __str__(self) -> str:
        """Return ``NAME old -> new``, for people; nothing reads it back."""
        return f"{self.name} {self.old} -> {self.new}"


@frozen(kw_only=True)
class Idea:
    """A proposed change: new texts of files, a unified ``patch``, ``env`` overrides, or words only.

    ``source`` is the new text of the script and ``files`` those of other editable files, by path;
    ``changes`` names the values that differ, where the author knows them. ``predicted`` and
    ``expected_gain`` are in the campaign's metric; ``expected_gain`` is positive when things get
    better, whichever way the metric points, and ranks the ideas queue.
    """

    direction: str
    description: str
    hypothesis: str
    author: str = ""
    evidence: tuple[str, ...] = field(default=(), converter=_tuple)
    cites: tuple[int, ...] = field(default=(), converter=_tuple)
    risk: str = "none known"
    source: str | None = None
    patch: str | None = None
    env: Mapping[str, str] = field(factory=dict, converter=_mapping)
    predicted: float | None = None
    expected_gain: float | None = None
    kind: IdeaKind = field(default=IdeaKind.CHANGE, converter=IdeaKind)
    files: Mapping[str, str] = field(factory=dict, converter=_mapping)
    changes: tuple[ValueChange, ...] = field(default=(), converter=_tuple)

    @property
    def has_code(self) -> bool:
        """Whether the idea says itself what to run, so that no plugin has to implement it."""
        return self.source is not None or self.patch is not None or bool(self.env or self.files)

    def texts(self, script: str) -> dict[str, str]:
        """Return the new text of every file that the idea brings, by path."""
        own = {} if self.source is None else {script: self.source}
        return {**self.files, **own}

    @property
    def id(self) -> str:
        """Twelve hex digits over what the idea does; the same change has the same id."""
        parts = [self.direction, self.description, self.source or "", self.patch or ""]
        parts += [f"{key}={value}" for key, value in sorted(self.env.items())]
        parts += [f"{path}:{text}" for path, text in sorted(self.files.items())]
        return digest("\0".join(parts))[:12]


@frozen(kw_only=True)
class Reasoning:
    """The REASONING block, written before the run; ``read_to`` is the log position read."""

    hypothesis: str
    evidence: str
    risk: str
    cites: tuple[int, ...] = field(default=(), converter=_tuple)
    predicted: float | None = None
    read_to: int = 0


@frozen(kw_only=True)
class Analysis:
    """The ANALYSIS block, written after the run."""

    result: str
    versus_expected: str
    why: str
    lesson: str
    author: str = ""


@frozen(kw_only=True)
class Violation:
    """A broken rule; ``severity`` is ``violation`` (it blocks) or ``warning``."""

    rule: str
    detail: str
    line: int | None = None
    severity: str = "violation"

    @property
    def blocks(self) -> bool:
        """Whether the change must not run, or the result must not be kept."""
        return self.severity == "violation"


@frozen(kw_only=True)
class Objection:
    """A reviewer's doubt about an idea; a ``fatal`` one drops the idea before money is spent."""

    author: str
    reason: str
    fatal: bool = True


@frozen(kw_only=True)
class Workspace:
    """Where one experiment happens: a worktree of the lab; ``script`` is relative to it.

    ``editable`` holds the patterns of the files that an idea may change, the script among them.
    """

    path: Path
    script: str
    project: Path
    editable: tuple[str, ...] = field(default=(), converter=_tuple)

    @property
    def script_path(self) -> Path:
        """The training script that this experiment may change."""
        return self.path / self.script

    def read_script(self) -> str:
        """Return the script's text with its own line ends; UTF-8 is asked for."""
        return self.script_path.read_bytes().decode("utf-8")

    def allows(self, path: str) -> bool:
        """Return whether an idea may change this file, named from the top of the repository."""
        return path == self.script or is_editable(path, self.editable)

    def read_editable(self) -> dict[str, str]:
        """Return the text of every file that an idea may change, by path, the script first.

        A link, or what is no text, is none of them.
        """
        found = {self.script: self.read_script()}
        for place in sorted(self.path.rglob("*")) if self.editable else ():  # it may be large
            path = place.relative_to(self.path).as_posix()
            if self.allows(path) and place.is_file() and not place.is_symlink():
                with suppress(UnicodeDecodeError):
                    found[path] = place.read_bytes().decode("utf-8")
        return found


@frozen(kw_only=True)
class Change:
    """An idea applied but not yet run.

    ``before`` and ``after`` are the script's text, ``pristine`` is the one that the campaign
    started from. ``files`` maps every file that differs to its new text, ``originals`` to the text
    it had (absent for a new file).
    """

    idea: Idea
    before: str
    after: str
    files: Mapping[str, str] = field(factory=dict, converter=_mapping)
    pristine: str = ""
    originals: Mapping[str, str] = field(factory=dict, converter=_mapping)


@frozen(kw_only=True)
class RunRequest:
    """One execution to start; ``name`` is unique for ever, so that a launcher can find it again.

    ``campaign_id`` tells apart campaigns of several projects that have one tag. ``cwd`` is where
    the command starts; None: in ``folder``, where what is written is kept. ``reads`` are further
    folders that the command may read. ``options`` are values of the launcher's own table that hold
    for this run alone. ``beside`` makes it a job on one GPU, beside the run of that name, which is
    over: what that run left is in the folder of the job.
    """

    name: str
    campaign: str
    experiment: int
    index: int
    command: tuple[str, ...] = field(converter=_tuple)
    env: Mapping[str, str] = field(factory=dict, converter=_mapping)
    seed: int = 1337
    launcher: str = "local"
    timeout_seconds: float = 900.0
    max_log_bytes: int = 64_000_000
    script_digest: str = ""
    folder: Path = Path()
    campaign_id: str = ""
    cwd: Path | None = None
    reads: tuple[Path, ...] = field(default=(), converter=_tuple)
    options: Mapping[str, Any] = field(factory=dict, converter=_mapping)
    beside: str = ""


@frozen(kw_only=True)
class Quote:
    """What one run may take at the most: wall-clock ``seconds`` of so many GPUs, and money.

    ``prices`` says where the price is from and of when; ``usd_per_hour`` is that of all its GPUs.
    """

    seconds: float
    gpus: int = 0
    usd_per_hour: float = 0.0
    prices: str = ""

    @property
    def usd(self) -> float:
        """US dollars."""
        return self.seconds / 3600 * self.usd_per_hour


@frozen(kw_only=True)
class RunOutput:
    """What a finished run left: its status, its whole output in ``log_path``, its folder and price.

    ``seconds`` is wall clock measured by the launcher; ``gpu_seconds`` counts every GPU. The loop
    adds which script ran (``script_path``) and with which overrides (``env``).
    """

    name: str
    status: RunStatus = field(converter=RunStatus)
    log_path: Path
    folder: Path
    exit_code: int | None = None
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    cost_usd: float = 0.0
    detail: str = ""
    script_path: Path | None = None
    env: Mapping[str, str] = field(factory=dict, converter=_mapping)


@runtime_checkable
class RunHandle(Protocol):
    """A run that was started; it survives the process that started it.

    ``launch_run`` called again with the same request name returns a handle to the same run. One
    that has ``usd_per_hour`` tells a person who leaves the run alone what it costs.
    """

    @property
    def reference(self) -> str:
        """What is recorded so that a person or another process finds the run: a pid, a call id."""

    @property
    def log_path(self) -> Path:
        """The file into which the run's output is being written."""

    def poll(self) -> RunOutput | None:
        """Return the output once the run is over, else None; never blocks."""

    def stop(self, reason: str) -> None:
        """End the run with all its children; the next poll returns ``stopped_early``."""


@frozen(kw_only=True)
class Run:
    """One finished or running execution of an experiment, as History remembers it.

    ``detail`` says how it ended where that was not well; ``observed`` has the campaign's metric as
    it was seen during the run: training step to value. ``interrupted``: a person stopped it.
    ``superseded``: the experiment got another commit since, so that its score no longer counts.
    ``stage`` is the one that it runs in, empty where a campaign has none; ``control``: it measures
    a kept experiment again. ``measurement`` is what its score was measured with.
    """

    index: int
    name: str
    seed: int
    script_digest: str = ""
    status: RunStatus | None = None
    detail: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(factory=dict, converter=_mapping)
    observed: Mapping[int, float] = field(factory=dict, converter=_mapping)
    interrupted: bool = False
    superseded: bool = False
    stage: str = ""
    control: bool = False
    measurement: Mapping[str, str] = field(factory=dict, converter=_mapping)

    @property
    def counts(self) -> bool:
        """Whether its numbers are those of the experiment as it stands."""
        return self.status is RunStatus.COMPLETED and not self.superseded

    @property
    def says_nothing(self) -> bool:
        """Whether its end is not the script's doing, so that no verdict may rest on it."""
        return self.status is RunStatus.INFRA_FAILED or self.interrupted


@frozen(kw_only=True)
class Decision:
    """A verdict with its reason; ``confidence`` is the probability (0 to 1) of a real gain."""

    verdict: Verdict = field(converter=Verdict)
    reason: str
    author: str = ""
    confidence: float | None = None
    delta: float | None = None


@frozen(kw_only=True)
class Promotion:
    """Whether an experiment gets a run in the next stage, and why."""

    promote: bool
    reason: str
    author: str = ""


@frozen(kw_only=True)
class Remark:
    """What several experiments show together, and which of them show it."""

    text: str
    cites: tuple[int, ...]


@frozen(kw_only=True)
class Experiment:
    """One idea tried; number 0 is the baseline. Fields that are not known yet are empty or None.

    ``env`` holds the overrides in force: those of the commits it builds on and its own.
    ``sources`` maps every editable file to the sha256 of its text, ``source_digest`` stands for all
    of them. ``added_lines`` and ``removed_lines`` count its changes, fixes included. ``built_on``
    and ``rival`` are the numbers of the experiments that were head and the best when it was
    committed. ``promoted`` is the stage that it was promoted to last, empty while it is in the
    first; ``metrics`` are of its newest stage. ``judged`` counts the runs that its decision knew,
    ``fixes`` the attempts at a crash. ``prediction`` is hit, overshoot or undershoot.
    """

    number: int
    idea: Idea
    idea_id: str = ""
    reasoning: Reasoning | None = None
    commit: str = ""
    parent_commit: str = ""
    built_on: int | None = None
    rival: int | None = None
    source_digest: str = ""
    sources: Mapping[str, str] = field(factory=dict, converter=_mapping)
    runs: tuple[Run, ...] = field(default=(), converter=_tuple)
    metrics: Mapping[str, float] = field(factory=dict, converter=_mapping)
    violations: tuple[Violation, ...] = field(default=(), converter=_tuple)
    analysis: Analysis | None = None
    decision: Decision | None = None
    env: Mapping[str, str] = field(factory=dict, converter=_mapping)
    measurement: Mapping[str, str] = field(factory=dict, converter=_mapping)
    prediction: str = ""
    fixes: int = 0
    promoted: str = ""
    judged: int = 0
    added_lines: int = 0
    removed_lines: int = 0
    started_at: str = ""
    ended_at: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, or None while the experiment is not decided."""
        return self.decision.verdict if self.decision else None

    @property
    def stage(self) -> str:
        """The stage of its newest run, controls aside; empty where the campaign has none."""
        return next((run.stage for run in reversed(self.runs) if not run.control), "")

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all runs together."""
        return sum(run.seconds for run in self.runs)


@frozen(kw_only=True)
class Candidate:
    """What a decision policy judges: the experiment after its run, and what it is compared with.

    ``metric`` is None when the run gave no score.
    """

    experiment: Experiment
    metric: float | None
    artifact_bytes: int | None
    status: RunStatus
    violations: tuple[Violation, ...] = field(default=(), converter=_tuple)


@frozen(kw_only=True)
class Backtrack:
    """A rule's answer to a signal: go back to the commit of ``to_experiment`` unless it is None.

    ``experiments`` is the proof: recorded as given.
    """

    signal: Signal = field(converter=Signal)
    reason: str
    author: str = ""
    to_experiment: int | None = None
    direction: str | None = None
    experiments: tuple[int, ...] = field(default=(), converter=_tuple)


@frozen(kw_only=True)
class Parent:
    """The kept experiment that the next idea is to build on, and why."""

    experiment: int
    reason: str
    author: str = ""


@frozen(kw_only=True)
class Lesson:
    """What an experiment taught."""

    text: str
    experiment: int
    direction: str


@frozen(kw_only=True)
class Cost:
    """What a plugin spent outside of runs, mostly on a language model; ``usd`` is US dollars."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    source: str = ""


@frozen(kw_only=True)
class Notice:
    """What a person wants to hear; ``kind`` is new_best, stuck, budget_gone or needs_human."""

    kind: str
    campaign: str
    text: str
    experiment: int | None = None
