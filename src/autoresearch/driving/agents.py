"""Somebody else's loop logs its experiments here, or an agent drives a campaign from outside.

An agent is given instructions, made from the campaign's own settings. They say what the step verbs
do and ask for, so that whoever follows this text alone can do whole experiments. Nothing of it
changes as experiments go by: a file written once stays true. And it is given a server, which has
the steps as tools and the memory as resources of the Model Context Protocol; it needs the extra
``mcp``. A tool is a method of :class:`autoresearch.driving.Driver`; a refusal reaches the client as
the error's own line.

An observation by another loop goes through the steps of the protocol as any experiment does, with
its audits and limits; only the run is one that was made elsewhere, and the verdict may be the other
loop's own. The launcher ``observed`` launches nothing: how a run ended is told beforehand, in a
file of the campaign, and taken from there once.
"""

from __future__ import annotations

import inspect
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from autoresearch.campaign import Campaign
from autoresearch.config import Config, from_zero, setting
from autoresearch.driving import Driver, Stand, due, number_due
from autoresearch.durable import replace_file
from autoresearch.errors import AutoresearchError, ConfigError, PluginError, WorkspaceError, needs
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers import InFolder, Outcome, RunFolder
from autoresearch.model import Decision, RunOutput, RunRequest, RunStatus, Verdict
from autoresearch.opening import open_campaign
from autoresearch.setup import hide
from autoresearch.structure import structure
from autoresearch.text import counted, one_line

if TYPE_CHECKING:
    import duckdb
    from mcp.server.mcpserver import MCPServer


PLACES = {"AGENTS.md": Path("AGENTS.md"), "skill": Path(".agents/skills/autoresearch/SKILL.md")}
_MARK = "<!-- written by autoresearch program; it may write it again -->"
_FRONT = """\
---
name: autoresearch
description: Do machine-learning experiments in this repository, one after the other, by the
  steps of its research protocol. Use it when asked for research or to improve {metric}.
---
"""


def program(campaign: Campaign, by: str = "agent") -> str:
    """Return the instructions for a driver that calls itself ``by``."""
    config, history = campaign.config, campaign.history
    sd = config.metric.sd
    editable = ", ".join(f"`{path}`" for path in dict.fromkeys((config.script, *config.editable)))
    reading = [*config.in_scope, config.script]
    text = resources.files("autoresearch").joinpath("templates", "program.md").read_text("utf-8")
    return text.format(
        tag=campaign.tag,
        script=f"`{config.script}`",
        goal="the lowest" if history.lower_is_better else "the highest",
        metric=config.metric.name,
        noise=f" Its noise from seed to seed is {sd:g}: less is no gain." if sd else "",
        editable=editable,
        reading=", ".join(f"`{path}`" for path in dict.fromkeys(reading)),
        limits="\n".join(f"- {line}" for line in _limits(config)),
        options=f" --tag {campaign.tag} --as {one_line(by, 60)}",
        folder=campaign.lab.workspace(0).path.parent,
        minutes=counted(max(1, round(config.limits.timeout_seconds / 60)), "minute"),
        dead=config.rules.dead_end_discards,
        plateau=config.rules.plateau_experiments,
        gain=config.rules.plateau_gain,
    )


def _limits(config: Config) -> list[str]:
    limits, metric = config.limits, config.metric
    told = [f"a run is killed after {limits.timeout_seconds:g} seconds and counts as a failure"]
    if limits.artifact_bytes:
        told.append(f"the artifact must be smaller than {limits.artifact_bytes:,} bytes")
    if metric.implausible_gain:
        told.append(f"a gain over {metric.implausible_gain:g} in one step is quarantined")
    told.append(f"a crash may be fixed {limits.crash_fixes} times")
    for name, unit in (
        *(("experiments", "experiments"), ("hours", "hours of runs")),
        *(("usd", "US dollars"), ("gpu_hours", "GPU hours")),
    ):
        if amount := getattr(limits, name):
            told.append(f"the campaign ends after {amount:g} {unit}")
    return told


def write(campaign: Campaign, place: str, *, by: str = "agent", force: bool = False) -> Path:
    """Write the instructions where agents look for them, and return the file.

    ``place`` is a key of ``PLACES``. Raises WorkspaceError for a file of the user's own unless
    ``force``; one that was written here before is replaced.
    """
    path = campaign.project / PLACES[place]
    try:
        if path.exists() and not force and _MARK not in path.read_text(encoding="utf-8"):
            raise WorkspaceError(
                f"{path} is a file of your own; move it away, or replace it with --force"
            )
        front = _FRONT.format(metric=campaign.config.metric.name) if place == "skill" else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, f"{front}{_MARK}\n\n{program(campaign, by)}".encode())
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"cannot write {path}: {error}; make it writable") from None
    hide(campaign.project, [PLACES[place].as_posix()])
    return path


