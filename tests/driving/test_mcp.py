"""An MCP client does research: the steps are tools, the memory and the tables are resources."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import autoresearch

from .conftest import SCRIPT, WORDS

pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="needs the extra mcp")
Work = Callable[[Any], Awaitable[None]]


def with_client(target: Any, work: Work) -> None:
    """Connect to a server and do some work with the client."""
    from mcp.client import Client  # which takes seconds, for all who only collect tests

    async def session() -> None:
        async with Client(target, read_timeout_seconds=120) as client:
            await work(client)

    asyncio.run(session())


async def ok(client: Any, tool: str, **given: Any) -> dict[str, Any]:
    """Call a tool that has to succeed."""
    answer = await client.call_tool(tool, given)
    assert not answer.is_error, answer.content[0].text
    said: dict[str, Any] = json.loads(answer.content[0].text)
    return said


async def refused(client: Any, tool: str, **given: Any) -> str:
    """Call a tool that has to be refused, and return the one line that says why."""
    answer = await client.call_tool(tool, given)
    assert answer.is_error
    return str(answer.content[0].text)


async def whole_experiment(client: Any) -> None:
    """Baseline and one change, with three steps tried before their time."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools >= {"review", "reason", "edit", "run", "analyze", "decide", "next_step"}
    assert "review is; take it with" in await refused(client, "decide")
    assert (await ok(client, "review"))["next"] == "run"
    assert "run is; take it with" in await refused(client, "analyze", why="a", lesson="b")
    await ok(client, "run")
    await ok(client, "analyze", why="it is as it was", lesson="the baseline scores 1.29")
    await ok(client, "decide")
    await ok(client, "review")
    assert "cites no experiment" in await refused(
        client, "reason", description="wider", **{**WORDS, "cites": []}
    )
    given = {**WORDS, "cites": [0], "evidence": ["experiment 0 is narrow"]}
    await ok(client, "reason", description="wider", **given)
    assert "edit is; take it with" in await refused(client, "run")
    await ok(client, "edit", files={"train.py": SCRIPT.replace("WIDTH = 4", "WIDTH = 6")})
    assert (await ok(client, "run"))["facts"]["metrics"] == {"score": 1.21}
    await ok(client, "analyze", why="wider fits more", lesson="width helps")
    assert (await ok(client, "decide"))["facts"]["verdict"] == "keep"


async def reading(client: Any) -> None:
    """The memory, the instructions and the tables can be read, and nothing else."""

    async def read(name: str) -> str:
        answer = await client.read_resource(f"autoresearch://{name}")
        return str(answer.contents[0].text)

    assert (await read("results.tsv")).startswith("commit\t")
    assert "## Best Known Config" in await read("notes.md")
    assert "# Research in campaign t1" in await read("program")
    assert {"experiments", "decided", "lease_taken"} <= set(json.loads(await read("tables")))
    rows = json.loads(await read("tables/experiments"))
    assert [row["status"] for row in rows] == ["keep", "keep"]
    with pytest.raises(Exception, match="there is no table"):
        await read("tables/nothing")


def test_a_client_drives_a_whole_experiment(project: Path) -> None:
    """In one session, with three skipped steps refused and the next one named."""
    from autoresearch.driving.agents import server

    autoresearch.start(project, tag="t1")

    async def work(client: Any) -> None:
        await whole_experiment(client)
        await reading(client)

    with_client(server(project, by="codex"), work)
    history = autoresearch.open_campaign(project).history
    assert [item.verdict for item in history.experiments] == ["keep", "keep"]
    assert history.experiments[1].idea.author == "codex"


def test_the_command_serves_on_stdin_and_stdout(project: Path) -> None:
    """A client that starts the command itself finds the same tools."""
    from mcp import StdioServerParameters

    autoresearch.start(project, tag="t1")

    async def work(client: Any) -> None:
        assert (await ok(client, "next_step"))["next"] == "review"
        assert (await ok(client, "review"))["next"] == "run"
        assert (await ok(client, "run"))["facts"]["status"] == "completed"

    words = ["-m", "autoresearch", "mcp", "--project", str(project), "--as", "codex"]
    with_client(StdioServerParameters(command=sys.executable, args=words), work)
