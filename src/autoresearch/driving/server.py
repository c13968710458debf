"""The steps as tools and the memory as resources of a Model Context Protocol server.

Needs the extra ``mcp``. A tool is a method of :class:`autoresearch.driving.steps.Driver`; a refusal
reaches the client as the error's own line.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from autoresearch.driving.program import program
from autoresearch.driving.steps import Driver, Stand
from autoresearch.errors import AutoresearchError, ConfigError, needs
from autoresearch.opening import open_campaign
from autoresearch.text import one_line

if TYPE_CHECKING:
    import duckdb
    from mcp.server.mcpserver import MCPServer

Tool = Callable[[Callable[..., Stand]], None]

ROWS = 1_000  # of a table that one reading returns, the newest
WATCH_SECONDS = 300.0  # of one call of the tool run; clients give up on longer ones


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

    tool = _tool(made)
    _add_thinking(tool, driver)
    _add_doing(tool, driver)
    _add_resources(made, campaign.project, campaign.tag)
    return made


def _tool(made: MCPServer) -> Tool:
    """Return the decorator that makes a step one of the server's tools."""
    from mcp.server.mcpserver.exceptions import ToolError

    # One step at a time: the log has one writer, and a client may call tools side by side.
    turn = threading.Lock()

    def tool(function: Callable[..., Stand]) -> None:
        @functools.wraps(function)
        def call(**given: Any) -> str:
            try:
                with turn:
                    return json.dumps(attrs.asdict(function(**given)), ensure_ascii=False)
            except AutoresearchError as error:
                raise ToolError(one_line(str(error), 2_000)) from None

        del call.__wrapped__  # the signature below is the one to be shown
        call.__signature__ = _returning_text(function)  # type: ignore[attr-defined]
        made.tool(structured_output=False)(call)

    return tool


def _add_thinking(tool: Tool, driver: Callable[[], Driver]) -> None:
    """Add what comes before a change."""

    @tool
    def next_step() -> Stand:
        """Say which step of the protocol is next, without taking one."""
        return driver().look()

    @tool
    def review() -> Stand:
        """Read results.tsv, notes.md, the queue and what was refused, before every experiment."""
        return driver().review()

    @tool
    def reason(
        description: str = "",
        direction: str = "",
        hypothesis: str = "",
        evidence: list[str] | None = None,
        risk: str = "",
        cites: list[int] | None = None,
        predicted: float | None = None,
        env: dict[str, str] | None = None,
        queued: str = "",
    ) -> Stand:
        """Write the REASONING block of the next idea, or of the queued one with that id.

        cites are the numbers of the experiments it rests on; predicted is the metric you expect.
        """
        return driver().reason(
            description,
            direction=direction,
            hypothesis=hypothesis,
            evidence=evidence or (),
            risk=risk,
            cites=cites or (),
            predicted=predicted,
            env=env,
            queued=queued,
        )


def _add_doing(tool: Tool, driver: Callable[[], Driver]) -> None:
    """Add the change and what follows from it."""

    @tool
    def edit(files: dict[str, str] | None = None, patch: str = "") -> Stand:
        """Audit and commit the change; after a crash, a fix.

        files maps paths to whole new texts, patch is a unified diff against head; without either,
        it is what was changed in the folder that the step reason named.
        """
        return driver().edit(files, patch)

    @tool
    def run(seconds: float = WATCH_SECONDS) -> Stand:
        """Run the experiment and read its score; call it again while run is the next step."""
        return driver().run(min(seconds, WATCH_SECONDS))

    @tool
    def analyze(why: str, lesson: str, versus_expected: str = "") -> Stand:
        """Write the ANALYSIS block: your best explanation, and what it tells about the future."""
        return driver().analyze(why, lesson, versus_expected)

    @tool
    def decide() -> Stand:
        """Have the verdict, and settle branch, memory and signals."""
        return driver().decide()


def _returning_text(function: Callable[..., Stand]) -> Any:
    import inspect

    return inspect.signature(function, eval_str=True).replace(return_annotation=str)


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
