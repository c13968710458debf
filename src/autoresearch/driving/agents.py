"""What an agent is given that drives a campaign: instructions, and a server of its own protocol.

The instructions are made from the campaign's own settings. They say what the step verbs do and ask
for, so that whoever follows this text alone can do whole experiments. Nothing of it changes as
experiments go by: a file written once stays true.

The server has the steps as tools and the memory as resources of the Model Context Protocol. It
needs the extra ``mcp``. A tool is a method of :class:`autoresearch.driving.Driver`; a refusal
reaches the client as the error's own line.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from autoresearch.campaign import Campaign
from autoresearch.config import Config
from autoresearch.driving import Driver, Stand
from autoresearch.durable import replace_file
from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError, needs
from autoresearch.opening import open_campaign
from autoresearch.setup import hide
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
    with needs("mcp", "mcp", ConfigError):
        from mcp.server.mcpserver import MCPServer
    campaign = open_campaign(project, tag)
    made = MCPServer("autoresearch", instructions=program(campaign, by or "agent"))

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
    asked = "SELECT table_name FROM information_schema.tables ORDER BY 1"
    return [str(row[0]) for row in sql.execute(asked).fetchall()]