# --- the server ----------------------------------------------------------------------------------

ROWS = 1_000  # of a table that one reading returns, the newest
WATCH_SECONDS = 300.0  # of one call of the tool run; clients give up on longer ones
_STEPS: Mapping[str, Callable[..., Stand]] = {
    "next_step": Driver.look,
    "review": Driver.review,
    "reason": Driver.reason,
    "edit": Driver.edit,
    "run": Driver.run,
    "analyze": Driver.analyze,
    "decide": Driver.decide,
}
_NOT_OF_CLIENTS = {"self", "empty", "told"}  # for loops that log what they did themselves


def server(
    project: Path, tag: str | None = None, by: str = "", plugins: Sequence[object] = ()
) -> MCPServer:
    """Return a server for a campaign; the caller runs it, or connects a client in memory.

    Raises ConfigError where the package mcp is missing, WorkspaceError where there is no campaign.
    """
    with needs("mcp", ConfigError):
        from mcp.server.mcpserver import MCPServer
    campaign = open_campaign(project, tag)
    told, version = program(campaign, by or "agent"), metadata.version("autoresearch")
    made = MCPServer("autoresearch", instructions=told, version=version)

    def driver() -> Driver:
        return Driver(open_campaign(campaign.project, campaign.tag), by, plugins=plugins)

    turn = threading.Lock()
    for name, step in _STEPS.items():
        made.tool(name=name, structured_output=False)(_tool(step, driver, turn))
    _add_resources(made, campaign.project, campaign.tag)
    return made


def _tool(
    step: Callable[..., Stand], driver: Callable[[], Driver], turn: threading.Lock
) -> Callable[..., str]:
    """Return a step as a function of what a client gives, with the step's own words and types."""
    from mcp.server.mcpserver.exceptions import ToolError

    def call(**given: Any) -> str:
        if "seconds" in given:
            given["seconds"] = min(given["seconds"], WATCH_SECONDS)
        try:
            with turn:  # the log has one writer, and a client may call tools side by side
                return json.dumps(attrs.asdict(step(driver(), **given)), ensure_ascii=False)
        except AutoresearchError as error:
            raise ToolError(one_line(str(error), 2_000)) from None

    own = inspect.signature(step, eval_str=True)
    given = [
        item.replace(default=WATCH_SECONDS) if item.name == "seconds" else item
        for item in own.parameters.values()
        if item.name not in _NOT_OF_CLIENTS
    ]
    call.__doc__ = inspect.getdoc(step)
    call.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=given, return_annotation=str
    )
    return call


def _add_resources(made: MCPServer, project: Path, tag: str) -> None:
    from mcp.server.mcpserver.exceptions import ResourceError

    def memory(name: str) -> str:
        return (open_campaign(project, tag).lab.folder / name).read_text(encoding="utf-8")

    @made.resource("autoresearch://results.tsv", mime_type="text/tab-separated-values")
    def results_tsv() -> str:
        """Every experiment in six columns."""
        return memory("results.tsv")

    @made.resource("autoresearch://notes.md", mime_type="text/markdown")
    def notes_md() -> str:
        """The long-term memory in five sections."""
        return memory("notes.md")

    @made.resource("autoresearch://program", mime_type="text/markdown")
    def instructions() -> str:
        """How to do an experiment here: the protocol, the rules and the limits."""
        return program(open_campaign(project, tag))

    @made.resource("autoresearch://tables", mime_type="application/json")
    def tables() -> str:
        """The names of all tables that can be read."""
        with open_campaign(project, tag).connect() as sql:
            return json.dumps(_names(sql))

    @made.resource("autoresearch://tables/{name}", mime_type="application/json")
    def table(name: str) -> str:
        """The rows of one table, at most 1,000: of all campaigns of this project."""
        with open_campaign(project, tag).connect() as sql:
            if name not in _names(sql):
                raise ResourceError(f"there is no table {one_line(name, 60)!r}; read tables")
            found = sql.execute(f'SELECT * FROM "{name}" LIMIT {ROWS}')
            columns = [column[0] for column in found.description or ()]
            rows: list[Mapping[str, Any]] = [
                dict(zip(columns, row, strict=True)) for row in found.fetchall()
            ]
        return json.dumps(rows, default=str, ensure_ascii=False)


def _names(sql: duckdb.DuckDBPyConnection) -> list[str]:
    names = (str(row[0]) for row in sql.execute("SHOW TABLES").fetchall())
    return [name for name in names if not name.startswith("_")]


# --- loops of others, which log their experiments here -------------------------------------------

LAUNCHER = "observed"
_TOLD = "told.json"
_VERDICTS = ("keep", "discard", "crash")


@frozen(kw_only=True)
class Observation:
    """One experiment of another loop; all but the description may be left out.

    Without a ``status`` the campaign's policies decide. The change is ``source`` (the script's
    whole text), ``files`` (others too, by path) or a ``patch``, against the last kept experiment.
    """

    description: str = setting("", "what was changed, in a few words")
    metric: float | None = setting(None, "the score; left out for a crash")
    status: str = setting("", "keep, discard or crash; empty: the policies decide")
    direction: str = setting("observed", "family of the change")
    hypothesis: str = setting("", "what was expected and why")
    evidence: str = setting("", "what supported it")
    risk: str = setting("", "what could go wrong")
    cites: tuple[int, ...] = setting((), "experiments it rested on; empty: the best so far")
    predicted: float | None = setting(None, "the score that was expected")
    why: str = setting("", "explanation of the result")
    lesson: str = setting("", "what it tells about future experiments")
    source: str = setting("", "the script's whole new text")
    patch: str = setting("", "unified diff")
    files: Mapping[str, str] = setting({}, "new texts by path")
    env: Mapping[str, str] = setting({}, "environment overrides")
    metrics: Mapping[str, float] = setting({}, "further numbers, by name")
    log: str = setting("", "the run's output")
    detail: str = setting("", "how it ended, where that was not well")
    seconds: float = from_zero(0.0, "wall clock of the run")
    gpu_seconds: float = from_zero(0.0, "the same, of every GPU")
    usd: float = from_zero(0.0, "price of the run, US dollars")


@frozen(kw_only=True)
class Observed:
    """What became of an observation; ``verdict`` is dropped where an audit refused the change.

    After ``rerun`` the next observation is another run of the same experiment.
    """

    experiment: int
    verdict: str
    reason: str


def read(line: str, where: str = "the observation") -> Observation:
    """Return the observation that a line of JSON tells; WorkspaceError for what is none.

    ``where`` it stands is told with what is wrong.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = f"{where}: {one_line(line, 60)!r}"
        raise WorkspaceError(f"{shown} is not JSON: {error}; write one object a line") from None
    if not isinstance(found, dict):
        raise WorkspaceError(f"{where}: {one_line(line, 60)!r} is no JSON object; write one a line")
    try:
        return structure(found, Observation, "", "key")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def observe(
    campaign: Campaign, told: Observation, by: str = "", plugins: Sequence[object] = ()
) -> Observed:
    """Log one experiment as the next of the campaign, by the author ``by``.

    The first is the baseline, the script as it is. Raises WorkspaceError for a campaign that makes
    its own runs, and for an observation that contradicts itself.
    """
    driver = Driver(campaign, by, plugins=plugins)
    _check(campaign, told)
    with driver.at_once():
        if due(campaign.history) == "review":
            driver.review()
        history = campaign.history
        number = number_due(history)
        _check_current(history, told)
        tell(campaign.lab.folder, number, _run(campaign, told))
        taken: set[str] = set()  # each once: what needs another run waits for the next observation
        while (step := due(campaign.history)) not in {"review", *taken}:
            if number_due(campaign.history) != number or "decide" in taken:
                break
            _take(driver, step, told, campaign.history)
            taken.add(step)
    return _became(campaign.history, number)


def _take(driver: Driver, step: str, told: Observation, history: History) -> None:
    if step == "reason":
        driver.reason(
            one_line(told.description, 300),
            direction=told.direction,
            hypothesis=told.hypothesis or f"{driver.by} expected this to help: {told.description}",
            evidence=(told.evidence or f"none told: {driver.by} logged it after its run",),
            risk=told.risk or "none told",
            cites=told.cites or (history.best_number or 0,),
            predicted=told.predicted,
            env=told.env,
        )
    elif step == "edit":
        script = {driver.campaign.config.script: told.source} if told.source else {}
        files = {**told.files, **script}
        driver.edit(None if told.patch else files, told.patch, empty=True)
    elif step == "run":
        driver.run()
    elif step == "analyze":
        why = told.why or f"not told by {driver.by}, who made the run"
        driver.analyze(
            why, told.lesson or f"{told.description}: {told.status or 'no verdict'}, as it was told"
        )
    else:
        driver.decide(_verdict(told, driver.by))


def _verdict(told: Observation, by: str) -> Decision | None:
    if not told.status:
        return None
    return Decision(verdict=Verdict(told.status), reason=f"{by} decided so", author=by)


def _check(campaign: Campaign, told: Observation) -> None:
    if campaign.config.launcher != LAUNCHER:
        raise WorkspaceError(
            f"campaign {campaign.tag} makes its own runs; start one for others' with "
            f"autoresearch init --set launcher={LAUNCHER}"
        )
    if told.status not in ("", *_VERDICTS):
        raise WorkspaceError(f"status is {told.status!r}; write {', '.join(_VERDICTS)} or nothing")
    numbers = {**told.metrics, "predicted": told.predicted or 0.0}
    odd = [name for name, value in numbers.items() if not math.isfinite(value)]
    if odd:
        raise WorkspaceError(
            f"{odd[0]} is {numbers[odd[0]]}; give a finite number, or leave it out"
        )
    try:
        json.dumps(attrs.asdict(told), default=dict, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise WorkspaceError(f"an observation is no Unicode text: {error.reason}") from None
    if not one_line(told.description):
        raise WorkspaceError("an observation has no description; say what was changed")
    scored = told.metric is not None and math.isfinite(told.metric)
    if not scored and told.status != "crash":
        raise WorkspaceError(f"metric is {told.metric}; give the score, or the status crash")
    if bool(told.patch) + bool(told.source or told.files) > 1:
        raise WorkspaceError("an observation has both a patch and whole texts; give one of them")


def _check_current(history: History, told: Observation) -> None:
    current = history.current
    first = current is not None and current.number == history.baseline_number
    if current is not None and not first and current.idea.description != told.description:
        raise WorkspaceError(
            f"experiment {current.number} waits for another run; log it under its own description, "
            f"{current.idea.description!r}"
        )
    if first and (told.patch or told.source or told.files or told.env):
        raise WorkspaceError(
            "the first experiment is the baseline, the script as it is; log its score without a "
            "change first"
        )


def _run(campaign: Campaign, told: Observation) -> dict[str, Any]:
    metrics = dict(told.metrics)
    if told.metric is not None and told.status != "crash":
        metrics[campaign.config.metric.name] = told.metric
    detail = told.detail or ("it crashed" if told.status == "crash" else "")
    same = ("status", "log", "seconds", "gpu_seconds", "usd")
    return {**{name: getattr(told, name) for name in same}, "metrics": metrics, "detail": detail}


def _became(history: History, number: int) -> Observed:
    if number < len(history.experiments):
        decision = history.experiments[number].decision
        if decision is None:
            again = "it has no score yet; log another run of it"
            return Observed(experiment=number, verdict=Verdict.RERUN, reason=again)
        return Observed(experiment=number, verdict=decision.verdict, reason=decision.reason)
    reason = history.rejected[-1].reason if history.rejected else ""
    return Observed(experiment=number, verdict="dropped", reason=reason)


# --- the launcher observed -----------------------------------------------------------------------


def tell(campaign_folder: Path, experiment: int, told: Mapping[str, Any]) -> None:
    """Keep how the next run of an experiment ended: status, metrics, seconds, log, detail."""
    facts = json.dumps({"experiment": experiment, **told}, ensure_ascii=False)
    replace_file(campaign_folder / _TOLD, facts.encode())


@frozen
class ObservedRun(InFolder):
    """A run that was over before it was recorded."""

    name: str
    folder: RunFolder
    reference: str = LAUNCHER

    def poll(self) -> RunOutput | None:
        """Return how it ended."""
        outcome = self.folder.read_outcome()
        return None if outcome is None else self.folder.output(self.name, outcome)

    def stop(self, reason: str) -> None:
        """Do nothing: the run is over."""


class Plugin:
    """Launches nothing: the runs of an observed campaign were made by somebody else's loop."""

    @hookimpl
    def launch_run(self, request: RunRequest) -> ObservedRun | None:
        """Take what was told of the run, once; PluginError where nothing was."""
        if request.launcher != LAUNCHER:
            return None
        folder = RunFolder.of(request.folder)
        if folder.read_outcome() is None:
            place = request.folder.parent.parent / _TOLD
            told = json.loads(place.read_text()) if place.is_file() else {}
            if told.get("experiment") != request.experiment:
                raise PluginError(
                    f"the runs of {request.campaign} are made elsewhere; log each with "
                    "autoresearch observe"
                )
            _keep(folder, told)
            place.unlink()
        return ObservedRun(request.name, folder)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the numbers that were told of an observed run."""
        found = RunFolder.of(output.folder).read("metrics.json")
        return found or None


def _keep(folder: RunFolder, told: Mapping[str, Any]) -> None:
    folder.make()
    metrics = told.get("metrics", {})
    numbers = "".join(f"{name}: {value!r}\n" for name, value in metrics.items())
    folder.log.write_text(told.get("log") or numbers or told.get("detail", ""), encoding="utf-8")
    folder.write("metrics.json", metrics)
    crashed = told.get("status") == "crash"
    folder.write_outcome(
        Outcome(
            status=RunStatus.CRASHED if crashed else RunStatus.COMPLETED,
            exit_code=int(crashed),
            detail=told.get("detail", ""),
            seconds=told.get("seconds", 0.0),
            gpu_seconds=told.get("gpu_seconds", 0.0),
            cost_usd=told.get("usd", 0.0),
        )
    )
